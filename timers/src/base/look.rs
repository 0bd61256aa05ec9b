//! What is armed in a base, counted for people who look at a machine.

use hal::Platform;

use super::{Base, NO_LIMIT};
use crate::hr::HrQueue;
use crate::primitives::Ordering;
use crate::queue::Queue;
use crate::wheel::{LEVELS, Wheel};

/// What is armed in a wheel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WheelLook {
    /// How many timers are in the buckets of each level.
    pub levels: [usize; LEVELS],
    /// How many armed timers are in none: their bucket has come.
    pub due: usize,
    /// When the wheel has something to do next, in ticks; `u64::MAX` if it has not.
    pub next: u64,
}

/// What is armed in a queue of high-resolution timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HrLook {
    /// How many timers.
    pub armed: usize,
    /// When one of them has to be called, in ns; `u64::MAX` if there is none.
    pub next: u64,
}

impl<P: Platform> Base<Wheel, P> {
    /// Counts what is armed. Out of date at once.
    ///
    /// Contexts: any but NMI. Cost: one lock, with interrupts off for a step for each timer and each bucket.
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use timers::{CpuTimers, Owned, Ticks, Timer, Timers};
    ///
    /// static TIMERS: Timers = Timers::new();
    /// static MINE: CpuTimers = CpuTimers::new();
    /// let pinned = sync::preempt::disable();
    /// TIMERS.install(Native::cpu(), &MINE);
    ///
    /// let timers = [1, 2, 100].map(|at| (at, Owned::new(Timer::new(|_| ()))));
    /// for (at, timer) in &timers {
    ///     TIMERS.add(timer, Ticks(*at));
    /// }
    /// let look = MINE.global().look();
    /// assert_eq!((look.levels[0], look.levels[1], look.due, look.next), (2, 1, 0, 1));
    /// ```
    pub fn look(&self) -> WheelLook {
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let mut locked = self.lock(&quiet);
        let mut look = WheelLook { levels: [0; LEVELS], due: self.slots.waiting(), next: locked.next() };
        locked.queue.for_each(|_, level| match level {
            Some(level) => look.levels[level] += 1,
            None => look.due += 1,
        });
        look
    }
}

impl<P: Platform> Base<HrQueue, P> {
    /// Counts what is armed. Out of date at once.
    ///
    /// Contexts: any but NMI. Cost: one lock, with interrupts off for a step for each timer.
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use timers::Owned;
    /// use timers::hr::{CpuHr, HrTimer, HrTimers};
    ///
    /// static TIMERS: HrTimers = HrTimers::new();
    /// static MINE: CpuHr = CpuHr::new(|_| ());
    /// let pinned = sync::preempt::disable();
    /// TIMERS.install(Native::cpu(), &MINE);
    ///
    /// let timers = [u64::MAX - 7, u64::MAX - 9].map(|at| (at, Owned::new(HrTimer::soft(|_| ()))));
    /// for (at, timer) in &timers {
    ///     TIMERS.add(timer, *at);
    /// }
    /// let look = MINE.soft().look();
    /// assert_eq!((look.armed, look.next), (2, u64::MAX - 9));
    /// assert_eq!(MINE.hard().look().armed, 0);
    /// ```
    pub fn look(&self) -> HrLook {
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let mut locked = self.lock(&quiet);
        HrLook { armed: locked.queue.len() + self.slots.waiting(), next: locked.next() }
    }
}

impl<Q: Queue, P: Platform> Base<Q, P> {
    /// What [`set_slow_limit`](Base::set_slow_limit) was given last. Contexts: any.
    ///
    /// ```
    /// static MINE: timers::CpuTimers = timers::CpuTimers::new();
    /// assert_eq!(MINE.local().slow_limit(), None);
    /// MINE.local().set_slow_limit(Some(50_000));
    /// assert_eq!(MINE.local().slow_limit(), Some(50_000));
    /// ```
    pub fn slow_limit(&self) -> Option<u64> {
        Some(self.slow_ns.load(Ordering::Relaxed)).filter(|ns| *ns != NO_LIMIT)
    }
}
