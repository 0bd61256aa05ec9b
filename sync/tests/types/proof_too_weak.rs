//! Preemption off does not keep interrupt handlers away.

use sync::{IrqSpinLock, preempt};

fn main() {
    let lock = IrqSpinLock::new(0);
    let here = preempt::disable();
    *lock.lock_with(&here) += 1;
}
