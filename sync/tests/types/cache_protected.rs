//! With preemption off from the first look to the last.

use sync::LocalLock;

hal::percpu! {
    static CACHE: LocalLock<Vec<u32>> = LocalLock::new(Vec::new());
}

pub(crate) fn main() {
    let mut cache = LocalLock::lock(&CACHE);
    while let Some(page) = cache.pop() {
        println!("{page}");
    }
}
