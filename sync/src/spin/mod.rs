//! Spin locks: waiting by looking again.
//!
//! Spinning suits critical sections of well under a microsecond, and is the only way to wait where the scheduler cannot
//! be called: in interrupt handlers, in the scheduler itself. A CPU that waits does nothing else, so a section that is
//! held for long delays everybody who wants it, and with [`IrqSpinLock`] this CPU's interrupts as well. While a spin
//! lock is held nothing may block.
//!
//! Cost: uncontended, one atomic read-modify-write to lock and one store to unlock, plus what the flavour switches off
//! and on. Contended, waiters grab the lock as it comes free, and one that has been passed over 128 times is served
//! before anybody who came later; `raw.rs` states the bound and why it is not strict order of arrival.
//!
//! Read in this order: [`Flavor`] (what is switched off), this file (the typed lock), `raw.rs` (the lock word).

mod guard;
mod owner;
pub mod raw;
mod word;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

pub use guard::{SpinLockGuard, SpinLockWithGuard};
pub use word::{Queued, Ticketed};

use crate::flavor::{Entered, Flavor, Irq, Proves, Task};
use crate::primitives::const_fn;
use guard::Held;
use owner::Owner;
use raw::{RawSpin, unlocked};

/// Data shared between tasks and interrupt handlers on all CPUs; interrupts are off on this CPU while it is held.
///
/// Linux: `spinlock_t` taken with `spin_lock_irqsave`.
///
/// ```
/// use sync::IrqSpinLock;
///
/// static RECEIVED: IrqSpinLock<[u64; 2]> = IrqSpinLock::new([0; 2]);
///
/// RECEIVED.lock()[1] += 1;
/// assert_eq!(*RECEIVED.lock(), [0, 1]);
/// ```
pub type IrqSpinLock<T> = SpinLock<T, Irq>;

/// Mutual exclusion between CPUs, by spinning, around a `T`.
///
/// The flavour `F` says what is switched off on this CPU while the lock is held, which follows from who shares the
/// data: [`Task`] (the default) or [`Irq`], on the platform that is the flavour's parameter, or another crate's.
///
/// A lock is made in a place whose type is written out, a `static` or a field; elsewhere say which one is meant:
/// `SpinLock::<_>::new(..)` for the default flavour.
///
/// Linux: `spinlock_t`; see the crate's documentation for which of its operations corresponds to which flavour.
/// Unlike there, the lock owns its data, so that the data cannot be touched without it. Size: 8 bytes and the data;
/// 16 more in debug builds.
///
/// ```
/// use sync::SpinLock;
///
/// struct Counters {
///     totals: SpinLock<(u64, u64)>,
/// }
/// let counters = Counters { totals: SpinLock::new((0, 0)) };
/// {
///     let mut totals = counters.totals.lock();
///     totals.0 += 1;
///     totals.1 += 2;
/// } // released here; then the task may be preempted again
/// assert_eq!(*counters.totals.lock(), (1, 2));
/// ```
pub struct SpinLock<T: ?Sized, F: Flavor = Task> {
    raw: F::Raw,
    owner: Owner,
    flavor: PhantomData<fn() -> F>,
    data: UnsafeCell<T>,
}

// SAFETY: `&SpinLock` gives out the `T` to one CPU at a time, which amounts to sending it there.
unsafe impl<T: ?Sized + Send, F: Flavor> Sync for SpinLock<T, F> {}

impl<T, F: Flavor> SpinLock<T, F> {
    const_fn! {
        /// A lock around `value` that nobody holds.
        pub fn new(value: T) -> SpinLock<T, F> {
            SpinLock {
                raw: unlocked!(F::Raw),
                owner: Owner::new(),
                flavor: PhantomData,
                data: UnsafeCell::new(value),
            }
        }
    }

    /// The data, of a lock that nobody can hold any more.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, F: Flavor> SpinLock<T, F> {
    /// Switches off what the flavour says, then waits until the lock is free and takes it. Released by dropping the
    /// guard.
    ///
    /// Linux: `spin_lock` and `spin_lock_irqsave`, by flavour. Contexts: task, softirq and hardirq as the flavour
    /// allows; not NMI, where only [`try_lock`](SpinLock::try_lock) is allowed. The lock must not be held by this CPU
    /// already: debug builds report `spinlock recursion`, and all builds then wait for ever.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpinLockGuard<'_, T, F> {
        // Before the wait: preempted or interrupted between taking the lock and switching off would be too late.
        let entered = Entered::new();
        let held = self.hold(Location::caller());
        SpinLockGuard::new(held, entered)
    }

    /// Takes the lock if that is possible at once: if it is free and nobody waits in line for it.
    ///
    /// Linux: `spin_trylock`. Contexts: any; in NMI the guard must not be taken as proof that interrupts are off.
    ///
    /// ```
    /// use sync::IrqSpinLock;
    /// let lock = IrqSpinLock::new(1);
    /// let first = lock.try_lock();
    /// assert!(first.is_some() && lock.try_lock().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<SpinLockGuard<'_, T, F>> {
        let entered = Entered::new();
        let held = self.try_hold(Location::caller())?;
        Some(SpinLockGuard::new(held, entered))
    }

    /// Takes the lock where what the flavour switches off is off already, as `proof` shows: nothing is switched off
    /// and, on release, nothing on. The guard cannot outlive the proof.
    ///
    /// Linux: `spin_lock` inside of `spin_lock_irq`, or in a handler. Contexts and recursion: as [`lock`](SpinLock::lock).
    ///
    /// ```
    /// use sync::{IrqSpinLock, irq};
    /// let (a, b) = (IrqSpinLock::new(1), IrqSpinLock::new(2));
    /// let quiet = irq::disable();
    /// // Interrupts go off and on once, and not once for each lock.
    /// core::mem::swap(&mut *a.lock_with(&quiet), &mut *b.lock_with(&quiet));
    /// drop(quiet);
    /// assert_eq!((a.into_inner(), b.into_inner()), (2, 1));
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_with<'a>(&'a self, _proof: &'a (impl Proves<F> + ?Sized)) -> SpinLockWithGuard<'a, T, F> {
        SpinLockWithGuard::new(self.hold(Location::caller()))
    }

    /// Whether somebody holds the lock; out of date at once, so good for assertions and statistics only.
    ///
    /// Linux: `spin_is_locked`. Contexts: any.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// The data. The exclusive borrow shows that nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Waits for the lock. What the flavour switches off is off.
    #[inline]
    fn hold(&self, at: &'static Location<'static>) -> Held<'_, T, F> {
        self.raw.lock::<F::Platform>(|looks| {
            if looks == 0 {
                self.owner.check::<F::Platform>(at);
            }
            raw::pause::<F::Platform>(looks);
        });
        self.owner.set::<F::Platform>(at);
        // SAFETY: acquired just now.
        unsafe { Held::new(self) }
    }

    #[inline]
    fn try_hold(&self, at: &'static Location<'static>) -> Option<Held<'_, T, F>> {
        if !self.raw.try_lock() {
            return None;
        }
        self.owner.set::<F::Platform>(at);
        // SAFETY: acquired just now.
        Some(unsafe { Held::new(self) })
    }
}

impl<T: Default, F: Flavor> Default for SpinLock<T, F> {
    fn default() -> SpinLock<T, F> {
        SpinLock::new(T::default())
    }
}

impl<T, F: Flavor> From<T> for SpinLock<T, F> {
    fn from(value: T) -> SpinLock<T, F> {
        SpinLock::new(value)
    }
}

impl<T: ?Sized + fmt::Debug, F: Flavor> fmt::Debug for SpinLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("SpinLock");
        match self.try_lock() {
            Some(guard) => s.field("data", &&*guard),
            None => s.field("data", &format_args!("<locked>")),
        };
        s.finish()
    }
}
