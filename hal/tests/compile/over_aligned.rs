//! A per-CPU variable that asks for more alignment than areas have.
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use hal::Platform;

#[repr(align(128))]
struct TwoLines(AtomicU8);

hal::percpu! {
    static LINES: TwoLines = TwoLines(AtomicU8::new(0));
}

fn main() {
    assert_eq!(LINES.on(hal::Native::cpu()).0.load(Relaxed), 0);
}
