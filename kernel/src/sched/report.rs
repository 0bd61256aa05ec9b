//! What the scheduler is doing, for people.
//!
//! Figures of one CPU or one task are read under its queue's lock, so that they are of one moment.

use core::sync::atomic::Ordering;

use hal::{CpuId, Native, Platform};

use super::placement::lock_home;
use super::queue::{LockedQueue, SWITCHES, queue_of};
use crate::task::{Task, TaskRef};

/// One CPU's scheduler at a moment.
#[derive(Debug)]
pub struct Report {
    /// How many tasks wait for the CPU.
    pub ready: usize,
    /// The task that has it.
    pub running: TaskRef,
    /// How often it went from one task to another.
    pub switches: u64,
    /// How long it ran its idle task, in nanoseconds. The time before there were others counts as such.
    pub idle_ns: u64,
}

/// What the scheduler of `cpu` is doing. `None` before the CPU has tasks.
///
/// Contexts: any but NMI. Cost: the lock of the CPU's queue.
pub fn report(cpu: CpuId) -> Option<Report> {
    let quiet = sync::irq::disable();
    let queue = queue_of(cpu).lock_with(&quiet);
    let idle = queue.idle?;
    let summary = queue.ready.summary();
    let wanting = summary.fair as usize + summary.urgent as usize;
    Some(Report {
        ready: wanting - usize::from(queue.ready.current().is_some()),
        running: running(&queue)?.reference(),
        switches: SWITCHES.on(cpu).load(Ordering::Relaxed),
        idle_ns: ran(idle, &queue),
    })
}

/// The task that runs on `cpu` when nobody else wants to. `None` before the CPU has tasks. Contexts: any but NMI.
pub(crate) fn idle_task(cpu: CpuId) -> Option<&'static Task> {
    let quiet = sync::irq::disable();
    queue_of(cpu).lock_with(&quiet).idle
}

/// How long the task has run, in nanoseconds, the present turn included.
///
/// Contexts: any but NMI. Cost: the lock of its CPU's queue.
pub fn run_time_ns(task: &Task) -> u64 {
    let quiet = sync::irq::disable();
    let (_, queue) = lock_home(task, &quiet);
    ran(task, &queue)
}

/// Who has the queue's CPU. It goes on having it while the queue is locked.
fn running<'a>(queue: &'a LockedQueue<'_>) -> Option<&'a Task> {
    match queue.ready.current() {
        // SAFETY: tasks' entities, and nothing else, are in run queues, and they are there while they are in one.
        Some(entity) => Some(unsafe { Task::from_entity(entity) }),
        None => queue.idle,
    }
}

/// The time that the task has had, which is at home in the locked queue.
fn ran(task: &Task, queue: &LockedQueue<'_>) -> u64 {
    let turn = match running(queue) {
        Some(running) if core::ptr::eq(running, task) => {
            Native::now_ns().saturating_sub(task.since.load(Ordering::Relaxed))
        }
        _ => 0,
    };
    task.run_time.load(Ordering::Relaxed) + turn
}
