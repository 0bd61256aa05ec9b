//! A guard is dropped on the CPU that made it.

fn run_elsewhere<T: Send>(_: T) {}

fn main() {
    run_elsewhere(sync::preempt::disable());
    run_elsewhere(sync::irq::disable());
    run_elsewhere(sync::IrqSpinLock::new(0).lock());
}
