//! The pointer is to a `u64`, the field named a `u32`.
struct Timer {
    expires: u64,
    period: u32,
}
fn main() {
    let timer = Timer { expires: 1, period: 2 };
    let whole = &raw const timer;
    // SAFETY: `whole` points to a live timer, and the pointer to the field is made from it.
    let found = unsafe { sync::container_of!(&raw const (*whole).expires, Timer, period) };
    assert_eq!(found, whole);
}
