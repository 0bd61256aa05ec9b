//! The platform inside of a model: waiting lets other threads run, blocked tasks are woken, and there is nothing else.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Priority, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Notify};

use crate::pi::Inheritance;

/// The platform. Its CPUs are not told apart, so it is only good for what needs no CPU number. Threads that block say
/// which task they are with [`become_task`].
#[derive(Debug)]
pub(crate) enum Modelled {}

/// A deadline that has passed when the task blocks, unless a wake-up is there by then.
pub(crate) const AT_ONCE: u64 = 0;

/// One token for each task that a model may have.
struct Tokens([Notify; 4]);

loom::lazy_static! {
    static ref TOKENS: Tokens = Tokens(std::array::from_fn(|_| Notify::new()));
}

/// What the platform keeps of each task for the inheritance of priorities.
struct Records {
    kept: [Inheritance<Modelled>; 4],
    /// What it was told last.
    told: [AtomicU32; 4],
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

/// The name of task `number`.
pub(crate) fn named(number: usize) -> TaskId {
    TaskId(NonZeroUsize::new((number + 1) * TaskId::ALIGN).expect("is positive"))
}

/// The number of the task of that name.
fn number(task: TaskId) -> usize {
    task.0.get() / TaskId::ALIGN - 1
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

// SAFETY: the models use the waiting functions only. What they run on, loom's threads, is not preempted between two
// operations that the model sees.
unsafe impl Platform for Modelled {
    fn cpu() -> CpuId {
        CpuId::BOOT
    }

    fn cpu_count() -> u32 {
        1
    }

    fn is_online(_: CpuId) -> bool {
        true
    }

    fn kick(_: CpuId) {}

    fn context() -> Context {
        Context::from_word(NO_RESCHED_NEEDED)
    }

    fn preempt_add(_: u32) {}

    fn preempt_sub(_: u32) {}

    fn preempt_enable() {}

    fn set_need_resched(_: CpuId) {}

    fn clear_need_resched() {}

    fn irq_disable() {}

    fn irq_enable() -> bool {
        true
    }

    fn irq_depth() -> u32 {
        0
    }

    fn relax() {
        loom::thread::yield_now();
    }

    fn chaos_point() {}

    fn now_ns() -> u64 {
        0
    }

    fn fence_light() {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }

    fn fence_heavy() {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }

    fn record() -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }

    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }

    fn current_task() -> TaskId {
        named(task())
    }

    unsafe fn priority_of(task: TaskId) -> Priority {
        Priority(number(task) as u32)
    }

    unsafe fn set_inherited_priority(task: TaskId, priority: Priority) {
        RECORDS.told[number(task)].store(priority.0, Ordering::Relaxed);
    }

    unsafe fn inheritance(task: TaskId) -> Option<NonNull<()>> {
        Some(NonNull::from(&RECORDS.kept[number(task)]).cast())
    }

    fn check_resched() {}

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

    unsafe fn wake(task: TaskId) -> bool {
        TOKENS.0[number(task)].notify();
        true
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
