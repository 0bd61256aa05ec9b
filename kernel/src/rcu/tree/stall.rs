//! Grace periods that last too long: who holds them up, where it is, and what is done about it.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use ::rcu::tree::{Holdout, Which};
use hal::platform::TaskId;
use hal::{CpuId, Native, Platform};
use sync::wait::Limits;

use super::{grace, tree};
use crate::machine::Lines;
use crate::task::{self, TaskRef};
use crate::watchdog::Limiter;
use crate::{sched, snapshot, trace};

static STALLS: AtomicU64 = AtomicU64::new(0);

/// How many grace periods have been reported since boot because they lasted too long, and how often `rcu_gp` because it
/// did not run.
pub fn stalls() -> u64 {
    STALLS.load(Ordering::Relaxed)
}

/// Sets after how many nanoseconds a grace period is reported, and returns what it was; for those that begin from now on.
/// Linux: `rcu_cpu_stall_timeout`, 21 s, which is the default.
pub fn set_stall_ns(ns: u64) -> u64 {
    tree().set_stall_ns(ns)
}

/// The grace period has lasted for this long. In a task.
pub(super) fn report(ns: u64) {
    tell("a grace period", Which::Normal, ns);
}

fn tell(what: &str, which: Which, ns: u64) {
    trace::stall(STALLS.fetch_add(1, Ordering::Relaxed) + 1);
    let mut lines = Lines::new();
    // Writing to the log does not fail.
    let (s, tenths) = (ns / 1_000_000_000, ns / 100_000_000 % 10);
    let _ = writeln!(lines, "WARNING: rcu: {what} has lasted for {s}.{tenths} s, and waits for:");
    tree().holdouts(which, |holdout| {
        let _ = match holdout {
            Holdout::Cpu(cpu) => tell_cpu(&mut lines, cpu),
            Holdout::Task(id) => tell_task(&mut lines, id),
        };
    });
}

fn tell_cpu(lines: &mut Lines, cpu: u32) -> core::fmt::Result {
    let Some(cpu) = CpuId::new(cpu) else { return Ok(()) };
    if let Some(task) = Native::running_on(cpu).and_then(find) {
        writeln!(lines, "CPU#{cpu}, which runs {:?}", *task)?;
    }
    snapshot::print_cpu(lines, cpu)
}

fn tell_task(lines: &mut Lines, id: TaskId) -> core::fmt::Result {
    let Some(task) = find(id) else { return Ok(()) };
    writeln!(lines, "{:?}, preempted in a read-side section, last on CPU#{}:", *task, task.cpu())?;
    snapshot::print_steps(lines, task.backtrace())
}

/// The task of this name, if it has not ended.
fn find(id: TaskId) -> Option<TaskRef> {
    task::table().lock().iter().find(|task| task.id() == id).map(task::Task::reference)
}

/// A task that was preempted in a section holds up a grace period: it runs before ordinary ones until it leaves it.
pub(super) fn boost(id: TaskId) {
    if let Some(task) = find(id) {
        sched::boost(&task);
    }
}

/// `rcu_gp` has something to do and does not run. In an interrupt.
pub(super) fn driver_starves() {
    static LIMITER: Limiter = Limiter::new(1);
    static LAST: AtomicU64 = AtomicU64::new(0);
    const EVERY_NS: u64 = 10_000_000_000;
    let now = Native::now_ns();
    let last = LAST.load(Ordering::Relaxed);
    if last != 0 && now.saturating_sub(last) < EVERY_NS {
        return;
    }
    let Some(_turn) = LIMITER.allow(now) else { return };
    LAST.store(now, Ordering::Relaxed);
    trace::stall(STALLS.fetch_add(1, Ordering::Relaxed) + 1);
    let mut lines = Lines::new();
    let _ = match grace::thread() {
        Some(task) => writeln!(
            lines,
            "WARNING: rcu: {task:?} has something to do and has not run, for as long as a grace period may last; it \
             is {}, last on CPU#{}",
            task.state(),
            task.cpu()
        )
        .and_then(|()| snapshot::print_steps(&mut lines, task.backtrace())),
        None => writeln!(lines, "WARNING: rcu: nobody drives grace periods yet"),
    };
}

/// The patience of one who waits for an expedited grace period.
pub(super) struct Limit {
    begun: u64,
    each: u64,
    reported: u64,
}

impl Limit {
    pub(super) fn new() -> Limit {
        Limit { begun: Native::now_ns(), each: tree().stall_ns(), reported: 0 }
    }

    pub(super) fn next(&self) -> Limits {
        Limits::NONE.until(self.begun.saturating_add(self.each.saturating_mul(self.reported + 1)))
    }

    pub(super) fn report(&mut self) {
        self.reported += 1;
        tell("an expedited grace period", Which::Expedited, Native::now_ns() - self.begun);
    }
}
