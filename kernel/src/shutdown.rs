//! Ending the run: power off, restart, exit status.

use core::sync::atomic::{AtomicBool, Ordering};

use hal::x86_64::acpi;
use hal::x86_64::power::{self, ExitStatus};

/// The command line says that the debug-exit device is there.
static DEBUG_EXIT: AtomicBool = AtomicBool::new(false);

pub(crate) fn set_debug_exit(present: bool) {
    DEBUG_EXIT.store(present, Ordering::Relaxed);
}

/// Ends the run with a status for whoever started the virtual machine: by the debug-exit device if the command line says
/// that it is there, by ACPI power-off else (which tells no status). Takes no lock.
pub fn leave(status: ExitStatus) -> ! {
    if DEBUG_EXIT.load(Ordering::Relaxed) {
        // SAFETY: whoever wrote `debugexit` on the command line put the device there.
        unsafe { power::debug_exit(status) };
    }
    acpi::power_off();
    power::halt_for_ever()
}

/// Restarts the machine.
pub fn reboot() -> ! {
    acpi::reset();
    power::halt_for_ever()
}
