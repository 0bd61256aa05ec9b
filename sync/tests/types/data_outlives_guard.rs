//! A reference into the data is used after the lock was released.

use sync::SpinLock;

fn main() {
    let lock = SpinLock::<_>::new([1, 2]);
    let mut guard = lock.lock();
    let first = &mut guard[0];
    drop(guard);
    *first += 1;
}
