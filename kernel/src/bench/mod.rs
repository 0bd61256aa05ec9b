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
