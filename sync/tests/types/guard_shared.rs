//! A guard that is seen from another CPU would prove the wrong thing there.

fn show_elsewhere<T: Sync>(_: &T) {}

fn main() {
    show_elsewhere(&sync::preempt::disable());
    show_elsewhere(&sync::irq::disable());
    show_elsewhere(&sync::bh::disable());
    show_elsewhere(&sync::migrate::disable());
    show_elsewhere(&sync::IrqSpinLock::new(0).lock());
}
