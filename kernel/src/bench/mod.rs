//! Measurements of the kernel by itself, for the console's `bench`.
//!
//! [`locks`] has all CPUs fight over one lock, and counts who got it how often. [`operations`] asks what operations cost
//! when nobody else wants anything. `calls` asks what it costs to have another CPU do something,
//! `tasks` what waiting and waking cost, `timers` what timers do. [`suite`] has what is compared with another kernel, by names
//! that both sides know.

#[cfg(target_os = "none")]
pub mod calls;
pub mod locks;
pub mod operations;
pub mod suite;
#[cfg(target_os = "none")]
pub mod tasks;
#[cfg(target_os = "none")]
pub mod timers;

/// Needs the value and does nothing with it, in no instruction: storing it, as `black_box` does, would count.
#[inline(always)]
pub(crate) fn consume(value: u64) {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("/* {} */", in(reg) value, options(nomem, nostack, preserves_flags)) };
}
