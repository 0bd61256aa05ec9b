//! Just as much alignment as areas have.
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use hal::Platform;

#[repr(align(64))]
struct TwoLines(AtomicU8);

hal::percpu! {
    static LINES: TwoLines = TwoLines(AtomicU8::new(0));
}

pub(crate) fn main() {
    assert_eq!(LINES.on(hal::Native::cpu()).0.load(Relaxed), 0);
}
