//! Tracing: what the scheduler, interrupts, softirqs, hotplug and contended locks did, a moment ago, on every CPU.
//!
//! 1. Places that matter call a *trace point*, a function of this module. While tracing is off that is one load and one
//!    branch.
//! 2. While it is on a point writes a record of 32 bytes ([`event`]) into its CPU's [`ring`], from any context, NMI
//!    included, without waiting for anybody. A full ring loses its oldest records: what is wanted is what happened just
//!    before something went wrong.
//! 3. Reading merges the rings by time ([`merge`]), while tracing goes on or after it has been stopped.
//!
//! In the console: `trace start`, `trace stop`, `trace dump [N]`. The kernel's tests run with tracing on, and one that fails
//! prints the end of the trace; so does a run of `torture`, where tracing stops at the first error. A machine that stops prints the end
//! of what was traced last.

pub mod event;
pub mod merge;
mod primitives;
pub mod ring;

#[cfg(target_os = "none")]
mod points;
#[cfg(target_os = "none")]
pub(crate) use points::{callbacks, grace_period, is_told, lock_contended, lock_waited, tell_holds};
#[cfg(all(target_os = "none", not(feature = "rcu-tiny")))]
pub(crate) use points::{flood, stall};
#[cfg(target_os = "none")]
pub use points::{
    hotplug, irq_enter, irq_exit, is_on, last, mark, softirq_enter, softirq_exit, start, stop, switch, tail,
    wakeup,
};
