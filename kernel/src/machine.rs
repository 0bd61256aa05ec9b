//! What the kernel does when the machine calls up: the one table, filled.

use core::fmt::{self, Write};

use hal::platform::{Priority, Report, Severity, TaskId};
use hal::x86_64::backtrace::Backtrace;
use hal::x86_64::traps::TrapFrame;
use hal::x86_64::upcalls::Upcalls;
use hal::x86_64::vectors;

use crate::log::StackText;
use crate::log::ring::MAX_TEXT;
use crate::task::Task;
use crate::watchdog::hung;
use crate::{boot, cpus, hotplug, memory, panic, rcu, sched, serial, snapshot, softirq, tick, trace};

/// The kernel's side of the machine's contract.
pub(crate) static UPCALLS: Upcalls = Upcalls {
    exception: panic::on_exception,
    timer: |frame| traced(vectors::TIMER, || tick::on_timer(frame)),
    kick,
    call,
    tlb,
    softirq_raised,
    device,
    nmi,
    interrupt_exit: || {
        rcu::idle_leave();
        sched::interrupt_exit();
    },
    reschedule: sched::reschedule,
    is_cancelled,
    priority_of,
    set_inherited_priority,
    block: hung::block,
    block_idle: hung::block_idle,
    spun_long: memory::shootdown::serve_while_spinning,
    lock_contended: trace::lock_contended,
    lock_waited: trace::lock_waited,
    wake,
    softirq: softirq::serve,
    softirq_in_task: softirq::serve_in_task,
    report,
    is_online: cpus::is_online,
    fence_all: memory::shootdown::fence_all,
};

/// Serves an interrupt, and has it in the trace.
#[inline(always)]
fn traced(vector: u8, serve: impl FnOnce()) {
    // Before anything here reads.
    rcu::idle_leave();
    if !trace::is_told() {
        return serve();
    }
    trace::irq_enter(vector);
    serve();
    trace::irq_exit(vector);
}

extern "C" fn kick() {
    traced(vectors::KICK, tick::on_kick);
}

extern "C" fn call() {
    traced(vectors::CALL, crate::calls::on_interrupt);
}

extern "C" fn tlb() {
    traced(vectors::TLB, memory::shootdown::handle_shootdown_ipi);
}

extern "C" fn softirq_raised() {
    traced(vectors::SOFTIRQ, || ());
}

fn device(vector: u8, _frame: &TrapFrame) {
    traced(vector, || serve_device(vector));
}

fn serve_device(vector: u8) {
    if vector == vectors::ISA + serial::ISA_IRQ {
        serial::on_interrupt();
        boot::wake_console();
    } else {
        hotplug::plug::on_interrupt(vector);
    }
}

fn nmi(frame: &TrapFrame) {
    let was_idle = rcu::nmi_enter();
    snapshot::on_nmi(frame);
    panic::on_nmi();
    crate::testing::nmi::on_nmi(frame);
    rcu::nmi_exit(was_idle);
}

unsafe fn wake(task: TaskId) -> bool {
    // SAFETY: the caller's promise: a task that has not ended has a record.
    sched::wake(unsafe { Task::from_id(task) })
}

unsafe fn priority_of(task: TaskId) -> Priority {
    // SAFETY: as in `wake`.
    sched::own_priority(unsafe { Task::from_id(task) })
}

unsafe fn set_inherited_priority(task: TaskId, priority: Priority) {
    // SAFETY: as in `wake`.
    sched::inherit(unsafe { Task::from_id(task) }, priority);
}

fn is_cancelled() -> bool {
    Task::current().is_cancelled()
}

fn report(report: &Report<'_>) {
    if report.severity == Severity::Fatal {
        panic!("{report}");
    }
    let mut lines = Lines::new();
    // Never fails.
    let _ = writeln!(lines, "{report}");
    if report.severity == Severity::Bug {
        // Who broke the rule is among the callers. Walks the stack without a lock: in any context.
        let _ = snapshot::print_steps(&mut lines, Backtrace::here());
    }
    lines.end();
}

/// Logs each line that is written to it as a message of its own, because a message has no room for many.
pub(crate) struct Lines(StackText<MAX_TEXT>);

impl Lines {
    /// Nothing is written.
    pub(crate) const fn new() -> Lines {
        Lines(StackText::new())
    }

    /// The last line, if something is in it.
    fn end(mut self) {
        if !self.0.as_str().is_empty() {
            self.end_line();
        }
    }

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
