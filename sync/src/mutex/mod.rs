//! Mutual exclusion between tasks, by sleeping.
//!
//! 1. One word names the owner. Free is 0, and taking it or letting go of it uncontended is one compare-and-swap.
//! 2. Who finds it taken looks whether the owner *runs*. If so the section will probably end sooner than a task could go
//!    to sleep and come back, so one task at a time watches and takes the mutex as it comes free; others wait for their
//!    turn to watch, for some milliseconds. Between two looks either lets the owner's CPU have the cache line for a while.
//! 3. Everybody else stands in line and sleeps. As long as somebody watches, the mutex goes from task to task without
//!    a thought for them: waking one costs more than many short sections, and would take the time of a CPU from those
//!    that make progress. That goes on for 250 us from when a waiter became the first in line; then nobody
//!    begins to watch until that one has had the mutex. Who waits for a turn goes on waiting for it, and does not join:
//!    a line that all join does not end.
//! 4. Letting go with a line and nobody who watches wakes the first in it, which then competes with whoever comes by:
//!    the mutex need not wait for a task that has yet to be scheduled.
//! 5. The first in line that competed once and lost becomes impatient, and the next owner *hands over* to it: the word
//!    goes from name to name and is never free in between. Until then it watches, if the owner runs, so that it is on its
//!    CPU when its turn comes.
//!
//! **Fairness**: among those that watch, or wait for their turn to, there is no order; who has looked so often without a turn
//! joins the line. From the moment it is first in line, a waiter is passed by those that watch, for those 250 us and one
//! section; by those that take the mutex before it has been scheduled for the wake-up that follows; and by at most one owner
//! after that. The line is in order of arrival.
//!
//! # Invariants
//! * **M1**: the owner bits of the word name the task that holds the mutex, and only that task, or (handing over) its
//!   unlock, changes them from non-zero.
//! * **M2**: while somebody is in line, `WAITERS` is set, from before it first sleeps; so no owner lets go without looking
//!   at the line, or knowing of somebody who watches or was woken.
//! * **M3**: who ends its watch without the mutex says so first, and then joins the line and looks once more. An owner that
//!   leaves the mutex to a watcher lets go first, and then looks whether that one is still there. One of them sees the
//!   other.
//! * **M4**: `WOKEN` is set only while the first in line is awake and has yet to look at the word, under the line's lock and
//!   after it has cleared the flag.
//! * **M5**: `ONWARD` is set only while the first in line is impatient; then nobody but that one takes a free mutex.

mod slow;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::platform::TaskId;
use hal::{Native, Platform};

use crate::faults::{Fault, is_planted};
use crate::lockdep::{Acquire, Level, Map, WaitType};
use crate::primitives::{AtomicBool, AtomicU32, AtomicUsize, Ordering, const_fn};
use crate::spin::SpinLock;
use crate::wait::{Limits, WaitError, Waiters};
use crate::{Task, TaskCx};

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
    /// From when on the line is not to be passed any more. Written with the line's lock, when another one becomes its first.
    due: AtomicU32,
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
                due: AtomicU32::new(0),
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
        slow::owner(self.word.load(Ordering::Relaxed))
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
