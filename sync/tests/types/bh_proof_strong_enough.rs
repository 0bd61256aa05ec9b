//! Bottom halves off is enough for what softirqs and tasks share; so is interrupts off.

use sync::{BottomHalf, IrqSpinLock, SpinLock, bh, irq};

pub(crate) fn main() {
    let with_softirqs = SpinLock::<_, BottomHalf>::new(0);
    let with_tasks = SpinLock::<_>::new(0);
    let no_softirqs = bh::disable();
    *with_softirqs.lock_with(&no_softirqs) += 1;
    *with_tasks.lock_with(&no_softirqs) += 1;
    drop(no_softirqs);

    let quiet = irq::disable();
    *with_softirqs.lock_with(&quiet) += 1;
    let with_handlers = IrqSpinLock::new(0);
    *with_handlers.lock_with(&quiet) += 1;
}
