//! A platform with one CPU, which the executing thread plays; no real interrupts.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, HARDIRQ_UNIT, NO_RESCHED_NEEDED, PREEMPT_UNIT};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};

/// The platform.
#[derive(Debug)]
pub(crate) enum Single {}

thread_local! {
    static WORD: Cell<u32> = const { Cell::new(NO_RESCHED_NEEDED) };
    static IRQ_DEPTH: Cell<u32> = const { Cell::new(0) };
    static SOFTIRQS: Cell<u32> = const { Cell::new(0) };
    static RESCHED: Cell<bool> = const { Cell::new(false) };
    static RECORD: &'static CpuRecord = Box::leak(Box::new(CpuRecord::new()));
}

/// Begins a test.
pub(crate) fn reset() {
    WORD.set(NO_RESCHED_NEEDED);
    IRQ_DEPTH.set(0);
    SOFTIRQS.set(0);
    RESCHED.set(false);
}

/// Nothing is switched off.
pub(crate) fn is_at_rest() -> bool {
    Single::context().count() == 0 && IRQ_DEPTH.get() == 0
}

/// The softirqs that were raised since the last time, a bit each.
pub(crate) fn take_softirqs() -> u32 {
    SOFTIRQS.take()
}

/// Whether a reschedule was asked for since the last time.
pub(crate) fn take_resched() -> bool {
    RESCHED.take()
}

/// Runs `handler` as an interrupt would.
pub(crate) fn interrupt(handler: impl FnOnce()) {
    Single::irq_disable();
    WORD.set(WORD.get() + HARDIRQ_UNIT);
    handler();
    WORD.set(WORD.get() - HARDIRQ_UNIT);
    Single::irq_enable();
}

// SAFETY: a thread is the only CPU of its tests, without interrupts; fences need not do anything.
unsafe impl Platform for Single {
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
        Context::from_word(WORD.get())
    }

    fn preempt_add(units: u32) {
        WORD.set(WORD.get() + units);
    }

    fn preempt_sub(units: u32) {
        assert!(Single::context().count() >= units, "preempt count below zero");
        WORD.set(WORD.get() - units);
    }

    fn preempt_enable() {
        Single::preempt_sub(PREEMPT_UNIT);
    }

    fn set_need_resched(_: CpuId) {
        RESCHED.set(true);
    }

    fn clear_need_resched() {}

    fn irq_disable() {
        IRQ_DEPTH.set(IRQ_DEPTH.get() + 1);
    }

    fn irq_enable() -> bool {
        IRQ_DEPTH.set(IRQ_DEPTH.get().checked_sub(1).expect("interrupts are on already"));
        IRQ_DEPTH.get() == 0
    }

    fn irq_depth() -> u32 {
        IRQ_DEPTH.get()
    }

    fn relax() {}

    fn chaos_point() {}

    fn now_ns() -> u64 {
        0
    }

    fn fence_light() {}

    fn fence_heavy() {}

    fn record() -> NonNull<CpuRecord> {
        RECORD.with(|record| NonNull::from(*record))
    }

    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        Single::record()
    }

    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new(TaskId::ALIGN).expect("is positive"))
    }

    fn check_resched() {}

    fn block(_: Option<u64>) -> Wakeup {
        unreachable!("nothing here blocks");
    }

    unsafe fn wake(_: TaskId) -> bool {
        unreachable!("nothing here blocks");
    }

    fn raise_softirq(vector: u32) {
        SOFTIRQS.set(SOFTIRQS.get() | 1 << vector);
    }

    fn softirqs_pending() -> bool {
        false
    }

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
