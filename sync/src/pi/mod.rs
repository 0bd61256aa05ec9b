//! Mutual exclusion between tasks of different priorities: who holds up an urgent task becomes as urgent.
//!
//! A task of low priority holds a mutex, an urgent one waits for it, and tasks between the two, which want neither, keep
//! the first from running: so the urgent task waits for all of them, and nothing bounds how long. That is *priority
//! inversion*. Here
//!
//! 1. the owner of a mutex **inherits** the priority of the most urgent task in line, and passes it on to the owner of
//!    what it waits for itself, and so on;
//! 2. the mutex is handed over to the most urgent in line, first come first served among equals, and is never free while
//!    somebody waits: nobody of the same or a lesser priority passes a waiter;
//! 3. with the hand-over the old owner loses what it inherited by this mutex, and keeps what others give it.
//!
//! So an urgent task waits for at most the sections of those that hold, at that moment, the mutexes on the way; not for
//! what else runs. The price against a [`Mutex`](crate::Mutex) is that nobody spins for a running owner, and that a mutex
//! goes to a task that has yet to be scheduled, while others who would run could not take it.
//!
//! What a priority is and what inheriting means for scheduling is the platform's: [`Platform::priority_of`],
//! [`Platform::set_inherited_priority`], and [`Platform::inheritance`], which gives an [`Inheritance`] for each task. On a
//! platform without them, such as host threads, the mutex is first come first served and otherwise the same.
//!
//! A task that begins to wait for a mutex whose owner waits for it, directly or through others, is reported.
//!
//! Read in this order: this file (the typed mutex), `raw.rs` (word and line), `inheritance.rs` (the chain).

mod inheritance;
#[cfg(all(test, loom))]
mod models;
mod raw;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::platform::TaskId;
use hal::{Native, Platform};

use crate::TaskCx;
use crate::contention::Contended;
use crate::lockdep::{Acquire, Level, Map, WaitType};
use crate::primitives::const_fn;
use crate::wait::{Limits, WaitError};
pub use inheritance::{Inheritance, priority_changed};
use raw::Raw;

/// Mutual exclusion between tasks around a `T`, whose owner inherits the priority of those that wait for it.
///
/// For what tasks of real-time priority share with others; elsewhere a [`Mutex`](crate::Mutex) has the better
/// throughput. [The module](self) says what is inherited.
///
/// Linux: `struct rt_mutex`. Cost uncontended: one atomic read-modify-write to lock and one to unlock, and a counter of
/// the task's. A wait costs O(tasks in the lines along the chain). Size: a word, a spin lock, six words and the data; more
/// in debug builds.
///
/// ```
/// use sync::{PiMutex, TaskCx};
/// static POSITION: PiMutex<(u32, u32)> = PiMutex::new((0, 0));
///
/// // SAFETY: this thread is a task, and this its only token.
/// let mut cx = unsafe { TaskCx::new() };
/// *POSITION.lock(&mut cx) = (3, 4);
/// assert_eq!(POSITION.lock(&mut cx).1, 4);
/// ```
pub struct PiMutex<T: ?Sized, P: Platform = Native> {
    raw: Raw<P>,
    map: Map,
    data: UnsafeCell<T>,
}

// SAFETY: `&PiMutex` gives the `T` to one task at a time, which amounts to sending it there.
unsafe impl<T: ?Sized + Send, P: Platform> Sync for PiMutex<T, P> {}
// SAFETY: the mutex owns its `T`; its line is empty while it is moved, because waiters borrow it.
unsafe impl<T: ?Sized + Send, P: Platform> Send for PiMutex<T, P> {}

/// A [`PiMutex`] is held while this value lives; gives access to the data. Dropping it unlocks.
///
/// Not `Send`: the task that locks it unlocks it. A task that ends after having leaked one stops the machine with a
/// report, on platforms with inheritance.
///
/// # Invariants
/// The mutex is held by the task that owns the value.
///
/// ```
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let mutex: sync::PiMutex<u32> = sync::PiMutex::new(1);
/// let mut guard = mutex.lock(&mut cx);
/// *guard += 1;
/// assert!(mutex.try_lock().is_none());
/// drop(guard);
/// assert_eq!(mutex.try_lock().as_deref(), Some(&2));
/// ```
#[must_use = "the mutex is unlocked as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct PiMutexGuard<'a, T: ?Sized, P: Platform = Native> {
    mutex: &'a PiMutex<T, P>,
    _task_bound: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync, P: Platform> Sync for PiMutexGuard<'_, T, P> {}

impl<T, P: Platform> PiMutex<T, P> {
    const_fn! {
        /// A mutex around `value` that nobody holds. Linux: `rt_mutex_init`. A constant expression.
        ///
        /// ```
        /// static POSITION: sync::PiMutex<[u32; 2]> = sync::PiMutex::new([3, 4]);
        /// assert_eq!(POSITION.try_lock().as_deref(), Some(&[3, 4]));
        /// ```
        #[track_caller]
        pub fn new(value: T) -> PiMutex<T, P> {
            PiMutex {
                raw: Raw::new(),
                map: Map::new(WaitType::Sleep, Level::Task),
                data: UnsafeCell::new(value),
            }
        }
    }

    /// The data, of a mutex that nobody can hold any more.
    ///
    /// ```
    /// # use sync::PiMutex;
    /// assert_eq!(PiMutex::<u32>::new(5).into_inner(), 5);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, P: Platform> PiMutex<T, P> {
    /// Takes the mutex, sleeping until it is handed over, and gives its owner this task's priority meanwhile.
    ///
    /// Linux: `rt_mutex_lock`. Contexts: task, with nothing held that forbids sleeping. A wait that closes a circle of
    /// owners, a task that holds it already included, is reported as `pi mutex deadlock` or `pi mutex recursion`, and
    /// lasts for ever. [The type](PiMutex) has an example.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let mutex: sync::PiMutex<u32> = sync::PiMutex::new(1);
    /// *mutex.lock(&mut cx) += 1;
    /// assert_eq!(*mutex.lock(&mut cx), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock(&self, cx: &mut TaskCx<P>) -> PiMutexGuard<'_, T, P> {
        let result = self.take(Limits::NONE, cx, Location::caller());
        debug_assert!(result.is_ok(), "there is no limit to end the wait");
        PiMutexGuard { mutex: self, _task_bound: PhantomData }
    }

    /// Takes the mutex, sleeping until it is handed over or a limit is reached. Who gives up takes its priority back.
    ///
    /// Linux: `rt_mutex_lock_interruptible`. Contexts and reports: as [`lock`](PiMutex::lock).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first.
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use sync::{PiMutex, TaskCx, wait::{Limits, WaitError}};
    /// # let mut cx = unsafe { TaskCx::new() };
    /// let mutex = PiMutex::<u32>::new(1);
    /// let held = mutex.try_lock();
    /// # std::thread::scope(|scope| { scope.spawn(|| {
    /// # let mut cx = unsafe { TaskCx::new() };
    /// // In another task:
    /// let soon = Limits::NONE.until(Native::now_ns() + 1_000);
    /// assert_eq!(mutex.lock_with(soon, &mut cx).map(|guard| *guard), Err(WaitError::TimedOut));
    /// # }); });
    /// # drop(held);
    /// assert_eq!(mutex.lock_with(soon_enough(), &mut cx).map(|guard| *guard), Ok(1));
    /// # fn soon_enough() -> Limits { Limits::NONE }
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_with(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<PiMutexGuard<'_, T, P>, WaitError> {
        self.take(limits, cx, Location::caller())?;
        Ok(PiMutexGuard { mutex: self, _task_bound: PhantomData })
    }

    /// Takes the mutex if it is free. Linux: `rt_mutex_trylock`. Contexts: task.
    ///
    /// ```
    /// # use sync::PiMutex;
    /// let mutex = PiMutex::<u32>::new(1);
    /// let first = mutex.try_lock();
    /// assert!(first.is_some() && mutex.try_lock().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<PiMutexGuard<'_, T, P>> {
        self.raw.try_lock().then(|| {
            self.map.acquire::<P>(Acquire::TRY_WRITE, Location::caller());
            PiMutexGuard { mutex: self, _task_bound: PhantomData }
        })
    }

    /// Whether somebody holds the mutex; out of date at once. Linux: `rt_mutex_base_is_locked`. Contexts: any.
    ///
    /// ```
    /// # use sync::PiMutex;
    /// let mutex = PiMutex::<u32>::new(1);
    /// let guard = mutex.try_lock();
    /// assert!(mutex.is_locked());
    /// drop(guard);
    /// assert!(!mutex.is_locked());
    /// ```
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.owner().is_some()
    }

    /// The task that holds the mutex; out of date at once, unless it is the caller. Linux: `rt_mutex_owner`. Contexts:
    /// any.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # use sync::PiMutex;
    /// let mutex = PiMutex::<u32>::new(1);
    /// assert_eq!(mutex.owner(), None);
    /// let _guard = mutex.try_lock();
    /// assert_eq!(mutex.owner(), Some(Native::current_task()));
    /// ```
    #[inline]
    pub fn owner(&self) -> Option<TaskId> {
        self.raw.owner()
    }

    /// The data. The exclusive borrow shows that nobody else has the mutex.
    ///
    /// ```
    /// # use sync::PiMutex;
    /// let mut mutex = PiMutex::<u32>::new(1);
    /// *mutex.get_mut() += 1;
    /// assert_eq!(mutex.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    #[inline]
    fn take(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        at: &'static Location<'static>,
    ) -> Result<(), WaitError> {
        cx.might_sleep();
        self.map.acquire::<P>(Acquire::WRITE, at);
        if self.raw.try_lock() {
            return Ok(());
        }
        self.wait(limits, cx, at).inspect_err(|_| self.map.release::<P>(at))
    }

    #[cold]
    fn wait(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        at: &'static Location<'static>,
    ) -> Result<(), WaitError> {
        let _waiting = Contended::<P>::begin(self, &self.map);
        self.raw.wait(limits, cx, at)
    }
}

impl<T: ?Sized, P: Platform> Drop for PiMutexGuard<'_, T, P> {
    #[inline]
    #[track_caller]
    fn drop(&mut self) {
        self.mutex.map.release::<P>(Location::caller());
        // SAFETY: by the invariant this task holds the mutex, and with this value ends the claim.
        unsafe { self.mutex.raw.unlock() }
    }
}

impl<T: ?Sized, P: Platform> Deref for PiMutexGuard<'_, T, P> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant no other task has access; `&self` allows nobody `&mut T` meanwhile.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized, P: Platform> DerefMut for PiMutexGuard<'_, T, P> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the invariant no other task has access; `&mut self` makes this the only reference.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized + fmt::Debug, P: Platform> fmt::Debug for PiMutexGuard<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Debug, P: Platform> fmt::Debug for PiMutex<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("PiMutex");
        match self.try_lock() {
            Some(guard) => s.field("data", &&*guard),
            None => s.field("data", &format_args!("<locked>")),
        };
        s.finish()
    }
}

impl<T: Default, P: Platform> Default for PiMutex<T, P> {
    #[track_caller]
    fn default() -> PiMutex<T, P> {
        PiMutex::new(T::default())
    }
}
