//! A machine of several CPUs that one thread plays, one step after the other.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};

/// The platform: which CPU executes is what [`on`] said last.
#[derive(Debug)]
pub(crate) enum Sim {}

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
    static WORD: Cell<u32> = const { Cell::new(NO_RESCHED_NEEDED) };
    static IRQ_DEPTH: Cell<u32> = const { Cell::new(0) };
    static KICKED: RefCell<Vec<CpuId>> = const { RefCell::new(Vec::new()) };
}

/// What follows is executed by `cpu`.
pub(crate) fn on(cpu: usize) -> CpuId {
    CPU.set(cpu as u32);
    Sim::cpu()
}

/// The CPUs that were kicked since the last look.
pub(crate) fn kicked() -> Vec<CpuId> {
    KICKED.take()
}

// SAFETY: the CPUs' steps are one after the other, and nothing interrupts them.
unsafe impl Platform for Sim {
    fn cpu() -> CpuId {
        CpuId::new(CPU.get()).expect("few")
    }

    fn cpu_count() -> u32 {
        8
    }

    fn is_online(_: CpuId) -> bool {
        true
    }

    fn kick(cpu: CpuId) {
        KICKED.with_borrow_mut(|kicked| kicked.push(cpu));
    }

    fn context() -> Context {
        Context::from_word(WORD.get())
    }

    fn preempt_add(units: u32) {
        WORD.set(WORD.get() + units);
    }

    fn preempt_sub(units: u32) {
        WORD.set(WORD.get() - units);
    }

    fn preempt_enable() {
        Sim::preempt_sub(hal::context::PREEMPT_UNIT);
    }

    fn set_need_resched(_: CpuId) {}

    fn clear_need_resched() {}

    fn irq_disable() {
        IRQ_DEPTH.set(IRQ_DEPTH.get() + 1);
    }

    fn irq_enable() -> bool {
        IRQ_DEPTH.set(IRQ_DEPTH.get() - 1);
        IRQ_DEPTH.get() == 0
    }

    fn irq_depth() -> u32 {
        IRQ_DEPTH.get()
    }

    fn relax() {
        panic!("nobody waits where one thread does all");
    }

    fn chaos_point() {}

    fn now_ns() -> u64 {
        0
    }

    fn fence_light() {}

    fn fence_heavy() {}

    fn record() -> NonNull<CpuRecord> {
        Sim::record_of(Sim::cpu())
    }

    fn record_of(cpu: CpuId) -> NonNull<CpuRecord> {
        static RECORDS: [CpuRecord; 8] = [const { CpuRecord::new() }; 8];
        NonNull::from(&RECORDS[cpu.index()])
    }

    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new(TaskId::ALIGN).expect("is not 0"))
    }

    fn check_resched() {}

    fn block(_: Option<u64>) -> Wakeup {
        panic!("nobody sleeps");
    }

    unsafe fn wake(_: TaskId) -> bool {
        false
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
