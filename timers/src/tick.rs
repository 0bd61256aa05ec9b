//! The tick: a kernel's coarse time base.
//!
//! 1. A tick is an interrupt that comes [`HZ`] times a second. Time limits that need no better resolution are counted
//!    in ticks, because a count is cheap to compare and to sort by.
//! 2. A span of nanoseconds rarely is a whole number of ticks. A limit rounds **up**, so that it never ends early; an
//!    elapsed time rounds **down**, so that it never claims more than has passed.
//! 3. A tick interrupt can come late or not at all: interrupts were off, or the host did not run this virtual CPU. The
//!    [`TickSchedule`] derives ticks from the clock and not from the number of interrupts, so that none is lost and
//!    the beat stays where it began.

use core::fmt;
use core::ops::{Add, AddAssign};

use hal::CpuId;

/// Ticks a second: 100, 250 or 1000. Set `QUIESCE_HZ` when building to change it from its default of 250.
///
/// More ticks give finer time-outs and time slices and cost more interrupts. Linux: `CONFIG_HZ`.
pub const HZ: u64 = match option_env!("QUIESCE_HZ") {
    Some(text) => parse_rate(text),
    None => 250,
};

/// The length of a tick in nanoseconds. Whole, at each of the rates. Linux: `TICK_NSEC`.
pub const TICK_NS: u64 = NS_PER_SECOND / HZ;

const NS_PER_SECOND: u64 = 1_000_000_000;

const fn parse_rate(text: &str) -> u64 {
    match text.as_bytes() {
        b"100" => 100,
        b"250" => 250,
        b"1000" => 1000,
        _ => panic!("QUIESCE_HZ must be 100, 250 or 1000"),
    }
}

/// A number of ticks: a span, or a point in time counted from boot. Linux: `jiffies`, in 64 bits, which do not wrap.
///
/// Contexts: any. Cost of a conversion: one division by a constant.
///
/// ```
/// use timers::{HZ, TICK_NS, Ticks};
///
/// assert_eq!(Ticks::covering_ns(0), Ticks(0));
/// assert_eq!(Ticks::covering_ns(1), Ticks(1)); // a limit is never shorter than asked for
/// assert_eq!(Ticks::elapsed_in_ns(2 * TICK_NS - 1), Ticks(1)); // only whole ticks have elapsed
/// assert_eq!(Ticks::covering_ns(1_000_000_000), Ticks(HZ));
/// assert_eq!(Ticks(HZ).as_ns(), 1_000_000_000);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Ticks(pub u64);

impl Ticks {
    /// The longest span, which no clock reaches.
    ///
    /// ```
    /// use timers::Ticks;
    /// assert_eq!(Ticks::MAX + Ticks(1), Ticks::MAX, "never, and a tick");
    /// ```
    pub const MAX: Ticks = Ticks(u64::MAX);

    /// The fewest ticks that last at least `ns` nanoseconds: for limits. Linux: `usecs_to_jiffies`, `msecs_to_jiffies`,
    /// which round up too.
    ///
    /// They last that long when counted from a tick. Between two ticks, the first of them is partly over: a time-out
    /// that starts there and must not be early adds one more.
    ///
    /// ```
    /// use timers::{TICK_NS, Ticks};
    /// assert_eq!(Ticks::covering_ns(TICK_NS + 1), Ticks(2));
    /// ```
    pub const fn covering_ns(ns: u64) -> Ticks {
        Ticks(ns.div_ceil(TICK_NS))
    }

    /// The whole ticks in `ns` nanoseconds: for elapsed time. Linux: `nsecs_to_jiffies64`.
    ///
    /// ```
    /// use timers::{TICK_NS, Ticks};
    /// assert_eq!(Ticks::elapsed_in_ns(2 * TICK_NS - 1), Ticks(1));
    /// ```
    pub const fn elapsed_in_ns(ns: u64) -> Ticks {
        Ticks(ns / TICK_NS)
    }

    /// This point in time or the next one that is a whole second from boot: for limits that are coarse anyway. Timers that are
    /// rounded are due together, and a CPU that idles is woken once for all of them. Linux: `round_jiffies_up`.
    ///
    /// ```
    /// use timers::{HZ, Ticks};
    /// assert_eq!(Ticks(HZ + 1).round_up_to_second(), Ticks(2 * HZ));
    /// assert_eq!(Ticks(2 * HZ).round_up_to_second(), Ticks(2 * HZ), "never later than need be");
    /// assert_eq!(Ticks::MAX.round_up_to_second(), Ticks::MAX);
    /// ```
    pub const fn round_up_to_second(self) -> Ticks {
        Ticks(self.0.div_ceil(HZ).saturating_mul(HZ))
    }

    /// The same with seconds that begin three ticks earlier for each CPU than for the one before it, so that what all CPUs do
    /// now and then they do not do at the same moment, for the same locks. Linux: `__round_jiffies_up`.
    ///
    /// ```
    /// use hal::CpuId;
    /// use timers::{HZ, Ticks};
    /// let [first, second] = [0, 1].map(|cpu| Ticks(HZ + 1).round_up_on(CpuId::new(cpu).unwrap()));
    /// assert_eq!((first, second), (Ticks(2 * HZ), Ticks(2 * HZ - 3)));
    /// ```
    pub const fn round_up_on(self, cpu: CpuId) -> Ticks {
        let skew = 3 * cpu.as_u32() as u64 % HZ;
        Ticks(self.0.saturating_add(skew)).round_up_to_second().less(skew)
    }

    /// Earlier by `ticks`; "never" stays.
    const fn less(self, ticks: u64) -> Ticks {
        if self.0 == u64::MAX { self } else { Ticks(self.0 - ticks) }
    }

    /// The length in nanoseconds; `u64::MAX` if that is more than fits, after 584 years. Linux: `jiffies64_to_nsecs`.
    ///
    /// ```
    /// use timers::{TICK_NS, Ticks};
    /// assert_eq!((Ticks(3).as_ns(), Ticks::MAX.as_ns()), (3 * TICK_NS, u64::MAX));
    /// ```
    pub const fn as_ns(self) -> u64 {
        self.0.saturating_mul(TICK_NS)
    }
}

/// The later point; a sum beyond the range stays at [`Ticks::MAX`], so that "never" plus something is still never.
impl Add for Ticks {
    type Output = Ticks;

    fn add(self, span: Ticks) -> Ticks {
        Ticks(self.0.saturating_add(span.0))
    }
}

impl AddAssign for Ticks {
    fn add_assign(&mut self, span: Ticks) {
        *self = *self + span;
    }
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// When ticks are due on one CPU, and how many have passed.
///
/// The schedule knows the beat (a first tick and a period, in nanoseconds of a monotonic clock) and the next tick that
/// has not been counted. The CPU's timer interrupt calls [`advance`](TickSchedule::advance) with the present time,
/// counts the ticks that it returns, and, if its timer is a one-shot, arms it for [`next_ns`](TickSchedule::next_ns).
/// Interrupts that come late or are lost show as more than one tick, ones that come early as none; the beat never moves.
///
/// ```
/// use timers::{TICK_NS, TickSchedule, Ticks};
///
/// let boot = 5_000;
/// let mut schedule = TickSchedule::new(boot, TICK_NS);
/// assert_eq!(schedule.next_ns(), boot + TICK_NS);
///
/// assert_eq!(schedule.advance(boot + TICK_NS + 30), Ticks(1)); // a little late, as interrupts are
/// assert_eq!(schedule.next_ns(), boot + 2 * TICK_NS); // and not 30 ns later
///
/// assert_eq!(schedule.advance(boot + 7 * TICK_NS), Ticks(6)); // the CPU did not run for a while
/// assert_eq!(schedule.missed(), Ticks(5)); // five of those had no interrupt of their own
/// ```
///
/// # Invariants
/// `next_ns` is the first point of the beat after the greatest time that was handed in, or `u64::MAX` if that is past
/// the range of the clock. `period_ns` is not 0.
#[derive(Clone, Debug)]
pub struct TickSchedule {
    period_ns: u64,
    next_ns: u64,
    missed: Ticks,
}

impl TickSchedule {
    /// A beat of `period_ns` nanoseconds ([`TICK_NS`] for a kernel's own tick), whose first tick is one period after
    /// `now_ns`.
    ///
    /// # Panics
    /// If `period_ns` is 0.
    ///
    /// ```
    /// let schedule = timers::TickSchedule::new(5_000, 1_000_000);
    /// assert_eq!(schedule.next_ns(), 1_005_000);
    /// ```
    #[track_caller]
    pub const fn new(now_ns: u64, period_ns: u64) -> TickSchedule {
        assert!(period_ns != 0, "a tick must have a length");
        TickSchedule { period_ns, next_ns: now_ns.saturating_add(period_ns), missed: Ticks(0) }
    }

    /// The same beat moved later by `share` of `shares` parts of a period. CPUs that start together and each take their
    /// own share tick one after the other, and not all at the same moment in want of the same locks.
    ///
    /// # Panics
    /// If `share` is not below `shares`.
    ///
    /// ```
    /// use timers::TickSchedule;
    ///
    /// // Four CPUs, a millisecond: they tick a quarter of one apart.
    /// let first = |cpu| TickSchedule::new(0, 1_000_000).staggered(cpu, 4).next_ns();
    /// assert_eq!([first(0), first(1), first(3)], [1_000_000, 1_250_000, 1_750_000]);
    /// ```
    #[track_caller]
    pub const fn staggered(self, share: u32, shares: u32) -> TickSchedule {
        assert!(share < shares, "there are fewer shares than that");
        let offset = (self.period_ns as u128 * share as u128 / shares as u128) as u64;
        TickSchedule { next_ns: self.next_ns.saturating_add(offset), ..self }
    }

    /// Notes that it is `now_ns`; returns how many ticks have become due since the last call. A time before that of an
    /// earlier call yields no tick and changes nothing.
    ///
    /// Contexts: any; the schedule is one CPU's, so interrupts are off or this is the tick interrupt. Cost: one
    /// comparison if no tick is due, one division by a variable if more than one is.
    ///
    /// ```
    /// use timers::{TickSchedule, Ticks};
    /// let mut schedule = TickSchedule::new(0, 1_000_000);
    /// assert_eq!(schedule.advance(999_999), Ticks(0));
    /// assert_eq!(schedule.advance(3_000_000), Ticks(3));
    /// ```
    #[inline]
    pub const fn advance(&mut self, now_ns: u64) -> Ticks {
        if now_ns < self.next_ns {
            return Ticks(0);
        }
        let late_ns = now_ns - self.next_ns;
        // The common case is one tick, and a division is the dearest of the processor's integer operations.
        let due = if late_ns < self.period_ns { 1 } else { late_ns / self.period_ns + 1 };
        // INVARIANT: the product is at most `late_ns + period_ns`, the sum the first point of the beat after `now_ns`.
        self.next_ns = self.next_ns.saturating_add(due.saturating_mul(self.period_ns));
        self.missed = Ticks(self.missed.0.saturating_add(due - 1));
        Ticks(due)
    }

    /// When the next tick is due, in nanoseconds of the clock: the deadline for a one-shot timer.
    ///
    /// ```
    /// let mut schedule = timers::TickSchedule::new(0, 1_000_000);
    /// schedule.advance(1_400_000);
    /// assert_eq!(schedule.next_ns(), 2_000_000);
    /// ```
    pub const fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Nanoseconds from `now_ns` until the next tick is due, 0 if it is overdue: the count for a one-shot timer.
    ///
    /// ```
    /// let schedule = timers::TickSchedule::new(0, 1_000_000);
    /// assert_eq!(schedule.until_next_ns(999_000), 1_000);
    /// assert_eq!(schedule.until_next_ns(5_000_000), 0); // overdue
    /// ```
    pub const fn until_next_ns(&self, now_ns: u64) -> u64 {
        self.next_ns.saturating_sub(now_ns)
    }

    /// Nanoseconds from one tick to the next.
    ///
    /// ```
    /// assert_eq!(timers::TickSchedule::new(5, 1_000_000).period_ns(), 1_000_000);
    /// ```
    pub const fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// How many ticks had no call of their own, because the one that should have counted them came a period or more
    /// late. A measure of how long interrupts were off, or the host was elsewhere.
    ///
    /// ```
    /// let mut schedule = timers::TickSchedule::new(0, 1_000_000);
    /// schedule.advance(3_000_000);
    /// assert_eq!(schedule.missed(), timers::Ticks(2), "one call for three ticks");
    /// ```
    pub const fn missed(&self) -> Ticks {
        self.missed
    }
}

#[cfg(test)]
#[path = "tick_tests.rs"]
mod tests;
