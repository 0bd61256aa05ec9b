//! Making high-resolution timers.

use hal::{Native, Platform};
use sync::lockdep::Level;

use super::{HrEntry, HrQueue};
use crate::primitives::const_fn;
use crate::timer::{Firing, Function, Periodic, Timer, TimerFlags, call_closure, call_periodic};

/// A timer that is called at an exact moment, in nanoseconds on the platform's clock.
///
/// *Soft* ones are called in a softirq, as coarse timers are. *Hard* ones are called in the timer's interrupt, with interrupts
/// off: nothing on the CPU delays them but what has interrupts off, and everything on the CPU is delayed by them.
///
/// Linux: `struct hrtimer`, with `HRTIMER_MODE_SOFT` and `HRTIMER_MODE_HARD`.
pub type HrTimer<T, P = Native> = Timer<T, HrQueue, P>;

/// What soft ones may be made with. In a constant, so that it is refused when the program is compiled.
const fn soft(flags: TimerFlags) -> TimerFlags {
    assert!(!flags.contains(TimerFlags::IRQSAFE), "a timer that is called with interrupts off is a hard one");
    exact(flags)
}

const fn hard(flags: TimerFlags) -> TimerFlags {
    exact(flags).and(TimerFlags::IRQSAFE)
}

const fn exact(flags: TimerFlags) -> TimerFlags {
    assert!(!flags.contains(TimerFlags::DEFERRABLE), "an exact moment cannot be put off");
    flags
}

impl<F: Fn(&Firing<'_, HrQueue>) + Send + Sync + 'static> Timer<F, HrQueue> {
    const_fn! {
        /// A soft timer that calls `function`, on this build's platform.
        ///
        /// ```
        /// let timer = timers::hr::HrTimer::soft(|firing| assert!(firing.now() >= firing.expired_at()));
        /// assert!(!timer.is_pending());
        /// ```
        #[track_caller]
        pub fn soft(function: F) -> HrTimer<F> {
            HrTimer::soft_in(TimerFlags::NONE, function)
        }
    }

    const_fn! {
        /// A hard timer that calls `function`, on this build's platform.
        ///
        /// ```
        /// use std::sync::atomic::{AtomicU64, Ordering};
        /// use timers::hr::HrTimer;
        ///
        /// /// How late the latest interrupt came, in ns.
        /// static LATEST: AtomicU64 = AtomicU64::new(0);
        /// let timer = HrTimer::hard(|firing| {
        ///     LATEST.fetch_max(firing.now() - firing.expired_at(), Ordering::Relaxed);
        /// });
        /// assert!(!timer.is_pending());
        /// ```
        #[track_caller]
        pub fn hard(function: F) -> HrTimer<F> {
            HrTimer::hard_in(TimerFlags::NONE, function)
        }
    }
}

impl<F: Fn(&Firing<'_, HrQueue, P>) + Send + Sync + 'static, P: Platform> Timer<F, HrQueue, P> {
    const_fn! {
        /// A soft timer that calls `function`, on the platform `P`.
        ///
        /// # Panics
        /// If it is to be deferrable, or called with interrupts off.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::TimerFlags;
        /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
        /// # static TIMERS: HrTimers = HrTimers::new();
        /// # static MINE: CpuHr = CpuHr::new(|_| ());
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// let timer = Arc::new(HrTimer::soft_in(TimerFlags::PINNED, |_| ()));
        /// assert!(TIMERS.add(&timer, Native::now_ns() + 3_600_000_000_000));
        /// # timer.delete();
        /// ```
        #[track_caller]
        pub fn soft_in(flags: TimerFlags, function: F) -> HrTimer<F, P> {
            Timer::from_parts(HrEntry::new(0), Level::Softirq, soft(flags), function, call_closure::<F, HrQueue, P>)
        }
    }

    const_fn! {
        /// A hard timer that calls `function`, on the platform `P`.
        ///
        /// # Panics
        /// If it is to be deferrable.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::TimerFlags;
        /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
        /// # static TIMERS: HrTimers = HrTimers::new();
        /// # static MINE: CpuHr = CpuHr::new(|_| ());
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// let timer = Arc::new(HrTimer::hard_in(TimerFlags::PINNED, |_| assert!(sync::context::irqs_disabled())));
        /// let now = Native::now_ns();
        /// TIMERS.add(&timer, now);
        /// let _ = TIMERS.interrupt(&sync::irq::disable(), now);
        /// assert!(!timer.is_pending());
        /// ```
        #[track_caller]
        pub fn hard_in(flags: TimerFlags, function: F) -> HrTimer<F, P> {
            Timer::from_parts(HrEntry::new(0), Level::Hardirq, hard(flags), function, call_closure::<F, HrQueue, P>)
        }
    }
}

impl<T: Send + Sync + 'static, P: Platform> Timer<T, HrQueue, P> {
    const_fn! {
        /// A soft timer with a state, and a function that can be [changed](Timer::set_function).
        ///
        /// # Panics
        /// If it is to be deferrable, or called with interrupts off.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::TimerFlags;
        /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
        /// # static TIMERS: HrTimers = HrTimers::new();
        /// # static MINE: CpuHr = CpuHr::new(|_| ());
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// # let _ = Arc::new(HrTimer::soft(|_| ()));
        /// // A static needs no memory of its own, and no `Arc`.
        /// static TIMER: HrTimer<&str> =
        ///     HrTimer::soft_with_state(TimerFlags::NONE, "a name", |timer, _| println!("{}", timer.state()));
        /// assert!(TIMERS.add(&TIMER, Native::now_ns() + 3_600_000_000_000));
        /// assert!(TIMER.delete());
        /// ```
        #[track_caller]
        pub fn soft_with_state(flags: TimerFlags, state: T, function: Function<T, HrQueue, P>) -> HrTimer<T, P> {
            Timer::from_parts(HrEntry::new(0), Level::Softirq, soft(flags), state, function)
        }
    }

    const_fn! {
        /// A hard timer with a state, and a function that can be [changed](Timer::set_function).
        ///
        /// # Panics
        /// If it is to be deferrable.
        ///
        /// ```
        /// use std::sync::atomic::{AtomicU32, Ordering};
        /// use timers::TimerFlags;
        /// use timers::hr::HrTimer;
        ///
        /// let timer: HrTimer<AtomicU32> = HrTimer::hard_with_state(TimerFlags::PINNED, AtomicU32::new(7), |timer, _| {
        ///     timer.state().fetch_sub(1, Ordering::Relaxed);
        /// });
        /// assert_eq!(timer.state().load(Ordering::Relaxed), 7);
        /// ```
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::TimerFlags;
        /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
        /// # static TIMERS: HrTimers = HrTimers::new();
        /// # static MINE: CpuHr = CpuHr::new(|_| ());
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// # let _ = Arc::new(HrTimer::soft(|_| ()));
        /// use std::sync::atomic::{AtomicU32, Ordering};
        ///
        /// static CALLS: HrTimer<AtomicU32> =
        ///     HrTimer::hard_with_state(TimerFlags::NONE, AtomicU32::new(0), |timer, _| {
        ///         timer.state().fetch_add(1, Ordering::Relaxed);
        ///     });
        /// let now = Native::now_ns();
        /// TIMERS.add(&CALLS, now);
        /// let _ = TIMERS.interrupt(&sync::irq::disable(), now);
        /// assert_eq!(CALLS.state().load(Ordering::Relaxed), 1);
        /// ```
        #[track_caller]
        pub fn hard_with_state(flags: TimerFlags, state: T, function: Function<T, HrQueue, P>) -> HrTimer<T, P> {
            Timer::from_parts(HrEntry::new(0), Level::Hardirq, hard(flags), state, function)
        }
    }
}

impl<F, P: Platform> Timer<Periodic<F, HrQueue>, HrQueue, P>
where
    F: Fn(&Firing<'_, HrQueue, P>, u64) + Send + Sync + 'static,
{
    /// A soft timer that is called every `period_ns`, from the time that it is armed for on. The function is told how many
    /// periods have passed without a call since the last one.
    ///
    /// # Panics
    /// If the period is 0, or the timer is to be deferrable, or called with interrupts off.
    ///
    /// ```
    /// use timers::TimerFlags;
    /// use timers::hr::HrTimer;
    ///
    /// let beat: HrTimer<_> = HrTimer::soft_periodic(TimerFlags::NONE, 250_000, |_, missed| {
    ///     println!("{missed} beats of 250 us had no call");
    /// });
    /// assert!(!beat.is_pending());
    /// ```
    #[track_caller]
    pub fn soft_periodic(flags: TimerFlags, period_ns: u64, function: F) -> HrTimer<Periodic<F, HrQueue>, P> {
        let state = Periodic::new(period_ns, function);
        let call = call_periodic::<F, HrQueue, P>;
        Timer::from_parts(HrEntry::new(0), Level::Softirq, soft(flags), state, call)
    }

    /// The same, a hard one.
    ///
    /// # Panics
    /// If the period is 0, or the timer is to be deferrable.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::TimerFlags;
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let beat = Arc::new(HrTimer::hard_periodic(TimerFlags::NONE, 1_000_000, |_, missed| assert_eq!(missed, 2)));
    /// let now = Native::now_ns();
    /// TIMERS.add(&beat, now);
    /// // 2.5 ms late: two beats have passed by.
    /// let due = TIMERS.interrupt(&sync::irq::disable(), now + 2_500_000);
    /// assert_eq!(beat.expires(), now + 3_000_000);
    /// # beat.delete();
    /// # let _ = due;
    /// ```
    #[track_caller]
    pub fn hard_periodic(flags: TimerFlags, period_ns: u64, function: F) -> HrTimer<Periodic<F, HrQueue>, P> {
        let state = Periodic::new(period_ns, function);
        let call = call_periodic::<F, HrQueue, P>;
        Timer::from_parts(HrEntry::new(0), Level::Hardirq, hard(flags), state, call)
    }
}
