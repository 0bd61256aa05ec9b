//! What the console asks of tasks and the scheduler: a trait beside [`Machine`](super::machine::Machine), for the same
//! reason.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use hal::cpumask::CpuMask;
use sync::TaskCx;

use crate::sched::Preemption;
use crate::sched::policy::Policy;

/// The tasks of the machine, as commands see them.
///
/// Tasks are named by their numbers, which are not used again. A number whose task has ended meanwhile is an error where
/// that matters.
pub trait Tasks {
    /// Every task that has not ended.
    fn tasks(&self) -> Vec<Task>;
    /// What the scheduler does on each online CPU, in the order of their numbers.
    fn queues(&self) -> Vec<Queue>;
    /// The time since the start of the machine, in nanoseconds.
    fn now_ns(&self) -> u64;
    /// At which points tasks are replaced that did not ask.
    fn preemption(&self) -> Preemption;
    /// Changes that.
    fn set_preemption(&self, mode: Preemption);
    /// The kinds of tasks that can be started: name and explanation.
    fn kinds(&self) -> Vec<(&'static str, &'static str)>;
    /// Starts what the kind of that name stands for, and returns the numbers of its tasks.
    ///
    /// # Errors
    /// Why it did not start. Nothing of it is left.
    fn spawn(&self, kind: &str, policy: Policy, cpus: Option<&CpuMask>) -> Result<Vec<u32>, String>;
    /// Asks a task to end and gives it a moment. Returns whether it has ended.
    fn cancel(&self, number: u32, task: &mut TaskCx) -> bool;
    /// Changes how a task is scheduled.
    ///
    /// # Errors
    /// Why that did not work.
    fn set_policy(&self, number: u32, policy: Policy) -> Result<(), String>;
    /// Changes where a task may run.
    ///
    /// # Errors
    /// Why that did not work.
    fn set_affinity(&self, number: u32, cpus: &CpuMask) -> Result<(), String>;
    /// Prints where a task is in its code.
    ///
    /// # Errors
    /// Those of `out`.
    fn backtrace_of_task(&self, number: u32, out: &mut dyn fmt::Write) -> fmt::Result;
    /// Lets `ns` nanoseconds pass; with `until_key`, fewer if a key is pressed. Returns whether one was, and takes it.
    fn pause(&self, ns: u64, until_key: bool, task: &mut TaskCx) -> bool;
}

/// Whose a task is: what the console may do with it depends on that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Runs when a CPU has nothing else.
    Idle,
    /// The kernel needs it, as it is.
    Kernel,
    /// [`Tasks::spawn`] started it.
    Spawned,
}

/// One task.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub kind: Kind,
    /// What it does: `running`, `ready`, `blocked`.
    pub state: &'static str,
    /// The CPU on which it runs, waits to, or ran last.
    pub cpu: u32,
    /// Where it may run.
    pub affinity: CpuMask,
    /// How it is scheduled.
    pub policy: Policy,
    /// How long it has run, in nanoseconds.
    pub run_ns: u64,
    /// How often it was given a CPU.
    pub switches: u64,
}

/// One CPU's scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    /// The CPU.
    pub cpu: u32,
    /// How many tasks wait for it.
    pub ready: usize,
    /// Number and name of the task that has it.
    pub running: (u32, String),
    /// How often it went from one task to another.
    pub switches: u64,
    /// How long it had nothing to do, in nanoseconds.
    pub idle_ns: u64,
}
