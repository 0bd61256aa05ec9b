//! Without softirqs there still are interrupts: their handlers would wait for the lock that they interrupted.

use sync::{IrqSpinLock, bh};

fn main() {
    let lock = IrqSpinLock::new(0);
    let no_softirqs = bh::disable();
    *lock.lock_with(&no_softirqs) += 1;
}
