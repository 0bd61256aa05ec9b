//! The state of a CPU that a context switch neither saves nor restores, and what keeps that right.
//!
//! A switch exchanges the callee-saved registers, the stack, and by [`fpu::switch_to`](super::fpu::switch_to) the vector
//! registers. Everything else in a CPU belongs to the CPU and not to a task; a task that is moved finds another CPU's. That
//! is right only while each of these is the same on every CPU, or is used where the code stays on its CPU, or is used by
//! nobody. [`UNSWITCHED`] says which, and [`broken_rule`] compares.
//!
//! Whoever begins to use one of them per task (a debugger that sets breakpoints, user-mode tasks with an FS base) changes its
//! row here and the switch with it.

use core::fmt;

use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::registers::debug::Dr7;
use x86_64::registers::model_specific::{Efer, FsBase, GsBase, KernelGsBase, Msr};
use x86_64::registers::xcontrol::XCr0;

/// One piece of state.
pub struct State {
    /// Its name in the manuals.
    pub name: &'static str,
    /// What holds of it while tasks run.
    pub rule: Rule,
    /// Who sees to that.
    pub guard: &'static str,
    read: fn() -> u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}): {}", self.name, self.rule, self.guard)
    }
}

/// What makes it right that a switch leaves state alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The same on all CPUs, from the moment a CPU is online.
    Alike,
    /// Always this value: nobody uses it.
    Unused(u64),
    /// Each CPU has its own, for good.
    Own,
    /// Changes all the time, and is read where nothing can have changed it since.
    Momentary,
}

/// CR4.PGE is the one bit that is not constant: a flush of everything clears it for a moment, interrupts off.
fn cr4() -> u64 {
    Cr4::read_raw()
}

/// XCR0, or 0 where there is none.
fn xcr0() -> u64 {
    match super::fpu::format() {
        Some(format) if format.components != 0 => XCr0::read_raw(),
        _ => 0,
    }
}

macro_rules! msr {
    ($number:literal) => {
        // SAFETY: an architectural MSR of every x86_64 processor (Intel SDM volume 4, table 2-2); reading it has no effect.
        || unsafe { Msr::new($number).read() }
    };
}

macro_rules! debug_register {
    ($name:literal) => {
        || {
            let value: u64;
            // SAFETY: reading a debug register in ring 0 has no effect.
            unsafe {
                core::arch::asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags));
            }
            value
        }
    };
}

/// The interrupt table's address.
fn interrupt_table() -> u64 {
    x86_64::instructions::tables::sidt().base.as_u64()
}

/// Every piece of state that exists and is not switched. Registers of devices (the local APIC) are not a CPU's in this
/// sense: they are used by their drivers, with interrupts off.
pub static UNSWITCHED: [State; 19] = [
    State {
        name: "CR0",
        rule: Rule::Alike,
        guard: "boot, on each CPU before it is online; no task-switched bit",
        read: Cr0::read_raw,
    },
    State {
        name: "CR2",
        rule: Rule::Momentary,
        guard: "read first thing in the page-fault handler, interrupts off",
        read: || 0,
    },
    State {
        name: "CR3",
        rule: Rule::Alike,
        guard: "one address space, the kernel's",
        read: || Cr3::read().0.start_address().as_u64(),
    },
    State {
        name: "CR4",
        rule: Rule::Alike,
        guard: "boot; a flush of everything clears PGE for a moment, interrupts off",
        read: cr4,
    },
    State {
        name: "CR8",
        rule: Rule::Unused(0),
        guard: "the interrupt flag decides; priorities are not used",
        read: || x86_64::registers::control::Cr8::read_raw(),
    },
    State {
        name: "XCR0",
        rule: Rule::Alike,
        guard: "`fpu::enable`, which refuses a CPU that differs",
        read: xcr0,
    },
    State { name: "EFER", rule: Rule::Alike, guard: "boot", read: Efer::read_raw },
    State {
        name: "PAT",
        rule: Rule::Alike,
        guard: "nobody writes it; device pages use the entries it has at reset",
        read: msr!(0x277),
    },
    State { name: "IDTR", rule: Rule::Alike, guard: "boot; one table for all CPUs", read: interrupt_table },
    State {
        name: "GDTR, TR",
        rule: Rule::Own,
        guard: "boot; in the CPU's area",
        read: || x86_64::instructions::tables::sgdt().base.as_u64(),
    },
    State {
        name: "GS base",
        rule: Rule::Own,
        guard: "boot; leads to the CPU's area",
        read: || GsBase::read().as_u64(),
    },
    State {
        name: "FS base",
        rule: Rule::Unused(0),
        guard: "no thread-local variables in the kernel",
        read: || FsBase::read().as_u64(),
    },
    State {
        name: "KERNEL_GS_BASE",
        rule: Rule::Unused(0),
        guard: "no user mode, so no SWAPGS",
        read: || KernelGsBase::read().as_u64(),
    },
    State {
        name: "LSTAR",
        rule: Rule::Unused(0),
        guard: "no user mode, so no SYSCALL",
        read: msr!(0xc000_0082),
    },
    State { name: "DR0", rule: Rule::Unused(0), guard: "no breakpoints", read: debug_register!("dr0") },
    State {
        name: "DR7",
        rule: Rule::Unused(0x400),
        guard: "no breakpoints; bit 10 is always set",
        read: || Dr7::read_raw(),
    },
    State {
        name: "TSC",
        rule: Rule::Momentary,
        guard: "nobody writes it; the clock does without it where CPUs disagree",
        read: || 0,
    },
    State {
        name: "MXCSR",
        rule: Rule::Unused(0),
        guard: "sections load it, tasks with vector state own it",
        read: || 0,
    },
    State {
        name: "x87 registers",
        rule: Rule::Unused(0),
        guard: "at their defaults without an owner: `fpu::switch_to` and sections see to it",
        read: x87_changed,
    },
];

fn x87_changed() -> u64 {
    u64::from(!super::fpu::has_owner() && !super::fpu::x87_is_reset())
}

/// The values of [`UNSWITCHED`] on this CPU.
///
/// Contexts: any in which the caller stays on its CPU.
pub fn read(proof: &(impl crate::percpu::Pinned + ?Sized)) -> [u64; UNSWITCHED.len()] {
    let _ = proof;
    core::array::from_fn(|row| (UNSWITCHED[row].read)())
}

/// Compares two CPUs' values, as [`read`] there. Returns the first row whose rule does not hold.
pub fn broken_rule(here: &[u64], there: &[u64]) -> Option<&'static State> {
    let rows = UNSWITCHED.iter().zip(here.iter().zip(there));
    rows.into_iter()
        .find(|(state, (here, there))| match state.rule {
            Rule::Alike => here != there,
            Rule::Unused(value) => **here != value || **there != value,
            Rule::Own => here == there,
            Rule::Momentary => false,
        })
        .map(|(state, _)| state)
}
