//! `Native` on a host.

use core::cell::Cell;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use super::vcpu::{Vcpu, deliver_if_unmasked};
use super::{clock, fence, hooks};
use crate::context::{
    Context, HARDIRQ_MASK, IRQ_DEPTH, NMI_MASK, NO_RESCHED_NEEDED, PREEMPT_MASK, PREEMPT_UNIT, PREEMPT_WORD,
    SOFTIRQ_MASK, SOFTIRQ_UNIT,
};
use crate::percpu::current_cpu_number;
use crate::platform::{CpuRecord, Report, Severity, TaskId, Wakeup};
use crate::{CpuId, MAX_CPUS, Native, Platform};

crate::percpu! {
    pub(super) static RECORD: CpuRecord = CpuRecord::new();
    /// Softirqs that were raised here and not served yet. Touched by this CPU alone.
    pub(super) static SOFTIRQS: AtomicU32 = AtomicU32::new(0);
}

/// Softirqs are numbered below this.
const SOFTIRQ_VECTORS: u32 = 10;

/// How often `serve_softirqs` starts again because more were raised, before it lets the host run other threads.
const SOFTIRQ_RESTARTS: u32 = 10;

/// How many turns of a spin loop pass before the thread yields: host threads may outnumber cores, and the awaited one
/// may need this core.
const TURNS_PER_YIELD: u32 = 32;

std::thread_local! {
    static TURNS: Cell<u32> = const { Cell::new(0) };
}

#[track_caller]
fn fatal(message: core::fmt::Arguments<'_>) {
    hooks::report(&Report { severity: Severity::Fatal, message, location: Location::caller() });
}

// SAFETY: a bound thread stays on its CPU for as long as it is bound, and numbers and records are unique among bound
// threads. Interrupts are run by the thread itself, at delivery points, each of which tests the interrupt depth first.
// `fence` argues for the fences. A task's name is the address of its CPU's mailbox, and a CPU runs one task.
unsafe impl Platform for Native {
    #[inline]
    fn cpu() -> CpuId {
        CpuId::new(current_cpu_number()).expect("areas are numbered with ids")
    }

    fn cpu_count() -> u32 {
        MAX_CPUS as u32
    }

    fn is_online(cpu: CpuId) -> bool {
        Vcpu::of(cpu).is_online()
    }

    fn kick(cpu: CpuId) {
        Vcpu::of(cpu).kick();
        deliver_if_unmasked();
    }

    #[inline]
    fn context() -> Context {
        Context::from_word(PREEMPT_WORD.read())
    }

    #[inline]
    fn preempt_add(units: u32) {
        PREEMPT_WORD.add(units);
        compiler_fence(Ordering::SeqCst);
    }

    #[inline]
    fn preempt_sub(units: u32) {
        compiler_fence(Ordering::SeqCst);
        PREEMPT_WORD.sub(units);
    }

    #[inline]
    #[track_caller]
    fn preempt_enable() {
        compiler_fence(Ordering::SeqCst);
        if PREEMPT_WORD.read() & PREEMPT_MASK == 0 {
            fatal(format_args!("preempt_enable() without preempt_disable()"));
            return;
        }
        PREEMPT_WORD.sub(PREEMPT_UNIT);
        Native::check_resched();
    }

    fn set_need_resched(cpu: CpuId) {
        if cpu == Native::cpu() {
            PREEMPT_WORD.and(!NO_RESCHED_NEEDED);
        } else {
            Vcpu::of(cpu).kick_to_reschedule();
        }
    }

    fn clear_need_resched() {
        PREEMPT_WORD.or(NO_RESCHED_NEEDED);
    }

    #[inline]
    fn irq_disable() {
        IRQ_DEPTH.inc();
        compiler_fence(Ordering::SeqCst);
    }

    #[inline]
    #[track_caller]
    fn irq_enable() -> bool {
        compiler_fence(Ordering::SeqCst);
        if IRQ_DEPTH.read() == 0 {
            fatal(format_args!("irq_enable() without irq_disable()"));
            return true;
        }
        if !IRQ_DEPTH.dec_is_zero() {
            return false;
        }
        deliver_if_unmasked();
        true
    }

    #[inline]
    fn irq_depth() -> u32 {
        IRQ_DEPTH.read()
    }

    fn relax() {
        core::hint::spin_loop();
        deliver_if_unmasked();
        let turns = TURNS.get() + 1;
        if turns < TURNS_PER_YIELD {
            TURNS.set(turns);
        } else {
            TURNS.set(0);
            std::thread::yield_now();
        }
    }

    fn yield_to_host() {
        deliver_if_unmasked();
        std::thread::yield_now();
    }

    #[inline]
    fn chaos_point() {
        #[cfg(feature = "chaos")]
        crate::chaos::point::<Native>();
    }

    fn now_ns() -> u64 {
        clock::now_ns()
    }

    #[inline]
    fn fence_light() {
        fence::light();
    }

    fn fence_heavy() {
        fence::heavy();
    }

    #[inline]
    fn record() -> NonNull<CpuRecord> {
        NonNull::new(RECORD.local_ptr().cast_mut()).expect("areas are not at address 0")
    }

    fn record_of(cpu: CpuId) -> NonNull<CpuRecord> {
        NonNull::from(RECORD.on(cpu))
    }

    fn current_task() -> TaskId {
        Vcpu::of(Native::cpu()).task()
    }

    fn running_on(cpu: CpuId) -> Option<TaskId> {
        Vcpu::of(cpu).running()
    }

    fn check_resched() {
        let preemptible = || Native::context().count() == 0 && Native::irq_depth() == 0;
        if !preemptible() {
            return;
        }
        deliver_if_unmasked();
        while Native::context().resched_due() && preemptible() {
            Native::clear_need_resched();
            hooks::resched();
        }
    }

    #[track_caller]
    fn block(deadline_ns: Option<u64>) -> Wakeup {
        let (count, depth) = (Native::context().count(), Native::irq_depth());
        if count != 0 || depth != 0 {
            fatal(format_args!(
                "scheduling while atomic: task blocks on CPU {} with preempt count {count:#x} and interrupt depth {depth}",
                Native::cpu()
            ));
        }
        Native::check_resched();
        Vcpu::of(Native::cpu()).block(deadline_ns)
    }

    unsafe fn wake(task: TaskId) -> bool {
        Vcpu::of_task(task).wake()
    }

    #[track_caller]
    fn raise_softirq(vector: u32) {
        assert!(vector < SOFTIRQ_VECTORS, "there is no softirq {vector}; vectors are 0..{SOFTIRQ_VECTORS}");
        SOFTIRQS.or(1 << vector);
        // Outside interrupts and sections without bottom halves nobody would come by to serve it, so that the CPU
        // interrupts itself.
        if Native::context().count() & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_MASK) == 0 {
            Vcpu::of(Native::cpu()).kick();
        }
    }

    #[inline]
    fn softirqs_pending() -> bool {
        SOFTIRQS.read() != 0
    }

    fn serve_softirqs() {
        let allowed = || {
            Native::context().count() & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_MASK) == 0
                && Native::irq_depth() == 0
        };
        let mut restarts = 0;
        while allowed() && SOFTIRQS.read() != 0 {
            Native::preempt_add(SOFTIRQ_UNIT);
            let _serving = Serving;
            // Taken before any is served: what is raised meanwhile is seen by the next round.
            hooks::softirq(SOFTIRQS.exchange(0));
            restarts += 1;
            if restarts % SOFTIRQ_RESTARTS == 0 {
                std::thread::yield_now();
            }
        }
    }

    #[track_caller]
    fn report(report: &Report<'_>) {
        hooks::report(report);
    }
}

/// Ends the softirq context when dropped, also when the hook panics.
struct Serving;

impl Drop for Serving {
    fn drop(&mut self) {
        Native::preempt_sub(SOFTIRQ_UNIT);
    }
}
