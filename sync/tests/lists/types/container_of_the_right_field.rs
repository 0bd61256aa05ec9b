struct Timer {
    expires: u64,
    period: u32,
}

pub(crate) fn main() {
    let timer = Timer { expires: 1, period: 2 };
    let whole = &raw const timer;
    // SAFETY: the pointer is to this field of a live `Timer`.
    let found = unsafe { sync::container_of!(&raw const (*whole).expires, Timer, expires) };
    assert_eq!(found, whole);
    assert_eq!(timer.period, 2);
}
