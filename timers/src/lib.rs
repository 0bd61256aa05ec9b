//! Time for kernels, as values.
//!
//! Nothing here reads a clock or programs a timer. Functions are handed the time and say what it means: how many ticks
//! have passed, when the next one is due. What does read clocks calls them.
//!
//! [`tick`] is the coarse time base: the rate, conversions that are never early, and a schedule that never drifts.
//! [`queue`] says what keeps armed timers in order.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod hr;
mod primitives;
pub mod queue;
pub mod tick;
pub mod wheel;

pub use tick::{HZ, TICK_NS, TickSchedule, Ticks};

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
