//! Mutual exclusion between tasks, by sleeping.
//!
//! 1. One word names the owner. Free is 0, and taking it or letting go of it uncontended is one compare-and-swap.
//! 2. Who finds it taken looks whether the owner *runs*. If so the section will probably end sooner than a task could go
//!    to sleep and come back, so one task at a time watches and takes the mutex as it comes free.
//! 3. Everybody else stands in line and sleeps. Letting go with a line wakes the first in it, which then competes with
//!    whoever comes by: the mutex need not wait for a task that has yet to be scheduled.
//! 4. The first in line that competed once and lost becomes impatient, and the next owner *hands over* to it: the word
//!    goes from name to name and is never free in between.
//!
//! **Fairness**: from the moment it is first in line, a waiter is passed by those that take the mutex before it has been
//! scheduled for the first wake-up, and by at most one owner after that. The line is in order of arrival.
//!
//! # Invariants
//! * **M1**: the owner bits of the word name the task that holds the mutex, and only that task, or (handing over) its
//!   unlock, changes them from non-zero.
//! * **M2**: while somebody is in line, `WAITERS` is set, from before it first sleeps; so no owner lets go without looking
//!   at the line.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::platform::{Report, Severity, TaskId};
use hal::{CpuId, Native, Platform};

use crate::contention::Contended;
use crate::faults::{Fault, is_planted};
use crate::lockdep::{Acquire, Level, Map, WaitType};
use crate::primitives::{AtomicBool, AtomicUsize, Ordering, const_fn};
use crate::spin::SpinLock;
use crate::wait::{Limits, Place, Request, WaitError, Waiters, Woken, itself, sleep_once, with_place};
use crate::{Task, TaskCx};

/// Somebody is in line. In the bits that a task's name leaves free.
const WAITERS: usize = 1;
const FLAGS: usize = TaskId::ALIGN - 1;

/// A waiter that has not competed yet.
const PATIENT: u8 = 0;
/// One that has, and lost: the next owner hands over to it.
const IMPATIENT: u8 = 1;

/// Mutual exclusion between tasks around a `T`; who waits for it sleeps.
///
/// For sections that are long, or that block themselves. Where an interrupt handler takes part, or nothing may sleep, use
/// a [`SpinLock`]. Whoever locks it unlocks it; to tell another task something use a [`Completion`](crate::Completion).
///
/// Linux: `struct mutex`. Cost uncontended: one atomic read-modify-write to lock and one to unlock. Size: two words, a
/// spin lock, three words and the data; more in debug builds.
///
/// ```
/// use sync::{Mutex, TaskCx};
/// static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());
///
/// // SAFETY: this thread is a task, and this its only token.
/// let mut cx = unsafe { TaskCx::new() };
/// NAMES.lock(&mut cx).push("quiesce".into());
/// assert_eq!(NAMES.lock(&mut cx).len(), 1);
/// ```
pub struct Mutex<T: ?Sized, P: Platform = Native> {
    /// The owner's name, and flags.
    word: AtomicUsize,
    /// A task is watching a running owner.
    spinner: AtomicBool,
    map: Map,
    line: SpinLock<Waiters<P>, Task<P>>,
    data: UnsafeCell<T>,
}

// SAFETY: `&Mutex` gives the `T` to one task at a time, which amounts to sending it there.
unsafe impl<T: ?Sized + Send, P: Platform> Sync for Mutex<T, P> {}
// SAFETY: the mutex owns its `T`; its line is empty while it is moved, because waiters borrow it.
unsafe impl<T: ?Sized + Send, P: Platform> Send for Mutex<T, P> {}

/// A [`Mutex`] is held while this value lives; gives access to the data. Dropping it unlocks.
///
/// Not `Send`: the task that locks it unlocks it.
///
/// # Invariants
/// The mutex is held by the task that owns the value.
///
/// ```
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let mutex: sync::Mutex<u32> = sync::Mutex::new(1);
/// let mut guard = mutex.lock(&mut cx);
/// *guard += 1;
/// assert!(mutex.is_locked());
/// drop(guard);
/// assert!(!mutex.is_locked());
/// ```
#[must_use = "the mutex is unlocked as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct MutexGuard<'a, T: ?Sized, P: Platform = Native> {
    mutex: &'a Mutex<T, P>,
    _task_bound: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync, P: Platform> Sync for MutexGuard<'_, T, P> {}

impl<T, P: Platform> Mutex<T, P> {
    const_fn! {
        /// A mutex around `value` that nobody holds.
        ///
        /// ```
        /// static COUNT: sync::Mutex<u32> = sync::Mutex::new(5);
        /// assert!(!COUNT.is_locked());
        /// assert_eq!(COUNT.try_lock().as_deref(), Some(&5));
        /// ```
        #[track_caller]
        pub fn new(value: T) -> Mutex<T, P> {
            Mutex {
                word: AtomicUsize::new(0),
                spinner: AtomicBool::new(false),
                map: Map::new(WaitType::Sleep, Level::Task),
                line: SpinLock::new(Waiters::new()),
                data: UnsafeCell::new(value),
            }
        }
    }

    /// The data, of a mutex that nobody can hold any more.
    ///
    /// ```
    /// assert_eq!(sync::Mutex::<u32>::new(5).into_inner(), 5);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, P: Platform> Mutex<T, P> {
    /// Takes the mutex, sleeping until it is free.
    ///
    /// Linux: `mutex_lock`. Contexts: task, with nothing held that forbids sleeping. A task that holds it already waits
    /// for ever, which is reported.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let mutex: sync::Mutex<u32> = sync::Mutex::new(1);
    /// let guard = mutex.lock(&mut cx);
    /// assert!(mutex.try_lock().is_none());
    /// drop(guard);
    /// *mutex.lock(&mut cx) += 1;
    /// assert_eq!(mutex.into_inner(), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock(&self, cx: &mut TaskCx<P>) -> MutexGuard<'_, T, P> {
        let at = Location::caller();
        cx.might_sleep();
        self.map.acquire::<P>(Acquire::WRITE, at);
        if !self.take_free(P::current_task()) {
            let result = self.lock_slow(Limits::NONE, cx, at);
            debug_assert!(result.is_ok(), "there is no limit to end the wait");
        }
        MutexGuard::new(self)
    }

    /// Takes the mutex, sleeping until it is free or a limit is reached.
    ///
    /// Linux: `mutex_lock_interruptible`. Contexts: as [`lock`](Mutex::lock).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::wait::{Limits, WaitError};
    /// let mutex = sync::Mutex::<u32>::new(1);
    /// let held = mutex.try_lock();
    /// # std::thread::scope(|scope| { scope.spawn(|| {
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// // In another task, which has no patience at all:
    /// assert_eq!(mutex.lock_with(Limits::NONE.until(0), &mut cx).map(|guard| *guard), Err(WaitError::TimedOut));
    /// # }); });
    /// # drop(held);
    /// assert_eq!(mutex.lock_with(Limits::NONE, &mut cx).map(|guard| *guard), Ok(1));
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_with(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<MutexGuard<'_, T, P>, WaitError> {
        let at = Location::caller();
        cx.might_sleep();
        self.map.acquire::<P>(Acquire::WRITE, at);
        if !self.take_free(P::current_task()) {
            self.lock_slow(limits, cx, at).inspect_err(|_| self.map.release::<P>(at))?;
        }
        Ok(MutexGuard::new(self))
    }

    /// Takes the mutex if it is free.
    ///
    /// Linux: `mutex_trylock`. Contexts: task.
    ///
    /// ```
    /// let mutex = sync::Mutex::<u32>::new(1);
    /// let first = mutex.try_lock();
    /// assert!(first.is_some() && mutex.try_lock().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T, P>> {
        let me = P::current_task();
        if !self.take_free(me) && !self.take_waited_for(me) {
            return None;
        }
        self.map.acquire::<P>(Acquire::TRY_WRITE, Location::caller());
        Some(MutexGuard::new(self))
    }

    /// Whether somebody holds the mutex; out of date at once. Linux: `mutex_is_locked`. Contexts: any.
    ///
    /// ```
    /// let mutex = sync::Mutex::<u32>::new(1);
    /// let guard = mutex.try_lock();
    /// assert!(mutex.is_locked());
    /// drop(guard);
    /// assert!(!mutex.is_locked());
    /// ```
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.owner().is_some()
    }

    /// The task that holds the mutex; out of date at once, unless it is the caller. Contexts: any.
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// let mutex = sync::Mutex::<u32>::new(1);
    /// assert_eq!(mutex.owner(), None);
    /// let _guard = mutex.try_lock();
    /// assert_eq!(mutex.owner(), Some(Native::current_task()));
    /// ```
    #[inline]
    pub fn owner(&self) -> Option<TaskId> {
        owner(self.word.load(Ordering::Relaxed))
    }

    /// The data. The exclusive borrow shows that nobody else has the mutex.
    ///
    /// ```
    /// let mut mutex = sync::Mutex::<u32>::new(1);
    /// *mutex.get_mut() += 1;
    /// assert_eq!(mutex.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Takes a mutex that is free and has no line.
    #[inline(always)]
    fn take_free(&self, me: TaskId) -> bool {
        // Acquire: pairs with the Release in `unlock`.
        self.word.compare_exchange(0, me.0.get(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes a mutex that is free and has a line.
    fn take_waited_for(&self, me: TaskId) -> bool {
        let taken = me.0.get() | WAITERS;
        // Acquire: pairs with the Release in `unlock_slow`.
        self.word.compare_exchange(WAITERS, taken, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn lock_slow(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        at: &'static Location<'static>,
    ) -> Result<(), WaitError> {
        let _waiting = Contended::<P>::begin(self, &self.map);
        let me = P::current_task();
        if self.owner() == Some(me) {
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!("mutex recursion: the task waits for a mutex that it holds"),
                location: at,
            });
        }
        if self.watch_owner(me, limits) {
            return Ok(());
        }
        with_place(&self.line, itself, Request::of_kind(PATIENT), |place| {
            let mut line = self.line.lock();
            place.join(&mut line);
            // M2. Relaxed: the word's own order is enough, an owner that lets go either sees the flag or is seen to have
            // let go by the look below.
            self.word.fetch_or(WAITERS, Ordering::Relaxed);
            if is_planted(Fault::AnnounceAndSleep) {
                drop(line);
                (line, _) = sleep_once(place, Limits::NONE, cx);
            }
            loop {
                if self.take_in_line(me) {
                    self.leave(place, &mut line);
                    return Ok(());
                }
                drop(line);
                let woken;
                (line, woken) = sleep_once(place, limits, cx);
                match woken {
                    Woken::GaveUp(error) => return self.give_up(me, &mut line, error),
                    // Woken as the first in line and passed over by somebody: that happens once.
                    _ if self.owner().is_some_and(|owner| owner != me) && place.is_first(&mut line) => {
                        place.set_kind(IMPATIENT, &mut line);
                    }
                    _ => (),
                }
            }
        })
    }

    /// Takes the mutex as a waiter, if it is free or was handed over.
    fn take_in_line(&self, me: TaskId) -> bool {
        self.was_handed_over(me) || self.take_waited_for(me)
    }

    /// As the owner, with the line's lock: leaves the line.
    fn leave(&self, place: &Place<'_, Waiters<P>, Task<P>>, line: &mut Waiters<P>) {
        place.leave(line);
        self.note_empty(line);
    }

    /// With the line's lock: takes back `WAITERS` if nobody is in line.
    fn note_empty(&self, line: &Waiters<P>) {
        if line.is_empty() {
            // Relaxed: nothing is passed on by the flag.
            self.word.fetch_and(!WAITERS, Ordering::Relaxed);
        }
    }

    /// A limit was reached. The task has left the line, but may have been given the mutex, or the wake-up for it, before.
    fn give_up(&self, me: TaskId, line: &mut Waiters<P>, error: WaitError) -> Result<(), WaitError> {
        if self.was_handed_over(me) {
            self.note_empty(line);
            return Ok(());
        }
        self.note_empty(line);
        if self.owner().is_none() && !is_planted(Fault::GiveUpSilently) {
            line.wake_front();
        }
        Err(error)
    }

    /// Whether the last owner made `me`, which waits, the next.
    fn was_handed_over(&self, me: TaskId) -> bool {
        // Acquire: pairs with the Release in `unlock_slow`.
        owner(self.word.load(Ordering::Acquire)) == Some(me)
    }

    /// Watches the owner while it runs, to take the mutex as it comes free. Returns whether it was taken. A limit that is
    /// reached ends the watch too: an owner may run for long.
    fn watch_owner(&self, me: TaskId, limits: Limits) -> bool {
        // One at a time: more would fight for the word with the owner. Relaxed: a hint.
        if self.spinner.swap(true, Ordering::Relaxed) {
            return false;
        }
        let mut on = None;
        let taken = loop {
            P::chaos_point();
            match self.owner() {
                None if self.take_free(me) || self.take_waited_for(me) => break true,
                None => (),
                Some(owner) => {
                    on = runs_on::<P>(owner, on);
                    // Whoever has been asked to make room should not burn its time here.
                    if on.is_none() || P::context().resched_due() || limits.are_reached::<P>() {
                        break false;
                    }
                }
            }
            P::relax();
        };
        self.spinner.store(false, Ordering::Relaxed);
        taken
    }

    /// # Safety
    /// The caller holds the mutex, and with this call ends its claim to it.
    #[inline]
    unsafe fn unlock(&self) {
        let me = P::current_task();
        if is_planted(Fault::UnlockBlindly) {
            return self.word.store(0, Ordering::Release);
        }
        // Release: pairs with the Acquire in `take_free`, `take_waited_for`.
        if self.word.compare_exchange(me.0.get(), 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.unlock_slow();
        }
    }

    /// There is a line.
    #[cold]
    fn unlock_slow(&self) {
        let line = self.line.lock();
        let next = match line.front_kind() {
            Some(IMPATIENT) => line.front_task().map_or(0, |task| task.0.get()) | WAITERS,
            Some(_) => WAITERS,
            None => 0,
        };
        P::chaos_point();
        // Release: pairs with the Acquire in `take_in_line`, `take_waited_for`, `take_free`. A store, not a
        // read-modify-write: with the line's lock and as the owner nobody else changes the word.
        self.word.store(next, Ordering::Release);
        line.wake_front();
    }
}

/// The task that a word names.
fn owner(word: usize) -> Option<TaskId> {
    core::num::NonZeroUsize::new(word & !FLAGS).map(TaskId)
}

/// The CPU on which `task` runs at this moment; `hint` is where it was seen last.
fn runs_on<P: Platform>(task: TaskId, hint: Option<CpuId>) -> Option<CpuId> {
    let runs = |cpu: &CpuId| P::running_on(*cpu) == Some(task);
    hint.filter(runs).or_else(|| (0..P::cpu_count()).filter_map(CpuId::new).find(runs))
}

impl<'a, T: ?Sized, P: Platform> MutexGuard<'a, T, P> {
    /// The caller has just taken the mutex.
    #[inline(always)]
    fn new(mutex: &'a Mutex<T, P>) -> MutexGuard<'a, T, P> {
        MutexGuard { mutex, _task_bound: PhantomData }
    }

    /// The mutex that is held.
    #[inline(always)]
    pub(crate) fn mutex(&self) -> &'a Mutex<T, P> {
        self.mutex
    }
}

impl<T: ?Sized, P: Platform> Drop for MutexGuard<'_, T, P> {
    #[inline]
    #[track_caller]
    fn drop(&mut self) {
        self.mutex.map.release::<P>(Location::caller());
        // SAFETY: by the invariant this task holds the mutex, and with this value ends the claim.
        unsafe { self.mutex.unlock() }
    }
}

impl<T: ?Sized, P: Platform> Deref for MutexGuard<'_, T, P> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant no other task has access; `&self` allows nobody `&mut T` meanwhile.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized, P: Platform> DerefMut for MutexGuard<'_, T, P> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the invariant no other task has access; `&mut self` makes this the only reference.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized + fmt::Debug, P: Platform> fmt::Debug for MutexGuard<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Debug, P: Platform> fmt::Debug for Mutex<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Mutex");
        match self.try_lock() {
            Some(guard) => s.field("data", &&*guard),
            None => s.field("data", &format_args!("<locked>")),
        };
        s.finish()
    }
}

impl<T: Default, P: Platform> Default for Mutex<T, P> {
    #[track_caller]
    fn default() -> Mutex<T, P> {
        Mutex::new(T::default())
    }
}
