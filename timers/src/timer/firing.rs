//! What a timer's function is told, and what it may do about its timer.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::panic::Location;
use core::ptr::NonNull;

use hal::percpu::Pinned;
use hal::{Native, Platform};
use sync::{BottomHalf, Proves, Task};

use crate::base::{Core, Ops};
use crate::queue::{Queue, Unit};
use crate::wheel::Wheel;

/// A timer has expired, and its function is being called on this CPU, with softirqs off.
///
/// It proves that: [`Task`] and [`BottomHalf`] locks are taken with it by `lock_with(firing)`, and it is good for per-CPU
/// data.
pub struct Fired<'a, Q: Queue = Wheel, P: Platform = Native> {
    now: u64,
    expired: u64,
    core: NonNull<Core<Q, P>>,
    /// How the call's reference is used; `None` if there is nothing to let go of.
    ops: Option<&'static Ops<Q, P>>,
    /// How many were to be called and were taken back.
    skipped: u32,
    /// The function has armed the timer.
    rearmed: Cell<bool>,
    /// No longer than the call; neither `Send` nor `Sync`.
    _bound: PhantomData<(&'a (), *mut ())>,
}

/// [`Fired`], and the timer still is: its function may arm it again.
#[repr(transparent)]
pub struct Firing<'a, Q: Queue = Wheel, P: Platform = Native> {
    fired: Fired<'a, Q, P>,
}

impl<Q: Unit, P: Platform> Fired<'_, Q, P> {
    /// What time it was when the timer was taken out to be called: not before [`expired_at`](Fired::expired_at).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|firing| {
    ///     let late = firing.now().0 - firing.expired_at().0;
    ///     assert_eq!(late, 2);
    /// }));
    /// TIMERS.add(&timer, Ticks(3));
    /// // The tick comes late.
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// # assert!(!timer.is_pending());
    /// ```
    #[inline(always)]
    pub fn now(&self) -> Q::Time {
        Q::Time::from(self.now)
    }

    /// The time that it was armed for.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|firing| assert_eq!(firing.expired_at(), Ticks(3))));
    /// TIMERS.add(&timer, Ticks(3));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// # assert!(!timer.is_pending());
    /// ```
    #[inline(always)]
    pub fn expired_at(&self) -> Q::Time {
        Q::Time::from(self.expired)
    }
}

/// For who calls.
impl<'a, Q: Queue, P: Platform> Firing<'a, Q, P> {
    /// No timer's yet. It is `now`.
    #[inline(always)]
    pub(crate) fn new(now: u64) -> Firing<'a, Q, P> {
        Firing::due_at(now, now)
    }

    /// For timers that were due at `expired`, and need not be let go of. It is `now`.
    #[inline(always)]
    pub(crate) fn due_at(now: u64, expired: u64) -> Firing<'a, Q, P> {
        let fired = Fired {
            now,
            expired,
            core: NonNull::dangling(),
            ops: None,
            skipped: 0,
            rearmed: Cell::new(false),
            _bound: PhantomData,
        };
        Firing { fired }
    }

    /// For timers that were due at `expired`, and need not be let go of.
    #[inline(always)]
    pub(crate) fn begin(&mut self, expired: u64) {
        self.fired.expired = expired;
        self.fired.ops = None;
        self.fired.skipped = 0;
        self.fired.rearmed.set(false);
    }

    /// The timer whose function is called next.
    #[inline(always)]
    pub(crate) fn set_timer(&mut self, core: NonNull<Core<Q, P>>) {
        self.fired.core = core;
    }

    /// That timer.
    pub(crate) fn timer(&self) -> NonNull<Core<Q, P>> {
        self.fired.core
    }

    /// Somebody has taken back what would have been called next. That is counted here, where it costs the others nothing.
    #[cold]
    pub(crate) fn skip(&mut self) {
        self.fired.skipped += 1;
    }

    /// How often that was since [`begin`](Firing::begin).
    pub(crate) fn skipped(&self) -> u32 {
        self.fired.skipped
    }

    /// Its reference is let go of like this, unless it arms itself.
    #[inline(always)]
    pub(crate) fn set_ops(&mut self, ops: &'static Ops<Q, P>) {
        self.fired.ops = Some(ops);
    }

    /// Whether the function has armed the timer.
    #[inline(always)]
    pub(crate) fn was_rearmed(&self) -> bool {
        self.fired.rearmed.get()
    }

    /// What time it is, in the queue's unit.
    #[inline(always)]
    pub(crate) fn now_word(&self) -> u64 {
        self.fired.now
    }
}

impl<Q: Unit, P: Platform> Firing<'_, Q, P> {
    /// Has the timer called again at `at`, and not before the next tick; or changes that, if it was settled already, by the
    /// function or by others. Returns `false` if the timer is shut down.
    ///
    /// Who deletes it meanwhile takes that back.
    ///
    /// Linux: `mod_timer` from the function. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// // Each time twice as long after the one before.
    /// let timer = Arc::new(Timer::new(|firing| _ = firing.rearm_at(Ticks(2 * firing.now().0))));
    /// TIMERS.add(&timer, Ticks(5));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert_eq!(timer.expires(), Ticks(10));
    /// # timer.delete();
    /// ```
    #[track_caller]
    pub fn rearm_at(&self, at: Q::Time) -> bool {
        self.fired.rearmed.set(true);
        Core::arm_running(self.fired.core, self.fired.ops, at.into(), Location::caller())
    }

    /// Has the timer called again a whole number of `period`s after it was due, at the first such time that has not come
    /// yet: so the beat does not drift. Returns how many of them have passed by without a call of their own: 0 if the call
    /// was less than a period late.
    ///
    /// Linux: `hrtimer_forward_now`, which returns one more. Cost: one lock, and a division if one was passed over.
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
    /// let timer = Arc::new(Timer::new(|firing| {
    ///     let missed = firing.forward(Ticks(2));
    ///     assert_eq!(missed, 1, "due at 2, and called at 5: 4 has passed by");
    /// }));
    /// TIMERS.add(&timer, Ticks(2));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert_eq!(timer.expires(), Ticks(6));
    /// # timer.delete();
    /// ```
    #[track_caller]
    pub fn forward(&self, period: Q::Time) -> u64 {
        let period: u64 = period.into();
        assert!(period != 0, "a period must have a length");
        let Fired { now, expired, .. } = self.fired;
        let late = now - expired;
        let missed = if late < period { 0 } else { late / period };
        let next = expired.saturating_add(period.saturating_mul(missed.saturating_add(1)));
        self.rearm_at(Q::Time::from(next));
        missed
    }
}

impl<'a, Q: Queue, P: Platform> Deref for Firing<'a, Q, P> {
    type Target = Fired<'a, Q, P>;

    #[inline(always)]
    fn deref(&self) -> &Fired<'a, Q, P> {
        &self.fired
    }
}

/// What both prove.
macro_rules! proofs {
    ($($Type:ident),+) => {$(
        // SAFETY: made for a call by `Base::run`, which is called where a softirq or an interrupt is being served; that stays
        // on its CPU until it ends, and the value does not outlive the call. Neither `Send` nor `Sync`.
        unsafe impl<Q: Queue, P: Platform> Pinned for $Type<'_, Q, P> {}
        // SAFETY: as above; nothing preempts what serves softirqs or interrupts.
        unsafe impl<Q: Queue, P: Platform> Proves<Task<P>> for $Type<'_, Q, P> {}
        // SAFETY: as above; no softirq begins on the CPU while one is being served, or an interrupt is.
        unsafe impl<Q: Queue, P: Platform> Proves<BottomHalf<P>> for $Type<'_, Q, P> {}

        impl<Q: Unit, P: Platform> fmt::Debug for $Type<'_, Q, P> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (now, expired): (u64, u64) = (self.now().into(), self.expired_at().into());
                f.debug_struct(stringify!($Type)).field("now", &now).field("expired_at", &expired).finish_non_exhaustive()
            }
        }
    )+};
}
proofs!(Fired, Firing);
