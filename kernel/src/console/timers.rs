//! What the console asks of timers: a trait beside [`Machine`](super::machine::Machine), for the same reason.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The timers of the machine, as commands see them. Times without another unit are nanoseconds.
///
/// The console has timers of its own, which it arms and deletes for whoever types; they have numbers, which are not used
/// again.
pub trait Timers {
    /// What tick it is, and the wheels of every CPU that has some, in the order of their numbers.
    fn wheels(&self) -> (u64, Vec<CpuWheels>);
    /// The high-resolution timers of every CPU that has some, in the order of their numbers.
    fn precise(&self) -> Vec<CpuPrecise>;
    /// From how long on a call counts as slow, if calls are timed.
    fn slow_limit(&self) -> Option<u64>;
    /// Times calls on all CPUs and counts those that take longer than `limit`, or stops that.
    fn set_slow_limit(&self, limit: Option<u64>);
    /// Arms a timer of the console's own, which says in the log when it is called, and returns its number.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    fn add_timer(&self, wish: &Wish) -> Result<u32, String>;
    /// Deletes one. Returns whether it was armed; `None` if there is none of that number, or it has been called for the last
    /// time.
    fn delete_timer(&self, number: u32) -> Option<bool>;
    /// The console's own timers that are to be called, in the order of their numbers.
    fn own_timers(&self) -> Vec<OwnTimer>;
    /// Calls `function` once, in `ns` at least, by a timer that frees itself. It is told how late it is.
    fn call_after(&self, ns: u64, function: Later);
}

/// What [`Timers::call_after`] calls.
pub type Later = Box<dyn FnOnce(u64) + Send>;

/// What a timer of the console's own is to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// In how long it is to be called, and with `every`, how often.
    pub ns: u64,
    /// How late it may be called, if that is said.
    pub slack_ns: Option<u64>,
    /// Whether it is called again and again.
    pub every: bool,
    /// Whether it is a high-resolution timer.
    pub exact: bool,
    /// The CPU that it is tied to.
    pub on: Option<u32>,
}

/// One of the console's own timers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnTimer {
    /// Its number.
    pub number: u32,
    /// What was asked for.
    pub wish: Wish,
    /// How long it is until it is to be called. 0 if that is due.
    pub remaining_ns: u64,
    /// How often it was called.
    pub calls: u64,
}

/// One CPU's wheels.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuWheels {
    /// The CPU.
    pub cpu: u32,
    /// Whether its tick rests.
    pub rests: bool,
    /// The wheels.
    pub wheels: Vec<Wheel>,
}

/// A wheel, and what was called from it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wheel {
    /// Which of the CPU's it is: `tied`, ..
    pub name: &'static str,
    /// How many timers are armed on each level.
    pub levels: Vec<usize>,
    /// How many armed timers are on none, because they are about to be called.
    pub due: usize,
    /// The tick at which it has something to do.
    pub next: Option<u64>,
    /// What was called.
    pub calls: Calls,
}

/// What was called from a queue.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Calls {
    /// How many timers were called in time, late by 1 of the queue's units, by 2 to 3, by 4 to 7, and so on; the last count
    /// has all that were later.
    pub late: Vec<u64>,
    /// The greatest lateness, in the queue's unit.
    pub latest: u64,
    /// How many calls took longer than the limit.
    pub slow: u64,
    /// The slowest functions, and how long the slowest call took.
    pub slowest: Vec<(String, u64)>,
}

/// One CPU's high-resolution timers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuPrecise {
    /// The CPU.
    pub cpu: u32,
    /// How many are armed that are called in the timer's interrupt.
    pub hard: usize,
    /// How many are armed that are called in the softirq.
    pub soft: usize,
    /// In how long one of them has to be called. 0 if that is due.
    pub next_ns: Option<u64>,
    /// What was called, of both kinds; late in nanoseconds.
    pub calls: Calls,
    /// Interrupts that looked for timers.
    pub events: u64,
    /// How often one of them looked again.
    pub retries: u64,
    /// How often one of them gave up on that.
    pub hangs: u64,
    /// The longest time that one of those had taken by then.
    pub longest_hang_ns: u64,
}
