//! Waiting by letting others run.
//!
//! 1. A task that waits **blocks**: it gives its CPU away until somebody wakes it. It may so wait for long, and must not
//!    do so where giving the CPU away is impossible: in interrupts, with a spin lock held, with preemption off. Functions
//!    that may block take a [`&mut TaskCx`](crate::TaskCx), which a task has and an interrupt does not, and which a lock
//!    taken with [`lock_in`](crate::SpinLock::lock_in) borrows.
//! 2. A wake-up must not be lost between the test of a condition and going to sleep. Everything here stands in line
//!    *first*, tests then, and blocks last; and a wake-up that comes before the block ends it at once.
//! 3. Who signals must not touch what the woken side may already have freed. Everything here ends its wait under the lock
//!    under which it was signalled.
//!
//! [`WaitQueue`] waits for any condition. [`Completion`](crate::Completion), [`Mutex`](crate::Mutex) and
//! [`Semaphore`](crate::Semaphore) are made of the same parts for conditions of their own.

mod queue;
mod waiters;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, shuttle))]
#[path = "schedules.rs"]
mod models;

use core::fmt;

use hal::Platform;

pub use queue::WaitQueue;
pub(crate) use waiters::{Place, Request, Waiters, Woken, itself, sleep, sleep_once, with_place};

/// What ends a wait besides that which is waited for.
///
/// ```
/// use sync::wait::Limits;
/// let patient = Limits::NONE;
/// let limited = Limits::NONE.until(1_000_000).cancellable();
/// assert_ne!(patient, limited);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    pub(crate) deadline_ns: Option<u64>,
    pub(crate) cancellable: bool,
    pub(crate) idle: bool,
}

impl Limits {
    /// Nothing: the wait lasts until what is waited for happens. Linux: `TASK_UNINTERRUPTIBLE`.
    ///
    /// ```
    /// use sync::wait::Limits;
    /// assert_eq!(Limits::NONE, Limits::default());
    /// assert_ne!(Limits::NONE, Limits::NONE.until(0));
    /// ```
    pub const NONE: Limits = Limits { deadline_ns: None, cancellable: false, idle: false };

    /// The wait also ends when the clock of [`Platform::now_ns`] shows `deadline_ns`, never
    /// earlier. Linux: the `_timeout` forms, whose time is relative.
    ///
    /// ```
    /// assert_ne!(sync::wait::Limits::NONE.until(5), sync::wait::Limits::NONE.until(6));
    /// ```
    #[must_use]
    pub const fn until(self, deadline_ns: u64) -> Limits {
        Limits { deadline_ns: Some(deadline_ns), ..self }
    }

    /// The wait also ends when the task is asked to end. Linux: the `_interruptible` and `_killable` forms.
    ///
    /// ```
    /// assert_ne!(sync::wait::Limits::NONE.cancellable(), sync::wait::Limits::NONE);
    /// ```
    #[must_use]
    pub const fn cancellable(self) -> Limits {
        Limits { cancellable: true, ..self }
    }

    /// Ends nothing, and says that the task waits for something to do: however long the wait lasts, nothing is wrong.
    /// Watchdogs for tasks that are blocked for long leave out such waits, and those that are [cancellable]. Linux:
    /// `TASK_IDLE`.
    ///
    /// [cancellable]: Limits::cancellable
    ///
    /// ```
    /// assert_ne!(sync::wait::Limits::NONE.idle(), sync::wait::Limits::NONE);
    /// ```
    #[must_use]
    pub const fn idle(self) -> Limits {
        Limits { idle: true, ..self }
    }

    /// Whether one of them is reached at this moment.
    pub(crate) fn are_reached<P: Platform>(&self) -> bool {
        self.deadline_ns.is_some_and(|deadline| P::now_ns() >= deadline)
            || self.cancellable && P::is_cancelled()
    }
}

/// Why a wait ended without that which was waited for.
///
/// ```
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// use sync::{Semaphore, wait::{Limits, WaitError}};
/// let none: Semaphore = Semaphore::new(0);
/// assert_eq!(none.down_with(Limits::NONE.until(0), &mut cx), Err(WaitError::TimedOut));
/// assert_eq!(WaitError::TimedOut.to_string(), "the deadline passed before what was waited for happened");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitError {
    /// The deadline has passed.
    TimedOut,
    /// The task was asked to end.
    Cancelled,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WaitError::TimedOut => "the deadline passed before what was waited for happened",
            WaitError::Cancelled => "the task was asked to end while it waited",
        })
    }
}

impl core::error::Error for WaitError {}
