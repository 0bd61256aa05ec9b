//! The timer's interrupt, and what its timer is armed for.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::chaos::mix;
use hal::percpu::IrqsOff;
use hal::x86_64::traps::TrapFrame;
use hal::x86_64::{apic, clock, native};
use hal::{CpuId, Native, Platform, percpu};
use timers::{TICK_NS, TickSchedule};

use super::rest;
use crate::timer::Look;
use crate::{log, rcu, sched, services, timer, watchdog};

percpu! {
    /// Ticks that have passed on this CPU.
    static TICKS: AtomicU64 = AtomicU64::new(0);
    /// A digest of (CPU, interrupted address, tick) over all timer interrupts of this CPU, in order.
    static DIGEST: AtomicU64 = AtomicU64::new(0);
    /// This CPU's beat; `None` while it has no tick.
    static SCHEDULE: Cell<Option<TickSchedule>> = Cell::new(None);
    /// The moment for which the timer is armed.
    static ARMED_FOR: Cell<u64> = Cell::new(u64::MAX);
}

/// Starts the executing CPU's tick. The first tick comes within two periods.
pub fn start(quiet: &impl IrqsOff) {
    // The boot CPU's beat is that of `Ticks`, so that what is due with a tick is called in it.
    let now = Native::now_ns();
    let schedule = TickSchedule::new(now - now % TICK_NS, TICK_NS)
        .staggered(percpu::current_cpu_number() % Native::cpu_count(), Native::cpu_count());
    SCHEDULE.get_local(quiet).set(Some(schedule));
    rest::awake_here(quiet);
    timer::tick_runs(quiet);
    arm_by(quiet, next_tick(quiet));
}

/// Stops the executing CPU's tick, and its timer. An interrupt that is on its way may still come.
pub fn stop(quiet: &impl IrqsOff) {
    SCHEDULE.get_local(quiet).set(None);
    disarm(quiet);
}

/// When the executing CPU's next tick is due; never, if it has none.
pub(super) fn next_tick(quiet: &impl IrqsOff) -> u64 {
    let place = SCHEDULE.get_local(quiet);
    let schedule = place.take();
    let next = schedule.as_ref().map_or(u64::MAX, TickSchedule::next_ns);
    place.set(schedule);
    next
}

/// Has the timer come at `at`, on the clock of [`Platform::now_ns`], unless it comes before that anyway.
pub(super) fn arm_by(quiet: &impl IrqsOff, at: u64) {
    let armed = ARMED_FOR.get_local(quiet);
    if at < armed.get() {
        apic::timer::start_oneshot(at.saturating_sub(Native::now_ns()).max(1));
        armed.set(at);
    }
}

fn disarm(quiet: &impl IrqsOff) {
    apic::timer::stop();
    ARMED_FOR.get_local(quiet).set(u64::MAX);
}

/// A task of this CPU wants to go on at `deadline`: the timer comes by then.
pub(crate) fn note_deadline(quiet: &impl IrqsOff, deadline: u64) {
    arm_by(quiet, deadline);
}

/// Ticks that have passed on `cpu`, those during which its tick rested included, once it has ended.
pub fn count(cpu: CpuId) -> u64 {
    TICKS.on(cpu).load(Ordering::Relaxed)
}

/// Counts the ticks that have passed on the executing CPU up to `now`, and returns how many that were.
pub(super) fn catch_up(quiet: &impl IrqsOff, now: u64) -> u64 {
    let place = SCHEDULE.get_local(quiet);
    let Some(mut schedule) = place.take() else { return 0 };
    let passed = schedule.advance(now).0;
    place.set(Some(schedule));
    TICKS.add(passed);
    passed
}

/// For the timer vector.
pub(crate) fn on_timer(frame: &TrapFrame) {
    let quiet = sync::irq::disable();
    // Nothing is armed until it is below, or by somebody in between who wants it for himself.
    ARMED_FOR.get_local(&quiet).set(u64::MAX);
    let rested = rest::rests_here();
    let now = Native::now_ns();
    // First of all: what is exact is not to wait for the rest.
    let precise = timer::precise::on_interrupt(&quiet, now);
    let passed = catch_up(&quiet, now);
    timer::on_interrupt(now);
    let outlook = precise.min(rcu::on_tick(&quiet, now)).min(sched::on_timer(&quiet));
    if passed != 0 {
        watchdog::on_tick(&quiet, passed, rested);
    }
    crate::calls::on_tick(&quiet);
    if log::has_pending() {
        services::wake_log();
    }
    let place = mix(frame.rip ^ mix(TICKS.read() ^ (u64::from(percpu::current_cpu_number()) << 48)));
    DIGEST.write(mix(DIGEST.read() ^ place));
    crate::testing::watchdog::on_tick();
    crate::testing::irq::on_timer();
    // The last thing: everything above may have made a tick necessary.
    let next = match (rested, rest::rests_here()) {
        (_, true) => {
            let patrol =
                Native::now_ns().saturating_add(clock::longest_pause_ns().min(watchdog::patrol_ns()));
            patrol.min(timer::tick_rests(&quiet, Look::Interrupted))
        }
        (true, false) => {
            timer::tick_runs(&quiet);
            next_tick(&quiet)
        }
        (false, false) => next_tick(&quiet),
    };
    arm_by(&quiet, next.min(outlook));
}

/// For the kick's vector.
pub(crate) fn on_kick() {
    native::accept_resched_request();
    rest::on_kick();
    let quiet = sync::irq::disable();
    arm_by(&quiet, timer::precise::next(&quiet));
    drop(quiet);
    sched::accept_offer();
}

/// One number for the whole machine's schedule so far: it depends on every timer interrupt's CPU, address and order.
/// Under a deterministic emulator two runs with one seed give the same.
pub fn digest() -> u64 {
    percpu::cpus().fold(0, |sum, cpu| mix(sum ^ DIGEST.on(cpu).load(Ordering::Relaxed)))
}
