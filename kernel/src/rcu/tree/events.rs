//! What happens on a CPU, told to the tree.

use core::sync::atomic::AtomicU32;

use ::rcu::tree::{Due, Interrupted};
use hal::context::HARDIRQ_UNIT;
use hal::percpu::IrqsOff;
use hal::x86_64::reader;
use hal::{CpuId, Native, Platform, percpu};
use sync::IrqGuard;

use super::{PREEMPTIBLE, act, callbacks, readers, tree};
use crate::calls::{self, CallData};
use crate::task::Task;

percpu! {
    /// This CPU idles, as far as the tree knows. Set before the tree is told, and cleared after: an NMI in between finds
    /// it set, and asks the tree.
    static IDLING: AtomicU32 = AtomicU32::new(0);
    /// The interrupt that is being served has hit the idle loop.
    static HIT_IDLE: AtomicU32 = AtomicU32::new(0);
    /// Has this CPU look whether it can report.
    static CHECK: CallData = CallData::new(check);
    /// Has this CPU look after its callbacks.
    static PROCESS: CallData = CallData::new(|| Native::raise_softirq(sync::softirq::Vector::Rcu.index()));
}

/// The running task is about to be replaced, or offers its CPU. Before the run queue is locked, because what is due may
/// wake somebody.
#[inline(always)]
pub(crate) fn note_switch(quiet: &impl IrqsOff) {
    if !PREEMPTIBLE || reader::word() == reader::AT_REST {
        act(tree().note_context_switch(percpu::current_cpu_number(), None));
    } else {
        note_reader(quiet);
    }
}

/// The same for a task that is in a section, or has left one that somebody waits for.
#[cold]
#[inline(never)]
fn note_reader(_quiet: &impl IrqsOff) {
    let cpu = percpu::current_cpu_number();
    if reader::depth() == 0 {
        readers::finish();
        act(tree().note_context_switch(cpu, None));
        return;
    }
    let task = Task::current();
    act(tree().note_context_switch(cpu, Some((readers::reader_of(task), task.id()))));
    // It is entered, and leaves the lists at the end of its outermost section.
    reader::want_attention();
}

/// What the interrupt that is being served has hit.
fn interrupted() -> Interrupted {
    if HIT_IDLE.read() != 0 {
        return Interrupted::Idle;
    }
    Interrupted::Kernel {
        // A word with this interrupt and nothing else: no region without preemption, no softirq, no other interrupt. That
        // interrupts were on is shown by the interrupt.
        preemptible: Native::context().count() == HARDIRQ_UNIT,
        in_reader: reader::depth() != 0,
    }
}

/// The timer's interrupt. Returns when this CPU's callbacks want it to come again, in any case.
pub(crate) fn on_tick(_quiet: &impl IrqsOff, now: u64) -> u64 {
    let cpu = percpu::current_cpu_number();
    callbacks::ask();
    act(tree().check_tick(cpu, now, interrupted()));
    next_event(cpu)
}

/// When something has to be done for lazy callbacks of `cpu`, in nanoseconds.
pub(crate) fn next_event(cpu: u32) -> u64 {
    tree().next_event(cpu).filter(|at| *at != 0).unwrap_or(u64::MAX)
}

fn check() {
    act(tree().check_interrupt(percpu::current_cpu_number(), interrupted()));
}

/// Interrupts `cpu`, so that it looks whether it can report. One that goes off line at this moment reports for itself.
pub(super) fn interrupt(cpu: CpuId) {
    // Pending already is as good.
    let _ = calls::queue(cpu, CHECK.on(cpu));
}

/// Has `cpu` look after its callbacks. Those of one that goes off line are adopted by another.
pub(super) fn process(cpu: CpuId) {
    let _ = calls::queue(cpu, PROCESS.on(cpu));
}

/// The idle task is about to halt.
pub(crate) fn idle_enter(_quiet: &impl IrqsOff) {
    IDLING.write(1);
    act(tree().idle_enter(percpu::current_cpu_number()));
}

/// The idle loop goes on, or an interrupt begins: whatever this CPU does next may read.
#[inline(always)]
pub(crate) fn idle_leave() {
    HIT_IDLE.write(0);
    if IDLING.read() != 0 {
        leave_idle();
    }
}

#[cold]
fn leave_idle() {
    // An NMI may have ended the state for the moment, and restores it.
    let was_idle = tree().interrupt_enter(percpu::current_cpu_number());
    IDLING.write(0);
    HIT_IDLE.write(u32::from(was_idle));
}

/// An NMI begins. The answer goes to [`nmi_exit`].
#[inline]
pub(crate) fn nmi_enter() -> bool {
    IDLING.read() != 0 && tree().interrupt_enter(percpu::current_cpu_number())
}

/// It ends. The idle loop goes on as if nothing had been.
#[inline]
pub(crate) fn nmi_exit(was_idle: bool) {
    if was_idle {
        tree().interrupt_exit(percpu::current_cpu_number(), true);
    }
}

/// The executing CPU comes up, with interrupts off.
pub(crate) fn cpu_comes() {
    tree().cpu_up(percpu::current_cpu_number());
}

/// The executing CPU goes, with interrupts off, and does nothing but its last steps.
pub(crate) fn cpu_goes(quiet: &IrqGuard) {
    note_switch(quiet);
    let due = tree().cpu_down(quiet.cpu().as_u32());
    // Its callbacks are adopted.
    act(Due { process: false, ..due });
}

/// Takes over what `cpu` has left behind, which has gone off-line.
pub(crate) fn cpu_gone(cpu: CpuId) {
    let here = sync::irq::disable();
    act(tree().adopt_callbacks(here.cpu().as_u32(), cpu.as_u32()));
}
