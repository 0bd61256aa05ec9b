//! A writer does.

pub(crate) fn main() {
    let lock: sync::RwLock<u32> = sync::RwLock::new(0);
    *lock.write() += 1;
}
