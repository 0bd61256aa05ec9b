//! The spinning locks as raw locks of the `lock_api` crate, for code that is generic over those.
//!
//! `lock_api` separates what a lock protects from how it locks, and many crates take any lock that it can wrap. With the
//! types here they take ours: `lock_api::Mutex<RawSpinLock<Irq>, T>` switches interrupts off while it is held, waits
//! fairly, and is a preemption point when it is given up, as [`IrqSpinLock`](crate::IrqSpinLock) is.
//!
//! What is lost on the way, because `lock_api` has no place for it:
//! * **Proofs.** Its guards do not show that preemption or interrupts are off, so they are of no use to per-CPU data or
//!   to `lock_with`; and there is no way to take a lock under a proof and skip the switching.
//! * **The dependency checker and the report of recursion.** Its raw locks are all made in one place, one constant,
//!   where a class for each lock cannot be told.
//!
//! The order of release is kept: unlock, switch on, preemption point.
//!
//! Guards are not `Send` (`GuardNoSend`). They are `Sync` if the data is, which is harmless where they prove nothing.

use core::fmt;

use ::lock_api::{GuardNoSend, RawMutex, RawRwLock, RawRwLockDowngrade};
use hal::Platform;

use crate::flavor::{Flavor, Task};
use crate::rwlock::RawRw;
use crate::spin::raw::{RawSpin, pause};

/// A spin lock of flavour `F`, for `lock_api::Mutex`. Contexts and cost: as [`SpinLock`](crate::SpinLock).
///
/// ```
/// use sync::{Irq, lock_api::RawSpinLock};
///
/// static TOTAL: lock_api::Mutex<RawSpinLock<Irq>, u64> = lock_api::Mutex::new(0);
///
/// *TOTAL.lock() += 1;
/// assert_eq!(*TOTAL.lock(), 1);
/// ```
pub struct RawSpinLock<F: Flavor = Task> {
    raw: F::Raw,
}

// SAFETY: `RawSpin` promises that one holds the lock at a time and that what holders do is ordered.
unsafe impl<F: Flavor> RawMutex for RawSpinLock<F> {
    const INIT: RawSpinLock<F> = RawSpinLock { raw: F::Raw::UNLOCKED };

    /// What the flavour switched off is switched on again on the CPU that did so.
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        F::enter();
        self.raw.lock::<F::Platform>(pause::<F::Platform>);
    }

    #[inline]
    fn try_lock(&self) -> bool {
        F::enter();
        let taken = self.raw.try_lock();
        if !taken {
            // SAFETY: entered above, on this CPU, which the flavour keeps; the lock is not held by us.
            unsafe { F::exit() }
        }
        taken
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock.
        unsafe { self.raw.unlock() };
        // SAFETY: entered by the caller's `lock` or `try_lock`, on this CPU, because guards are not `Send`.
        unsafe { F::exit() }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }
}

impl<F: Flavor> fmt::Debug for RawSpinLock<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSpinLock").field("is_locked", &self.raw.is_locked()).finish()
    }
}

/// A reader-writer lock of flavour `F`, for `lock_api::RwLock`. Contexts, fairness and cost: as
/// [`RwLock`](crate::RwLock).
///
/// ```
/// use lock_api::{RwLock, RwLockWriteGuard};
/// use sync::{Task, lock_api::RawRwSpinLock};
///
/// static LIMITS: RwLock<RawRwSpinLock<Task>, [u32; 2]> = RwLock::new([1, 10]);
///
/// let mut writing = LIMITS.write();
/// writing[1] = 20;
/// let reading = RwLockWriteGuard::downgrade(writing);
/// assert_eq!(*reading, [1, 20]);
/// ```
pub struct RawRwSpinLock<F: Flavor = Task> {
    raw: RawRw,
    flavor: core::marker::PhantomData<fn() -> F>,
}

impl<F: Flavor> RawRwSpinLock<F> {
    fn passes_line() -> bool {
        !F::Platform::context().in_task()
    }

    /// Undoes the `enter` of an attempt that failed; whether it did not.
    fn exit_unless(taken: bool) -> bool {
        if !taken {
            // SAFETY: the callers have entered, on this CPU, which the flavour keeps, and do not hold the lock.
            unsafe { F::exit() }
        }
        taken
    }
}

// SAFETY: a writer is inside alone, readers are without a writer, and what they do is ordered: invariants of `RawRw`.
unsafe impl<F: Flavor> RawRwLock for RawRwSpinLock<F> {
    const INIT: RawRwSpinLock<F> = RawRwSpinLock { raw: RawRw::new(), flavor: core::marker::PhantomData };

    /// What the flavour switched off is switched on again on the CPU that did so.
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        F::enter();
        self.raw.read::<F::Platform>(Self::passes_line);
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        F::enter();
        Self::exit_unless(self.raw.try_read(Self::passes_line))
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller is inside as a reader.
        unsafe { self.raw.unlock_read() };
        // SAFETY: entered when it came in, on this CPU, because guards are not `Send`.
        unsafe { F::exit() }
    }

    #[inline]
    fn lock_exclusive(&self) {
        F::enter();
        self.raw.write::<F::Platform>();
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        F::enter();
        Self::exit_unless(self.raw.try_write())
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: the caller is inside as the writer.
        unsafe { self.raw.unlock_write() };
        // SAFETY: as in `unlock_shared`.
        unsafe { F::exit() }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    #[inline]
    fn is_locked_exclusive(&self) -> bool {
        self.raw.is_write_locked()
    }
}

// SAFETY: `RawRw::downgrade` lets no other writer in between.
unsafe impl<F: Flavor> RawRwLockDowngrade for RawRwSpinLock<F> {
    #[inline]
    unsafe fn downgrade(&self) {
        // SAFETY: the caller is inside as the writer.
        unsafe { self.raw.downgrade() }
    }
}

impl<F: Flavor> fmt::Debug for RawRwSpinLock<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRwSpinLock").field("is_locked", &self.raw.is_locked()).finish()
    }
}
