//! The page that Quiesce's crates ask for: [`Platform`], for a kernel with two CPUs and one task on each.
//!
//! Per-CPU variables are hal's, and so are the preempt word and the interrupt depth: declared there, kept here.

use core::arch::asm;
use core::num::NonZeroUsize;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use hal::context::{Context, IRQ_DEPTH, NO_RESCHED_NEEDED, PREEMPT_UNIT, PREEMPT_WORD};
use hal::platform::{CpuRecord, Report, Severity, TaskId, Wakeup};
use hal::{CpuId, Platform, percpu};
use sync::Cpu;

use crate::{grace, interrupts, machine, timing};

/// How many CPUs this kernel runs.
pub(crate) const CPUS: usize = 2;

/// This kernel, as a type.
pub(crate) enum Own {}

/// A CPU's only task; its address is its name.
#[repr(align(8))]
struct OnlyTask {
    woken: AtomicBool,
    blocked: AtomicBool,
}

percpu! {
    static RECORD: CpuRecord = CpuRecord::new();
    static TASK: OnlyTask = OnlyTask { woken: AtomicBool::new(false), blocked: AtomicBool::new(false) };
    /// The CPU takes interrupts.
    static ONLINE: AtomicBool = AtomicBool::new(false);
    /// Another CPU wants this one to reschedule.
    static RESCHED_ASKED: AtomicU32 = AtomicU32::new(0);
    /// Softirqs raised and not yet served.
    static SOFTIRQS: AtomicU32 = AtomicU32::new(0);
    /// Preemption points that would have switched tasks.
    pub(crate) static RESCHEDULES: AtomicU32 = AtomicU32::new(0);
}

// SAFETY: no task ever leaves its CPU, so an execution stays where it is. `cli` keeps everything but NMIs out.
// `percpu::install` gave every CPU a number and an area, so a record, of its own, and areas stay. Both fences are full
// ones. Each CPU has one task, named by an address of its own.
unsafe impl Platform for Own {
    #[inline(always)]
    fn cpu() -> CpuId {
        CpuId::new(percpu::current_cpu_number()).unwrap_or(CpuId::BOOT)
    }
    fn cpu_count() -> u32 {
        CPUS as u32
    }
    fn is_online(cpu: CpuId) -> bool {
        ONLINE.on(cpu).load(Ordering::Acquire)
    }
    fn kick(cpu: CpuId) {
        if Own::is_online(cpu) {
            interrupts::kick(cpu);
        }
    }

    #[inline(always)]
    fn context() -> Context {
        Context::from_word(PREEMPT_WORD.read())
    }
    #[inline(always)]
    fn preempt_add(units: u32) {
        PREEMPT_WORD.add(units);
    }
    #[inline(always)]
    fn preempt_sub(units: u32) {
        PREEMPT_WORD.sub(units);
    }
    #[inline(always)]
    fn preempt_enable() {
        Own::preempt_sub(PREEMPT_UNIT);
        Own::check_resched();
    }
    fn set_need_resched(cpu: CpuId) {
        if cpu == Own::cpu() {
            PREEMPT_WORD.and(!NO_RESCHED_NEEDED);
        } else {
            // Release: pairs with the Acquire in `accept_resched_request`. Only its own CPU writes a preempt word.
            RESCHED_ASKED.on(cpu).store(1, Ordering::Release);
            Own::kick(cpu);
        }
    }
    fn clear_need_resched() {
        PREEMPT_WORD.or(NO_RESCHED_NEEDED);
    }

    #[inline(always)]
    fn irq_disable() {
        // SAFETY: keeps interrupts out. Without `nomem` it is a compiler barrier.
        unsafe { asm!("cli", options(nostack)) };
        IRQ_DEPTH.inc();
    }
    #[inline(always)]
    fn irq_enable() -> bool {
        let outermost = IRQ_DEPTH.dec_is_zero();
        if outermost {
            // SAFETY: nobody on this CPU wants interrupts off any more.
            unsafe { asm!("sti", options(nostack)) };
        }
        outermost
    }
    #[inline(always)]
    fn irq_depth() -> u32 {
        IRQ_DEPTH.read()
    }

    #[inline(always)]
    fn relax() {
        core::hint::spin_loop();
    }
    #[inline(always)]
    fn chaos_point() {}
    fn now_ns() -> u64 {
        machine::now_ns()
    }
    fn fence_light() {
        // With two full fences there is nobody to interrupt in `fence_heavy`. SeqCst: pairs with itself there.
        fence(Ordering::SeqCst);
    }
    fn fence_heavy() {
        fence(Ordering::SeqCst);
    }
    #[inline(always)]
    fn record() -> NonNull<CpuRecord> {
        // SAFETY: an address inside of this CPU's area is not null.
        unsafe { NonNull::new_unchecked(RECORD.local_ptr().cast_mut()) }
    }
    fn record_of(cpu: CpuId) -> NonNull<CpuRecord> {
        NonNull::from(RECORD.on(cpu))
    }

    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new(TASK.local_ptr() as usize).expect("areas are not at address 0"))
    }
    fn check_resched() {
        // 0 exactly when a reschedule is due and nothing in the word forbids it.
        if PREEMPT_WORD.read() == 0 && Own::irq_depth() == 0 {
            // There is no other task to switch to, so this is all.
            Own::clear_need_resched();
            grace::quiescent();
            RESCHEDULES.inc();
        }
    }
    fn block(deadline_ns: Option<u64>) -> Wakeup {
        // SAFETY: the task is this CPU's for ever, and so is its area.
        let task = unsafe { &*TASK.local_ptr() };
        loop {
            // Off before the look: the interrupt of a wake-up that comes after it ends the halt.
            Own::irq_disable();
            task.blocked.store(true, Ordering::Relaxed);
            // Acquire: pairs with the Release in `wake`.
            let woken = task.woken.swap(false, Ordering::Acquire);
            if woken || deadline_ns.is_some_and(|deadline| Own::now_ns() >= deadline) {
                task.blocked.store(false, Ordering::Relaxed);
                Own::irq_enable();
                return if woken { Wakeup::Woken } else { Wakeup::TimedOut };
            }
            IRQ_DEPTH.dec();
            // SAFETY: interrupts come on with the halt, so none can be missed between the two; the timer ends it.
            unsafe { asm!("sti", "hlt", options(nostack)) };
        }
    }
    unsafe fn wake(task: TaskId) -> bool {
        let is_it = |cpu: &CpuId| ptr::from_ref(TASK.on(*cpu)) as usize == task.0.get();
        let Some(cpu) = percpu::cpus().find(is_it) else { return false };
        // Release: pairs with the Acquire in `block`.
        TASK.on(cpu).woken.store(true, Ordering::Release);
        let was_blocked = TASK.on(cpu).blocked.load(Ordering::Relaxed);
        if cpu != Own::cpu() {
            Own::kick(cpu);
        }
        was_blocked
    }
    fn raise_softirq(vector: u32) {
        SOFTIRQS.or(1 << vector);
    }
    fn serve_softirqs() {
        // Again until none is left: what is raised meanwhile finds somebody at it, and leaves it to him.
        while SOFTIRQS.read() != 0 && !Own::context().in_interrupt() && Own::irq_depth() == 0 {
            // SAFETY: nothing forbids softirqs here; the guard is dropped before the code goes on.
            let serving = unsafe { Cpu::<Own>::enter_softirq() };
            let pending = SOFTIRQS.exchange(0);
            timing::serve(pending, &serving);
            grace::serve(pending, &serving);
        }
    }
    fn report(report: &Report<'_>) {
        if report.severity == Severity::Fatal {
            panic!("{report}");
        }
        machine::print(format_args!("{report}\n"));
        REPORTS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reports so far. A run with one is a failed run.
pub(crate) static REPORTS: AtomicU32 = AtomicU32::new(0);

/// Turns interrupts on for the first time on this CPU, which starts with a depth of 1.
pub(crate) fn go_online() {
    // Release: pairs with the Acquire in `is_online`; who sees the CPU online may interrupt it.
    ONLINE.on(Own::cpu()).store(true, Ordering::Release);
    Own::irq_enable();
}

/// The kick's handler: takes over what `set_need_resched` asked for from afar.
pub(crate) fn accept_resched_request() {
    if RESCHED_ASKED.exchange(0) != 0 {
        // Acquire: pairs with the Release in `set_need_resched`.
        fence(Ordering::Acquire);
        PREEMPT_WORD.and(!NO_RESCHED_NEEDED);
    }
}

/// The end of an interrupt, still counted in the interrupt depth: does what came due, where nothing forbids it.
pub(crate) fn leave_interrupt() {
    let context = Own::context();
    if context.count() == 0 && (context.resched_due() || SOFTIRQS.read() != 0) {
        Own::irq_enable();
        Own::serve_softirqs();
        Own::check_resched();
        Own::irq_disable();
    }
}
