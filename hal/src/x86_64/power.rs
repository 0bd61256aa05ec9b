//! The end: leaving the emulator with a status, halting.

use x86_64::instructions::port::PortWriteOnly;

/// Where QEMU's `isa-debug-exit` device is put by convention.
const DEBUG_EXIT: u16 = 0xf4;

/// How a run ended, for whoever started the virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ExitStatus {
    /// All is well. QEMU exits with 33.
    Success = 0x10,
    /// Something failed. QEMU exits with 35.
    Failure = 0x11,
}

/// Ends the virtual machine by the debug-exit device. Returns if there is none.
///
/// # Safety
/// Port 0xf4 must be the device's or nothing's.
pub unsafe fn debug_exit(status: ExitStatus) {
    // SAFETY: the caller says what is at this port.
    unsafe { PortWriteOnly::<u32>::new(DEBUG_EXIT).write(status as u32) };
}

/// Stops this CPU for ever. Interrupts are off; only an NMI is still served.
pub fn halt_for_ever() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
