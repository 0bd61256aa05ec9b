//! Ending the run: power off, restart, exit status.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use hal::x86_64::acpi;
use hal::x86_64::power::{self, ExitStatus};
use spin::Once;

use crate::{boot, memory};

/// The command line says that the debug-exit device is there.
static DEBUG_EXIT: AtomicBool = AtomicBool::new(false);

/// Where the power registers that live in memory are mapped: done at boot, because the end may come where nothing can
/// be mapped any more.
static REGISTERS: Once<alloc::vec::Vec<(u64, usize)>> = Once::new();

pub(crate) fn set_debug_exit(present: bool) {
    DEBUG_EXIT.store(present, Ordering::Relaxed);
}

/// Maps what [`leave`] and [`reboot`] may need. Once, when firmware's tables have been read.
pub(crate) fn prepare() {
    let Some(topology) = boot::topology() else { return };
    let registers = topology.power.memory_registers().filter_map(|address| {
        let at = memory::map_mmio(address, 4).ok()?;
        Some((address, at.as_ptr() as usize))
    });
    REGISTERS.call_once(|| registers.collect());
}

/// Where the register at a physical address was mapped.
fn mapped(address: u64, _size: usize) -> Option<NonNull<u8>> {
    let (_, at) = REGISTERS.get()?.iter().find(|(physical, _)| *physical == address)?;
    NonNull::new(*at as *mut u8)
}

/// Ends the run with a status for whoever started the virtual machine: by the debug-exit device if the command line says
/// that it is there, by ACPI power-off else (which tells no status). Takes no lock. Halts if neither works.
pub fn leave(status: ExitStatus) -> ! {
    if DEBUG_EXIT.load(Ordering::Relaxed) {
        // SAFETY: whoever wrote `debugexit` on the command line put the device there.
        unsafe { power::debug_exit(status) };
    }
    if let Some(topology) = boot::topology() {
        acpi::power_off(&topology.power, mapped);
    }
    power::halt_for_ever()
}

/// Restarts the machine.
pub fn reboot() -> ! {
    acpi::reset(boot::topology().map(|topology| &topology.power), mapped);
    power::halt_for_ever()
}
