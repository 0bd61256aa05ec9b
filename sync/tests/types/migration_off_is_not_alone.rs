//! Staying on a CPU does not keep its other tasks away.

use sync::{LocalLock, migrate};

hal::percpu! {
    static CACHE: LocalLock<Vec<u32>> = LocalLock::new(Vec::new());
}

fn main() {
    let here = migrate::disable();
    LocalLock::lock_with(&CACHE, &here).push(1);
}
