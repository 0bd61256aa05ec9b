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

percpu! {
    /// Ticks that have passed on this CPU.
    static TICKS: AtomicU64 = AtomicU64::new(0);
    /// A digest of (CPU, interrupted address, tick) over all timer interrupts of this CPU, in order.
    static DIGEST: AtomicU64 = AtomicU64::new(0);
    /// This CPU's beat; `None` while it has no tick.
    static SCHEDULE: Cell<Option<TickSchedule>> = Cell::new(None);
}

/// Starts the executing CPU's tick. The first tick comes within two periods.
pub fn start(quiet: &impl IrqsOff) {
    let schedule = TickSchedule::new(Native::now_ns(), TICK_NS)
        .staggered(percpu::current_cpu_number() % Native::cpu_count(), Native::cpu_count());
    arm(quiet, schedule);
}

/// Stops the executing CPU's tick. One that is on its way may still come.
pub fn stop(quiet: &impl IrqsOff) {
    SCHEDULE.get_local(quiet).set(None);
    timer::stop();
}

fn arm(quiet: &impl IrqsOff, schedule: TickSchedule) {
    timer::start_oneshot(schedule.until_next_ns(Native::now_ns()));
    SCHEDULE.get_local(quiet).set(Some(schedule));
}

/// Ticks that have passed on `cpu`.
pub fn count(cpu: CpuId) -> u64 {
    TICKS.on(cpu).load(Ordering::Relaxed)
}

/// For the timer vector.
pub(crate) fn on_timer(frame: &TrapFrame) {
    let quiet = sync::irq::disable();
    if let Some(mut schedule) = SCHEDULE.get_local(&quiet).take() {
        TICKS.add(schedule.advance(Native::now_ns()).0);
        arm(&quiet, schedule);
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
