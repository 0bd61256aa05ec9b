//! The story: a cache for each CPU is emptied, and half way the task is preempted by one that fills it. There is no way
//! to the cache but through what keeps the other one out.

use sync::LocalLock;

hal::percpu! {
    static CACHE: LocalLock<Vec<u32>> = LocalLock::new(Vec::new());
}

fn main() {
    let cache = CACHE.local_ptr();
    while let Some(page) = cache.pop() {
        drop(page);
    }
}
