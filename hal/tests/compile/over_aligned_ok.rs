//! Just as much alignment as areas have.
use core::sync::atomic::AtomicU8;

#[repr(align(64))]
struct TwoLines(AtomicU8);

hal::percpu! {
    static LINES: TwoLines = TwoLines(AtomicU8::new(0));
}

pub(crate) fn main() {
    LINES.offset();
}
