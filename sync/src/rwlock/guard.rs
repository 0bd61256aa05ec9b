//! Holding a reader-writer lock, as a value.

use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::Platform;
use hal::percpu::{IrqsOff, Pinned};

use super::RwLock;
use crate::cpu::CpuBound;
use crate::flavor::{Entered, IrqsOffFlavor};
use crate::lockdep::Acquire;
use crate::{BottomHalf, Flavor, Irq, Proves, Task};

/// A [`RwLock`] is held for reading while this value lives. Gives shared access to the data.
///
/// Dropping it leaves the lock, then switches on again what was switched off, and is then a preemption point if that
/// made one possible. `E` is the flavour that was entered; it differs from the lock's for
/// [`read_irqs_on`](RwLock::read_irqs_on) only. Neither `Send` nor `Sync`.
///
/// ```
/// use sync::{IrqRwLock, context::irqs_disabled};
/// let lock = IrqRwLock::new(5);
/// let (one, other) = (lock.read(), lock.try_read().unwrap());
/// drop(one);
/// assert!(irqs_disabled() && lock.try_write().is_none(), "the other one is inside");
/// drop(other);
/// assert!(!irqs_disabled() && lock.try_write().is_some());
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct RwLockReadGuard<'a, T: ?Sized, F: Flavor, E: Flavor = F> {
    // The order of these fields is the order of release: unlock, then switch on.
    held: Reading<'a, T, F>,
    #[expect(dead_code, reason = "it is there to be dropped after `held`")]
    entered: Entered<E>,
}

/// A [`RwLock`] is held for reading, in a context that was there before. Made by [`read_with`](RwLock::read_with).
/// Dropping it leaves the lock and nothing more. Neither `Send` nor `Sync`.
///
/// ```
/// use sync::{IrqRwLock, irq};
/// let lock = IrqRwLock::new(5);
/// let quiet = irq::disable();
/// let reading = lock.read_with(&quiet);
/// assert_eq!(*reading, 5);
/// drop(reading);
/// assert!(!lock.is_locked() && sync::context::irqs_disabled());
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct RwLockReadWithGuard<'a, T: ?Sized, F: Flavor> {
    held: Reading<'a, T, F>,
}

/// A [`RwLock`] is held for writing while this value lives. Gives exclusive access to the data.
///
/// Dropping it releases as a [`RwLockReadGuard`] does. Neither `Send` nor `Sync`.
///
/// ```
/// let lock = sync::RwLock::<u32>::new(1);
/// let mut writing = lock.write();
/// *writing += 1;
/// assert!(lock.try_read().is_none());
/// drop(writing);
/// assert_eq!(lock.try_read().as_deref(), Some(&2));
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct RwLockWriteGuard<'a, T: ?Sized, F: Flavor> {
    // The order of these fields is the order of release: unlock, then switch on.
    held: Writing<'a, T, F>,
    entered: Entered<F>,
}

/// A [`RwLock`] is held for writing, in a context that was there before. Made by [`write_with`](RwLock::write_with).
/// Dropping it leaves the lock and nothing more. Neither `Send` nor `Sync`.
///
/// ```
/// use sync::{IrqRwLock, irq};
/// let lock = IrqRwLock::new(5);
/// let quiet = irq::disable();
/// let mut writing = lock.write_with(&quiet);
/// *writing = 6;
/// drop(writing);
/// assert!(!lock.is_locked() && sync::context::irqs_disabled());
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct RwLockWriteWithGuard<'a, T: ?Sized, F: Flavor> {
    held: Writing<'a, T, F>,
}

/// # Invariants
/// `lock` is held for reading by the execution that owns the value.
pub(super) struct Reading<'a, T: ?Sized, F: Flavor> {
    lock: &'a RwLock<T, F>,
    _bound: CpuBound,
}

impl<'a, T: ?Sized, F: Flavor> Reading<'a, T, F> {
    /// # Safety
    /// The caller has just entered `lock` as a reader and passes its claim on to the value.
    #[inline(always)]
    pub(super) unsafe fn new(lock: &'a RwLock<T, F>) -> Reading<'a, T, F> {
        // INVARIANT: by the contract.
        Reading { lock, _bound: CpuBound::NEW }
    }

    #[inline(always)]
    fn data(&self) -> &T {
        // SAFETY: by the invariant no writer is inside, so that nobody has `&mut T`.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized, F: Flavor> Drop for Reading<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        self.lock.map.release::<F::Platform>(Location::caller());
        // SAFETY: by the invariant we are inside, and with this value ends the only claim to that.
        unsafe { self.lock.raw.unlock_read() }
    }
}

/// # Invariants
/// `lock` is held for writing by the execution that owns the value.
pub(super) struct Writing<'a, T: ?Sized, F: Flavor> {
    lock: &'a RwLock<T, F>,
    _bound: CpuBound,
}

impl<'a, T: ?Sized, F: Flavor> Writing<'a, T, F> {
    /// # Safety
    /// The caller has just entered `lock` as the writer and passes its claim on to the value.
    #[inline(always)]
    pub(super) unsafe fn new(lock: &'a RwLock<T, F>) -> Writing<'a, T, F> {
        // INVARIANT: by the contract.
        Writing { lock, _bound: CpuBound::NEW }
    }

    #[inline(always)]
    fn data(&self) -> &T {
        // SAFETY: by the invariant nobody else is inside; `&self` allows nobody `&mut T` meanwhile.
        unsafe { &*self.lock.data.get() }
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut T {
        // SAFETY: by the invariant nobody else is inside; `&mut self` makes this the only reference.
        unsafe { &mut *self.lock.data.get() }
    }

    /// The writer becomes a reader.
    #[inline]
    fn downgrade(self, at: &'static Location<'static>) -> Reading<'a, T, F> {
        let lock = self.lock;
        mem::forget(self);
        lock.map.release::<F::Platform>(at);
        // SAFETY: by the invariant we are inside as the writer, and the value that said so is gone.
        unsafe { lock.raw.downgrade() };
        lock.note_reader(Acquire { is_try: true, ..Acquire::READ }, at);
        // SAFETY: we are inside as a reader now.
        unsafe { Reading::new(lock) }
    }
}

impl<T: ?Sized, F: Flavor> Drop for Writing<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        self.lock.map.release::<F::Platform>(Location::caller());
        // SAFETY: by the invariant we are inside, and with this value ends the only claim to that.
        unsafe { self.lock.raw.unlock_write() }
    }
}

impl<'a, T: ?Sized, F: Flavor, E: Flavor> RwLockReadGuard<'a, T, F, E> {
    #[inline(always)]
    pub(super) fn new(held: Reading<'a, T, F>, entered: Entered<E>) -> RwLockReadGuard<'a, T, F, E> {
        RwLockReadGuard { held, entered }
    }
}

impl<'a, T: ?Sized, F: Flavor> RwLockReadWithGuard<'a, T, F> {
    #[inline(always)]
    pub(super) fn new(held: Reading<'a, T, F>) -> RwLockReadWithGuard<'a, T, F> {
        RwLockReadWithGuard { held }
    }
}

impl<'a, T: ?Sized, F: Flavor> RwLockWriteGuard<'a, T, F> {
    #[inline(always)]
    pub(super) fn new(held: Writing<'a, T, F>, entered: Entered<F>) -> RwLockWriteGuard<'a, T, F> {
        RwLockWriteGuard { held, entered }
    }

    /// Goes on as a reader: others may read as well, and no writer comes in between.
    ///
    /// Linux: `downgrade_write` of its sleeping lock; its spinning one has none. Contexts: as the guard's. Cost: one
    /// atomic addition.
    ///
    /// ```
    /// use sync::RwLock;
    /// let lock: RwLock<u32> = RwLock::new(1);
    /// let mut writing = lock.write();
    /// *writing += 1;
    /// let reading = writing.downgrade();
    /// assert_eq!((*reading, lock.try_read().as_deref().copied()), (2, Some(2)));
    /// assert!(lock.try_write().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn downgrade(self) -> RwLockReadGuard<'a, T, F> {
        let RwLockWriteGuard { held, entered } = self;
        RwLockReadGuard { held: held.downgrade(Location::caller()), entered }
    }
}

impl<'a, T: ?Sized, F: Flavor> RwLockWriteWithGuard<'a, T, F> {
    #[inline(always)]
    pub(super) fn new(held: Writing<'a, T, F>) -> RwLockWriteWithGuard<'a, T, F> {
        RwLockWriteWithGuard { held }
    }

    /// As [`RwLockWriteGuard::downgrade`].
    ///
    /// ```
    /// let lock = sync::IrqRwLock::new(1);
    /// let quiet = sync::irq::disable();
    /// let mut writing = lock.write_with(&quiet);
    /// *writing += 1;
    /// let reading = writing.downgrade();
    /// assert_eq!(*reading, 2);
    /// assert!(lock.is_locked() && !lock.is_write_locked());
    /// ```
    #[inline]
    #[track_caller]
    pub fn downgrade(self) -> RwLockReadWithGuard<'a, T, F> {
        RwLockReadWithGuard { held: self.held.downgrade(Location::caller()) }
    }
}

/// What the guards do alike. `$E` is the flavour that was entered, where it need not be the lock's.
macro_rules! give_access {
    ($Guard:ident $(, $E:ident)?) => {
        impl<T: ?Sized, F: Flavor $(, $E: Flavor)?> Deref for $Guard<'_, T, F $(, $E)?> {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                self.held.data()
            }
        }

        impl<T: ?Sized + fmt::Debug, F: Flavor $(, $E: Flavor)?> fmt::Debug for $Guard<'_, T, F $(, $E)?> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.held.data(), f)
            }
        }

        // SAFETY: the guard lives between an `enter` and the matching `exit` of its flavour (its own, or of the proof
        // that it borrows), where `Flavor` promises that the execution stays on its CPU. Neither `Send` nor `Sync`.
        unsafe impl<T: ?Sized, F: Flavor $(, $E: Flavor)?> Pinned for $Guard<'_, T, F $(, $E)?> {}
    };
}

give_access!(RwLockReadGuard, E);
give_access!(RwLockReadWithGuard);
give_access!(RwLockWriteGuard);
give_access!(RwLockWriteWithGuard);

// SAFETY: the guard lives between an `enter` and the matching `exit` of a flavour that turns interrupts off.
unsafe impl<T: ?Sized, F: Flavor, E: IrqsOffFlavor> IrqsOff for RwLockReadGuard<'_, T, F, E> {}
// SAFETY: as above; the flavour is that of the proof which the guard borrows.
unsafe impl<T: ?Sized, F: IrqsOffFlavor> IrqsOff for RwLockReadWithGuard<'_, T, F> {}
// SAFETY: as above.
unsafe impl<T: ?Sized, F: IrqsOffFlavor> IrqsOff for RwLockWriteGuard<'_, T, F> {}
// SAFETY: as above.
unsafe impl<T: ?Sized, F: IrqsOffFlavor> IrqsOff for RwLockWriteWithGuard<'_, T, F> {}

/// Guards imply what their flavour switches off, and whatever that implies. (`Irq` follows from `IrqsOff`.)
macro_rules! prove {
    ($($Flavor:ident => $($Proved:ident),*;)*) => {$($(
        // SAFETY: the guard lives between an `enter` and the matching `exit` of a flavour that implies the other one.
        unsafe impl<T: ?Sized, F: Flavor, P: Platform> Proves<$Proved<P>>
            for RwLockReadGuard<'_, T, F, $Flavor<P>> {}
        // SAFETY: as above, of the proof that it borrows.
        unsafe impl<T: ?Sized, P: Platform> Proves<$Proved<P>> for RwLockReadWithGuard<'_, T, $Flavor<P>> {}
        // SAFETY: as above.
        unsafe impl<T: ?Sized, P: Platform> Proves<$Proved<P>> for RwLockWriteGuard<'_, T, $Flavor<P>> {}
        // SAFETY: as above.
        unsafe impl<T: ?Sized, P: Platform> Proves<$Proved<P>> for RwLockWriteWithGuard<'_, T, $Flavor<P>> {}
    )*)*};
}

prove! {
    Task => Task;
    BottomHalf => Task, BottomHalf;
    Irq => Task, BottomHalf;
}

impl<T: ?Sized, F: Flavor> DerefMut for RwLockWriteGuard<'_, T, F> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.held.data_mut()
    }
}

impl<T: ?Sized, F: Flavor> DerefMut for RwLockWriteWithGuard<'_, T, F> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        self.held.data_mut()
    }
}
