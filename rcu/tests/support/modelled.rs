//! The platform inside of a model: waiting lets other threads run, fences are fences, and there is nothing else.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};
use loom::sync::atomic::{Ordering, fence};

/// The platform. Its CPUs are not told apart, so it is only good for what needs no CPU number.
#[derive(Debug)]
pub(crate) enum Modelled {}

// SAFETY: the models use the waiting functions and the fences only. What they run on, loom's threads, is not preempted
// between two operations that the model sees.
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
        // Pairs with the one in `fence_heavy`.
        fence(Ordering::SeqCst);
    }

    fn fence_heavy() {
        // Pairs with the one in `fence_light`.
        fence(Ordering::SeqCst);
    }

    fn record() -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }

    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }

    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new(TaskId::ALIGN).expect("is positive"))
    }

    fn check_resched() {}

    fn block(_: Option<u64>) -> Wakeup {
        loom::thread::yield_now();
        Wakeup::TimedOut
    }

    unsafe fn wake(_: TaskId) -> bool {
        true
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
