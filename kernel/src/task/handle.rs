//! A claim to a task's result.

use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

use sync::TaskCx;
use sync::wait::{Limits, WaitError};

use super::{Task, TaskRef};

/// The right to wait for a task's end and to have what its body returned. Dropping it lets the task go on by itself; the
/// result is then dropped when the task ends.
///
/// # Invariants
/// `result` leads into the memory that `task` keeps. It is written by the task before its completion, and not after.
pub struct JoinHandle<R> {
    pub(super) task: TaskRef,
    pub(super) result: NonNull<Option<R>>,
}

// SAFETY: the handle is a claim to an `R` that another task has made, so that it may go where an `R` may.
unsafe impl<R: Send> Send for JoinHandle<R> {}
// SAFETY: a shared handle gives no access to the result.
unsafe impl<R: Send> Sync for JoinHandle<R> {}

impl<R> JoinHandle<R> {
    /// Waits until the task has ended, and returns its result. Linux: `kthread_stop`'s wait.
    ///
    /// Contexts: task.
    #[track_caller]
    pub fn join(self, cx: &mut TaskCx) -> R {
        self.task.life.is_waited_for(&Task::current().life, Location::caller());
        self.task.done.wait(cx);
        self.take()
    }

    /// As [`join`](JoinHandle::join), for no longer than the limits allow. The handle is given back if they end the wait.
    ///
    /// # Errors
    /// The handle and why the wait ended.
    #[track_caller]
    pub fn join_with(self, limits: Limits, cx: &mut TaskCx) -> Result<R, (JoinHandle<R>, WaitError)> {
        self.task.life.is_waited_for(&Task::current().life, Location::caller());
        match self.task.done.wait_with(limits, cx) {
            Ok(()) => Ok(self.take()),
            Err(error) => Err((self, error)),
        }
    }

    /// The result, if the task has ended; the handle, if it has not. Contexts: any.
    pub fn try_join(self) -> Result<R, JoinHandle<R>> {
        if self.is_finished() { Ok(self.take()) } else { Err(self) }
    }

    /// Whether [`join`](JoinHandle::join) would return at once. Contexts: any.
    pub fn is_finished(&self) -> bool {
        self.task.done.is_done()
    }

    /// The task.
    pub fn task(&self) -> &TaskRef {
        &self.task
    }

    /// [`Task::cancel`].
    pub fn cancel(&self) {
        self.task.cancel();
    }

    /// [`Task::unpark`].
    pub fn unpark(&self) {
        self.task.unpark();
    }

    /// The task has ended.
    fn take(self) -> R {
        // SAFETY: by the invariant the task has written it, before the completion that we have seen; it is there for as
        // long as the reference in `self`, and handles are not cloned, so that nobody else takes it.
        let result = unsafe { (*self.result.as_ptr()).take() };
        result.expect("a task leaves its result before it is done")
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task: &Task = &self.task;
        f.debug_struct("JoinHandle").field("task", task).field("finished", &self.is_finished()).finish()
    }
}
