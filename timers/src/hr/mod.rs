//! High-resolution timers: exact moments in nanoseconds.
//!
//! 1. [`HrQueue`] keeps the timers of one CPU in order. A deadline is exact; a timer that has *slack* lets its interrupt
//!    wait for that long, so that it can be shared with others.
//! 2. [`CpuHr`] is what a CPU has of them: two bases, for those that are called in the timer's interrupt and those that are
//!    called in a softirq. Its interrupt calls what is due and says when the next one has to come.
//! 3. [`HrTimers`] is the machine's: it arms timers, and has the interrupt programmed when one comes before all others.
//!    [`HrTimer`] is a [`Timer`](crate::Timer) of this kind, in all its forms.
//!
//! What they share with coarse timers, which is everything about calling, deleting and freeing, is [`Base`](crate::Base).

mod all;
mod cpu;
mod entry;
mod forms;
mod queue;

pub use all::HrTimers;
pub use cpu::{CpuHr, Due, HrStats};
pub use entry::HrEntry;
pub use forms::HrTimer;
pub use queue::HrQueue;
