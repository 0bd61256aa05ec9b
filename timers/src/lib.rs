//! Time for kernels, as values.
//!
//! Nothing here reads a clock or programs a timer. Functions are handed the time and say what it means: how many ticks
//! have passed, when the next one is due. What does read clocks calls them.
//!
//! [`tick`] is the coarse time base: the rate, conversions that are never early, and a schedule that never drifts.
//! [`queue`] says what keeps armed timers in order.
#![cfg_attr(not(any(test, loom)), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod base;
pub mod clock;
mod cpus;
mod faults;
pub mod hr;
#[cfg(all(test, loom))]
mod modelled;
mod primitives;
pub mod queue;
pub mod tick;
mod timer;
pub mod wheel;

pub use base::{Base, Deletion, FunctionName, SLOWEST, Slow, Stats};
pub use cpus::{CpuTimers, Timers};
pub use tick::{HZ, TICK_NS, TickSchedule, Ticks};
#[cfg(feature = "alloc")]
pub use timer::Owned;
pub use timer::{Fired, Firing, Function, Handle, Periodic, Timer, TimerFlags};

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
