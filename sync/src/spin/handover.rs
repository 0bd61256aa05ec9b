//! A lock that one task takes and another gives up, on the same CPU: for run queues, and nothing else.
//!
//! A scheduler changes the run queue and then switches to another task. The queue must stay locked over the switch,
//! because until the old task's registers are saved nobody else may run it. The task that comes out of the switch is
//! another one, so that it has no guard to drop.
//!
//! 1. The old task turns its guard into a **hand-over**: the lock stays held, and what its flavour switched off stays
//!    off. Both belong to the CPU now.
//! 2. After the switch the new task **adopts** it: makes a guard out of nothing, which is why that is `unsafe`.
//!
//! A hand-over that is never adopted leaves the lock held for ever, as a leaked guard does.

use core::mem;
use core::panic::Location;

use super::raw::RawSpin;
use super::{SpinLock, SpinLockGuard, SpinLockWithGuard};
use crate::flavor::{Entered, Flavor, Proves};

impl<T: ?Sized, F: Flavor> SpinLockGuard<'_, T, F> {
    /// Leaves the lock held, for the next task of this CPU to [adopt](SpinLock::adopt_handover).
    ///
    /// For the dependency checker and the other diagnostics this task holds the lock no longer. Linux:
    /// `prepare_lock_switch`. Contexts: the scheduler. See [`SpinLock::adopt_handover`] for an example.
    ///
    /// ```
    /// let queue: sync::IrqSpinLock<u32> = sync::IrqSpinLock::new(1);
    /// queue.lock().into_handover();
    /// assert!(queue.is_locked() && sync::context::irqs_disabled());
    /// // SAFETY: handed over just now on this CPU, and adopted once.
    /// drop(unsafe { queue.adopt_handover() });
    /// assert!(!queue.is_locked() && !sync::context::irqs_disabled());
    /// ```
    #[track_caller]
    pub fn into_handover(self) {
        let lock = self.lock();
        lock.owner.disown();
        lock.map.release::<F::Platform>(Location::caller());
        mem::forget(self);
    }
}

impl<T: ?Sized, F: Flavor> SpinLockWithGuard<'_, T, F> {
    /// As [`SpinLockGuard::into_handover`], for a lock that was taken in a context that was there before: it is adopted
    /// by [`adopt_handover_with`](SpinLock::adopt_handover_with).
    ///
    /// ```
    /// let queue: sync::IrqSpinLock<u32> = sync::IrqSpinLock::new(1);
    /// let quiet = sync::irq::disable();
    /// queue.lock_with(&quiet).into_handover();
    /// assert!(queue.is_locked());
    /// // SAFETY: handed over just now on this CPU, and adopted once.
    /// drop(unsafe { queue.adopt_handover_with(&quiet) });
    /// assert!(!queue.is_locked());
    /// ```
    #[track_caller]
    pub fn into_handover(self) {
        let lock = self.lock();
        lock.owner.disown();
        lock.map.release::<F::Platform>(Location::caller());
        mem::forget(self);
    }
}

impl<T: ?Sized, F: Flavor> SpinLock<T, F> {
    /// A guard for a lock that is held by this CPU through [`into_handover`](SpinLockGuard::into_handover). Dropping it
    /// releases the lock, switches on, and is a preemption point, as always.
    ///
    /// Linux: `finish_lock_switch`. Contexts: the scheduler, after the switch. Debug builds report `spinlock wrong owner`
    /// if the lock was handed over on another CPU.
    ///
    /// # Safety
    /// The lock was handed over on this CPU, and this is the only adoption of that hand-over.
    ///
    /// ```
    /// use sync::IrqSpinLock;
    ///
    /// static RUN_QUEUE: IrqSpinLock<Vec<u32>> = IrqSpinLock::new(Vec::new());
    /// # fn switch_to(_: u32) {}
    ///
    /// let mut queue = RUN_QUEUE.lock();
    /// queue.push(1); // the task that goes
    /// let next = queue[0];
    /// queue.into_handover();
    /// switch_to(next);
    /// // Here another task continues, with its own stack, at the same place.
    /// // SAFETY: every path to a switch hands the queue over, and interrupts are still off.
    /// let queue = unsafe { RUN_QUEUE.adopt_handover() };
    /// assert_eq!(*queue, [1]);
    /// drop(queue);
    /// assert!(!RUN_QUEUE.is_locked());
    /// ```
    #[track_caller]
    pub unsafe fn adopt_handover(&self) -> SpinLockGuard<'_, T, F> {
        debug_assert!(self.raw.is_locked(), "adopting a lock that nobody handed over");
        self.owner.clear::<F::Platform>(Location::caller());
        // SAFETY: the guard that was handed over had entered the flavour on this CPU, and nothing has undone that.
        let entered = unsafe { Entered::adopted() };
        SpinLockGuard::new(self.held_now(Location::caller()), entered)
    }

    /// As [`adopt_handover`](SpinLock::adopt_handover), for a lock that was handed over by
    /// [`SpinLockWithGuard::into_handover`]. What forbids interruptions is the context's, which `proof` shows; dropping
    /// the guard releases the lock and nothing more.
    ///
    /// # Safety
    /// As for [`adopt_handover`](SpinLock::adopt_handover).
    ///
    /// ```
    /// use sync::{IrqSpinLock, irq};
    ///
    /// static RUN_QUEUE: IrqSpinLock<u32> = IrqSpinLock::new(0);
    /// let quiet = irq::disable();
    /// RUN_QUEUE.lock_with(&quiet).into_handover();
    /// // SAFETY: handed over just now, and adopted once.
    /// let queue = unsafe { RUN_QUEUE.adopt_handover_with(&quiet) };
    /// assert_eq!(*queue, 0);
    /// ```
    #[track_caller]
    pub unsafe fn adopt_handover_with<'a>(
        &'a self,
        _proof: &'a (impl Proves<F> + ?Sized),
    ) -> SpinLockWithGuard<'a, T, F> {
        debug_assert!(self.raw.is_locked(), "adopting a lock that nobody handed over");
        self.owner.clear::<F::Platform>(Location::caller());
        SpinLockWithGuard::new(self.held_now(Location::caller()))
    }
}
