//! Another kernel's platform: what somebody writes who has nothing to do with the machines of this crate.
//!
//! It is the least that the contract allows: one CPU, one task, no interrupts but those that the test plays.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};

/// A machine of one CPU, which is the thread that runs it.
enum OneCpu {}

#[derive(Default)]
struct State {
    irq_depth: Cell<u32>,
    now: Cell<u64>,
    woken: Cell<bool>,
    softirqs: Cell<u32>,
    reschedules: Cell<u32>,
    reports: RefCell<Vec<String>>,
}

thread_local! {
    static WORD: Cell<u32> = const { Cell::new(NO_RESCHED_NEEDED) };
    static RECORD: CpuRecord = const { CpuRecord::new() };
    static STATE: State = State::default();
}

// SAFETY: there is one CPU and one execution, so it stays where it is and nothing interrupts it. Fences order nothing,
// as nobody else looks.
unsafe impl Platform for OneCpu {
    fn cpu() -> CpuId {
        CpuId::BOOT
    }
    fn cpu_count() -> u32 {
        1
    }
    fn is_online(cpu: CpuId) -> bool {
        cpu == CpuId::BOOT
    }
    fn kick(_: CpuId) {
        OneCpu::check_resched();
    }
    fn context() -> Context {
        Context::from_word(WORD.get())
    }
    fn preempt_add(units: u32) {
        WORD.set(WORD.get() + units);
        compiler_fence(Ordering::SeqCst);
    }
    fn preempt_sub(units: u32) {
        compiler_fence(Ordering::SeqCst);
        WORD.set(WORD.get() - units);
    }
    fn preempt_enable() {
        OneCpu::preempt_sub(hal::context::PREEMPT_UNIT);
        OneCpu::check_resched();
    }
    fn set_need_resched(_: CpuId) {
        WORD.set(WORD.get() & !NO_RESCHED_NEEDED);
    }
    fn clear_need_resched() {
        WORD.set(WORD.get() | NO_RESCHED_NEEDED);
    }
    fn irq_disable() {
        STATE.with(|state| state.irq_depth.set(state.irq_depth.get() + 1));
    }
    fn irq_enable() -> bool {
        STATE.with(|state| {
            state.irq_depth.set(state.irq_depth.get() - 1);
            state.irq_depth.get() == 0
        })
    }
    fn irq_depth() -> u32 {
        STATE.with(|state| state.irq_depth.get())
    }
    fn relax() {
        std::hint::spin_loop();
    }
    fn chaos_point() {}
    fn now_ns() -> u64 {
        STATE.with(|state| state.now.replace(state.now.get() + 1))
    }
    fn fence_light() {}
    fn fence_heavy() {}
    fn record() -> NonNull<CpuRecord> {
        RECORD.with(|record| NonNull::from(record))
    }
    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        OneCpu::record()
    }
    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new(TaskId::ALIGN).expect("is positive"))
    }
    fn check_resched() {
        // The word is 0 exactly when a reschedule is due and nothing forbids it.
        if WORD.get() == 0 && OneCpu::irq_depth() == 0 {
            OneCpu::clear_need_resched();
            STATE.with(|state| state.reschedules.set(state.reschedules.get() + 1));
        }
    }
    fn block(deadline_ns: Option<u64>) -> Wakeup {
        loop {
            if STATE.with(|state| state.woken.take()) {
                return Wakeup::Woken;
            }
            if deadline_ns.is_some_and(|deadline| OneCpu::now_ns() >= deadline) {
                return Wakeup::TimedOut;
            }
        }
    }
    unsafe fn wake(_: TaskId) -> bool {
        STATE.with(|state| state.woken.set(true));
        false
    }
    fn raise_softirq(vector: u32) {
        STATE.with(|state| state.softirqs.set(state.softirqs.get() | 1 << vector));
    }
    fn serve_softirqs() {
        STATE.with(|state| state.softirqs.take());
    }
    fn report(report: &Report<'_>) {
        STATE.with(|state| state.reports.borrow_mut().push(report.to_string()));
    }
}

/// Generic code such as the crates above are made of.
fn wait_with_preemption_off_in_the_middle<P: Platform>(deadline_ns: u64) -> Wakeup {
    P::preempt_disable();
    P::set_need_resched(P::cpu());
    assert_eq!(P::context().preempt_depth(), 1);
    P::preempt_enable();
    P::block(Some(deadline_ns))
}

#[test]
fn generic_code_runs_on_a_strangers_platform() {
    assert_eq!(wait_with_preemption_off_in_the_middle::<OneCpu>(100), Wakeup::TimedOut);
    assert_eq!(STATE.with(|state| state.reschedules.get()), 1);
    // SAFETY: the task is this one.
    unsafe { OneCpu::wake(OneCpu::current_task()) };
    assert_eq!(wait_with_preemption_off_in_the_middle::<OneCpu>(u64::MAX), Wakeup::Woken);
    assert_eq!(STATE.with(|state| state.reschedules.get()), 2);
}
