//! A count of references that never wraps and never comes back from zero.
//!
//! 1. The object starts with one reference. Whoever has one may make another ([`get`](RefCount::get)); whoever gives
//!    the last one up ([`put`](RefCount::put) says so) destroys the object.
//! 2. A lookup that finds the object without having a reference, in a table that does not count, asks with
//!    [`try_get`](RefCount::try_get): it fails if the object is being destroyed already.
//! 3. A program that forgets to give up references would, after 2^32 of them, destroy an object in use. Here the count
//!    stops at [`MAX`](RefCount::MAX), reports, and stays: the object is never destroyed. A leak, and not a use after
//!    free. The same happens when the count is found at 0 by somebody who claims to have a reference.
//!
//! `Arc` does the first two in a shape of its own (and aborts at overflow). This is for objects that bring their count
//! with them: in lists that do not count, in tables that are read under RCU, with a lock to take for the last reference.
//! Where all CPUs count at once, see [`PerCpuRef`](crate::PerCpuRef).

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use hal::platform::{Report, Severity};
use hal::{Native, Platform};

use crate::Flavor;
use crate::primitives::{AtomicU32, Ordering, const_fn, fence};
use crate::spin::{SpinLock, SpinLockGuard};

/// The most references that are counted: the lower half of the range.
const MAX: u32 = i32::MAX as u32;

/// Where a count goes that has left its range: far from both ends, so that no number of CPUs in the middle of an
/// operation gets it out of the upper half again.
const SATURATED: u32 = 3 << 30;

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(crate) trait Rules {
    /// How a reference is given up.
    const PUT: Ordering = Ordering::Release;
    /// Whether the last one orders itself behind the others.
    const FENCE_AT_ZERO: bool = true;
    /// Whether `try_get` refuses at 0.
    const UNLESS_ZERO: bool = true;
}

/// The protocol as described.
pub(crate) enum Sound {}

impl Rules for Sound {}

/// What is wrong with a count. Turned into a report by the public functions themselves: a closure would not know their
/// callers' lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    FromZero,
    Overflow,
    Underflow,
}

/// The count and its orderings.
///
/// # Invariants
/// * 0: the object is being destroyed, by whoever brought the count there, and by nobody else: nothing leads away from
///   it but a fault, which leads to saturation.
/// * The lower half of the range: that many references are out.
/// * The upper half: saturated. Stays so.
pub(crate) struct Counter<R: Rules = Sound> {
    count: AtomicU32,
    rules: PhantomData<fn() -> R>,
}

impl<R: Rules> Counter<R> {
    const_fn! {
        pub(crate) fn new(count: u32) -> Counter<R> {
            Counter { count: AtomicU32::new(count), rules: PhantomData }
        }
    }

    #[inline]
    fn load(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    #[inline]
    fn get(&self) -> Result<(), Fault> {
        // Relaxed: who makes a reference has one, through which it sees the object.
        match self.count.fetch_add(1, Ordering::Relaxed) {
            1..MAX => Ok(()),
            0 => Err(self.saturate(Fault::FromZero)),
            MAX => Err(self.saturate(Fault::Overflow)),
            _ => self.stay_saturated(),
        }
    }

    #[inline]
    fn try_get(&self) -> Result<bool, Fault> {
        let mut count = self.load();
        loop {
            if R::UNLESS_ZERO && count == 0 {
                return Ok(false);
            }
            if count > MAX {
                return Ok(true);
            }
            // Acquire: pairs with the Release of `put` and with whatever published the object: the finder sees what was
            // done to it under references that have been given up since.
            match self.count.compare_exchange(count, count + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(MAX) => return Err(self.saturate(Fault::Overflow)),
                Ok(_) => return Ok(true),
                Err(now) => count = now,
            }
        }
    }

    /// Whether that was the last reference.
    #[inline]
    fn put(&self) -> Result<bool, Fault> {
        // Release: pairs with the Acquire fence below, in the last `put`: what was done under this reference happens
        // before the destruction. The subtractions in between continue the release sequence.
        match self.count.fetch_sub(1, R::PUT) {
            1 => {
                self.come_after_all();
                Ok(true)
            }
            2..=MAX => Ok(false),
            0 => Err(self.saturate(Fault::Underflow)),
            _ => self.stay_saturated().map(|()| false),
        }
    }

    /// Gives up a reference that is not the last one; whether it was not.
    #[inline]
    fn put_unless_last(&self) -> Result<bool, Fault> {
        let mut count = self.load();
        loop {
            match count {
                1 => return Ok(false),
                0 => return Err(self.saturate(Fault::Underflow)),
                2..=MAX => (),
                _ => return Ok(true),
            }
            // Release: as in `put`.
            match self.count.compare_exchange(count, count - 1, R::PUT, Ordering::Relaxed) {
                Ok(_) => return Ok(true),
                Err(now) => count = now,
            }
        }
    }

    /// What the others did under their references happens before what follows.
    #[inline]
    fn come_after_all(&self) {
        if R::FENCE_AT_ZERO {
            // Acquire: pairs with the Release in each `put`.
            fence(Ordering::Acquire);
        }
    }

    #[cold]
    fn saturate(&self, fault: Fault) -> Fault {
        self.count.store(SATURATED, Ordering::Relaxed);
        fault
    }

    /// Undoes an addition to, or a subtraction from, a saturated count. It was reported when it got there.
    #[cold]
    fn stay_saturated(&self) -> Result<(), Fault> {
        self.count.store(SATURATED, Ordering::Relaxed);
        Ok(())
    }
}

/// How many references to an object are out. Part of the object.
///
/// The operations may be called in every context, NMI too, except [`put_and_lock`](Self::put_and_lock), and cost one
/// atomic read-modify-write each.
///
/// Linux: `refcount_t`, `kref`. Size: 4 bytes.
///
/// ```
/// use core::sync::atomic::{AtomicBool, Ordering};
/// use sync::RefCount;
///
/// struct Session {
///     refs: RefCount,
///     closed: AtomicBool,
/// }
/// impl Session {
///     fn put(&self) {
///         if self.refs.put() {
///             self.closed.store(true, Ordering::Relaxed); // nobody else is here any more
///         }
///     }
/// }
/// let session = Session { refs: RefCount::new(), closed: AtomicBool::new(false) };
/// session.refs.get();
/// session.put();
/// assert!(!session.closed.load(Ordering::Relaxed));
/// session.put();
/// assert!(session.closed.load(Ordering::Relaxed));
/// assert!(!session.refs.try_get(), "too late");
/// ```
pub struct RefCount<P = Native> {
    counter: Counter,
    platform: PhantomData<fn() -> P>,
}

impl<P> RefCount<P> {
    /// The most references that are counted.
    ///
    /// ```
    /// use sync::RefCount;
    /// let refs: RefCount = RefCount::with_count(RefCount::<hal::Native>::MAX);
    /// assert_eq!(refs.count(), 2_147_483_647);
    /// refs.get(); // one too many
    /// assert!(refs.is_saturated());
    /// ```
    pub const MAX: u32 = MAX;
}

impl<P: Platform> RefCount<P> {
    const_fn! {
        /// One reference: the creator's. Linux: `REFCOUNT_INIT(1)`.
        ///
        /// ```
        /// let refs: sync::RefCount = sync::RefCount::new();
        /// assert_eq!(refs.count(), 1);
        /// assert!(refs.put(), "there is no other");
        /// ```
        pub fn new() -> RefCount<P> {
            RefCount { counter: Counter::new(1), platform: PhantomData }
        }

        /// `count` references, at most [`MAX`](RefCount::MAX); 0 for an object that does not live yet, and comes to life
        /// with [`revive`](RefCount::revive). Linux: `REFCOUNT_INIT(count)`.
        ///
        /// ```
        /// let refs: sync::RefCount = sync::RefCount::with_count(2);
        /// assert!(!refs.put() && refs.put());
        /// ```
        pub fn with_count(count: u32) -> RefCount<P> {
            assert!(count <= MAX, "at most 2^31 - 1 references");
            RefCount { counter: Counter::new(count), platform: PhantomData }
        }
    }

    /// Makes a reference, for somebody who has one.
    ///
    /// Linux: `refcount_inc`. Reports `refcount: increment on 0; use after free` and `refcount: overflow; memory will
    /// leak`, and saturates.
    ///
    /// ```
    /// let refs: sync::RefCount = sync::RefCount::new();
    /// refs.get();
    /// assert_eq!(refs.count(), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn get(&self) {
        if let Err(fault) = self.counter.get() {
            report::<P>(fault);
        }
    }

    /// Makes a reference unless the last one has been given up; whether it did.
    ///
    /// The memory of the count must be there: that a table's entry is not freed while it is looked up is the table's
    /// business (its lock, or RCU). Linux: `refcount_inc_not_zero`, `kref_get_unless_zero`. Reports as
    /// [`get`](Self::get).
    ///
    /// ```
    /// let refs: sync::RefCount = sync::RefCount::new();
    /// assert!(refs.try_get());
    /// assert!(!refs.put() && refs.put());
    /// assert!(!refs.try_get(), "nothing leads back from 0");
    /// ```
    #[inline]
    #[track_caller]
    #[must_use = "without a reference the object may be destroyed at any time"]
    pub fn try_get(&self) -> bool {
        match self.counter.try_get() {
            Ok(answer) => answer,
            Err(fault) => {
                report::<P>(fault);
                true
            }
        }
    }

    /// Gives a reference up; whether it was the last one, and the caller has to destroy the object. Everything that
    /// was done under other references happened before.
    ///
    /// Linux: `refcount_dec_and_test`. Reports `refcount: underflow; use after free`, and saturates.
    ///
    /// ```
    /// let refs: sync::RefCount = sync::RefCount::new();
    /// refs.get();
    /// assert!(!refs.put(), "the creator has one still");
    /// assert!(refs.put());
    /// ```
    #[inline]
    #[track_caller]
    #[must_use = "whoever gives up the last reference destroys the object"]
    pub fn put(&self) -> bool {
        match self.counter.put() {
            Ok(answer) => answer,
            Err(fault) => {
                report::<P>(fault);
                false
            }
        }
    }

    /// Gives a reference up unless it is the last one; whether it did. Linux: `refcount_dec_not_one`. Reports as
    /// [`put`](Self::put).
    ///
    /// ```
    /// let refs: sync::RefCount = sync::RefCount::with_count(2);
    /// assert!(refs.put_unless_last());
    /// assert!(!refs.put_unless_last());
    /// assert_eq!(refs.count(), 1);
    /// ```
    #[inline]
    #[track_caller]
    #[must_use = "if it was the last reference it is still there"]
    pub fn put_unless_last(&self) -> bool {
        match self.counter.put_unless_last() {
            Ok(answer) => answer,
            Err(fault) => {
                report::<P>(fault);
                true
            }
        }
    }

    /// Gives a reference up, and if it was the last one returns with `lock` held: nobody who looks the object up under
    /// the lock finds it with a count of 0, if the caller takes it out of the table before it lets go.
    ///
    /// Takes the lock only if the reference is, or may be, the last one. Contexts: as [`SpinLock::lock`]. Linux:
    /// `refcount_dec_and_lock`, `.._irqsave` by the lock's flavour.
    ///
    /// ```
    /// use sync::{RefCount, SpinLock};
    ///
    /// let table: SpinLock<Vec<u32>> = SpinLock::new(vec![7]);
    /// let refs: RefCount = RefCount::with_count(2);
    /// assert!(refs.put_and_lock(&table).is_none());
    /// if let Some(mut table) = refs.put_and_lock(&table) {
    ///     table.retain(|key| *key != 7);
    /// }
    /// assert!(table.into_inner().is_empty());
    /// ```
    #[track_caller]
    pub fn put_and_lock<'a, T: ?Sized, F: Flavor>(
        &self,
        lock: &'a SpinLock<T, F>,
    ) -> Option<SpinLockGuard<'a, T, F>> {
        if self.put_unless_last() {
            return None;
        }
        let guard = lock.lock();
        self.put().then_some(guard)
    }

    /// Gives an object that has no references one again, for somebody who alone has it: out of a pool of free ones.
    ///
    /// What was done to the object before is visible to those whose [`try_get`](Self::try_get) succeeds afterwards.
    /// Linux: `refcount_set`. A count that is not 0 is left alone and reported: `refcount: revived with N references`.
    ///
    /// ```
    /// let refs: sync::RefCount = sync::RefCount::with_count(0); // of an object in a pool
    /// assert!(!refs.try_get());
    /// refs.revive();
    /// assert!(refs.try_get());
    /// assert_eq!(refs.count(), 2);
    /// ```
    #[track_caller]
    pub fn revive(&self) {
        // Release: pairs with the Acquire in `try_get`.
        let was = self.counter.count.compare_exchange(0, 1, Ordering::Release, Ordering::Relaxed);
        if let Err(count) = was {
            let message = format_args!("refcount: revived with {count} references");
            P::report(&Report { severity: Severity::Bug, message, location: Location::caller() });
        }
    }

    /// How many references are out; out of date at once. [`is_saturated`](Self::is_saturated) counts say nothing.
    /// Linux: `refcount_read`.
    ///
    /// ```
    /// let refs: sync::RefCount = sync::RefCount::with_count(3);
    /// assert!(!refs.put());
    /// assert_eq!(refs.count(), 2);
    /// ```
    pub fn count(&self) -> u32 {
        self.counter.load()
    }

    /// Whether the count has left its range, and the object stays for ever.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let reports = hal::hosted::ReportCapture::new();
    /// let refs: sync::RefCount = sync::RefCount::new();
    /// assert!(refs.put() && !refs.is_saturated());
    /// assert!(!refs.put(), "once too often");
    /// assert!(refs.is_saturated());
    /// assert_eq!(reports.take()[0].message, "refcount: underflow; use after free");
    /// ```
    pub fn is_saturated(&self) -> bool {
        self.counter.load() > RefCount::<P>::MAX
    }
}

#[cold]
#[track_caller]
fn report<P: Platform>(fault: Fault) {
    let message = match fault {
        Fault::FromZero => "refcount: increment on 0; use after free",
        Fault::Overflow => "refcount: overflow; memory will leak",
        Fault::Underflow => "refcount: underflow; use after free",
    };
    P::report(&Report {
        severity: Severity::Bug,
        message: format_args!("{message}"),
        location: Location::caller(),
    });
}

impl<P: Platform> Default for RefCount<P> {
    fn default() -> RefCount<P> {
        RefCount::new()
    }
}

impl<P> fmt::Debug for RefCount<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RefCount").field(&self.counter.load()).finish()
    }
}

#[cfg(all(test, loom))]
#[path = "refcount_models.rs"]
mod models;
