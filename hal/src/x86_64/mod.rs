//! The x86_64 machine under a hypervisor.
//!
//! Everything with `asm!`, device registers, model-specific registers or linker symbols is here. Parts that only compute
//! (decoding tables, judging clocks, building page tables) also compile on a host, where they are tested; parts that
//! are the machine exist on bare metal only.
//!
//! In the order of a boot: [`layout`], `boot` (the loader's hand-over), `tables` (descriptor tables), `traps`, then
//! `acpi`, `apic`, `clock`, `paging`, `smp`. `native` implements the contract in these terms; `upcalls` is the way to the
//! kernel.

pub mod acpi;
pub mod apic;
pub mod clock;
pub mod cpu_plug;
pub mod cpuid;
pub mod fpu;
pub mod layout;
pub mod paging;
pub mod vectors;

#[cfg(target_os = "none")]
pub mod backtrace;
#[cfg(all(target_os = "none", feature = "machine"))]
pub mod boot;
#[cfg(all(target_os = "none", feature = "machine"))]
pub mod native;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
pub mod reader;
#[cfg(all(target_os = "none", feature = "machine"))]
pub mod smp;
#[cfg(target_os = "none")]
pub mod softirq;
#[cfg(all(target_os = "none", feature = "machine"))]
pub mod start;
#[cfg(target_os = "none")]
pub mod switch;
#[cfg(target_os = "none")]
pub mod tables;
#[cfg(target_os = "none")]
pub mod traps;
#[cfg(all(target_os = "none", feature = "machine"))]
pub mod unswitched;
#[cfg(target_os = "none")]
pub mod upcalls;

/// One turn of a spin loop on this machine: `pause`.
#[inline(always)]
pub(crate) fn relax() {
    core::hint::spin_loop();
}
