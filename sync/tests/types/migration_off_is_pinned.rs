//! It keeps the CPU's number true, and opens what the CPU's tasks may share.

use std::sync::atomic::{AtomicU64, Ordering};

use sync::migrate;

hal::percpu! {
    static COUNT: AtomicU64 = AtomicU64::new(0);
}

pub(crate) fn main() {
    let here = migrate::disable();
    COUNT.get(&here).fetch_add(1, Ordering::Relaxed);
    assert_eq!(COUNT.on(here.cpu()).load(Ordering::Relaxed), 1);
}
