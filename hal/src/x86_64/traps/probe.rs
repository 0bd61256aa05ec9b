//! Accesses that are allowed to fault.
//!
//! Backtraces follow pointers that may be garbage, and tests look at pages that should refuse. Each probe is one
//! instruction at a known address; when that instruction faults, the trap handler resumes behind it with a failure.

use super::TrapFrame;

/// What a probe leaves in RAX and RDX.
#[repr(C)]
struct Probed {
    value: u64,
    done: u64,
}

core::arch::global_asm!(
    r#"
    .pushsection .text.probe, "ax", @progbits
    .global __probe_read, __probe_read_access, __probe_write, __probe_write_access, __probe_failed
    __probe_read:
        mov edx, 1
    __probe_read_access:
        mov rax, [rdi]
        ret
    __probe_write:
        mov edx, 1
    __probe_write_access:
        mov [rdi], rsi
        ret
    __probe_failed:
        xor eax, eax
        xor edx, edx
        ret
    .popsection
    "#
);

unsafe extern "C" {
    fn __probe_read(address: u64) -> Probed;
    fn __probe_write(address: u64, value: u64) -> Probed;
    static __probe_read_access: u8;
    static __probe_write_access: u8;
    static __probe_failed: u8;
}

/// Reads 8 bytes of memory that may not be there. `None` if the access faults.
///
/// Contexts: any, NMI included. The address must not be that of a device register, whose reading has effects.
pub fn read_u64(address: u64) -> Option<u64> {
    // SAFETY: the function reads 8 bytes or reports a fault; it touches nothing else. Reading whatever is there as an
    // integer has no effect on the program.
    let probed = unsafe { __probe_read(address) };
    (probed.done != 0).then_some(probed.value)
}

/// Writes 8 bytes of memory that may refuse. Says whether it was written.
///
/// # Safety
/// If the address is writable, the caller must own those 8 bytes.
pub unsafe fn write_u64(address: u64, value: u64) -> bool {
    // SAFETY: the function writes 8 bytes, which the caller owns, or reports a fault.
    unsafe { __probe_write(address, value) }.done != 0
}

/// If `frame` is a probe's fault, makes it return a failure.
pub(super) fn fix_up(frame: &mut TrapFrame) -> bool {
    let (read, write) = (&raw const __probe_read_access as u64, &raw const __probe_write_access as u64);
    // Page fault, general protection (non-canonical address), stack fault.
    if matches!(frame.vector, 12..=14) && (frame.rip == read || frame.rip == write) {
        frame.rip = &raw const __probe_failed as u64;
        return true;
    }
    false
}
