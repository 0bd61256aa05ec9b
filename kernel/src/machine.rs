//! What the kernel does when the machine calls up: the one table, filled.
//!
//! Scheduling is at its smallest here: each CPU runs one task, its own, which blocks by halting. The contract's
//! promises hold for it; a scheduler changes these functions and nothing below them.

use core::fmt::{self, Write};
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::platform::{Report, Severity, TaskId, Wakeup};
use hal::x86_64::traps::TrapFrame;
use hal::x86_64::upcalls::Upcalls;
use hal::x86_64::{native, vectors};
use hal::{Native, Platform, percpu};

use crate::log::StackText;
use crate::log::ring::MAX_TEXT;
use crate::{cpus, memory, panic, serial, snapshot, softirq, tick};

/// The kernel's side of the machine's contract.
pub(crate) static UPCALLS: Upcalls = Upcalls {
    exception: panic::on_exception,
    timer: tick::on_timer,
    kick: native::accept_resched_request,
    call: crate::testing::irq::on_call,
    tlb: memory::shootdown::handle_shootdown_ipi,
    device,
    nmi,
    interrupt_exit,
    reschedule,
    current_task,
    block,
    wake,
    softirq: softirq::serve,
    report,
    is_online: cpus::is_online,
    fence_all: memory::shootdown::fence_all,
};

fn device(vector: u8, _frame: &TrapFrame) {
    if vector == vectors::ISA + serial::ISA_IRQ {
        serial::on_interrupt();
    }
}

fn nmi(frame: &TrapFrame) {
    snapshot::on_nmi(frame);
    panic::on_nmi();
    crate::testing::nmi::on_nmi(frame);
}

/// The only task of a CPU. Its address is its name.
#[repr(align(8))]
struct CpuTask {
    /// A wake-up that no `block` has consumed.
    woken: AtomicU32,
    /// The task is in `block`.
    blocked: AtomicU32,
}

percpu! {
    static TASK: CpuTask = CpuTask { woken: AtomicU32::new(0), blocked: AtomicU32::new(0) };
    /// Preemption points at which this CPU was asked to reschedule.
    pub(crate) static RESCHEDULES: AtomicU32 = AtomicU32::new(0);
}

fn current_task() -> TaskId {
    TaskId(NonZeroUsize::new(TASK.local_ptr() as usize).expect("areas are not at address 0"))
}

/// One task a CPU: there is nobody to switch to, so the request is acknowledged.
///
/// An interrupt can come between the instruction that found the request and this function, and serve it on its way out.
/// So the request is looked at again, where no interrupt can come.
fn reschedule() {
    Native::irq_disable();
    if Native::context().resched_due() {
        Native::clear_need_resched();
        RESCHEDULES.inc();
    }
    Native::irq_enable();
}

fn interrupt_exit(resched_due: bool) {
    if resched_due {
        reschedule();
    }
}

fn block(deadline_ns: Option<u64>) -> Wakeup {
    // SAFETY: one task a CPU, which never moves; areas live for ever.
    let task = unsafe { &*TASK.local_ptr() };
    let context = Native::context();
    if context.count() != 0 || Native::irq_depth() != 0 {
        panic!(
            "BUG: scheduling while atomic: preempt count {:#x}, interrupt depth {}",
            context.count(),
            Native::irq_depth()
        );
    }
    loop {
        // Off before the look, so that a wake-up's interrupt that comes after it ends the halt.
        Native::irq_disable();
        task.blocked.store(1, Ordering::Relaxed);
        // Acquire: pairs with the Release in `wake`.
        let woken = task.woken.swap(0, Ordering::Acquire) != 0;
        let late = deadline_ns.is_some_and(|deadline| Native::now_ns() >= deadline);
        if woken || late {
            task.blocked.store(0, Ordering::Relaxed);
            Native::irq_enable();
            return if woken { Wakeup::Woken } else { Wakeup::TimedOut };
        }
        Native::chaos_point();
        native::enable_and_wait();
    }
}

unsafe fn wake(task: TaskId) -> bool {
    let found = percpu::cpus().find(|cpu| core::ptr::from_ref(TASK.on(*cpu)) as usize == task.0.get());
    let Some(cpu) = found else { return false };
    let target = TASK.on(cpu);
    // Release: pairs with the Acquire in `block`; the woken task sees what was done before.
    target.woken.store(1, Ordering::Release);
    // The full fence pairs with the interrupt that `kick` sends: either `block` sees `woken`, or it halts with the
    // interrupt pending, which ends the halt.
    core::sync::atomic::fence(Ordering::SeqCst);
    let blocked = target.blocked.load(Ordering::Relaxed) != 0;
    if cpu != Native::cpu() {
        Native::kick(cpu);
    }
    blocked
}

fn report(report: &Report<'_>) {
    if report.severity == Severity::Fatal {
        panic!("{report}");
    }
    let mut lines = Lines(StackText::new());
    // Never fails.
    let _ = write!(lines, "{report}");
    lines.end_line();
}

/// Logs each line that is written to it as a message of its own, because a message has no room for many.
struct Lines(StackText<MAX_TEXT>);

impl Lines {
    fn end_line(&mut self) {
        ::log::error!("{}", self.0.as_str());
        self.0.clear();
    }
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut parts = text.split('\n');
        let first = parts.next().unwrap_or("");
        self.0.write_str(first)?;
        parts.try_for_each(|part| {
            self.end_line();
            self.0.write_str(part)
        })
    }
}
