//! What others shall read stands beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use sync::{LocalLock, preempt};

hal::percpu! {
    static CACHE: LocalLock<Vec<u32>> = LocalLock::new(Vec::new());
    static CACHED: AtomicU64 = AtomicU64::new(0);
}

pub(crate) fn main() {
    let mut cache = LocalLock::lock(&CACHE);
    cache.push(1);
    CACHED.write(cache.len() as u64);
    drop(cache);
    println!("{}", CACHED.on(preempt::disable().cpu()).load(Ordering::Relaxed));
}
