//! Many readers or one writer, by sleeping.
//!
//! 1. One word counts the readers and has a bit for a writer. While nobody waits, taking and letting go are one atomic
//!    operation each.
//! 2. Who cannot have it stands in line, readers and writers alike, and sets a bit that sends everybody to the line. So
//!    nobody passes those who wait, and none of them starves.
//! 3. Whoever lets go last hands over to the first in line, or to all readers up to the first writer.
//!
//! # Invariants
//! * **S1**: while somebody is in line, `WAITERS` is set. It is set and cleared under the line's lock.
//! * **S2**: while `WAITERS` is set only [`RwSemaphore::hand_over`], under the line's lock, adds holders.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::{Native, Platform};

use crate::contention::Contended;
use crate::lockdep::{Acquire, Level, Map, Mode, WaitType};
use crate::primitives::{AtomicUsize, Ordering, const_fn};
use crate::spin::SpinLock;
use crate::wait::{Limits, Request, WaitError, Waiters, itself, sleep};
use crate::{Task, TaskCx};

const WRITER: usize = 1;
const WAITERS: usize = 2;
/// One reader; the readers are counted above the flags.
const READER: usize = 4;

const READS: u8 = 0;
const WRITES: u8 = 1;

const READ: Acquire = Acquire { mode: Mode::Read, ..Acquire::WRITE };

/// Shared reading or exclusive writing of a `T` by tasks; who waits sleeps.
///
/// A task that reads must not read again inside: a writer in line between the two would wait for the first and make the
/// second wait. Linux: `struct rw_semaphore`. Cost without waiting: one atomic read-modify-write to take, one to let go.
///
/// ```
/// use sync::{RwSemaphore, TaskCx};
/// static ROUTES: RwSemaphore<Vec<u32>> = RwSemaphore::new(Vec::new());
///
/// // SAFETY: this thread is a task, and this its only token.
/// let mut cx = unsafe { TaskCx::new() };
/// ROUTES.write(&mut cx).push(1);
/// assert_eq!(ROUTES.read(&mut cx).len(), 1);
/// ```
pub struct RwSemaphore<T: ?Sized, P: Platform = Native> {
    word: AtomicUsize,
    map: Map,
    line: SpinLock<Waiters<P>, Task<P>>,
    data: UnsafeCell<T>,
}

// SAFETY: it gives `&mut T` to one task at a time, and `&T` to several.
unsafe impl<T: ?Sized + Send + Sync, P: Platform> Sync for RwSemaphore<T, P> {}
// SAFETY: it owns its `T`; its line is empty while it is moved, because waiters borrow it.
unsafe impl<T: ?Sized + Send, P: Platform> Send for RwSemaphore<T, P> {}

/// A [`RwSemaphore`] is held for reading while this value lives. Not `Send`: the task that took it lets go of it.
///
/// ```
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let routes = sync::RwSemaphore::<u32>::new(1);
/// let reading = routes.read(&mut cx);
/// assert_eq!(*reading, 1);
/// assert!(!sync::context::in_atomic(), "it may sleep meanwhile");
/// drop(reading);
/// assert!(!routes.is_locked());
/// ```
#[must_use = "it is let go as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct RwSemaphoreReadGuard<'a, T: ?Sized, P: Platform = Native> {
    semaphore: &'a RwSemaphore<T, P>,
    _task_bound: PhantomData<*mut ()>,
}

/// A [`RwSemaphore`] is held for writing while this value lives. Not `Send`: the task that took it lets go of it.
///
/// ```
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let routes = sync::RwSemaphore::<u32>::new(1);
/// let mut writing = routes.write(&mut cx);
/// *writing += 1;
/// assert!(routes.try_read().is_none());
/// drop(writing);
/// assert_eq!(routes.try_read().as_deref().copied(), Some(2));
/// ```
#[must_use = "it is let go as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct RwSemaphoreWriteGuard<'a, T: ?Sized, P: Platform = Native> {
    semaphore: &'a RwSemaphore<T, P>,
    _task_bound: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync, P: Platform> Sync for RwSemaphoreReadGuard<'_, T, P> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync, P: Platform> Sync for RwSemaphoreWriteGuard<'_, T, P> {}

impl<T, P: Platform> RwSemaphore<T, P> {
    const_fn! {
        /// One around `value` that nobody holds.
        ///
        /// ```
        /// static ROUTES: sync::RwSemaphore<u32> = sync::RwSemaphore::new(5);
        /// assert!(!ROUTES.is_locked());
        /// assert_eq!(ROUTES.try_read().map(|routes| *routes), Some(5));
        /// ```
        #[track_caller]
        pub fn new(value: T) -> RwSemaphore<T, P> {
            RwSemaphore {
                word: AtomicUsize::new(0),
                map: Map::new(WaitType::Sleep, Level::Task),
                line: SpinLock::new(Waiters::new()),
                data: UnsafeCell::new(value),
            }
        }
    }

    /// The data, of one that nobody can hold any more.
    ///
    /// ```
    /// assert_eq!(sync::RwSemaphore::<u32>::new(5).into_inner(), 5);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, P: Platform> RwSemaphore<T, P> {
    /// Takes it for reading, sleeping until that is possible. Linux: `down_read`. Contexts: task, with nothing held that
    /// forbids sleeping.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let routes = sync::RwSemaphore::<[u32; 2]>::new([1, 2]);
    /// let reading = routes.read(&mut cx);
    /// assert_eq!(reading[1], 2);
    /// assert!(routes.try_read().is_some() && routes.try_write().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn read(&self, cx: &mut TaskCx<P>) -> RwSemaphoreReadGuard<'_, T, P> {
        let taken = self.take(READS, Limits::NONE, cx, Location::caller());
        debug_assert!(taken.is_ok(), "there is no limit to end the wait");
        RwSemaphoreReadGuard { semaphore: self, _task_bound: PhantomData }
    }

    /// Takes it for reading, sleeping until that is possible or a limit is reached. Linux: `down_read_killable`.
    /// Contexts: as [`read`](RwSemaphore::read).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::wait::Limits;
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// assert_eq!(routes.read_with(Limits::NONE.cancellable(), &mut cx).map(|routes| *routes), Ok(1));
    /// ```
    #[track_caller]
    pub fn read_with(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
    ) -> Result<RwSemaphoreReadGuard<'_, T, P>, WaitError> {
        self.take(READS, limits, cx, Location::caller())?;
        Ok(RwSemaphoreReadGuard { semaphore: self, _task_bound: PhantomData })
    }

    /// Takes it for writing, sleeping until nobody else has it. Linux: `down_write`. Contexts: as
    /// [`read`](RwSemaphore::read).
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// *routes.write(&mut cx) += 1;
    /// assert_eq!(routes.into_inner(), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write(&self, cx: &mut TaskCx<P>) -> RwSemaphoreWriteGuard<'_, T, P> {
        let taken = self.take(WRITES, Limits::NONE, cx, Location::caller());
        debug_assert!(taken.is_ok(), "there is no limit to end the wait");
        RwSemaphoreWriteGuard { semaphore: self, _task_bound: PhantomData }
    }

    /// Takes it for writing, sleeping until nobody else has it or a limit is reached. Linux: `down_write_killable`.
    /// Contexts: as [`read`](RwSemaphore::read).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::wait::{Limits, WaitError};
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// let reading = routes.try_read();
    /// let result = routes.write_with(Limits::NONE.until(0), &mut cx).map(|routes| *routes);
    /// assert_eq!(result, Err(WaitError::TimedOut));
    /// assert!(routes.try_read().is_some(), "who gave up stands in nobody's way");
    /// # drop(reading);
    /// ```
    #[track_caller]
    pub fn write_with(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
    ) -> Result<RwSemaphoreWriteGuard<'_, T, P>, WaitError> {
        self.take(WRITES, limits, cx, Location::caller())?;
        Ok(RwSemaphoreWriteGuard { semaphore: self, _task_bound: PhantomData })
    }

    /// Takes it for reading if nobody writes and nobody waits. Linux: `down_read_trylock`. Contexts: task.
    ///
    /// ```
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// let writing = routes.try_write();
    /// assert!(routes.try_read().is_none());
    /// drop(writing);
    /// assert!(routes.try_read().is_some());
    /// ```
    #[track_caller]
    pub fn try_read(&self) -> Option<RwSemaphoreReadGuard<'_, T, P>> {
        self.add_reader().then(|| {
            self.map.acquire::<P>(Acquire { is_try: true, ..READ }, Location::caller());
            RwSemaphoreReadGuard { semaphore: self, _task_bound: PhantomData }
        })
    }

    /// Takes it for writing if nobody has it. Linux: `down_write_trylock`. Contexts: task.
    ///
    /// ```
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// let reading = routes.try_read();
    /// assert!(routes.try_write().is_none());
    /// drop(reading);
    /// assert!(routes.try_write().is_some());
    /// ```
    #[track_caller]
    pub fn try_write(&self) -> Option<RwSemaphoreWriteGuard<'_, T, P>> {
        self.set_writer().then(|| {
            self.map.acquire::<P>(Acquire::TRY_WRITE, Location::caller());
            RwSemaphoreWriteGuard { semaphore: self, _task_bound: PhantomData }
        })
    }

    /// Whether somebody has it, for reading or writing; out of date at once. Linux: `rwsem_is_locked`.
    ///
    /// ```
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// let reading = routes.try_read();
    /// assert!(routes.is_locked());
    /// drop(reading);
    /// assert!(!routes.is_locked());
    /// ```
    pub fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & !WAITERS != 0
    }

    /// The data. The exclusive borrow shows that nobody has it.
    ///
    /// ```
    /// let mut routes = sync::RwSemaphore::<u32>::new(1);
    /// *routes.get_mut() += 1;
    /// assert_eq!(routes.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    fn take(
        &self,
        kind: u8,
        limits: Limits,
        cx: &mut TaskCx<P>,
        at: &'static Location<'static>,
    ) -> Result<(), WaitError> {
        cx.might_sleep();
        let (how, taken) = if kind == READS {
            (READ, Self::add_reader as fn(&Self) -> bool)
        } else {
            (Acquire::WRITE, Self::set_writer as _)
        };
        self.map.acquire::<P>(how, at);
        if taken(self) {
            return Ok(());
        }
        self.wait(kind, limits, cx).inspect_err(|_| self.map.release::<P>(at))
    }

    /// Adds a reader, if nobody writes and nobody waits.
    fn add_reader(&self) -> bool {
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & (WRITER | WAITERS) == 0 {
            // Acquire: pairs with the Release in `unlock`, of the last writer.
            match self.word.compare_exchange_weak(seen, seen + READER, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Makes the caller the writer, if nobody has it and nobody waits.
    fn set_writer(&self) -> bool {
        // Acquire: pairs with the Release in `unlock`, of the last writer and of all readers.
        self.word.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self, kind: u8, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), WaitError> {
        let _waiting = Contended::<P>::begin(self, &self.map);
        let mut line = self.line.lock();
        // S1. Acquire: pairs with the Release in `unlock`, in case there is nobody to wait for any more.
        let seen = self.word.fetch_or(WAITERS, Ordering::Acquire) & !WAITERS;
        let is_open = if kind == READS { seen & WRITER == 0 } else { seen == 0 };
        if is_open && line.is_empty() {
            // S2 holds: this is the line's lock, and nobody is before us.
            let holder = if kind == READS { READER } else { WRITER };
            // Relaxed: acquired above; adds the holder and takes `WAITERS` back, which nobody else needs.
            self.word.fetch_add(holder.wrapping_sub(WAITERS), Ordering::Relaxed);
            return Ok(());
        }
        P::chaos_point();
        let (line_again, result) = sleep(&self.line, line, itself, Request::of_kind(kind), limits, cx);
        line = line_again;
        if result.is_err() {
            // Perhaps only we were in the way of those behind us.
            self.hand_over(&mut line);
        }
        result
    }

    /// With the line's lock: lets those in front of the line have it, as far as the holders allow.
    fn hand_over(&self, line: &mut Waiters<P>) {
        // Acquire: pairs with the Release in `unlock`; what all former holders did is passed on, by the line's lock, to
        // those who are let in.
        let seen = self.word.load(Ordering::Acquire);
        if seen & WRITER == 0 {
            if line.front_kind() == Some(WRITES) {
                if seen & !WAITERS == 0 {
                    self.word.fetch_or(WRITER, Ordering::Relaxed);
                    line.signal_front();
                }
            } else {
                while line.front_kind() == Some(READS) {
                    self.word.fetch_add(READER, Ordering::Relaxed);
                    line.signal_front();
                }
            }
        }
        if line.is_empty() {
            self.word.fetch_and(!WAITERS, Ordering::Relaxed);
        }
    }

    /// # Safety
    /// The caller is a holder, `READER` or `WRITER` as `holder` says, and with this call ends its claim.
    #[inline]
    unsafe fn unlock(&self, holder: usize) {
        // Release: pairs with the Acquire in `add_reader`, `set_writer`, `wait`, `hand_over`.
        let left = self.word.fetch_sub(holder, Ordering::Release) - holder;
        if left == WAITERS {
            self.hand_over(&mut self.line.lock());
        }
    }
}

impl<'a, T: ?Sized, P: Platform> RwSemaphoreWriteGuard<'a, T, P> {
    /// Goes on reading, without letting another writer in between. Linux: `downgrade_write`.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let routes = sync::RwSemaphore::<u32>::new(1);
    /// let mut writing = routes.write(&mut cx);
    /// *writing = 2;
    /// let reading = writing.downgrade();
    /// assert_eq!((*reading, routes.try_read().is_some()), (2, true));
    /// ```
    #[track_caller]
    pub fn downgrade(self) -> RwSemaphoreReadGuard<'a, T, P> {
        let (semaphore, at) = (self.semaphore, Location::caller());
        core::mem::forget(self);
        semaphore.map.release::<P>(at);
        semaphore.map.acquire::<P>(Acquire { is_try: true, ..READ }, at);
        // Release: pairs with the Acquire in `add_reader`, `hand_over`: readers see what was written.
        let before = semaphore.word.fetch_add(READER - WRITER, Ordering::Release);
        if before & WAITERS != 0 {
            semaphore.hand_over(&mut semaphore.line.lock());
        }
        RwSemaphoreReadGuard { semaphore, _task_bound: PhantomData }
    }
}

macro_rules! guard {
    ($Guard:ident, $holder:expr) => {
        impl<T: ?Sized, P: Platform> Drop for $Guard<'_, T, P> {
            #[inline]
            #[track_caller]
            fn drop(&mut self) {
                self.semaphore.map.release::<P>(Location::caller());
                // SAFETY: this task is such a holder while the guard exists.
                unsafe { self.semaphore.unlock($holder) }
            }
        }

        impl<T: ?Sized, P: Platform> Deref for $Guard<'_, T, P> {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                // SAFETY: while it is held nobody has `&mut T` but through the only write guard.
                unsafe { &*self.semaphore.data.get() }
            }
        }

        impl<T: ?Sized + fmt::Debug, P: Platform> fmt::Debug for $Guard<'_, T, P> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }
    };
}
guard!(RwSemaphoreReadGuard, READER);
guard!(RwSemaphoreWriteGuard, WRITER);

impl<T: ?Sized, P: Platform> DerefMut for RwSemaphoreWriteGuard<'_, T, P> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the only writer, and nobody reads; `&mut self` makes this the only reference.
        unsafe { &mut *self.semaphore.data.get() }
    }
}

impl<T: ?Sized, P: Platform> fmt::Debug for RwSemaphore<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwSemaphore").field("is_locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl<T: Default, P: Platform> Default for RwSemaphore<T, P> {
    #[track_caller]
    fn default() -> RwSemaphore<T, P> {
        RwSemaphore::new(T::default())
    }
}
