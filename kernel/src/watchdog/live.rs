//! The machine's watchdogs.

use core::cell::Cell;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform, percpu};

use super::Stall;
use crate::cmdline::Options;
use crate::machine::Lines;
use crate::task::Task;
use crate::{cpus, snapshot, tick};

/// How many ticks something may stand still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A task that should have given way.
    pub soft: u64,
    /// A CPU without a timer interrupt.
    pub hard: u64,
}

/// Linux's: `watchdog_thresh` is 10 s, and a soft lock-up twice that.
static SOFT: AtomicU64 = AtomicU64::new(20 * timers::HZ);
static HARD: AtomicU64 = AtomicU64::new(USUAL_HARD);
const USUAL_HARD: u64 = 10 * timers::HZ;
/// How often each was reported.
static REPORTED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

percpu! {
    /// Whether this CPU's task gives way when it should.
    static OWN: Cell<Stall> = Cell::new(Stall::new());
    /// Whether the next CPU has ticks.
    static NEXT: Cell<Stall> = Cell::new(Stall::new());
}

/// Sets the limits, for all CPUs, and returns what they were. Linux: `watchdog_thresh`.
///
/// Contexts: any but NMI.
pub fn set_limits(limits: Limits) -> Limits {
    let before = Limits {
        soft: SOFT.swap(limits.soft, Ordering::Relaxed),
        hard: HARD.swap(limits.hard, Ordering::Relaxed),
    };
    // Those without a tick come round as often as the new limit needs.
    tick::wake_all();
    before
}

/// How many soft and hard lock-ups have been reported.
pub fn counts() -> (u64, u64) {
    (REPORTED[0].load(Ordering::Relaxed), REPORTED[1].load(Ordering::Relaxed))
}

/// Sets what the boot options say about holds and hung tasks.
pub(crate) fn set_by_options(options: &Options<'_>) {
    if let Some(us) = options.holds_us {
        super::holds::set_limit_ns(Some(us * 1_000));
    }
    if let Some(s) = options.hung_s {
        super::hung::set_hung_limit_ms((s != 0).then_some(s * 1_000));
    }
}

/// How many nanoseconds a CPU without a tick may go without a look at the others, which is its own sign of life too.
/// Linux: `get_sample_period`.
pub(crate) fn patrol_ns() -> u64 {
    patrol_ticks().saturating_mul(timers::TICK_NS)
}

fn patrol_ticks() -> u64 {
    (HARD.load(Ordering::Relaxed).min(USUAL_HARD) / 5 * 2).min(super::hung::ticks_between_looks()).max(1)
}

/// For each CPU's tick, with the number of ticks since the last one, and whether the tick rested meanwhile.
pub(crate) fn on_tick(quiet: &impl IrqsOff, passed: u64, rested: bool) {
    super::hung::check_hung_tasks();
    // What passed while nothing was to come is the CPU's own time; any other gap is time that its host took away.
    let ticks = if rested { passed.min(patrol_ticks()) } else { 1 };
    let here = Native::cpu();
    // A task that has been switched to once more is another one for this purpose.
    let running = u64::from(Task::current().number()) << 32 | Task::current().switches() & 0xffff_ffff;
    let due = Native::context().resched_due();
    if let Some(ticks) = look(OWN.get_local(quiet), ticks, due, running, &SOFT) {
        report(0, "soft", here, ticks);
    }
    // After the last comes the first; a CPU that is alone has nobody to watch.
    let others = || cpus::online().filter(|cpu| *cpu != here);
    let next = others().find(|cpu| *cpu > here).or_else(|| others().next());
    let signs = next.map_or(0, tick::count);
    // With the CPU's number, so that another neighbour is another value.
    let value = signs << 16 | next.map_or(0, |cpu| u64::from(cpu.as_u32()));
    if let Some(ticks) = look(NEXT.get_local(quiet), ticks, next.is_some(), value, &HARD)
        && let Some(next) = next
    {
        report(1, "hard", next, ticks);
    }
}

fn look(stall: &Cell<Stall>, ticks: u64, ought_to_move: bool, value: u64, limit: &AtomicU64) -> Option<u64> {
    let mut now = stall.get();
    let told = now.look(ticks, ought_to_move, value, limit.load(Ordering::Relaxed));
    stall.set(now);
    told
}

/// Says which CPU is stuck and shows where.
#[cold]
fn report(kind: usize, name: &str, cpu: CpuId, ticks: u64) {
    let (seconds, tenths) = (ticks / timers::HZ, ticks % timers::HZ * 10 / timers::HZ);
    let mut lines = Lines::new();
    // Writing to the log does not fail.
    let _ = write!(lines, "BUG: {name} lockup - CPU#{cpu} stuck for {seconds}.{tenths} s");
    if cpu == Native::cpu() {
        let task = Task::current();
        let _ = write!(lines, " in task {} ({})", task.number(), task.name());
    }
    let _ = writeln!(lines);
    let _ = snapshot::print_cpu(&mut lines, cpu);
    REPORTED[kind].fetch_add(1, Ordering::Relaxed);
}
