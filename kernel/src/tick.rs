//! The tick: what happens on every CPU a fixed number of times a second.
//!
//! Each CPU has a beat of its own, shifted against the others', so that they do not all wake at the same moment. Its
//! timer is armed for one tick at a time; a tick that comes late does not move the beat.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::chaos::mix;
use hal::percpu::IrqsOff;
use hal::x86_64::apic::timer;
use hal::x86_64::traps::TrapFrame;
use hal::{CpuId, Native, Platform, percpu};
use timers::{TICK_NS, TickSchedule};

use crate::{log, sched, services, watchdog};

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
    let schedule = TickSchedule::new(Native::now_ns(), TICK_NS)
        .staggered(percpu::current_cpu_number() % Native::cpu_count(), Native::cpu_count());
    arm(quiet, schedule, None);
}

/// Stops the executing CPU's tick. One that is on its way may still come.
pub fn stop(quiet: &impl IrqsOff) {
    SCHEDULE.get_local(quiet).set(None);
    timer::stop();
}

/// Arms the timer for the next tick, or for a task's deadline if that comes first.
fn arm(quiet: &impl IrqsOff, schedule: TickSchedule, deadline: Option<u64>) {
    let now = Native::now_ns();
    let tick = schedule.until_next_ns(now).max(1);
    let wait = deadline.map_or(tick, |deadline| deadline.saturating_sub(now).clamp(1, tick));
    timer::start_oneshot(wait);
    ARMED_FOR.get_local(quiet).set(now + wait);
    SCHEDULE.get_local(quiet).set(Some(schedule));
}

/// A task of this CPU wants to go on at `deadline`, on the clock of [`Platform::now_ns`]: the timer comes by then.
pub(crate) fn note_deadline(quiet: &impl IrqsOff, deadline: u64) {
    let armed = ARMED_FOR.get_local(quiet);
    if deadline < armed.get() {
        timer::start_oneshot(deadline.saturating_sub(Native::now_ns()).max(1));
        armed.set(deadline);
    }
}

/// Ticks that have passed on `cpu`.
pub fn count(cpu: CpuId) -> u64 {
    TICKS.on(cpu).load(Ordering::Relaxed)
}

/// For the timer vector.
pub(crate) fn on_timer(frame: &TrapFrame) {
    let quiet = sync::irq::disable();
    // Nothing is armed until it is below.
    ARMED_FOR.get_local(&quiet).set(u64::MAX);
    let schedule = SCHEDULE.get_local(&quiet).take();
    let next_deadline = sched::on_timer(&quiet);
    if let Some(mut schedule) = schedule {
        let passed = schedule.advance(Native::now_ns()).0;
        TICKS.add(passed);
        arm(&quiet, schedule, next_deadline);
        if passed != 0 {
            watchdog::on_tick(&quiet);
        }
    }
    crate::calls::on_tick(&quiet);
    if log::has_pending() {
        services::wake_log();
    }
    let place = mix(frame.rip ^ mix(TICKS.read() ^ (u64::from(percpu::current_cpu_number()) << 48)));
    DIGEST.write(mix(DIGEST.read() ^ place));
    crate::testing::watchdog::on_tick();
    crate::testing::irq::on_timer();
}

/// One number for the whole machine's schedule so far: it depends on every timer interrupt's CPU, address and order.
/// Under a deterministic emulator two runs with one seed give the same.
pub fn digest() -> u64 {
    percpu::cpus().fold(0, |sum, cpu| mix(sum ^ DIGEST.on(cpu).load(Ordering::Relaxed)))
}
