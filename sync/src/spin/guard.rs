//! Holding a spin lock, as a value.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::percpu::{IrqsOff, Pinned};

use super::SpinLock;
use super::raw::RawSpin;
use crate::cpu::CpuBound;
use crate::flavor::{Entered, Flavor, IrqsOffFlavor};

/// A [`SpinLock`] is held, and what its flavour switches off is off, while this value lives. Made by
/// [`lock`](SpinLock::lock) and [`try_lock`](SpinLock::try_lock); gives access to the data.
///
/// Dropping it releases the lock, then switches on again (interrupts, or preemption), and then, if that made it
/// possible, is a preemption point: never while the lock is held, and never lost.
///
/// Neither `Send` nor `Sync`: the lock is released on the CPU that took it.
///
/// ```
/// use sync::{IrqSpinLock, context::irqs_disabled};
/// let lock = IrqSpinLock::new(1);
/// let mut guard = lock.lock();
/// *guard += 1;
/// assert!(irqs_disabled() && lock.is_locked());
/// drop(guard);
/// assert!(!irqs_disabled() && !lock.is_locked());
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct SpinLockGuard<'a, T: ?Sized, F: Flavor> {
    // The order of these fields is the order of release: unlock, then switch on.
    held: Held<'a, T, F>,
    #[expect(dead_code, reason = "it is there to be dropped after `held`")]
    entered: Entered<F>,
}

/// A [`SpinLock`] is held, in a context that was there before. Made by [`lock_with`](SpinLock::lock_with); gives access
/// to the data. Dropping it releases the lock and nothing more: it is no preemption point.
///
/// Neither `Send` nor `Sync`.
///
/// ```
/// use sync::{IrqSpinLock, context::irqs_disabled};
/// let lock = IrqSpinLock::new(1);
/// let quiet = sync::irq::disable();
/// drop(lock.lock_with(&quiet));
/// assert!(irqs_disabled() && !lock.is_locked());
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct SpinLockWithGuard<'a, T: ?Sized, F: Flavor> {
    held: Held<'a, T, F>,
}

/// The lock is held while this value lives.
///
/// # Invariants
/// `lock` is held by the execution that owns the value.
pub(super) struct Held<'a, T: ?Sized, F: Flavor> {
    lock: &'a SpinLock<T, F>,
    _bound: CpuBound,
}

impl<'a, T: ?Sized, F: Flavor> Held<'a, T, F> {
    /// # Safety
    /// The caller has just acquired `lock` and passes its claim on to the value.
    #[inline(always)]
    pub(super) unsafe fn new(lock: &'a SpinLock<T, F>) -> Held<'a, T, F> {
        // INVARIANT: by the contract.
        Held { lock, _bound: CpuBound::NEW }
    }

    #[inline(always)]
    fn data(&self) -> &T {
        // SAFETY: by the invariant nobody else has access; `&self` allows nobody `&mut T` meanwhile.
        unsafe { &*self.lock.data.get() }
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut T {
        // SAFETY: by the invariant nobody else has access; `&mut self` makes this the only reference.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized, F: Flavor> Drop for Held<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        let at = Location::caller();
        self.lock.owner.clear::<F::Platform>(at);
        self.lock.map.release::<F::Platform>(at);
        // SAFETY: by the invariant we hold the lock, and with this value ends the only claim to that.
        unsafe { self.lock.raw.unlock() }
    }
}

impl<'a, T: ?Sized, F: Flavor> SpinLockGuard<'a, T, F> {
    #[inline(always)]
    pub(super) fn new(held: Held<'a, T, F>, entered: Entered<F>) -> SpinLockGuard<'a, T, F> {
        SpinLockGuard { held, entered }
    }

    pub(super) fn lock(&self) -> &'a SpinLock<T, F> {
        self.held.lock
    }
}

impl<'a, T: ?Sized, F: Flavor> SpinLockWithGuard<'a, T, F> {
    #[inline(always)]
    pub(super) fn new(held: Held<'a, T, F>) -> SpinLockWithGuard<'a, T, F> {
        SpinLockWithGuard { held }
    }

    pub(super) fn lock(&self) -> &'a SpinLock<T, F> {
        self.held.lock
    }
}

/// What both guards do alike: they are the data.
macro_rules! give_access {
    ($Guard:ident) => {
        impl<T: ?Sized, F: Flavor> Deref for $Guard<'_, T, F> {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                self.held.data()
            }
        }

        impl<T: ?Sized, F: Flavor> DerefMut for $Guard<'_, T, F> {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut T {
                self.held.data_mut()
            }
        }

        impl<T: ?Sized + fmt::Debug, F: Flavor> fmt::Debug for $Guard<'_, T, F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.held.data(), f)
            }
        }

        // SAFETY: the guard lives between an `enter` and the matching `exit` of its flavour (its own, or of the proof
        // that it borrows), where `Flavor` promises that the execution stays on its CPU. Neither `Send` nor `Sync`.
        unsafe impl<T: ?Sized, F: Flavor> Pinned for $Guard<'_, T, F> {}

        // SAFETY: as above, and this flavour turns interrupts off.
        unsafe impl<T: ?Sized, F: IrqsOffFlavor> IrqsOff for $Guard<'_, T, F> {}
    };
}

give_access!(SpinLockGuard);
give_access!(SpinLockWithGuard);
