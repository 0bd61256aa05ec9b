//! Many readers that share no cache line, or one writer, by sleeping.
//!
//! 1. Each CPU has a number: the readers that came in on it less those that left on it. Readers change their CPU's number
//!    with ordinary instructions and then look whether the gate is **closed**. They write nothing that another CPU reads
//!    or writes, unless there is a writer.
//! 2. A writer closes the gate and waits until the sum of the numbers is 0.
//! 3. Between counting and looking, and between closing and summing up, stand the two sides of an asymmetric fence
//!    ([`Platform::fence_light`], [`Platform::fence_heavy`]). So a reader and a writer that meet cannot miss each other: the
//!    reader sees the gate closed, or the writer sees the reader counted. The reader's side costs nothing but a compiler
//!    barrier, the writer's side interrupts the other CPUs.
//! 4. Who finds the gate closed takes its count back and stands in line. A writer that is done lets in those in front of
//!    the line, the readers up to the first writer or that writer, and opens the gate when nobody is left in line.
//!
//! The sum is taken while numbers change. It is never too low: a reader that is in was counted before the sum was begun,
//! so that it is missed only when its leaving is seen; and one that comes while the gate is closed counts and discounts
//! on the same CPU, with preemption off.
//!
//! Linux: `percpu_rw_semaphore`, whose writers wait for an RCU grace period where this one interrupts.

mod gate;
#[cfg(all(test, loom))]
mod models;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::percpu::{DynamicPerCpu, OutOfPerCpuSpace};
use hal::{Native, Platform};

use crate::TaskCx;
use crate::contention::Contended;
use crate::lockdep::{Acquire, Level, Map, WaitType};
use crate::primitives::AtomicIsize;
use crate::wait::{Limits, WaitError};
use gate::{At, Gate, PerCpuSlots};

const TRY_READ: Acquire = Acquire { is_try: true, ..Acquire::READ };

/// Shared reading or exclusive writing of a `T` by tasks, where all CPUs read all the time and writing is rare.
///
/// Reading costs no atomic operation and shares no cache line. Writing interrupts every CPU once, and waits until every
/// reader has left; where it happens often use a [`RwSemaphore`](crate::RwSemaphore).
///
/// From the moment a writer has closed it, nobody comes in before it, except those who are before it in line. A task that
/// reads must not read again inside: a writer that came between the two would wait for the first and make the second
/// wait.
///
/// Linux: `struct percpu_rw_semaphore`. Takes 16 bytes of each CPU's room for dynamic variables (see [`DynamicPerCpu`]).
///
/// ```
/// use sync::{PerCpuRwSemaphore, TaskCx};
///
/// let _cpu = hal::hosted::bind()?;
/// let settings = PerCpuRwSemaphore::<(u32, u32)>::new((1, 1))?;
/// // SAFETY: this thread is a task, and this its only token.
/// let mut cx = unsafe { TaskCx::new() };
/// *settings.write(&mut cx) = (2, 2);
/// let both = settings.read(&mut cx);
/// assert_eq!(both.0, both.1);
/// # drop(both);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PerCpuRwSemaphore<T: ?Sized, P: Platform = Native> {
    gate: Gate<PerCpuSlots<P>, P>,
    map: Map,
    data: UnsafeCell<T>,
}

// SAFETY: it gives `&mut T` to one task at a time, and `&T` to several.
unsafe impl<T: ?Sized + Send + Sync, P: Platform> Sync for PerCpuRwSemaphore<T, P> {}
// SAFETY: it owns its `T`; its lines are empty while it is moved, because waiters borrow it.
unsafe impl<T: ?Sized + Send, P: Platform> Send for PerCpuRwSemaphore<T, P> {}

/// A [`PerCpuRwSemaphore`] is held for reading while this value lives. Not `Send`: the task that took it lets go of it;
/// it may sleep meanwhile, and continue on another CPU.
///
/// ```
/// # let _cpu = hal::hosted::bind().unwrap();
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let settings = sync::PerCpuRwSemaphore::<u32>::new(5).unwrap();
/// let reading = settings.read(&mut cx);
/// assert_eq!(*reading, 5);
/// assert!(settings.try_read().is_some() && !sync::context::in_atomic());
/// ```
#[must_use = "it is let go as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct PerCpuRwSemaphoreReadGuard<'a, T: ?Sized, P: Platform = Native> {
    semaphore: &'a PerCpuRwSemaphore<T, P>,
    _task_bound: PhantomData<*mut ()>,
}

/// A [`PerCpuRwSemaphore`] is held for writing while this value lives. Not `Send`: the task that took it lets go of it.
///
/// ```
/// # let _cpu = hal::hosted::bind().unwrap();
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let settings = sync::PerCpuRwSemaphore::<u32>::new(5).unwrap();
/// let mut writing = settings.write(&mut cx);
/// *writing = 6;
/// assert!(settings.try_read().is_none());
/// drop(writing);
/// assert_eq!(settings.try_read().as_deref(), Some(&6));
/// ```
#[must_use = "it is let go as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct PerCpuRwSemaphoreWriteGuard<'a, T: ?Sized, P: Platform = Native> {
    semaphore: &'a PerCpuRwSemaphore<T, P>,
    _task_bound: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out `&T` only.
unsafe impl<T: ?Sized + Sync, P: Platform> Sync for PerCpuRwSemaphoreReadGuard<'_, T, P> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync, P: Platform> Sync for PerCpuRwSemaphoreWriteGuard<'_, T, P> {}

impl<T, P: Platform> PerCpuRwSemaphore<T, P> {
    /// One around `value` that nobody holds. Linux: `percpu_init_rwsem`.
    ///
    /// Contexts: task.
    ///
    /// # Errors
    /// [`OutOfPerCpuSpace`].
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let settings = sync::PerCpuRwSemaphore::<u32>::new(5).unwrap();
    /// assert_eq!(settings.into_inner(), 5);
    /// ```
    #[track_caller]
    pub fn new(value: T) -> Result<PerCpuRwSemaphore<T, P>, OutOfPerCpuSpace> {
        let slots = DynamicPerCpu::new(|_cpu| AtomicIsize::new(0))?;
        Ok(PerCpuRwSemaphore {
            gate: Gate::new(PerCpuSlots { slots, platform: PhantomData }),
            map: Map::new(WaitType::Sleep, Level::Task),
            data: UnsafeCell::new(value),
        })
    }

    /// The data, of one that nobody can hold any more.
    ///
    /// ```
    /// # use sync::PerCpuRwSemaphore;
    /// # let _cpu = hal::hosted::bind()?;
    /// assert_eq!(PerCpuRwSemaphore::<u32>::new(5)?.into_inner(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, P: Platform> PerCpuRwSemaphore<T, P> {
    /// Takes it for reading, sleeping while a writer has it or waits for it.
    ///
    /// Linux: `percpu_down_read`. Contexts: task, with nothing held that forbids sleeping. Cost without a writer: a
    /// per-CPU addition and a load, with preemption off around them. [The type](PerCpuRwSemaphore) has an example.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let settings = sync::PerCpuRwSemaphore::<u32>::new(5).unwrap();
    /// assert_eq!(*settings.read(&mut cx), 5);
    /// ```
    #[inline]
    #[track_caller]
    pub fn read(&self, cx: &mut TaskCx<P>) -> PerCpuRwSemaphoreReadGuard<'_, T, P> {
        let taken = self.take_shared(Limits::NONE, cx, Location::caller());
        debug_assert!(taken.is_ok(), "there is no limit to end the wait");
        PerCpuRwSemaphoreReadGuard { semaphore: self, _task_bound: PhantomData }
    }

    /// Takes it for reading, sleeping until that is possible or a limit is reached.
    ///
    /// Linux: none. Contexts and cost: as [`read`](PerCpuRwSemaphore::read).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first.
    ///
    /// ```
    /// # use sync::{PerCpuRwSemaphore, TaskCx, wait::Limits};
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { TaskCx::new() };
    /// let table = PerCpuRwSemaphore::<u32>::new(1)?;
    /// assert_eq!(table.read_with(Limits::NONE.cancellable(), &mut cx).map(|table| *table), Ok(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn read_with(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
    ) -> Result<PerCpuRwSemaphoreReadGuard<'_, T, P>, WaitError> {
        self.take_shared(limits, cx, Location::caller())?;
        Ok(PerCpuRwSemaphoreReadGuard { semaphore: self, _task_bound: PhantomData })
    }

    /// Takes it for writing, sleeping until nobody else has it.
    ///
    /// Linux: `percpu_down_write`. Contexts: as [`read`](PerCpuRwSemaphore::read). Cost: an interrupt of each other CPU,
    /// a look at each CPU's number, and the wait. [The type](PerCpuRwSemaphore) has an example.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let settings = sync::PerCpuRwSemaphore::<u32>::new(5).unwrap();
    /// *settings.write(&mut cx) += 1;
    /// assert_eq!(*settings.read(&mut cx), 6);
    /// ```
    #[track_caller]
    pub fn write(&self, cx: &mut TaskCx<P>) -> PerCpuRwSemaphoreWriteGuard<'_, T, P> {
        let taken = self.take(Limits::NONE, cx, Location::caller());
        debug_assert!(taken.is_ok(), "there is no limit to end the wait");
        PerCpuRwSemaphoreWriteGuard { semaphore: self, _task_bound: PhantomData }
    }

    /// Takes it for writing, sleeping until nobody else has it or a limit is reached. Who gives up while readers are
    /// still in opens it again.
    ///
    /// Linux: none. Contexts and cost: as [`write`](PerCpuRwSemaphore::write).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first.
    ///
    /// ```
    /// # use hal::Platform;
    /// # use sync::{PerCpuRwSemaphore, TaskCx, wait::{Limits, WaitError}};
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { TaskCx::new() };
    /// let table = PerCpuRwSemaphore::<u32>::new(1)?;
    /// let reader = table.try_read().expect("nobody writes");
    /// let soon = Limits::NONE.until(hal::Native::now_ns() + 1_000);
    /// assert_eq!(table.write_with(soon, &mut cx).map(|table| *table), Err(WaitError::TimedOut));
    /// assert!(table.try_read().is_some(), "open again");
    /// # drop(reader);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn write_with(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
    ) -> Result<PerCpuRwSemaphoreWriteGuard<'_, T, P>, WaitError> {
        self.take(limits, cx, Location::caller())?;
        Ok(PerCpuRwSemaphoreWriteGuard { semaphore: self, _task_bound: PhantomData })
    }

    /// Takes it for reading, if no writer has it or waits for it. Linux: `percpu_down_read_trylock`. Contexts: task.
    ///
    /// ```
    /// # use sync::{PerCpuRwSemaphore, TaskCx};
    /// # let _cpu = hal::hosted::bind()?;
    /// let table = PerCpuRwSemaphore::<u32>::new(1)?;
    /// let writer = table.try_write();
    /// assert!(table.try_read().is_none());
    /// drop(writer);
    /// assert!(table.try_read().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_read(&self) -> Option<PerCpuRwSemaphoreReadGuard<'_, T, P>> {
        self.gate.try_enter().then(|| {
            self.map.acquire::<P>(TRY_READ, Location::caller());
            PerCpuRwSemaphoreReadGuard { semaphore: self, _task_bound: PhantomData }
        })
    }

    /// Takes it for writing if nobody has it. It is closed to readers for a moment even if that fails.
    ///
    /// Linux: none. Contexts: task. Cost: as [`write`](PerCpuRwSemaphore::write), without the wait.
    ///
    /// ```
    /// # use sync::{PerCpuRwSemaphore, TaskCx};
    /// # let _cpu = hal::hosted::bind()?;
    /// let table = PerCpuRwSemaphore::<u32>::new(1)?;
    /// let reader = table.try_read();
    /// assert!(table.try_write().is_none());
    /// drop(reader);
    /// *table.try_write().expect("nobody reads") = 2;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn try_write(&self) -> Option<PerCpuRwSemaphoreWriteGuard<'_, T, P>> {
        self.gate.try_close().then(|| {
            self.map.acquire::<P>(Acquire::TRY_WRITE, Location::caller());
            PerCpuRwSemaphoreWriteGuard { semaphore: self, _task_bound: PhantomData }
        })
    }

    /// Whether a writer has it or waits for it; out of date at once. Linux: `percpu_is_write_locked`, which says so of
    /// one that has it.
    ///
    /// ```
    /// # use sync::PerCpuRwSemaphore;
    /// # let _cpu = hal::hosted::bind()?;
    /// let table = PerCpuRwSemaphore::<u32>::new(1)?;
    /// let writer = table.try_write();
    /// assert!(table.is_closed());
    /// drop(writer);
    /// assert!(!table.is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    /// The data. The exclusive borrow shows that nobody has it.
    ///
    /// ```
    /// # use sync::PerCpuRwSemaphore;
    /// # let _cpu = hal::hosted::bind()?;
    /// let mut table = PerCpuRwSemaphore::<u32>::new(1)?;
    /// *table.get_mut() += 1;
    /// assert_eq!(table.into_inner(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    #[inline]
    fn take_shared(&self, limits: Limits, cx: &mut TaskCx<P>, at: At) -> Result<(), WaitError> {
        cx.might_sleep();
        self.map.acquire::<P>(Acquire::READ, at);
        if self.gate.try_enter() {
            return Ok(());
        }
        self.wait_shared(limits, cx).inspect_err(|_| self.map.release::<P>(at))
    }

    #[cold]
    fn wait_shared(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), WaitError> {
        let _waiting = Contended::<P>::begin(self, &self.map);
        self.gate.enter_slow(limits, cx)
    }

    fn take(&self, limits: Limits, cx: &mut TaskCx<P>, at: At) -> Result<(), WaitError> {
        cx.might_sleep();
        self.map.acquire::<P>(Acquire::WRITE, at);
        let contended = || Contended::<P>::begin(self, &self.map);
        self.gate.close_noting(limits, cx, contended).inspect_err(|_| self.map.release::<P>(at))
    }
}

macro_rules! guard {
    ($Guard:ident, $let_go:ident) => {
        impl<T: ?Sized, P: Platform> Drop for $Guard<'_, T, P> {
            #[inline]
            #[track_caller]
            fn drop(&mut self) {
                self.semaphore.map.release::<P>(Location::caller());
                self.semaphore.gate.$let_go();
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
guard!(PerCpuRwSemaphoreReadGuard, leave);
guard!(PerCpuRwSemaphoreWriteGuard, open);

impl<T: ?Sized, P: Platform> DerefMut for PerCpuRwSemaphoreWriteGuard<'_, T, P> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the only writer, and nobody reads; `&mut self` makes this the only reference.
        unsafe { &mut *self.semaphore.data.get() }
    }
}

impl<T: ?Sized, P: Platform> fmt::Debug for PerCpuRwSemaphore<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuRwSemaphore").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}
