//! On one that is.
hal::percpu! {
    static PAIR: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
}

pub(crate) fn main() {
    PAIR.inc();
}
