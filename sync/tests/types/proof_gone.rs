//! Interrupts come on while the lock is held.

use sync::{IrqSpinLock, irq};

fn main() {
    let lock = IrqSpinLock::new(0);
    let quiet = irq::disable();
    let mut guard = lock.lock_with(&quiet);
    drop(quiet);
    *guard += 1;
}
