//! What a base counts.

use core::fmt;
// Counts order nothing: models need not see them.
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many of the slowest functions are remembered.
pub const SLOWEST: usize = 4;

/// How many classes of lateness are told apart.
pub(super) const LATE: usize = 16;

/// What a timer calls, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionName {
    function: *const (),
    state: &'static str,
}

// SAFETY: the address is printed and compared.
unsafe impl Send for FunctionName {}
// SAFETY: as above.
unsafe impl Sync for FunctionName {}

impl FunctionName {
    pub(super) const fn new(function: *const (), state: &'static str) -> FunctionName {
        FunctionName { function, state }
    }

    /// The address of its code.
    pub fn address(&self) -> usize {
        self.function.addr()
    }

    /// What the compiler calls the timer's state, or the closure.
    pub const fn state(&self) -> &'static str {
        self.state
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({})", self.address(), self.state)
    }
}

/// A function that took long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slow {
    /// Which one.
    pub function: FunctionName,
    /// The longest time that a call of it took, in nanoseconds. Interrupts that came meanwhile are in it.
    pub ns: u64,
}

/// What has happened in a [`Base`](super::Base) so far.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// How many timers were called.
    pub called: u64,
    /// How late they were, in the queue's unit: `late[0]` counts those that were not, `late[n]` those that were late by
    /// 2^(n-1) up to 2^n - 1; the last one has all that were later.
    pub late: [u64; LATE],
    /// The greatest lateness.
    pub latest: u64,
    /// How many calls took longer than the limit.
    pub slow: u64,
    /// The slowest functions, the slowest first, of those calls that were timed.
    pub slowest: [Option<Slow>; SLOWEST],
}

/// What was called, as it is kept. Written by who runs the base, read by anybody.
pub(super) struct Recorder {
    late: [AtomicU64; LATE],
    latest: AtomicU64,
}

impl Recorder {
    pub(super) const fn new() -> Recorder {
        Recorder { late: [const { AtomicU64::new(0) }; LATE], latest: AtomicU64::new(0) }
    }

    /// So many timers that were late by so much.
    #[inline(always)]
    pub(super) fn note_calls(&self, late: u64, count: u32) {
        let class = (u64::BITS - late.leading_zeros()) as usize;
        let class = &self.late[class.min(LATE - 1)];
        class.store(class.load(Relaxed) + u64::from(count), Relaxed);
        if late > self.latest.load(Relaxed) {
            self.latest.store(late, Relaxed);
        }
    }

    pub(super) fn read(&self, slowest: Slowest) -> Stats {
        let late = self.late.each_ref().map(|class| class.load(Relaxed));
        Stats {
            called: late.iter().sum(),
            late,
            latest: self.latest.load(Relaxed),
            slow: slowest.slow,
            slowest: slowest.slowest,
        }
    }
}

/// The functions that took long, as they are kept: under the base's lock.
#[derive(Clone, Copy)]
pub(super) struct Slowest {
    slow: u64,
    slowest: [Option<Slow>; SLOWEST],
}

impl Slowest {
    pub(super) const fn new() -> Slowest {
        Slowest { slow: 0, slowest: [None; SLOWEST] }
    }

    /// A call of `function` took `ns`.
    pub(super) fn note(&mut self, function: FunctionName, ns: u64, beyond_limit: bool) {
        self.slow += u64::from(beyond_limit);
        let same = self.slowest.iter().position(|slow| slow.is_some_and(|slow| slow.function == function));
        let at = same.unwrap_or(SLOWEST - 1);
        if self.slowest[at].is_none_or(|slow| slow.ns < ns) {
            self.slowest[at] = Some(Slow { function, ns });
            self.slowest.sort_unstable_by_key(|slow| core::cmp::Reverse(slow.map(|slow| slow.ns)));
        }
    }
}
