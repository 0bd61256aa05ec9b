//! Interrupts off does, and keeps preemption away too.

use sync::{IrqSpinLock, SpinLock, irq, preempt};

pub(crate) fn main() {
    let lock = IrqSpinLock::new(0);
    let quiet = irq::disable();
    *lock.lock_with(&quiet) += 1;

    let lock = SpinLock::<_>::new(0);
    *lock.lock_with(&quiet) += 1;
    drop(quiet);

    let here = preempt::disable();
    *lock.lock_with(&here) += 1;
}
