//! What the console asks of the machine: one trait, so that every command runs on a host too, on a machine made up by a
//! test.
//!
//! Answers are plain values. How they look is the commands' business.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sync::TaskCx;

use super::rcu::GracePeriods;
use super::tasks::Tasks;
use super::timers::Timers;
use super::torture::Torture;
use crate::memory::check::Findings;
use crate::trace::merge::Story;

/// The machine, as commands see it.
pub trait Machine: Tasks + Timers + GracePeriods + Torture + Sync {
    /// What is running, for the greeting.
    fn summary(&self) -> Summary;
    /// Every possible CPU, in order.
    fn cpus(&self) -> Vec<Cpu>;
    /// Memory in use and free.
    fn memory(&self) -> Memory;
    /// The interrupts that have come, by vector.
    fn interrupts(&self) -> Vec<Interrupt>;
    /// The softirqs that were served, and those that were left to tasks. A machine without any says nothing.
    fn softirqs(&self) -> Softirqs {
        Softirqs::default()
    }
    /// Workers and work queues. A machine without any says nothing.
    fn works(&self) -> Works {
        Works::default()
    }
    /// A digest of every timer interrupt's CPU, address and order.
    fn interrupt_digest(&self) -> u64;
    /// What the firmware's tables say, or why there are none.
    fn acpi(&self) -> Vec<Fact>;
    /// Where time comes from.
    fn clock(&self) -> Vec<Fact>;
    /// Per-CPU areas.
    fn per_cpu(&self) -> PerCpuAreas;
    /// Prints what the checker of lock dependencies knows; with `classes`, every class of locks too. A machine without
    /// one says so.
    ///
    /// # Errors
    /// Those of `out`.
    fn lock_dependencies(&self, _classes: bool, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(
            out,
            "this kernel does not check lock dependencies; debug builds do, and the feature `lockdep`"
        )
    }
    /// How long classes of locks were waited for and held, and whether holds are measured. `None`: nobody counts.
    fn locks(&self) -> Option<Locks> {
        None
    }
    /// Measures holds of locks, or stops that. A machine on which nobody counts ignores it.
    fn set_lock_timing(&self, on: bool) {
        let _ = on;
    }
    /// Forgets these figures.
    fn reset_locks(&self) {}
    /// What holds others up for long, and from when on that is reported.
    fn holds(&self) -> Holds {
        Holds::default()
    }
    /// Reports what holds others up for so many microseconds, `None`: nothing.
    fn set_holds_limit(&self, us: Option<u64>) {
        let _ = us;
    }
    /// From when on a task that is blocked is reported, in seconds. `None`: never.
    fn hung_limit(&self) -> Option<u64> {
        None
    }
    /// Changes that.
    fn set_hung_limit(&self, seconds: Option<u64>) {
        let _ = seconds;
    }
    /// The tasks that wait for somebody who must do something: number, name, CPU, and for how many milliseconds they have
    /// been seen to.
    fn stuck_tasks(&self) -> Vec<(u32, String, u32, u64)> {
        Vec::new()
    }
    /// Checks the memory that must not change, and at most `limit` bytes of what is free. A machine that cannot finds
    /// nothing.
    fn check_memory(&self, limit: u64) -> Findings {
        let _ = limit;
        Findings::default()
    }
    /// Switches tracing on or off. A machine that cannot trace ignores it.
    fn set_tracing(&self, on: bool) {
        let _ = on;
    }
    /// Whether it is on.
    fn is_tracing(&self) -> bool {
        false
    }
    /// The newest records of the trace.
    fn trace(&self, count: usize) -> Story {
        let _ = count;
        Story::default()
    }
    /// Prints what `cpu` is doing, or with `None` what all are.
    ///
    /// # Errors
    /// Those of `out`.
    fn backtrace(&self, cpu: Option<u32>, out: &mut dyn fmt::Write) -> fmt::Result;
    /// The ways in which the kernel can be made to crash: name and explanation.
    fn crashes(&self) -> Vec<(&'static str, &'static str)>;
    /// Crashes in the way of that name.
    fn crash(&self, kind: &str);
    /// Runs `work` on every online CPU at the same time, with the CPU's number, and waits for all.
    fn on_all_cpus(&self, work: &(dyn Fn(u32) + Sync));
    /// Brings a CPU online, or takes it off-line. Its tasks go elsewhere.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    fn set_cpu_online(&self, cpu: u32, online: bool, task: &mut TaskCx) -> Result<(), String>;
    /// Ends the run, telling whoever started the machine whether all went well. Returns only if that is impossible.
    fn power_off(&self, success: bool);
    /// Starts the machine anew. Returns only if that is impossible.
    fn reboot(&self);
}

/// What is running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Online CPUs.
    pub cpus: usize,
    /// Usable memory in bytes.
    pub memory: u64,
    /// The machine and its hypervisor, in a few words.
    pub machine: String,
}

/// One CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The kernel's number of it.
    pub number: u32,
    /// The hardware's.
    pub apic_id: Option<u32>,
    /// What it is doing at large: `online`, ..
    pub state: &'static str,
    /// Its GS base: area minus template.
    pub gs_base: Option<u64>,
    /// The address of its per-CPU area.
    pub area: Option<u64>,
    /// Its time stamp counter's frequency in Hz.
    pub frequency: Option<u64>,
    /// Timer ticks taken.
    pub ticks: u64,
    /// Interrupts from other CPUs taken.
    pub ipis: u64,
}

/// Memory, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// What the kernel may use.
    pub total: u64,
    /// What is in use, by whom; the parts do not overlap.
    pub used: Vec<(&'static str, u64)>,
    /// What the heap has taken and not given out.
    pub heap_free: u64,
    /// The largest piece that one allocation could get.
    pub largest_free: u64,
    /// The firmware's memory map: start, length, kind.
    pub map: Vec<(u64, u64, &'static str)>,
}

/// One interrupt vector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// The vector.
    pub vector: u8,
    /// What it is for.
    pub name: &'static str,
    /// How often it came to each CPU, in the order of their numbers.
    pub counts: Vec<u64>,
}

/// A line of an answer: what, and its value.
pub type Fact = (&'static str, String);

/// Per-CPU areas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PerCpuAreas {
    /// Where the template is.
    pub template: u64,
    /// Its bytes.
    pub template_size: u64,
    /// The bytes of an area, dynamic part included.
    pub area_size: u64,
    /// The bytes of the dynamic part.
    pub dynamic: u64,
    /// How many of those are in use.
    pub dynamic_used: u64,
    /// Each CPU's area.
    pub areas: Vec<(u32, u64)>,
}

/// Softirqs, counted for each CPU in the order of their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Softirqs {
    /// How often each vector was served.
    pub served: Vec<(&'static str, Vec<u64>)>,
    /// How often vectors were left to the CPU's task, by the reason.
    pub left: Vec<(&'static str, Vec<u64>)>,
}

/// Who calls the functions of work items.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Works {
    /// The pools of workers.
    pub pools: Vec<WorkPool>,
    /// The work queues, and whether items run on the CPU that queues them.
    pub queues: Vec<(&'static str, bool)>,
}

/// A pool of workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkPool {
    /// The CPU that they stay on, if they do.
    pub cpu: Option<u32>,
    /// How many there are.
    pub workers: u32,
    /// How many of them call a function.
    pub busy: u32,
    /// Items that wait for a worker.
    pub waiting: usize,
    /// Calls that are over.
    pub executed: u64,
}

/// How long locks were waited for and held, by class.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Locks {
    /// Whether holds are measured at present.
    pub timing: bool,
    /// The classes, in the order in which they became known.
    pub classes: Vec<LockClass>,
}

/// One class of locks. Times are nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockClass {
    /// Its name, and where its locks are made.
    pub name: String,
    /// How often one was found taken.
    pub contended: u64,
    /// How long all waits took together.
    pub waited_ns: u64,
    /// How long the longest took.
    pub longest_wait_ns: u64,
    /// Who waited so long.
    pub longest_wait_at: Option<String>,
    /// How many holds were measured.
    pub holds: u64,
    /// How long they took together.
    pub held_ns: u64,
    /// How long the longest took.
    pub longest_hold_ns: u64,
    /// Who acquired it then.
    pub longest_hold_at: Option<String>,
}

/// What holds others up for long.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holds {
    /// From when on it is reported, in microseconds; `None`: never.
    pub limit_us: Option<u64>,
    /// Whether locks and guards are measured too, and not only handlers.
    pub locks: bool,
    /// What there is, how often it was too long since the limit was set, and how long the longest was, in nanoseconds.
    pub seen: Vec<(&'static str, u64, u64)>,
}
