//! A per-CPU variable that asks for more alignment than areas have.
use core::sync::atomic::AtomicU8;

#[repr(align(128))]
struct TwoLines(AtomicU8);

hal::percpu! {
    static LINES: TwoLines = TwoLines(AtomicU8::new(0));
}

fn main() {
    LINES.offset();
}
