//! What was read may go anywhere.

fn run_elsewhere<T: Send>(_: T) {}

pub(crate) fn main() {
    run_elsewhere(*sync::IrqRwLock::new(0).read());
    run_elsewhere(*sync::IrqRwLock::new(0).write());
    run_elsewhere(sync::seq::IrqSeqLock::new(0).read());
}
