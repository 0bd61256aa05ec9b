//! The platform inside of a model: waiting lets other threads run, blocked tasks are woken, and there is nothing else.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};
use loom::sync::Notify;

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

loom::thread_local! {
    static TASK: Cell<usize> = Cell::new(0);
}

/// The executing thread is task `number` from here on; it is 0 unless it says so.
pub(crate) fn become_task(number: usize) {
    TASK.with(|task| task.set(number));
}

fn task() -> usize {
    TASK.with(Cell::get)
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
        TaskId(NonZeroUsize::new((task() + 1) * TaskId::ALIGN).expect("is positive"))
    }

    fn check_resched() {}

    fn block(deadline_ns: Option<u64>) -> Wakeup {
        if deadline_ns == Some(AT_ONCE) {
            return Wakeup::TimedOut;
        }
        TOKENS.0[task()].wait();
        Wakeup::Woken
    }

    unsafe fn wake(task: TaskId) -> bool {
        TOKENS.0[task.0.get() / TaskId::ALIGN - 1].notify();
        true
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
