//! Who runs where, and when.
//!
//! 1. Each CPU has a run queue of its own, with its own lock. [`policy`] says who is next; it is a plain value that knows
//!    neither clocks nor CPUs, and is tested on the host.
//! 2. `queue` switches. `wake` takes tasks out of queues when they block, and puts them back when somebody wakes them: on
//!    the CPU that suits them best.
//! 3. The running task is replaced at *preemption points*: where an interrupt returns, where the last guard that forbids
//!    it goes, where the task itself asks. [`Preemption`] says which of these count.
//! 4. A CPU without a task runs its idle task, which looks for work that waits elsewhere, and halts.

pub mod policy;
mod preemption;
pub mod tree;

pub use preemption::Preemption;

#[cfg(target_os = "none")]
mod idle;
#[cfg(target_os = "none")]
mod inherit;
#[cfg(target_os = "none")]
mod placement;
#[cfg(target_os = "none")]
mod points;
#[cfg(target_os = "none")]
mod queue;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
pub(crate) mod sleepers;
#[cfg(target_os = "none")]
mod wake;

#[cfg(target_os = "none")]
pub use self::live::*;

#[cfg(target_os = "none")]
mod live {
    use hal::cpumask::AtomicCpuMask;
    use hal::{Native, Platform};

    pub(crate) use super::idle::idle;
    pub(crate) use super::inherit::{Standing, inherit, own_priority, set_policy};
    #[cfg(not(feature = "rcu-tiny"))]
    pub(crate) use super::inherit::{boost, end_boost};
    pub(crate) use super::placement::{
        accept_offer, affinity, first_cpu, join, leave, set_affinity, stranded,
    };
    pub(crate) use super::points::{interrupt_exit, on_timer, reschedule, yield_now};
    pub use super::points::{preemption, set_preemption};
    pub(crate) use super::queue::{RESCHEDULES, finish_first_switch, is_started, start_on_this_cpu};
    pub(crate) use super::report::idle_task;
    pub use super::report::{Report, report, run_time_ns};
    pub(crate) use super::wake::{admit, block, end, wake};

    /// Whether the executing CPU runs its idle task; in an interrupt, whether that was interrupted.
    pub(crate) fn is_idle_here() -> bool {
        IDLE.test(Native::cpu())
    }

    /// The CPUs that run their idle task.
    pub(crate) static IDLE: AtomicCpuMask = AtomicCpuMask::new();
}
