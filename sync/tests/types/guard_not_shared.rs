//! What the guard protects may be seen elsewhere; so may the lock.

fn show_elsewhere<T: Sync>(_: &T) {}

pub(crate) fn main() {
    show_elsewhere(&sync::preempt::disable().cpu());
    show_elsewhere(&*sync::IrqSpinLock::new(0).lock());
    show_elsewhere(&sync::IrqSpinLock::new(0));
}
