//! A guard is dropped on the CPU that made it.

use sync::LocalLock;

hal::percpu! {
    static CACHE: LocalLock<u32> = LocalLock::new(0);
}

fn run_elsewhere<T: Send>(_: T) {}

fn main() {
    run_elsewhere(sync::preempt::disable());
    run_elsewhere(sync::irq::disable());
    run_elsewhere(sync::bh::disable());
    run_elsewhere(sync::migrate::disable());
    run_elsewhere(sync::IrqSpinLock::new(0).lock());
    run_elsewhere(LocalLock::lock(&CACHE));
}
