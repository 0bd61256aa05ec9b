//! A flavour that another crate brings: a trace record of this CPU is open while the lock is held.
#![cfg(not(loom))]

use std::sync::atomic::AtomicU32;

use hal::{Native, Platform, hosted};
use sync::lockdep::Level;
use sync::spin::raw::AdaptiveLock;
use sync::{Flavor, IrqGuard, IrqSpinLock, Proves, SpinLock, irq};

hal::percpu! {
    /// Records that are open on this CPU.
    static OPEN: AtomicU32 = AtomicU32::new(0);
}

/// Data whose users are traced.
enum Traced {}

// SAFETY: preemption is off from `enter` to `exit`. Interrupt handlers do not take such locks. Both steps count.
unsafe impl Flavor for Traced {
    type Platform = Native;
    type Raw = AdaptiveLock;

    const LEVEL: Level = Level::Task;

    fn enter() {
        Native::preempt_disable();
        OPEN.inc();
    }

    unsafe fn exit() {
        OPEN.dec();
        Native::preempt_enable();
    }
}

// SAFETY: with interrupts off nothing preempts. (No record is open, and what this flavour promises to locks is not about
// records.)
unsafe impl Proves<Traced> for IrqGuard {}

#[test]
fn a_flavour_from_outside_works_like_the_others() {
    let _cpu = hosted::bind().unwrap();
    let lock = SpinLock::<u32, Traced>::new(0);
    {
        let mut guard = lock.lock();
        assert_eq!((OPEN.read(), Native::context().preempt_depth()), (1, 1));
        *guard += 1;
        assert!(lock.try_lock().is_none());
        assert_eq!(OPEN.read(), 1);
    }
    assert_eq!((OPEN.read(), Native::context().preempt_depth()), (0, 0));

    let quiet = irq::disable();
    *lock.lock_with(&quiet) += 1;
    assert_eq!(OPEN.read(), 0);
    drop(quiet);

    let irq_lock = IrqSpinLock::new(1);
    *lock.lock() += *irq_lock.lock();
    assert_eq!(lock.into_inner(), 3);
}
