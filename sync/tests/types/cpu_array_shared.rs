//! What may be indexed by a number that is perhaps out of date is what all CPUs may change at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use sync::preempt;

hal::percpu! {
    static COUNT: AtomicU64 = AtomicU64::new(0);
}

pub(crate) fn main() {
    let number = preempt::disable().cpu();
    COUNT.on(number).fetch_add(1, Ordering::Relaxed);
}
