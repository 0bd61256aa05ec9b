//! Spin locks: waiting by looking again.
//!
//! # When to spin
//!
//! Spin where a critical section takes well under a microsecond, and where the scheduler cannot be called: in interrupt
//! handlers, in the scheduler itself. Otherwise use a lock that lets others run ([`Mutex`](crate::Mutex)). A CPU that waits
//! does nothing else and draws power for it. A section that is held for long delays everybody who wants it, keeps other
//! tasks off this CPU, and with [`IrqSpinLock`] its interrupts too. While a spin lock is held nothing may sleep.
//!
//! # What it costs
//!
//! Uncontended, one atomic read-modify-write to lock and one store to unlock, plus what the flavour switches off and on.
//! Contended, the lock travels from cache to cache, some 50 to 200 ns a time; who waits in vain for about ten
//! microseconds has the right of way from then on. On a machine whose host has taken the holder's core everybody waits
//! until it is given back. `docs/locks.md` has figures, [`raw`] the bounds.
//!
//! # Which lock
//!
//! It follows from who shares the data, and is said once, in the lock's type:
#![doc = include_str!("sharers.md")]
//!
//! NMI handlers come in spite of everything: they may [`try_lock`](SpinLock::try_lock) any of these, and wait for none.
//!
//! Read in this order: [`Flavor`] (what is switched off), this file (the typed lock), `guard.rs`, `raw/mod.rs` (the lock
//! word), `owner.rs` (who holds it, in debug builds).

mod guard;
mod handover;
mod owner;
pub mod raw;
mod word;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

pub use guard::{SpinLockGuard, SpinLockWithGuard};
pub use word::{Queued, Ticketed};

use hal::Platform;

use crate::contention::Contended;
use crate::flavor::{BottomHalf, Entered, Flavor, Irq, Proves, Task};
use crate::lockdep::{Acquire, Map, Subclass, WaitType};
use crate::primitives::const_fn;
use crate::task_cx::TaskCx;
use guard::Held;
use owner::{Owner, Watch};
use raw::{RawSpin, unlocked};

/// Data shared between tasks and softirqs on all CPUs; bottom halves are off on this CPU while it is held.
///
/// Linux: `spinlock_t` taken with `spin_lock_bh`.
///
/// ```
/// use sync::spin::BhSpinLock;
///
/// static BACKLOG: BhSpinLock<Vec<u32>> = BhSpinLock::new(Vec::new());
///
/// BACKLOG.lock().push(1);
/// assert_eq!(BACKLOG.lock().len(), 1);
/// ```
pub type BhSpinLock<T> = SpinLock<T, BottomHalf>;

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
/// data: [`Task`] (the default), [`BottomHalf`] or [`Irq`], on the platform that is the flavour's parameter, or another
/// crate's. It also chooses the lock word; [`Queued<Irq>`](Queued) is `Irq` with another one.
///
/// A lock is made in a place whose type is written out, a `static` or a field; elsewhere say which one is meant:
/// `SpinLock::<_>::new(..)` for the default flavour.
///
/// Linux: `spinlock_t`; see the crate's documentation for which of its operations corresponds to which flavour.
/// Unlike there, the lock owns its data, so that the data cannot be touched without it. Size: 4 bytes and the data; in
/// debug builds, and with the feature `lockdep`, more.
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
    map: Map,
    flavor: PhantomData<fn() -> F>,
    data: UnsafeCell<T>,
}

// SAFETY: `&SpinLock` gives out the `T` to one CPU at a time, which amounts to sending it there.
unsafe impl<T: ?Sized + Send, F: Flavor> Sync for SpinLock<T, F> {}

impl<T, F: Flavor> SpinLock<T, F> {
    const_fn! {
        /// A lock around `value` that nobody holds. The dependency checker takes locks that are made at one place in the
        /// source for locks of one kind.
        ///
        /// Linux: `DEFINE_SPINLOCK`, `spin_lock_init`. A constant expression.
        ///
        /// ```
        /// static COUNT: sync::SpinLock<u32> = sync::SpinLock::new(5);
        /// assert!(!COUNT.is_locked());
        /// assert_eq!(*COUNT.lock(), 5);
        /// ```
        #[track_caller]
        pub fn new(value: T) -> SpinLock<T, F> {
            SpinLock {
                raw: unlocked!(F::Raw),
                owner: Owner::new(),
                map: Map::new(WaitType::Spin, F::LEVEL),
                flavor: PhantomData,
                data: UnsafeCell::new(value),
            }
        }
    }

    /// The data, of a lock that nobody can hold any more.
    ///
    /// ```
    /// # use sync::SpinLock;
    /// let lock = SpinLock::<_>::new(5);
    /// *lock.lock() += 1;
    /// assert_eq!(lock.into_inner(), 6);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, F: Flavor> SpinLock<T, F> {
    /// Switches off what the flavour says, then waits until the lock is free and takes it. Released by dropping the
    /// guard.
    ///
    /// Linux: `spin_lock`, `spin_lock_bh`, `spin_lock_irqsave`, by flavour. Contexts: task, softirq and hardirq as the
    /// flavour allows; not NMI, where only [`try_lock`](SpinLock::try_lock) is allowed. The lock must not be held by this
    /// CPU already: debug builds report `spinlock recursion`, and all builds then wait for ever. A wait of ten seconds is
    /// reported by debug builds as `spinlock lockup suspected`, and goes on.
    ///
    /// ```
    /// let lock = sync::SpinLock::<_>::new(1);
    /// *lock.lock() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpinLockGuard<'_, T, F> {
        self.lock_nested(Subclass::OUTER)
    }

    /// Takes the lock while others of its class are held, in an order that the program guarantees (a parent's before its
    /// child's, the lower address before the higher): tells the dependency checker which one this is. Otherwise the same
    /// as [`lock`](SpinLock::lock).
    ///
    /// Linux: `spin_lock_nested`, `spin_lock_irqsave_nested`.
    ///
    /// ```
    /// use sync::{SpinLock, lockdep::Subclass};
    /// fn swap(a: &SpinLock<u32>, b: &SpinLock<u32>) {
    ///     let (first, second) = if (a as *const _) < (b as *const _) { (a, b) } else { (b, a) };
    ///     let mut first = first.lock();
    ///     let mut second = second.lock_nested(Subclass::NESTED);
    ///     core::mem::swap(&mut *first, &mut *second);
    /// }
    /// let locks = [1, 2].map(SpinLock::new);
    /// swap(&locks[1], &locks[0]);
    /// assert_eq!((*locks[0].lock(), *locks[1].lock()), (2, 1));
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, subclass: Subclass) -> SpinLockGuard<'_, T, F> {
        // Before the wait: preempted or interrupted between taking the lock and switching off would be too late.
        let entered = Entered::new();
        let held = self.hold(subclass, Location::caller());
        SpinLockGuard::new(held, entered)
    }

    /// Takes the lock, in a task that shows so that it may sleep: the guard borrows the right, and while it lives nothing
    /// that sleeps can be called with it. Otherwise the same as [`lock`](SpinLock::lock).
    ///
    /// Contexts: task.
    ///
    /// ```
    /// use sync::{SpinLock, TaskCx};
    /// fn body(cx: &mut TaskCx, total: &SpinLock<u64>) {
    ///     let guard = total.lock_in(cx);
    ///     // `cx.cond_resched()` would not compile here: it needs what the guard borrows.
    ///     drop(guard);
    ///     cx.cond_resched();
    /// }
    /// # // SAFETY: the test's only token.
    /// # body(&mut unsafe { TaskCx::new() }, &SpinLock::new(0));
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_in<'a>(&'a self, _cx: &'a TaskCx<F::Platform>) -> SpinLockGuard<'a, T, F> {
        self.lock()
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
    pub fn lock_with<'a>(&'a self, proof: &'a (impl Proves<F> + ?Sized)) -> SpinLockWithGuard<'a, T, F> {
        self.lock_with_nested(proof, Subclass::OUTER)
    }

    /// [`lock_with`](SpinLock::lock_with), for the dependency checker as [`lock_nested`](SpinLock::lock_nested).
    ///
    /// ```
    /// use sync::{IrqSpinLock, irq, lockdep::Subclass};
    /// let [parent, child] = [1, 2].map(IrqSpinLock::<u32>::new);
    /// let quiet = irq::disable();
    /// let above = parent.lock_with(&quiet);
    /// *child.lock_with_nested(&quiet, Subclass::NESTED) += *above;
    /// assert_eq!(*child.lock_with_nested(&quiet, Subclass::NESTED), 3);
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_with_nested<'a>(
        &'a self,
        _proof: &'a (impl Proves<F> + ?Sized),
        subclass: Subclass,
    ) -> SpinLockWithGuard<'a, T, F> {
        SpinLockWithGuard::new(self.hold(subclass, Location::caller()))
    }

    /// Takes the lock if that is possible at once: if it is free and nobody waits who has the right of way.
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
        let taken = self.raw.try_lock();
        // Whatever was switched off comes back here if the lock was not taken.
        taken.then(|| SpinLockGuard::new(self.held_now(Location::caller()), entered))
    }

    /// The same, inside of a section whose proof is borrowed, as [`lock_with`](SpinLock::lock_with).
    ///
    /// ```
    /// use sync::{IrqSpinLock, irq};
    /// let lock = IrqSpinLock::new(1);
    /// let quiet = irq::disable();
    /// let first = lock.try_lock_with(&quiet);
    /// assert!(first.is_some() && lock.try_lock_with(&quiet).is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_lock_with<'a>(
        &'a self,
        _proof: &'a (impl Proves<F> + ?Sized),
    ) -> Option<SpinLockWithGuard<'a, T, F>> {
        let taken = self.raw.try_lock();
        taken.then(|| SpinLockWithGuard::new(self.held_now(Location::caller())))
    }

    /// Takes the lock if that is possible within `ns` nanoseconds; gives up no earlier. Giving up leaves everything as it
    /// was.
    ///
    /// It has no place in a line, because it could not leave it, so that under load others are served before it. What
    /// the flavour switches off is on again for a moment every few microseconds of the wait, with a preemption point.
    ///
    /// Linux: none. Contexts: as [`lock`](SpinLock::lock). `ns` is counted on the clock of [`Platform::now_ns`].
    ///
    /// ```
    /// use sync::SpinLock;
    /// let lock = SpinLock::<_>::new(1);
    /// let first = lock.try_lock_for(1_000);
    /// assert!(first.is_some() && lock.try_lock_for(1_000).is_none());
    /// ```
    #[track_caller]
    pub fn try_lock_for(&self, ns: u64) -> Option<SpinLockGuard<'_, T, F>> {
        let at = Location::caller();
        let deadline = F::Platform::now_ns().saturating_add(ns);
        loop {
            let entered = Entered::new();
            let taken = self.raw.lock_while::<F::Platform>(|turns| {
                raw::pause::<F::Platform>(turns);
                turns < TURNS_PER_ATTEMPT
            });
            if taken {
                return Some(SpinLockGuard::new(self.held_now(at), entered));
            }
            drop(entered);
            if F::Platform::now_ns() >= deadline {
                return None;
            }
        }
    }

    /// Whether somebody holds the lock; out of date at once, so good for assertions and statistics only.
    ///
    /// Linux: `spin_is_locked`. Contexts: any.
    ///
    /// ```
    /// # use sync::SpinLock;
    /// let lock = SpinLock::<_>::new(());
    /// let guard = lock.lock();
    /// assert!(lock.is_locked());
    /// drop(guard);
    /// assert!(!lock.is_locked());
    /// ```
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// Says that this CPU holds the lock; debug builds report `spinlock not held` if it does not. For functions whose
    /// callers must hold it. Where a guard can be passed instead, pass it.
    ///
    /// Linux: `lockdep_assert_held`, `assert_spin_locked`. Contexts: any in which this CPU is not changed.
    ///
    /// ```
    /// # use sync::SpinLock;
    /// let lock = SpinLock::<_>::new(());
    /// let _guard = lock.lock();
    /// lock.assert_held();
    /// ```
    #[inline]
    #[track_caller]
    pub fn assert_held(&self) {
        self.owner.assert_here::<F::Platform>(Location::caller());
    }

    /// The data. The exclusive borrow shows that nobody else has the lock.
    ///
    /// ```
    /// # use sync::SpinLock;
    /// let mut lock = SpinLock::<_>::new(1);
    /// *lock.get_mut() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Waits for the lock. What the flavour switches off is off.
    #[inline]
    fn hold(&self, subclass: Subclass, at: &'static Location<'static>) -> Held<'_, T, F> {
        // Before the wait, so that a deadlock is reported before it happens.
        self.map.acquire::<F::Platform>(Acquire { subclass, ..Acquire::WRITE }, at);
        if !self.raw.try_lock() {
            self.wait(at);
        }
        self.owner.set::<F::Platform>(at);
        // SAFETY: acquired just now.
        unsafe { Held::new(self) }
    }

    /// Out of line, and only entered when it is known that there is something to wait for: what is prepared for the wait
    /// costs nothing before.
    #[cold]
    fn wait(&self, at: &'static Location<'static>) {
        let _waiting = Contended::<F::Platform>::begin(self, &self.map);
        let mut watch = Watch::new();
        self.raw.lock::<F::Platform>(|turns| {
            watch.turn::<F::Platform>(&self.owner, turns, at);
            raw::pause::<F::Platform>(turns);
        });
    }

    /// The lock has been taken without waiting for it.
    #[inline]
    fn held_now(&self, at: &'static Location<'static>) -> Held<'_, T, F> {
        self.map.acquire::<F::Platform>(Acquire::TRY_WRITE, at);
        self.owner.set::<F::Platform>(at);
        // SAFETY: the callers have just acquired it.
        unsafe { Held::new(self) }
    }
}

/// How many turns of its wait [`SpinLock::try_lock_for`] keeps things switched off at a time: two or three
/// microseconds, in which no interrupt or other task gets its turn.
const TURNS_PER_ATTEMPT: u32 = 64;

impl<T: Default, F: Flavor> Default for SpinLock<T, F> {
    #[track_caller]
    fn default() -> SpinLock<T, F> {
        SpinLock::new(T::default())
    }
}

impl<T, F: Flavor> From<T> for SpinLock<T, F> {
    #[track_caller]
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
