//! A reader changes nothing.

fn main() {
    let lock: sync::RwLock<u32> = sync::RwLock::new(0);
    *lock.read() += 1;
}
