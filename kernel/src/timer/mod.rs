//! Timers: functions to be called later, on this machine.
//!
//! | you want | use |
//! |---|---|
//! | a function called once, in about so long | [`after`] |
//! | a timer that is armed, moved and taken back again and again, such as a time-out | a [`Timer`] of your own, [`add`], [`modify`], [`Timer::delete`] |
//! | the exact moment | [`precise`] |
//! | a task to go on later | [`TaskCx::sleep_ns`](sync::TaskCx::sleep_ns), or a time-out of what it waits for |
//! | a function that sleeps, later | [`DelayedWork`] |
//!
//! Coarse timers are kept in [wheels](timers::wheel), three for each CPU, and called in the softirq `timer`. Their time is
//! in [`Ticks`]. They are never early; how late they may be grows with how far off they are ([`timers::wheel`] has the
//! table), unless a timer says how much it bears ([`Timer::set_slack`]). Arming one costs the same however many there are.
//!
//! [`timers`] has the mechanism and says what each function here promises.

mod delayed_work;
pub mod precise;

use core::sync::atomic::{AtomicU32, Ordering};

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform, percpu};
use timers::wheel::Wheel;
use timers::{CpuTimers, Timers};
pub use timers::{Deletion, Fired, Firing, Handle, Owned, Ticks, Timer, TimerFlags};

pub use delayed_work::DelayedWork;

use crate::softirq::{self, Handler, Vector};
use crate::tick;

static TIMERS: Timers = Timers::new();

percpu! {
    static WHEELS: CpuTimers = CpuTimers::new();
}

static RUN: Handler = |serving| {
    TIMERS.run(serving);
    // What was due kept the timer from being armed for the coarse timers that follow.
    tick::look_again(Look::Served);
};

/// When a CPU whose tick rests looks at its coarse timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// At the end of the softirq that calls them.
    Served,
    /// In an interrupt.
    Interrupted,
}

/// Ways to break what is here, for tests that must find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Fault {
    None,
    /// The timers of a CPU that has gone stay there.
    LeaveBehind,
    /// The tick counts a few too many.
    RunAhead,
    /// It counts four seconds too few.
    RunBehind,
}

static FAULT: AtomicU32 = AtomicU32::new(Fault::None as u32);

/// Breaks what is here, or mends it.
pub(crate) fn plant(fault: Fault) {
    FAULT.store(fault as u32, Ordering::Relaxed);
}

fn is_planted(fault: Fault) -> bool {
    FAULT.load(Ordering::Relaxed) == fault as u32
}

/// What tick it is. Linux: `jiffies_64`. Contexts: any. Cost: one load, and, while no CPU ticks, a reading of the clock.
///
/// While some CPU ticks it is that CPU's tick that moves it on, so it may be behind the clock by as much as that tick is
/// late; a time-out that must not be short is computed from the clock: [`ticks_from_now`].
#[inline]
pub fn now() -> Ticks {
    current().now()
}

/// The first tick that is at least `ns` nanoseconds from now: when to arm a timer that must not be called before.
///
/// Linux: `jiffies + nsecs_to_jiffies(ns) + 1`. Contexts: any. Cost: a reading of the clock and a division by a constant.
pub fn ticks_from_now(ns: u64) -> Ticks {
    Ticks::covering_ns(Native::now_ns().saturating_add(ns))
}

/// The timers, which know what time it is, also while nobody ticks: what is armed on a CPU whose tick rests is put where the
/// present says.
#[inline(always)]
fn current() -> &'static Timers {
    if tick::rests_here() {
        catch_up();
    }
    &TIMERS
}

#[cold]
fn catch_up() {
    TIMERS.advance_to(tick_at(Native::now_ns()));
}

/// The machine's coarse timers, for what the functions here do not offer.
pub fn all() -> &'static Timers {
    &TIMERS
}

/// Calls `function` once, in `ns` nanoseconds at least. Its memory is freed before the call.
///
/// Linux: a timer that frees itself. Contexts: any but NMI. Cost: an allocation, and arming.
#[track_caller]
pub fn after(ns: u64, function: impl FnOnce(&Fired<'_>) + Send + 'static) {
    current().after(ticks_from_now(ns), function);
}

/// Arms a timer that is not armed. See [`Timers::add`].
#[track_caller]
pub fn add<T>(timer: impl Handle<T, Wheel, Native>, at: Ticks) -> bool {
    current().add(timer, at)
}

/// Arms it on `cpu`, where its function is called. See [`Timers::add_on`].
#[track_caller]
pub fn add_on<T>(cpu: CpuId, timer: impl Handle<T, Wheel, Native>, at: Ticks) -> bool {
    current().add_on(cpu, timer, at)
}

/// Arms it, or changes when it is due. See [`Timers::modify`].
#[track_caller]
#[inline]
pub fn modify<T>(timer: impl Handle<T, Wheel, Native>, at: Ticks) -> bool {
    current().modify(timer, at)
}

/// The same, unless it is due earlier already. See [`Timers::reduce`].
#[track_caller]
pub fn reduce<T>(timer: impl Handle<T, Wheel, Native>, at: Ticks) -> bool {
    current().reduce(timer, at)
}

/// The executing CPU has timers from here on. At its first start, before its tick.
pub(crate) fn install_here(_quiet: &impl IrqsOff) {
    let cpu = Native::cpu();
    // What was set for all CPUs is for those that come later, too.
    let limit = WHEELS.on(CpuId::BOOT).local().slow_limit();
    let wheels = WHEELS.on(cpu);
    for base in [wheels.local(), wheels.global(), wheels.deferrable()] {
        base.set_slow_limit(limit);
    }
    TIMERS.install(cpu, wheels);
    softirq::set_handler(Vector::Timer, Some(&RUN));
    precise::install_here(limit);
}

/// `cpu` has gone, and executes nothing: its timers are this CPU's.
pub(crate) fn inherit(cpu: CpuId) {
    let here = sync::migrate::disable();
    if !is_planted(Fault::LeaveBehind) {
        TIMERS.offline(cpu, Native::cpu());
    }
    precise::inherit(cpu);
    drop(here);
}

/// The executing CPU is back.
pub(crate) fn join(quiet: &impl IrqsOff) {
    TIMERS.online(Native::cpu());
    precise::join(quiet);
}

/// What tick it is at `now_ns`.
fn tick_at(now_ns: u64) -> Ticks {
    let tick = Ticks::elapsed_in_ns(now_ns);
    if is_planted(Fault::RunAhead) {
        tick + Ticks(3)
    } else if is_planted(Fault::RunBehind) {
        Ticks(tick.0.saturating_sub(4 * timers::HZ))
    } else {
        tick
    }
}

/// For the timer's interrupt at `now_ns`.
pub(crate) fn on_interrupt(now_ns: u64) {
    if TIMERS.tick(Native::cpu(), tick_at(now_ns)) {
        softirq::raise(Vector::Timer);
    }
}

/// The executing CPU's tick rests, or has rested and something has happened since: returns when, in nanoseconds, the CPU
/// must look at its coarse timers.
///
/// What is due already is for the softirq, which looks again at its end. It is raised here, because nobody else may have:
/// a tick can pass between the look of the interrupt and this one, counted by another CPU. What is still due at the end of
/// the softirq is being called by another CPU, for which the next tick is early enough.
pub(crate) fn tick_rests(quiet: &impl IrqsOff, look: Look) -> u64 {
    let next = Ticks(TIMERS.stop_tick(quiet, Native::cpu()));
    match look {
        _ if next > TIMERS.now() => next.as_ns(),
        Look::Served => ticks_from_now(1).as_ns(),
        Look::Interrupted => {
            softirq::raise(Vector::Timer);
            u64::MAX
        }
    }
}

/// The executing CPU's tick goes on.
pub(crate) fn tick_runs(quiet: &impl IrqsOff) {
    catch_up();
    TIMERS.start_tick(quiet, Native::cpu());
}
