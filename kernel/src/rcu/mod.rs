//! Grace periods of this machine.
//!
//! [`::rcu::tree`] knows when a grace period may end; in `tree/` it is told what happens, and what it wants is done.
//!
//! 1. A reader counts itself in one word of its CPU ([`hal::x86_64::reader`]), which the scheduler saves and restores with
//!    the task. It may be preempted; then its task is entered in the tree, and the end of its outermost section takes it
//!    out (`readers`).
//! 2. CPUs report at each switch of tasks, at ticks, and where they begin to idle (`events`). A CPU that halts is asked for
//!    nothing: interrupts take it out of that state before their handlers begin.
//! 3. `rcu_gp`, a task, takes the steps from the beginning of a grace period to its end. Who wants one and finds that task
//!    asleep takes these steps himself, so that nothing is switched while all other CPUs idle (`grace`).
//! 4. Callbacks are called in a softirq of the CPU that queued them, or, for CPUs that are off-loaded, by the task
//!    `rcu_offload` (`callbacks`).
//! 5. A grace period that lasts too long names who holds it up (`stall`).
//!
//! Readers that may sleep have domains of their own (`sleepable`).
//!
//! The flavour is a choice of the build. With the feature `rcu-nonpreemptible` a section is a region without preemption,
//! and needs no word of its own. With `rcu-tiny` beside it the kernel runs on one CPU: where that switches tasks no
//! reader is left, and all of the above is one list (`tiny`).
//!
//! Linux: `kernel/rcu/tree.c`, `tree_plugin.h` and `tiny.c`.
//!
//! ```ignore
//! static GATEWAY: rcu::Option<RcuBox<Route>> = rcu::Option::none();
//!
//! let reader = rcu::read();
//! let route = GATEWAY.load(&reader);
//! ```

mod sleepable;
#[cfg(feature = "rcu-tiny")]
mod tiny;
#[cfg(not(feature = "rcu-tiny"))]
mod tree;

use ::rcu::ReadGuard;
use sync::TaskCx;

pub use sleepable::{Attendant, Sleepable, sleepable};
#[cfg(feature = "rcu-tiny")]
pub use tiny::*;
#[cfg(not(feature = "rcu-tiny"))]
pub use tree::*;

#[cfg(all(feature = "rcu-tiny", not(feature = "rcu-nonpreemptible")))]
compile_error!(
    "the feature `rcu-tiny` is for readers that are not preempted: switch on `rcu-nonpreemptible` with it, or leave both off"
);

/// Whether tasks may be preempted in their sections.
pub const PREEMPTIBLE: bool = !cfg!(feature = "rcu-nonpreemptible");

/// How many CPUs this build's grace periods can wait for.
pub(crate) const MAX_CPUS: usize = if cfg!(feature = "rcu-tiny") { 1 } else { hal::MAX_CPUS };

/// A pointer for this machine's readers.
pub type Rcu<O> = ::rcu::Rcu<O, Kernel>;
/// A pointer for this machine's readers that may be empty.
pub type RcuOption<O> = ::rcu::RcuOption<O, Kernel>;

/// Begins a read-side section, which lasts until the guard is dropped. Linux: `rcu_read_lock`.
///
/// Contexts: any. Cost: one instruction, and two at the end.
#[inline(always)]
pub fn read() -> ReadGuard<'static, Kernel> {
    ::rcu::read()
}

/// The same in a task that has its token, so that neither a sleep nor a wait for a grace period in the section compiles.
#[inline(always)]
pub fn read_in(cx: &TaskCx) -> ReadGuard<'_, Kernel> {
    ::rcu::read_in(cx)
}

/// What has been counted since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Grace periods that have ended. With `rcu-tiny`: those that callbacks have waited for.
    pub ended: u64,
    /// Those of them that somebody who waited drove to their end by himself.
    pub helped: u64,
    /// Expedited ones that were begun.
    pub expedited: u64,
}
