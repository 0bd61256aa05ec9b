//! A flavour that another crate brings: bottom halves are off while the lock is held.
#![cfg(not(loom))]

use hal::context::SOFTIRQ_DISABLE_UNIT;
use hal::{Native, Platform, hosted};
use sync::lockdep::Level;
use sync::{Flavor, IrqGuard, IrqSpinLock, Proves, SpinLock, irq};

/// Data shared between tasks and softirqs.
enum BottomHalf {}

// SAFETY: the softirq count keeps the task on its CPU as the preempt depth does, because the word is then not 0. No
// softirq is served here meanwhile, and hardirq handlers do not take such locks. The count goes up and down.
unsafe impl Flavor for BottomHalf {
    type Platform = Native;
    type Raw = sync::spin::raw::AdaptiveLock;

    const LEVEL: Level = Level::Softirq;

    fn enter() {
        Native::preempt_add(SOFTIRQ_DISABLE_UNIT);
    }

    unsafe fn exit() {
        Native::preempt_sub(SOFTIRQ_DISABLE_UNIT);
        Native::serve_softirqs();
        Native::check_resched();
    }
}

// SAFETY: with interrupts off no softirq is served and nothing preempts.
unsafe impl Proves<BottomHalf> for IrqGuard {}

#[test]
fn a_flavour_from_outside_works_like_the_others() {
    let _cpu = hosted::bind().unwrap();
    let lock = SpinLock::<u32, BottomHalf>::new(0);
    {
        let mut guard = lock.lock();
        assert!(Native::context().in_softirq());
        *guard += 1;
        assert!(lock.try_lock().is_none());
    }
    assert!(!Native::context().in_softirq());

    let quiet = irq::disable();
    *lock.lock_with(&quiet) += 1;
    assert!(!Native::context().in_softirq());
    drop(quiet);

    let irq_lock = IrqSpinLock::new(1);
    *lock.lock() += *irq_lock.lock();
    assert_eq!(lock.into_inner(), 3);
}
