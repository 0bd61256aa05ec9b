//! The machine, and the contracts by which everything above it can do without one.
//!
//! Kernel algorithms (locks, timers, RCU) need a handful of things from below: which CPU is this, keep me on it, stop
//! interrupts, what time is it, wake that CPU. This crate declares them once, as [`Platform`], and implements them
//! twice: for x86_64 under a hypervisor, and for ordinary host threads that play CPUs. A third kernel can implement
//! them itself and use every crate above unchanged.
//!
//! Read in this order: [`platform`] (the contract), [`context`] (the preempt word), [`percpu`](mod@percpu) (per-CPU variables),
//! then the machine of your choice.
#![no_std]

#[cfg(any(not(target_os = "none"), test))]
extern crate std;

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(not(feature = "machine"))]
mod absent;
pub mod chaos;
pub mod context;
pub mod cpu;
pub mod cpumask;
pub mod percpu;
pub mod platform;

#[cfg(all(not(target_os = "none"), feature = "machine"))]
pub mod hosted;
#[cfg(all(target_arch = "x86_64", feature = "machine"))]
pub mod x86_64;

pub use cpu::{CpuId, MAX_CPUS};
pub use platform::{Native, Platform};

/// Compiles and runs the examples in the README.
#[cfg(all(doctest, feature = "machine"))]
#[doc = include_str!("../README.md")]
mod readme {}

/// The same for the project's README.
#[cfg(all(doctest, feature = "machine"))]
#[doc = include_str!("../../README.md")]
mod project_readme {}
