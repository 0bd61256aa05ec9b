//! From one task's stack to another's.
//!
//! A task that does not run is a stack whose lowest words are the registers that a function must preserve, and one
//! address: that of these words. Everything else was saved by the compiler, because switching is a function call.
//! Interrupts are off meanwhile, counted the same on both sides, so that flags need no place.

use core::arch::naked_asm;

use super::backtrace::Backtrace;
use super::traps::probe;

/// Words that [`switch`] pushes below the return address.
const SAVED: u64 = 6;

/// Saves the calling execution on its stack, puts the stack pointer into `*save`, and continues the one that was saved
/// at `load`. Returns when somebody else switches back to `*save`, perhaps on another CPU.
///
/// Linux: `__switch_to_asm`. Cost: 16 instructions.
///
/// # Safety
/// Interrupts are off. `load` was made by [`prepare`] or stored by `switch`, and is not used again before another
/// `switch` has stored it. `save` can be written. Both stacks are the kernel's and stay mapped while they are in use.
#[unsafe(naked)]
pub unsafe extern "C" fn switch(save: *mut u64, load: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Makes the stack below `top` one that [`switch`] can continue: in `entry`, with `argument`.
///
/// Returns what to pass to `switch`.
///
/// # Safety
/// `top` is a multiple of 16; the 9 words below it are mapped, writable, and nobody else's.
pub unsafe fn prepare(top: u64, entry: extern "C" fn(usize) -> !, argument: usize) -> u64 {
    // From the top: a frame that ends backtraces, then what `switch` takes. The stack pointer is a multiple of 16 where
    // `begin` calls.
    let words: [u64; 9] = [
        0,                     // r15
        0,                     // r14
        0,                     // r13
        entry as usize as u64, // r12
        argument as u64,       // rbx
        top - 16,              // rbp
        begin as *const () as u64,
        0, // the last frame's link
        0, // and its return address
    ];
    let at = top - size_of_val(&words) as u64;
    // SAFETY: by the contract.
    unsafe { (at as *mut [u64; 9]).write(words) };
    at
}

/// The first instructions of a new stack.
#[unsafe(naked)]
unsafe extern "C" fn begin() -> ! {
    naked_asm!("mov rdi, rbx", "call r12", "ud2")
}

/// The backtrace of an execution that was saved at `saved`. Wrong, but harmless, if it continues meanwhile.
pub fn backtrace(saved: u64) -> Backtrace {
    // The frame pointer is the last word before the return address, so that the two look like any frame.
    let frame = saved + (SAVED - 1) * 8;
    Backtrace::from_link(if probe::read_u64(frame).is_some() { frame } else { 0 })
}
