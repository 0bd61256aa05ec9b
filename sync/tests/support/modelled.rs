//! The platform inside of a model: waiting lets other threads run, blocked tasks are woken, and there is nothing else.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use hal::CpuId;
use hal::platform::{Priority, TaskId, Wakeup};
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use test_support::model::{self, Model, number_of, task_named};

use crate::pi::Inheritance;

/// The platform. Its CPUs are not told apart, so it is only good for what needs no CPU number. Threads that block say
/// which task they are with [`become_task`].
pub(crate) type Modelled = model::Modelled<Tasks>;

/// A deadline that has passed when the task blocks, unless a wake-up is there by then.
pub(crate) const AT_ONCE: u64 = 0;

/// The most tasks that a model may have.
const TASKS: usize = 4;

/// One token for each.
struct Tokens([Notify; TASKS]);

loom::lazy_static! {
    static ref TOKENS: Tokens = Tokens(std::array::from_fn(|_| Notify::new()));
}

/// What the platform keeps of each task for the inheritance of priorities.
struct Records {
    kept: [Inheritance<Modelled>; TASKS],
    /// What it was told last.
    told: [AtomicU32; TASKS],
}

/// Something that happens once, for which one thread of the model waits without looking again and again.
pub(crate) struct Event {
    has_happened: AtomicBool,
    told: Notify,
}

impl Event {
    pub(crate) fn new() -> Event {
        Event { has_happened: AtomicBool::new(false), told: Notify::new() }
    }

    pub(crate) fn happens(&self) {
        self.has_happened.store(true, Ordering::Release);
        self.told.notify();
    }

    pub(crate) fn wait(&self) {
        while !self.has_happened.load(Ordering::Acquire) {
            self.told.wait();
        }
    }
}

loom::lazy_static! {
    static ref RECORDS: Records = Records {
        kept: std::array::from_fn(|_| Inheritance::new()),
        told: std::array::from_fn(|_| AtomicU32::new(0)),
    };
}

loom::thread_local! {
    static TASK: Cell<usize> = Cell::new(0);
    static WHEN_BLOCKED: RefCell<Option<Arc<Event>>> = RefCell::new(None);
}

/// The executing thread is task `number` from here on; it is 0 unless it says so.
pub(crate) fn become_task(number: usize) {
    TASK.with(|task| task.set(number));
}

fn task() -> usize {
    TASK.with(Cell::get)
}

/// Has `event` happen when the executing task blocks for the first time.
pub(crate) fn when_blocked(event: Arc<Event>) {
    WHEN_BLOCKED.with(|when| when.replace(Some(event)));
}

/// What task `number` inherits, as the platform was told.
pub(crate) fn inherited_by(number: usize) -> u32 {
    let told = RECORDS.told[number].load(Ordering::Relaxed);
    assert_eq!(RECORDS.kept[number].inherited(), Priority(told));
    told
}

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
        task_named(task())
    }

    fn priority_of(task: TaskId) -> Priority {
        Priority(number_of(task) as u32)
    }

    fn set_inherited_priority(task: TaskId, priority: Priority) {
        RECORDS.told[number_of(task)].store(priority.0, Ordering::Relaxed);
    }

    fn inheritance(task: TaskId) -> Option<NonNull<()>> {
        Some(NonNull::from(&RECORDS.kept[number_of(task)]).cast())
    }

    fn cpu_count() -> u32 {
        if ALL_RUN.get() { TASKS as u32 } else { 1 }
    }

    fn running_on(cpu: CpuId) -> Option<TaskId> {
        ALL_RUN.get().then(|| task_named(cpu.index()))
    }

    fn block(deadline_ns: Option<u64>) -> Wakeup {
        if deadline_ns == Some(AT_ONCE) {
            return Wakeup::TimedOut;
        }
        if let Some(event) = WHEN_BLOCKED.with(RefCell::take) {
            event.happens();
        }
        TOKENS.0[task()].wait();
        Wakeup::Woken
    }

    fn wake(task: TaskId) -> bool {
        TOKENS.0[number_of(task)].notify();
        true
    }
}
