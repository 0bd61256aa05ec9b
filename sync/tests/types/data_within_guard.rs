//! The lock is released when the reference is no longer used.

use sync::SpinLock;

pub(crate) fn main() {
    let lock = SpinLock::<_>::new([1, 2]);
    let mut guard = lock.lock();
    let first = &mut guard[0];
    *first += 1;
    drop(guard);
}
