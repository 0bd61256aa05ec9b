//! Arming.

use core::panic::Location;

use hal::{CpuId, Platform};
use sync::Cpu;
#[cfg(feature = "alloc")]
use sync::lockdep::Level;

use super::Timers;
use crate::Ticks;
use crate::base::{Armed, Base, Flags, How, Reference, arm};
use crate::timer::Handle;
#[cfg(feature = "alloc")]
use crate::timer::{Fired, TimerFlags, one_shot};
use crate::wheel::Wheel;
#[cfg(feature = "alloc")]
use crate::wheel::WheelEntry;

impl<P: Platform> Timers<P> {
    /// Has the timer's function called at tick `at`, or as soon as possible if that has passed. Returns whether it is armed
    /// now: `false` if it is shut down. One that is armed already stays as it is, which is reported.
    ///
    /// It is called on this CPU, or, unless it is tied to it, on another one while this one is idle.
    ///
    /// Linux: `add_timer`. Contexts: any but NMI. Cost: one lock, or two if it was armed on another CPU before.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// assert!(TIMERS.add(&timer, Ticks(5)));
    /// assert_eq!((timer.is_pending(), timer.expires()), (true, Ticks(5)));
    /// ```
    #[doc(alias = "add_timer")]
    #[track_caller]
    pub fn add<T>(&'static self, timer: impl Handle<T, Wheel, P>, at: Ticks) -> bool {
        self.arm_here(timer.into_reference(), at.0, How::Add, Location::caller()) == Armed::Now
    }

    /// The same, at the tick that [`set_expires`](crate::Timer::set_expires) set.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// timer.set_expires(Ticks(5));
    /// assert!(TIMERS.add_as_set(&timer));
    /// assert_eq!(timer.expires(), Ticks(5));
    /// ```
    #[track_caller]
    pub fn add_as_set<T>(&'static self, timer: impl Handle<T, Wheel, P>) -> bool {
        let at = timer.core().expires();
        self.arm_here(timer.into_reference(), at, How::Add, Location::caller()) == Armed::Now
    }

    /// The same as [`add`](Timers::add), on the CPU `cpu`, to which it is tied until it was called.
    ///
    /// If that CPU is idle and would sleep longer, it is interrupted. Of a CPU that is off-line the timer goes where
    /// its others went.
    ///
    /// Linux: `add_timer_on`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// // From any CPU, once that one has timers.
    /// assert!(TIMERS.add_on(Native::cpu(), &timer, Ticks(5)));
    /// ```
    #[doc(alias = "add_timer_on")]
    #[track_caller]
    pub fn add_on<T>(&'static self, cpu: CpuId, timer: impl Handle<T, Wheel, P>, at: Ticks) -> bool {
        let at_place = Location::caller();
        self.arm(timer.into_reference(), at.0, How::Add, at_place, |flags| {
            self.on(cpu).base_for(if flags.has(Flags::DEFERRABLE) { flags } else { flags.and(Flags::PINNED) })
        }) == Armed::Now
    }

    /// Has the timer's function called at tick `at`, whether or not it is armed for another time already. Returns whether
    /// it was. One that is shut down stays so.
    ///
    /// A timer that is armed moves to this CPU if it must be touched, is not tied to another one, and is not running.
    ///
    /// Linux: `mod_timer`. Contexts: any but NMI. Cost: an atomic exchange if it is armed and can stay where it is; else one
    /// lock, two if it moves.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// assert!(!TIMERS.modify(&timer, Ticks(5)), "it was not armed, and is");
    /// assert!(TIMERS.modify(&timer, Ticks(9)), "it was, and is later now");
    /// assert_eq!(timer.expires(), Ticks(9));
    /// ```
    #[doc(alias = "mod_timer")]
    #[track_caller]
    #[inline]
    pub fn modify<T>(&'static self, timer: impl Handle<T, Wheel, P>, at: Ticks) -> bool {
        if timer.core().modify_in_place(at.0) {
            return true;
        }
        self.arm_here(timer.into_reference(), at.0, How::Modify, Location::caller()) == Armed::Before
    }

    /// The same, unless it is armed for an earlier time already.
    ///
    /// Linux: `timer_reduce`. Contexts: any but NMI. Cost: one lock, two if it moves.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(TIMERS.reduce(&timer, Ticks(9)));
    /// assert_eq!(timer.expires(), Ticks(5), "that would be later");
    /// TIMERS.reduce(&timer, Ticks(3));
    /// assert_eq!(timer.expires(), Ticks(3));
    /// ```
    #[doc(alias = "timer_reduce")]
    #[track_caller]
    pub fn reduce<T>(&'static self, timer: impl Handle<T, Wheel, P>, at: Ticks) -> bool {
        self.arm_here(timer.into_reference(), at.0, How::Reduce, Location::caller()) == Armed::Before
    }

    /// Calls `function` once, at tick `at` or as soon as possible if that has passed. The timer's memory is freed before the
    /// call, and nobody has to.
    ///
    /// Linux: a timer that frees itself. Contexts: any but NMI. Cost: an allocation and one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// TIMERS.after(Ticks(3), |fired| assert!(fired.now() >= fired.expired_at()));
    /// assert_eq!(TIMERS.next_event(Native::cpu()), 3);
    /// ```
    #[cfg(feature = "alloc")]
    #[track_caller]
    pub fn after<F>(&'static self, at: Ticks, function: F)
    where
        F: FnOnce(&Fired<'_, Wheel, P>) + Send + 'static,
    {
        self.after_with(TimerFlags::NONE, at, function);
    }

    /// The same, for a timer with flags.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// TIMERS.after_with(TimerFlags::DEFERRABLE, Ticks(3), |_| ());
    /// assert_eq!(TIMERS.next_event(Native::cpu()), u64::MAX, "the CPU is not woken for it");
    /// ```
    #[cfg(feature = "alloc")]
    #[track_caller]
    pub fn after_with<F>(&'static self, flags: TimerFlags, at: Ticks, function: F)
    where
        F: FnOnce(&Fired<'_, Wheel, P>) + Send + 'static,
    {
        let reference = one_shot(WheelEntry::new(), flags.flags(), Level::Softirq, function);
        self.arm_here(reference, at.0, How::Add, Location::caller());
    }

    #[inline(always)]
    fn arm_here(
        &'static self,
        reference: Reference<Wheel, P>,
        expires: u64,
        how: How,
        at: &'static Location<'static>,
    ) -> Armed {
        self.arm(reference, expires, how, at, |flags| self.on(P::cpu()).base_for(flags))
    }

    #[inline(always)]
    fn arm(
        &'static self,
        reference: Reference<Wheel, P>,
        expires: u64,
        how: How,
        at: &'static Location<'static>,
        target: impl FnOnce(Flags) -> &'static Base<Wheel, P>,
    ) -> Armed {
        // Before the CPU is asked for its number.
        let quiet = Cpu::<P>::disable_interrupts();
        // SAFETY: the reference keeps it alive.
        let flags = unsafe { reference.core.as_ref() }.word().flags();
        arm(quiet, reference, target(flags), expires, how, at)
    }
}
