//! High-resolution timers: exact moments in nanoseconds.
//!
//! 1. [`HrQueue`] keeps the timers of one CPU in order. A deadline is exact; a timer that has *slack* lets its interrupt
//!    wait for that long, so that it can be shared with others.

mod entry;
mod queue;

pub use entry::HrEntry;
pub use queue::HrQueue;
