//! The lock is released first.

use sync::{IrqSpinLock, irq};

pub(crate) fn main() {
    let lock = IrqSpinLock::new(0);
    let quiet = irq::disable();
    let mut guard = lock.lock_with(&quiet);
    *guard += 1;
    drop(guard);
    drop(quiet);
}
