//! The hosted machine, with priorities.

use std::cell::Cell;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hal::context::Context;
use hal::platform::{CpuRecord, Priority, Report, TaskId, Wakeup};
use hal::{CpuId, Native, Platform};
use sync::pi::Inheritance;

/// The platform: [`Native`], where tasks have priorities and can be cancelled.
#[derive(Debug)]
pub(crate) enum Prioritised {}

/// What the platform knows of a task.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) own: AtomicU32,
    /// What it was last told that the task inherits.
    pub(crate) told: AtomicU32,
    pub(crate) kept: Inheritance<Prioritised>,
    /// The task sleeps, or is about to.
    pub(crate) sleeps: AtomicBool,
    pub(crate) cancelled: AtomicBool,
}

static TASKS: RwLock<Option<HashMap<TaskId, &'static Known>>> = RwLock::new(None);
static REPORTS: RwLock<Vec<String>> = RwLock::new(Vec::new());

thread_local! {
    static MINE: Cell<Option<&'static Known>> = const { Cell::new(None) };
}

/// Makes the executing thread a task with a priority.
pub(crate) fn register(own: u32) -> (TaskId, &'static Known) {
    let known: &'static Known = Box::leak(Box::default());
    known.own.store(own, Ordering::Relaxed);
    let task = Native::current_task();
    TASKS.write().unwrap().get_or_insert_default().insert(task, known);
    MINE.set(Some(known));
    (task, known)
}

fn known(task: TaskId) -> Option<&'static Known> {
    TASKS.read().unwrap().as_ref()?.get(&task).copied()
}

/// The reports so far that contain `what`.
pub(crate) fn reports_of(what: &str) -> usize {
    REPORTS.read().unwrap().iter().filter(|report| report.contains(what)).count()
}

macro_rules! as_native {
    ($(fn $name:ident($($arg:ident: $Type:ty),*) $(-> $Ret:ty)?;)+) => {$(
        #[inline]
        fn $name($($arg: $Type),*) $(-> $Ret)? {
            Native::$name($($arg),*)
        }
    )+};
}

// SAFETY: `Native`'s promises, which it keeps; what is added are numbers. Records are leaked, and so outlive their tasks.
unsafe impl Platform for Prioritised {
    as_native! {
        fn cpu() -> CpuId;
        fn cpu_count() -> u32;
        fn is_online(cpu: CpuId) -> bool;
        fn kick(cpu: CpuId);
        fn context() -> Context;
        fn preempt_add(units: u32);
        fn preempt_sub(units: u32);
        fn preempt_enable();
        fn set_need_resched(cpu: CpuId);
        fn clear_need_resched();
        fn irq_disable();
        fn irq_enable() -> bool;
        fn irq_depth() -> u32;
        fn relax();
        fn yield_to_host();
        fn chaos_point();
        fn now_ns() -> u64;
        fn fence_light();
        fn fence_heavy();
        fn record() -> NonNull<CpuRecord>;
        fn record_of(cpu: CpuId) -> NonNull<CpuRecord>;
        fn current_task() -> TaskId;
        fn running_on(cpu: CpuId) -> Option<TaskId>;
        fn check_resched();
        fn raise_softirq(vector: u32);
        fn softirqs_pending() -> bool;
        fn serve_softirqs();
    }

    fn is_cancelled() -> bool {
        MINE.get().is_some_and(|known| known.cancelled.load(Ordering::Relaxed))
    }

    fn block(deadline_ns: Option<u64>) -> Wakeup {
        let mine = MINE.get().expect("only registered tasks block");
        mine.sleeps.store(true, Ordering::Release);
        let wakeup = Native::block(deadline_ns);
        mine.sleeps.store(false, Ordering::Release);
        wakeup
    }

    unsafe fn wake(task: TaskId) -> bool {
        // SAFETY: the same contract.
        unsafe { Native::wake(task) }
    }

    unsafe fn priority_of(task: TaskId) -> Priority {
        Priority(known(task).map_or(0, |known| known.own.load(Ordering::Relaxed)))
    }

    unsafe fn set_inherited_priority(task: TaskId, priority: Priority) {
        known(task).expect("is registered").told.store(priority.0, Ordering::Relaxed);
    }

    unsafe fn inheritance(task: TaskId) -> Option<NonNull<()>> {
        known(task).map(|known| NonNull::from(&known.kept).cast())
    }

    fn report(report: &Report<'_>) {
        REPORTS.write().unwrap().push(report.to_string());
    }
}
