//! Tasks: what runs on the CPUs, each on a stack of its own.
//!
//! 1. [`spawn`] (or [`Builder`]) makes a task of a function: one piece of memory for all that it is, and a guarded stack.
//!    If memory is out it says so and nothing is left behind. The body gets the token of its right to sleep.
//! 2. A task ends when its body returns. Its [`JoinHandle`] then gives the result. Nobody ends a task from outside: one
//!    that is [cancelled](JoinHandle::cancel) is told, and its cancellable waits end.
//! 3. What is left of an ended task, above all its stack, is given back by the reaper, a task itself: nobody can free the
//!    stack on which it stands.
//! 4. A [`TaskRef`] keeps the record of a task, not the task: it stays valid when that has ended.
//!
//! Which task runs where and when is the business of [`sched`](crate::sched).

mod handle;
mod life;
mod reaper;
mod record;
mod spawn;

use hal::{Native, Platform};
use sync::TaskCx;

pub use handle::JoinHandle;
pub(crate) use reaper::{bury, start as start_reaper};
pub(crate) use record::{MOVING, state, table};
pub use record::{Name, State, Task, TaskRef};
pub(crate) use spawn::adopt_boot_context;
pub use spawn::{Builder, SpawnError, spawn};

/// The task that executes this call; in an interrupt the one that was interrupted. Linux: `current`.
///
/// Contexts: any, once this CPU has tasks.
pub fn current() -> TaskRef {
    Task::current().reference()
}

/// Whether the running task was asked to end. Linux: `kthread_should_stop`. Contexts: task.
pub fn is_cancelled() -> bool {
    Native::is_cancelled()
}

/// Gives the CPU away until somebody [unparks](Task::unpark) this task, or has done so since it last parked. May return
/// for no reason; look again at what you wait for. However long it takes, the task does not count as hung.
/// Linux: `schedule` in `TASK_IDLE`, `kthread_parkme`.
pub fn park(cx: &mut TaskCx) {
    cx.block_idle();
}

/// Lets others of the same standing run first. Linux: `yield`.
pub fn yield_now(cx: &mut TaskCx) {
    cx.might_sleep();
    crate::sched::yield_now();
}

/// Calls `visit` for every task that has not ended, oldest first. Contexts: task; `visit` runs with a lock held.
pub fn for_each(visit: impl FnMut(&Task)) {
    table().lock().iter().for_each(visit);
}

/// The same, unless somebody holds the lock at this moment; says whether it was done. For who may have stopped him.
pub(crate) fn try_for_each(visit: impl FnMut(&Task)) -> bool {
    let tasks = table().try_lock();
    tasks.map(|tasks| tasks.iter().for_each(visit)).is_some()
}

/// The task with this number, if it has not ended.
pub fn find(number: u32) -> Option<TaskRef> {
    table().lock().iter().find(|task| task.number() == number).map(Task::reference)
}
