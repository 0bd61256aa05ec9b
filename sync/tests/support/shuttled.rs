//! The platform inside of shuttle's schedules: waiting lets other threads run, blocked tasks are woken, and there is
//! nothing else.

use std::cell::Cell;

use hal::CpuId;
use hal::platform::{TaskId, Wakeup};
use shuttle::sync::{Condvar, Mutex};
use test_support::model::{self, Model, number_of, task_named};

/// A deadline that has passed when the task blocks, unless a wake-up is there by then.
pub(crate) const AT_ONCE: u64 = 0;

/// The most tasks that a schedule may have.
const TASKS: usize = 8;

/// For each task whether its wake-up is there, and where it waits for it.
struct Tokens([(Mutex<bool>, Condvar); TASKS]);

shuttle::lazy_static! {
    static ref TOKENS: Tokens = Tokens(std::array::from_fn(|_| (Mutex::new(false), Condvar::new())));
}

shuttle::thread_local! {
    static TASK: Cell<usize> = Cell::new(0);
}

/// The executing thread is task `number` from here on; it is 0 unless it says so.
pub(crate) fn become_task(number: usize) {
    TASK.with(|task| task.set(number));
}

/// The platform. Its CPUs are not told apart, so it is only good for what needs no CPU number. Threads that block say
/// which task they are with [`become_task`].
pub(crate) type Modelled = model::Modelled<Tasks>;

std::thread_local! {
    static ALL_RUN: Cell<bool> = const { Cell::new(false) };
}

/// For the rest of this test every task is seen to run, each on the CPU of its number, so that others watch it.
pub(crate) fn all_run() {
    ALL_RUN.set(true);
}

/// Each thread is a task, which blocks until it is woken.
#[derive(Debug)]
pub(crate) enum Tasks {}

// SAFETY: a thread stays one task while it blocks, and a wake-up is kept for one that does not block yet.
unsafe impl Model for Tasks {
    fn current_task() -> TaskId {
        task_named(TASK.with(Cell::get))
    }

    fn cpu_count() -> u32 {
        if ALL_RUN.get() { TASKS as u32 } else { 1 }
    }

    fn running_on(cpu: CpuId) -> Option<TaskId> {
        ALL_RUN.get().then(|| task_named(cpu.index()))
    }

    fn block(deadline_ns: Option<u64>) -> Wakeup {
        let (token, given) = &TOKENS.0[TASK.with(Cell::get)];
        let mut is_there = token.lock().unwrap();
        while !*is_there {
            if deadline_ns == Some(AT_ONCE) {
                return Wakeup::TimedOut;
            }
            is_there = given.wait(is_there).unwrap();
        }
        *is_there = false;
        Wakeup::Woken
    }

    fn wake(task: TaskId) -> bool {
        let (token, given) = &TOKENS.0[number_of(task)];
        *token.lock().unwrap() = true;
        given.notify_one();
        true
    }
}
