//! High-resolution timers: called at the nanosecond that they ask for, as soon as the CPU's timer can.
//!
//! Time is in nanoseconds, on the clock of [`Platform::now_ns`]. A timer's function is called in the softirq `highres`, or,
//! if the timer is made for that, in the timer's interrupt itself. [`timers::hr`] has the mechanism.
//!
//! Each costs an interrupt of its own unless it has slack: time-outs belong on the [wheel](super).
//!
//! Linux: `hrtimer_start` and its kin.

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform, percpu};
use timers::hr::{CpuHr, HrTimers};
pub use timers::hr::{HrQueue, HrStats, HrTimer};
use timers::{Fired, Handle};

use crate::softirq::{self, Handler, Vector};
use crate::tick;

static TIMERS: HrTimers = HrTimers::new();

percpu! {
    static QUEUES: CpuHr = CpuHr::new(program);
}

static RUN: Handler = |serving| {
    if TIMERS.run(serving) {
        softirq::raise(Vector::HighRes);
    }
};

/// This CPU's timer is to come by `at`. Interrupts are off.
fn program(at: u64) {
    tick::note_deadline(&sync::irq::disable(), at);
}

/// The machine's high-resolution timers, for what the functions here do not offer.
pub fn all() -> &'static HrTimers {
    &TIMERS
}

/// Calls `function` once, in `ns` nanoseconds at least, in the softirq. Its memory is freed before the call.
///
/// Contexts: any but NMI. Cost: an allocation, and arming.
#[track_caller]
pub fn after(ns: u64, function: impl FnOnce(&Fired<'_, HrQueue>) + Send + 'static) {
    TIMERS.after(Native::now_ns().saturating_add(ns), function);
}

/// Arms a timer for `at` that is not armed. See [`HrTimers::add`]. Linux: `hrtimer_start` with an absolute time.
#[track_caller]
pub fn add<T>(timer: impl Handle<T, HrQueue, Native>, at: u64) -> bool {
    TIMERS.add(timer, at)
}

/// Arms it, or changes when it is due. See [`HrTimers::modify`].
#[track_caller]
pub fn modify<T>(timer: impl Handle<T, HrQueue, Native>, at: u64) -> bool {
    TIMERS.modify(timer, at)
}

/// What the high-resolution timers of `cpu` have done so far. `None` for one that has none.
pub fn stats(cpu: CpuId) -> Option<HrStats> {
    TIMERS.of(cpu).map(CpuHr::stats)
}

/// The executing CPU has timers from here on, whose calls are slow from `slow_limit` on.
pub(super) fn install_here(slow_limit: Option<u64>) {
    let cpu = Native::cpu();
    let queues = QUEUES.on(cpu);
    queues.hard().set_slow_limit(slow_limit);
    queues.soft().set_slow_limit(slow_limit);
    TIMERS.install(cpu, queues);
    softirq::set_handler(Vector::HighRes, Some(&RUN));
}

pub(super) fn inherit(cpu: CpuId) {
    TIMERS.offline(cpu, Native::cpu());
}

pub(super) fn join(quiet: &impl IrqsOff) {
    TIMERS.online(quiet, Native::cpu());
}

/// For the timer's interrupt at `now_ns`. Returns when the next one has to come.
pub(crate) fn on_interrupt(quiet: &impl IrqsOff, now_ns: u64) -> u64 {
    let due = TIMERS.interrupt(quiet, now_ns);
    if due.softirq {
        softirq::raise(Vector::HighRes);
    }
    due.next
}

/// When the executing CPU's timer has to come, after another CPU has armed one here.
pub(crate) fn next(quiet: &impl IrqsOff) -> u64 {
    TIMERS.next(quiet)
}
