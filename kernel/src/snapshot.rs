//! What every CPU is doing, asked by NMI so that a CPU with interrupts off answers too.
//!
//! Each CPU writes its own backtrace into its own area; the asker prints them one after the other. So they come out
//! whole, whoever asks, a panic included.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::x86_64::backtrace::{Backtrace, Frame};
use hal::x86_64::traps::TrapFrame;
use hal::x86_64::{apic, clock};
use hal::{CpuId, Native, Platform, percpu};

/// Frames that are kept for each CPU.
const DEPTH: usize = 32;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const WRITTEN: u32 = 2;
/// The CPU has stopped for good and left its answer without being asked.
const STOPPED: u32 = 3;

/// One CPU's answer. Written by its NMI handler between `ASKED` and `WRITTEN`, or by itself before `STOPPED`; read by the
/// asker after.
struct Answer {
    state: AtomicU32,
    length: AtomicU32,
    addresses: [AtomicU64; DEPTH],
}

impl Answer {
    /// The executing CPU's. The caller stays on it.
    fn mine() -> &'static Answer {
        // SAFETY: areas live for ever, and all fields are atomic.
        unsafe { &*ANSWER.local_ptr() }
    }

    fn write(&self, steps: Backtrace, state: u32) {
        let mut length = 0;
        for (step, slot) in steps.zip(&self.addresses) {
            // Bit 63 is set in every code address; clear it for interrupted ones, which are printed as such.
            let mark = if matches!(step, Frame::Trap { .. }) { !(1 << 63) } else { !0 };
            slot.store(step.address() & mark, Ordering::Relaxed);
            length += 1;
        }
        self.length.store(length, Ordering::Relaxed);
        // Release: pairs with the Acquire in `is_there`; who sees the state sees the addresses.
        self.state.store(state, Ordering::Release);
    }

    fn is_there(&self) -> bool {
        // Acquire: pairs with the Release in `write`.
        matches!(self.state.load(Ordering::Acquire), WRITTEN | STOPPED)
    }
}

percpu! {
    static ANSWER: Answer = Answer {
        state: AtomicU32::new(IDLE),
        length: AtomicU32::new(0),
        addresses: [const { AtomicU64::new(0) }; DEPTH],
    };
}

/// How long to wait for a CPU's answer. Generous, because its host thread may be waiting for a core.
const PATIENCE_NS: u64 = 2_000_000_000;

/// For the NMI handler: answers if asked.
pub(crate) fn on_nmi(frame: &TrapFrame) {
    let answer = Answer::mine();
    // Acquire: pairs with the Release in `ask`.
    if answer.state.load(Ordering::Acquire) == ASKED {
        answer.write(Backtrace::from_trap(frame), WRITTEN);
    }
}

/// For a CPU that is about to stop for good, perhaps where no NMI reaches it: leaves its backtrace.
pub(crate) fn leave_behind() {
    Answer::mine().write(Backtrace::here(), STOPPED);
}

/// Asks other CPUs for their backtraces.
fn ask(cpus: impl Iterator<Item = CpuId>) {
    for cpu in cpus {
        // Release: pairs with the Acquire in `on_nmi`; it orders our reading of the last answer before the next.
        let asked = ANSWER
            .on(cpu)
            .state
            .fetch_update(Ordering::Release, Ordering::Relaxed, |state| (state != STOPPED).then_some(ASKED));
        if asked.is_ok() {
            apic::send_nmi_to_cpu(cpu);
        }
    }
}

/// Waits for and prints one CPU's answer.
fn print(out: &mut dyn Write, cpu: CpuId) -> fmt::Result {
    let answer = ANSWER.on(cpu);
    let deadline = clock::now_ns() + PATIENCE_NS;
    while !answer.is_there() {
        if clock::now_ns() > deadline {
            return writeln!(out, "CPU#{cpu}: no answer to an NMI");
        }
        Native::relax();
    }
    writeln!(out, "CPU#{cpu}:")?;
    let length = answer.length.load(Ordering::Relaxed) as usize;
    let mut printer = Printer::new(out);
    for slot in answer.addresses.iter().take(length) {
        let raw = slot.load(Ordering::Relaxed);
        printer.step(raw | 1 << 63, raw >> 63 == 0)?;
    }
    printer.end()?;
    // One that has stopped for good stays so. Relaxed: the next question orders our reading before its answer.
    let _ = answer.state.compare_exchange(WRITTEN, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    Ok(())
}

/// Prints the steps of a backtrace; a step that is the same as the one before (recursion) is only counted.
struct Printer<'a> {
    out: &'a mut dyn Write,
    number: usize,
    last: Option<u64>,
    repeated: usize,
}

impl<'a> Printer<'a> {
    fn new(out: &'a mut dyn Write) -> Printer<'a> {
        Printer { out, number: 0, last: None, repeated: 0 }
    }

    fn step(&mut self, address: u64, interrupted: bool) -> fmt::Result {
        let number = self.number;
        self.number += 1;
        if self.last == Some(address) {
            self.repeated += 1;
            return Ok(());
        }
        self.say_repeated()?;
        self.last = Some(address);
        let note = if interrupted { "   <- interrupted here" } else { "" };
        writeln!(self.out, "  #{number:<2} [<{address:016x}>]{note}")
    }

    fn say_repeated(&mut self) -> fmt::Result {
        match core::mem::take(&mut self.repeated) {
            0 => Ok(()),
            times => writeln!(self.out, "      and the same {times} more times"),
        }
    }

    fn end(mut self) -> fmt::Result {
        self.say_repeated()
    }
}

/// Prints a backtrace of the executing CPU.
pub fn print_steps(out: &mut dyn Write, steps: Backtrace) -> fmt::Result {
    let mut printer = Printer::new(out);
    for step in steps {
        printer.step(step.address(), matches!(step, Frame::Trap { .. }))?;
    }
    printer.end()
}

/// Prints what `cpu` is doing. For the executing CPU: the callers of this function.
///
/// Task context. Takes as long as the CPU takes to answer, at most 2 s.
///
/// # Errors
/// Those of `out`.
pub fn print_cpu(out: &mut dyn Write, cpu: CpuId) -> fmt::Result {
    if cpu == Native::cpu() {
        writeln!(out, "CPU#{cpu} (this one):")?;
        print_steps(out, Backtrace::here())
    } else if Native::is_online(cpu) {
        ask(core::iter::once(cpu));
        print(out, cpu)
    } else {
        writeln!(out, "CPU#{cpu} is not online")
    }
}

fn others() -> impl Iterator<Item = CpuId> {
    percpu::cpus().filter(|cpu| *cpu != Native::cpu() && Native::is_online(*cpu))
}

/// Asks all other online CPUs, and returns when all have answered or had 2 s. For a panic, whose NMI handler stops them
/// after they have answered: from then on nobody else prints.
pub(crate) fn ask_others() {
    ask(others());
    let deadline = clock::now_ns() + PATIENCE_NS;
    while others().any(|cpu| !ANSWER.on(cpu).is_there()) && clock::now_ns() < deadline {
        Native::relax();
    }
}

/// Prints what [`ask_others`] was answered.
pub(crate) fn print_others(out: &mut dyn Write) -> fmt::Result {
    for cpu in others() {
        print(out, cpu)?;
    }
    Ok(())
}
