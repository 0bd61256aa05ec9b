//! Making coarse timers.

use hal::Platform;
use sync::lockdep::Level;

use super::{Firing, Function, Timer, TimerFlags};
use crate::Ticks;
use crate::primitives::const_fn;
use crate::queue::{Queue, Unit};
use crate::wheel::{Wheel, WheelEntry};

impl<F: Fn(&Firing<'_>) + Send + Sync + 'static> Timer<F> {
    const_fn! {
        /// A coarse timer that calls `function`, on this build's platform.
        ///
        /// Linux: `DEFINE_TIMER`, `timer_setup`. A constant expression.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
        /// # static TIMERS: Timers = Timers::new();
        /// # static MINE: CpuTimers = CpuTimers::new();
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// let timer = Arc::new(Timer::new(|fired| println!("called at tick {}", fired.now())));
        /// TIMERS.add(&timer, Ticks(5));
        /// # timer.delete();
        /// ```
        #[track_caller]
        pub fn new(function: F) -> Timer<F> {
            Timer::new_in(TimerFlags::NONE, function)
        }
    }
}

impl<F: Fn(&Firing<'_, Wheel, P>) + Send + Sync + 'static, P: Platform> Timer<F, Wheel, P> {
    const_fn! {
        /// A coarse timer that calls `function`, on the platform `P`.
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
        /// # static TIMERS: Timers = Timers::new();
        /// # static MINE: CpuTimers = CpuTimers::new();
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// // Good for statistics: an idle CPU is not woken for it.
        /// let timer = Arc::new(Timer::new_in(TimerFlags::DEFERRABLE, |_| ()));
        /// TIMERS.add(&timer, Ticks(5));
        /// assert_eq!(TIMERS.next_event(Native::cpu()), u64::MAX);
        /// # timer.delete();
        /// ```
        #[track_caller]
        pub fn new_in(flags: TimerFlags, function: F) -> Timer<F, Wheel, P> {
            Timer::from_parts(WheelEntry::new(), Level::Softirq, flags, function, call_closure::<F, Wheel, P>)
        }
    }
}

impl<T: Send + Sync + 'static, P: Platform> Timer<T, Wheel, P> {
    const_fn! {
        /// A coarse timer with a state, and a function that can be [changed](Timer::set_function).
        ///
        /// ```
        /// # use std::sync::Arc;
        /// # use hal::{Native, Platform};
        /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
        /// # static TIMERS: Timers = Timers::new();
        /// # static MINE: CpuTimers = CpuTimers::new();
        /// # let pinned = sync::preempt::disable();
        /// # TIMERS.install(Native::cpu(), &MINE);
        /// use std::sync::atomic::{AtomicU32, Ordering};
        ///
        /// // A static needs no memory of its own, and no `Arc`.
        /// static TIMER: Timer<AtomicU32> = Timer::with_state(TimerFlags::NONE, AtomicU32::new(0), |timer, _| {
        ///     timer.state().fetch_add(1, Ordering::Relaxed);
        /// });
        /// TIMERS.add(&TIMER, Ticks(5));
        /// # TIMERS.tick(Native::cpu(), Ticks(5));
        /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
        /// # let serving = unsafe { sync::context::enter_softirq() };
        /// # TIMERS.run(&serving);
        /// assert_eq!(TIMER.state().load(Ordering::Relaxed), 1);
        /// ```
        #[track_caller]
        pub fn with_state(flags: TimerFlags, state: T, function: Function<T, Wheel, P>) -> Timer<T, Wheel, P> {
            Timer::from_parts(WheelEntry::new(), Level::Softirq, flags, state, function)
        }
    }
}

/// The function of a timer whose state is a closure.
pub(crate) fn call_closure<F: Fn(&Firing<'_, Q, P>), Q: Queue, P: Platform>(
    timer: &Timer<F, Q, P>,
    firing: &Firing<'_, Q, P>,
) {
    (timer.state())(firing);
}

/// The state of a timer that is called at a beat, which does not drift.
pub struct Periodic<F, Q: Unit = Wheel> {
    period: u64,
    function: F,
    unit: core::marker::PhantomData<fn() -> Q>,
}

impl<F, Q: Unit> Periodic<F, Q> {
    /// # Panics
    /// If the period is 0.
    #[track_caller]
    pub(crate) fn new(period: u64, function: F) -> Periodic<F, Q> {
        assert!(period != 0, "a period must have a length");
        Periodic { period, function, unit: core::marker::PhantomData }
    }
}

impl<F, P: Platform> Timer<Periodic<F>, Wheel, P>
where
    F: Fn(&Firing<'_, Wheel, P>, u64) + Send + Sync + 'static,
{
    /// A coarse timer that is called every `period`, from the time that it is armed for on. The function is told how many
    /// periods have passed without a call since the last one: 0 unless it was a period or more late. It may delete the timer
    /// to end it, or have it armed for another time.
    ///
    /// # Panics
    /// If the period is 0.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::periodic(TimerFlags::NONE, Ticks(2), |_, missed| assert_eq!(missed, 1)));
    /// TIMERS.add(&timer, Ticks(2));
    /// // The tick comes late: 4 has passed by, and the next time is 6.
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert_eq!(timer.expires(), Ticks(6));
    /// # timer.delete();
    /// ```
    #[track_caller]
    pub fn periodic(flags: TimerFlags, period: Ticks, function: F) -> Timer<Periodic<F>, Wheel, P> {
        let state = Periodic::new(period.0, function);
        Timer::from_parts(WheelEntry::new(), Level::Softirq, flags, state, call_periodic::<F, Wheel, P>)
    }
}

/// The function of periodic timers.
pub(crate) fn call_periodic<F, Q: Unit, P: Platform>(
    timer: &Timer<Periodic<F, Q>, Q, P>,
    firing: &Firing<'_, Q, P>,
) where
    F: Fn(&Firing<'_, Q, P>, u64),
{
    let Periodic { period, function, .. } = timer.state();
    let missed = firing.forward(Q::Time::from(*period));
    function(firing, missed);
}
