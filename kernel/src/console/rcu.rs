//! What the console asks of grace periods: a trait beside [`Machine`](super::machine::Machine), for the same reason.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use sync::TaskCx;

/// The readers of the machine that the console runs on, for commands that read and wait themselves.
#[cfg(target_os = "none")]
pub use crate::rcu::Kernel as Readers;

#[cfg(not(target_os = "none"))]
::rcu::hosted_domain! {
    /// The readers of the machine that the console runs on, for commands that read and wait themselves.
    #[derive(Debug)]
    pub struct Readers;
}

/// The machine's grace periods, as commands see them. Times are nanoseconds.
pub trait GracePeriods {
    /// How things stand. Nothing stands still meanwhile.
    fn grace_periods(&self) -> Grace;
    /// Waits in that way.
    fn wait_for(&self, what: Wait, task: &mut TaskCx);
    /// Has the callbacks of a CPU called by a task, or by the CPU itself again.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    fn set_offloaded(&self, cpu: u32, on: bool, task: &mut TaskCx) -> Result<(), String>;
    /// Sets from how long on a grace period is reported, for those that begin from now on, and returns what it was.
    fn set_stall_limit(&self, ns: u64) -> u64;
    /// How often that has been reported since boot.
    fn stalls(&self) -> u64;
    /// Starts a task.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    fn start(&self, name: &'static str, body: Body) -> Result<(), String>;
}

/// What a task of [`GracePeriods::start`] does.
pub type Body = Box<dyn FnOnce(&mut TaskCx) + Send>;

/// Ways to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// For a grace period.
    GracePeriod,
    /// For an expedited one.
    Expedited,
    /// Until all callbacks that had been queued have been called.
    Barrier,
}

/// How grace periods stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grace {
    /// Whether tasks may be preempted while they read.
    pub preemptible: bool,
    /// How many have ended since boot.
    pub ended: u64,
    /// How many of those were driven to their end by somebody who waited.
    pub helped: u64,
    /// How many expedited ones were begun.
    pub expedited: u64,
    /// Whether one runs.
    pub running: bool,
    /// For how long it has, if that could be found out.
    pub running_ns: Option<u64>,
    /// Whether an expedited one runs.
    pub expedited_running: bool,
    /// From how long on one is reported.
    pub stall_ns: u64,
    /// How often that was, and how often their task because it did not run.
    pub stalls: u64,
    /// How often a task waited because it had queued too many callbacks.
    pub held_back: u64,
    /// How many callbacks too many were queued where nobody could wait.
    pub unbounded: u64,
    /// The tree, the root first.
    pub nodes: Vec<Node>,
    /// The callbacks of each possible CPU.
    pub cpus: Vec<Callbacks>,
    /// What the running grace period waits for.
    pub holdouts: Vec<Holdout>,
    /// What the running expedited one waits for.
    pub expedited_holdouts: Vec<Holdout>,
}

/// A node of the tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its level; the root's is 0.
    pub level: usize,
    /// The CPUs under it: the first and the last.
    pub cpus: (u32, u32),
    /// Who is there: a leaf's CPUs that are up, an inner node's children. Bit by bit.
    pub present: u64,
    /// Who has not reported for the running grace period.
    pub waiting: u64,
    /// Who has not reported for the running expedited one.
    pub expedited: u64,
    /// Readers that were preempted on its CPUs.
    pub readers: usize,
    /// How many of them hold up the running grace period.
    pub holding_up: usize,
    /// How often its lock was taken.
    pub locked: u64,
}

/// The callbacks of a CPU, by what they wait for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Callbacks {
    /// The CPU.
    pub cpu: u32,
    /// Whether a task calls them.
    pub offloaded: bool,
    /// Those that may be called; that wait for a known grace period; for the one after it; of which nobody has asked yet
    /// what they wait for.
    pub segments: [usize; 4],
    /// Those that nobody is in a hurry for.
    pub lazy: usize,
    /// Those that are being called.
    pub in_flight: usize,
}

/// Somebody who holds up a grace period.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holdout {
    /// A CPU that has not reported.
    Cpu(u32),
    /// A task that was preempted while it read: number and name.
    Task(u32, String),
}
