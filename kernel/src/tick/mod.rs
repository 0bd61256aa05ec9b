//! The tick: what happens on a CPU a fixed number of times a second, while anything needs that.
//!
//! 1. Each CPU has a beat of its own, shifted against the others', so that they do not all wake at the same moment. Its
//!    timer is armed for one tick at a time; a tick that comes late does not move the beat.
//! 2. A tick that finds nothing for which another one is needed lets the CPU's tick *rest* (`rest`): the CPU idles, or
//!    has one task, for which nobody waits. From then on the timer is armed for what is known to come, or not at all. So
//!    a CPU that idles for a moment only keeps its tick, and leaves its timer alone.
//! 3. Who makes a tick necessary again, a second task for instance, finds that it rests and has it come back.
//!
//! Linux: `tick-sched.c`; a tick that rests is one that `NO_HZ_IDLE` or `NO_HZ_FULL` has stopped.

#[cfg(target_os = "none")]
mod live;
mod mode;
#[cfg(target_os = "none")]
mod rest;

#[cfg(target_os = "none")]
pub use live::{count, digest, start, stop};
#[cfg(target_os = "none")]
pub(crate) use live::{note_deadline, on_kick, on_timer};
pub use mode::TickMode;
#[cfg(target_os = "none")]
pub use rest::{KeepTicks, is_resting, keep_all, mode, rests, set_mode};
#[cfg(target_os = "none")]
pub(crate) use rest::{decide, leave_idle, look_again, note_log, rests_here, resume_for, wake_all, want};
