//! Giving back what ended tasks leave.
//!
//! A task cannot free the stack on which it runs, and the one that runs after it is in the middle of a switch, where
//! nothing may be freed. So the latter only pushes the ended task on a list, and wakes the reaper.

use core::sync::atomic::{AtomicUsize, Ordering};

use sync::TaskCx;
use sync::llist::LList;

use super::record::{DeadTasks, table};
use super::{Task, TaskRef, spawn};
use crate::memory::stacks::{self, BATCH};

static DEAD: LList<TaskRef, DeadTasks> = LList::new();
/// The reaper's address, once there is one.
static REAPER: AtomicUsize = AtomicUsize::new(0);

/// Starts the reaper, which never ends. Once, at boot.
pub(crate) fn start() {
    match spawn("reaper", reap) {
        // The scheduler's reference lives as long as the task, which never ends.
        // Release: pairs with the Acquire in `bury`.
        Ok(handle) => REAPER.store(core::ptr::from_ref::<Task>(handle.task()) as usize, Ordering::Release),
        Err(error) => panic!("no task that gives back the memory of others: {error}"),
    }
}

/// Takes over the scheduler's reference of a task that has ended and been switched away from. Contexts: any but NMI.
pub(crate) fn bury(task: TaskRef) {
    if DEAD.push(task) {
        // Acquire: pairs with the Release in `start`.
        let reaper = REAPER.load(Ordering::Acquire) as *const Task;
        // SAFETY: null before there is a reaper, which looks for the dead first of all; it never ends.
        if let Some(reaper) = unsafe { reaper.as_ref() } {
            reaper.unpark();
        }
    }
}

fn reap(cx: &mut TaskCx) {
    loop {
        let mut dead = DEAD.take_fifo().peekable();
        while dead.peek().is_some() {
            stacks::release(dead.by_ref().take(BATCH).filter_map(|task| {
                // SAFETY: this list alone has the task by this link, from its start to here.
                let listed = unsafe { table().lock().remove(&task) };
                drop(listed);
                task.stack.lock().take()
            }));
        }
        super::park(cx);
    }
}
