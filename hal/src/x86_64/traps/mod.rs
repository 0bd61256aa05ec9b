//! Traps: exceptions, interrupts and NMIs, as Rust sees them.
//!
//! [`entry`] has the stubs and the reasons for their shape, [`frame`] what they save, [`probe`] accesses that may fault.
//! Here it is decided what a trap means, and the kernel is called through [`Upcalls`](super::upcalls::Upcalls).

mod entry;
pub mod frame;
pub mod probe;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::upcalls::upcalls;
use super::{apic, softirq, vectors};
use crate::context::{Context, NMI_UNIT, PREEMPT_WORD};
use crate::{CpuId, percpu};
pub(crate) use entry::stub_address;
pub use frame::TrapFrame;

percpu! {
    /// How often this CPU took each vector.
    static COUNTS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
}

/// How often `cpu` has taken `vector`.
pub fn count(cpu: CpuId, vector: u8) -> u64 {
    COUNTS.on(cpu)[usize::from(vector)].load(Ordering::Relaxed)
}

/// Sets the stacks on which `cpu` serves interrupts and NMIs. For a CPU that has not started, or the caller's own with
/// interrupts off.
pub fn set_stacks(cpu: CpuId, irq_top: u64, nmi_top: u64) {
    entry::IRQ_STACK_TOP.on(cpu).store(irq_top, Ordering::Relaxed);
    entry::NMI_STACK_TOP.on(cpu).store(nmi_top, Ordering::Relaxed);
}

/// The tops of the stacks on which `cpu` serves interrupts and NMIs.
pub fn stacks(cpu: CpuId) -> (u64, u64) {
    (
        entry::IRQ_STACK_TOP.on(cpu).load(Ordering::Relaxed),
        entry::NMI_STACK_TOP.on(cpu).load(Ordering::Relaxed),
    )
}

fn tally(frame: &TrapFrame) {
    // A trap handler stays on its CPU, and this counter has one writer there (an NMI has its own vector), so load and
    // store do not lose counts; other CPUs only read.
    let counts = COUNTS.local_ptr();
    // SAFETY: this CPU's area; areas live for ever.
    let counter = unsafe { &(*counts)[(frame.vector & 255) as usize] };
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What an exception was, decoded for a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A page fault at this address.
    PageFault {
        /// The address that was accessed (CR2).
        address: u64,
        /// The access was a write.
        write: bool,
        /// The access was an instruction fetch.
        execute: bool,
        /// The page is mapped, but not for this.
        mapped: bool,
    },
    /// A double fault. CR2 tells the address of the page fault that led to it, if one did.
    DoubleFault {
        /// CR2.
        address: u64,
    },
    /// Anything else, by its vector.
    Other(u8),
}

impl Cause {
    fn of(frame: &TrapFrame) -> Cause {
        let address = x86_64::registers::control::Cr2::read_raw();
        match frame.vector {
            // Error code bits: 0 present, 1 write, 4 instruction fetch (Intel SDM volume 3, 4.7).
            14 => Cause::PageFault {
                address,
                mapped: frame.error & 1 != 0,
                write: frame.error & 2 != 0,
                execute: frame.error & 16 != 0,
            },
            8 => Cause::DoubleFault { address },
            vector => Cause::Other(vector as u8),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::PageFault { address, write, execute, mapped } => {
                let access = match (write, execute) {
                    (_, true) => "execution",
                    (true, false) => "write",
                    (false, false) => "read",
                };
                if address < super::layout::PAGE_SIZE {
                    write!(f, "null pointer {access} at {address:#x}")
                } else if mapped {
                    write!(f, "{access} not allowed at {address:#018x}")
                } else {
                    write!(f, "{access} of unmapped memory at {address:#018x}")
                }
            }
            Cause::DoubleFault { address } => write!(f, "double fault, last page fault at {address:#018x}"),
            Cause::Other(vector) => f.write_str(exception_name(vector)),
        }
    }
}

/// The name of an exception vector.
pub fn exception_name(vector: u8) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "NMI",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack segment fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        20 => "virtualization exception",
        21 => "control protection exception",
        _ => "reserved exception",
    }
}

/// The name of an interrupt vector.
pub fn vector_name(vector: u8) -> &'static str {
    match vector {
        0..32 => exception_name(vector),
        vectors::TIMER => "timer",
        vectors::KICK => "kick",
        vectors::CALL => "call",
        vectors::TLB => "TLB shoot-down",
        vectors::SOFTIRQ => "softirq",
        vectors::APIC_ERROR => "APIC error",
        vectors::SPURIOUS => "spurious",
        vectors::ISA..=0x3f => "ISA device",
        _ => "unassigned",
    }
}

/// Called by the stubs for vectors below 32 other than NMI.
extern "C" fn exception(frame: &mut TrapFrame) {
    tally(frame);
    if probe::fix_up(frame) {
        return;
    }
    (upcalls().exception)(frame, Cause::of(frame));
}

/// Called by the stubs for vectors from 32 on that have no entry of their own, on the interrupt stack, counted as a
/// hardirq.
extern "C" fn interrupt(frame: &mut TrapFrame) {
    tally(frame);
    let table = upcalls();
    let vector = frame.vector as u8;
    match vector {
        vectors::TIMER => (table.timer)(frame),
        vectors::APIC_ERROR => {
            apic::on_error();
        }
        vectors::SPURIOUS => apic::on_spurious(),
        _ => (table.device)(vector, frame),
    }
    if vector != vectors::SPURIOUS {
        apic::end_of_interrupt();
    }
}

/// Called by the entries of what CPUs send each other, where the APIC is not reached through memory.
extern "C" fn end_by_msr() {
    apic::end_of_interrupt();
}

/// Called by the stubs when an interrupt is over and something is left to do, back on the interrupted stack, interrupts
/// still off: softirqs are served, and then it is the preemption point of interrupts. Whatever wants the CPU runs here as
/// the continuation of the interrupted code, which is resumed by the return.
extern "C" fn leave(frame: &mut TrapFrame) {
    // A CPU with a nested interrupt, a held lock or interrupts off inside is at neither point; the guards that say so
    // check again when they go.
    if !frame.interrupts_were_on() {
        return;
    }
    if softirq::pending() && !Context::from_word(PREEMPT_WORD.read()).in_interrupt() {
        softirq::serve_rounds();
    }
    // Nothing forbids a reschedule, and one is due.
    if PREEMPT_WORD.read() == 0 {
        (upcalls().interrupt_exit)();
    }
}

/// Called by the NMI stub, on the NMI handler stack.
extern "C" fn nmi(frame: &mut TrapFrame) {
    tally(frame);
    PREEMPT_WORD.add(NMI_UNIT);
    (upcalls().nmi)(frame);
    PREEMPT_WORD.sub(NMI_UNIT);
}
