//! Who is next: the run queue of one CPU, and which CPU a task should be on, as plain values.
//!
//! 1. A [`RunQueue`] holds the tasks that want one CPU, each by an [`Entity`] inside of it. It is told what happens, with
//!    the time, and asked who is next. It reads no clock, knows no CPU number, allocates nothing and has no lock: the
//!    scheduler keeps one for each CPU behind a lock, a test makes as many as it likes.
//! 2. Classes in order: stop, real-time by priority, fair, idle (nobody). A real-time task that never blocks must leave the
//!    fair class [`FAIR_TURN_NS`] after each [`PATIENCE_NS`] that a fair task had to wait.
//! 3. The fair class is *earliest eligible virtual deadline first*: see `fair.rs`. All its operations are O(log n).
//! 4. [`balance`] says where a task that wakes should run, and from where a CPU with little to do should take tasks. It
//!    sees other CPUs by a [`Summary`] each, which may be out of date.
//!
//! Read in this order: `class.rs`, `virtual_time.rs`, `entity.rs`, `queue.rs`, `fair.rs`, `real_time.rs`, `balance.rs`;
//! then `simulation.rs`, in which all of it runs. `docs/scheduler.md` tells the story.

pub mod balance;
mod class;
mod entity;
mod fair;
mod queue;
mod real_time;
mod virtual_time;

pub use class::{Level, Nice, ParsePolicyError, Policy, Priority, WEIGHT_OF_NICE_0};
pub use entity::Entity;
pub use queue::{Departure, RunQueue, Summary, Why};

/// What a task of the fair class requests at once, in nanoseconds, unless it says otherwise. Linux:
/// `sysctl_sched_base_slice`.
pub const SLICE_NS: u64 = 3_000_000;
/// How long a [`Policy::RoundRobin`] task runs before its equals get a turn, in nanoseconds. The same as Linux's
/// `RR_TIMESLICE`.
pub const ROUND_ROBIN_SLICE_NS: u64 = 100_000_000;
/// How long real-time tasks run while a fair task waits, in nanoseconds, before the fair class gets a turn.
pub const PATIENCE_NS: u64 = 95_000_000;
/// How long the fair class then runs, in nanoseconds: 5 % of the time, if real-time tasks want all of it. Linux:
/// `sched_rt_period_us`, `sched_rt_runtime_us`, and since 6.12 the fair server.
pub const FAIR_TURN_NS: u64 = 5_000_000;

#[cfg(test)]
mod promise_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod simulation_tests;
