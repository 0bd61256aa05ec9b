//! The tick: what happens on every CPU a fixed number of times a second.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::chaos::mix;
use hal::x86_64::apic::timer;
use hal::x86_64::traps::TrapFrame;
use hal::{CpuId, percpu};
use timers::tick::HZ;

percpu! {
    /// Ticks that this CPU has taken.
    static TICKS: AtomicU64 = AtomicU64::new(0);
    /// A digest of (CPU, interrupted address, tick) over all timer interrupts of this CPU, in order.
    static DIGEST: AtomicU64 = AtomicU64::new(0);
}

/// Nanoseconds between ticks.
pub const PERIOD_NS: u64 = 1_000_000_000 / HZ as u64;

/// Starts this CPU's tick. Interrupts may be off; the first tick comes one period later.
pub(crate) fn start() {
    timer::start_periodic(PERIOD_NS);
}

/// Ticks taken by `cpu`.
pub fn count(cpu: CpuId) -> u64 {
    TICKS.on(cpu).load(Ordering::Relaxed)
}

/// For the timer vector.
pub(crate) fn on_timer(frame: &TrapFrame) {
    let tick = TICKS.read() + 1;
    TICKS.write(tick);
    let place = mix(frame.rip ^ mix(tick ^ (u64::from(percpu::current_cpu_number()) << 48)));
    DIGEST.write(mix(DIGEST.read() ^ place));
    timer::on_tick();
    crate::testing::watchdog::on_tick();
}

/// One number for the whole machine's schedule so far: it depends on every timer interrupt's CPU, address and order.
/// Under a deterministic emulator two runs with one seed give the same.
pub fn digest() -> u64 {
    percpu::cpus().fold(0, |sum, cpu| mix(sum ^ DIGEST.on(cpu).load(Ordering::Relaxed)))
}
