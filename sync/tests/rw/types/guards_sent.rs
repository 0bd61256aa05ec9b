//! A guard is dropped on the CPU that made it.

fn run_elsewhere<T: Send>(_: T) {}

fn main() {
    run_elsewhere(sync::IrqRwLock::new(0).read());
    run_elsewhere(sync::IrqRwLock::new(0).write());
    run_elsewhere(sync::seq::IrqSeqLock::new(0).write());
}
