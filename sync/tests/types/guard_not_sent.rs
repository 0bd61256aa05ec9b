//! What the guard protects may go elsewhere; so may the lock.

fn run_elsewhere<T: Send>(_: T) {}

pub(crate) fn main() {
    run_elsewhere(sync::preempt::disable().cpu());
    run_elsewhere(*sync::IrqSpinLock::new(0).lock());
    run_elsewhere(sync::IrqSpinLock::new(0));
}
