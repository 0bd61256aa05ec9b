//! The platform inside of shuttle's schedules: waiting lets other threads run, blocked tasks are woken, and there is
//! nothing else.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};
use shuttle::sync::{Condvar, Mutex};

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
#[derive(Debug)]
pub(crate) enum Modelled {}

// SAFETY: the models use the waiting functions only. Threads run one at a time, between the checker's operations.
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
        shuttle::thread::yield_now();
    }
    fn chaos_point() {}
    fn now_ns() -> u64 {
        0
    }
    fn fence_light() {}
    fn fence_heavy() {}
    fn record() -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }
    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }
    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new((TASK.with(Cell::get) + 1) * TaskId::ALIGN).expect("is positive"))
    }
    fn check_resched() {}
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
    unsafe fn wake(task: TaskId) -> bool {
        let (token, given) = &TOKENS.0[task.0.get() / TaskId::ALIGN - 1];
        *token.lock().unwrap() = true;
        given.notify_one();
        true
    }
    fn raise_softirq(_: u32) {}
    fn serve_softirqs() {}
    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
