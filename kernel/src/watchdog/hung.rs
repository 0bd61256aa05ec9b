//! Tasks that are blocked and should not be for so long.
//!
//! 1. Most tasks of a kernel are blocked most of the time, and rightly: they wait for something to do. Who does so says it
//!    when it blocks ([`Platform::block_idle`]; [`task::park`], cancellable waits and waits with
//!    [`Limits::idle`](sync::wait::Limits::idle) are such), and who blocks with a deadline comes back by itself. The others
//!    wait for somebody to do what must be done: let go of a lock, answer, end.
//! 2. Ticks wake a task of this file now and then, a quarter of the limit apart. It looks at all tasks: one that is blocked
//!    like those others, and has not been given a CPU since the last look, has been blocked for as long ([`Patience`]).
//! 3. One that has reached the limit is named, with where it is. Once each time.
//!
//! Linux: `khungtaskd`.

use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hal::platform::Wakeup;
use hal::{Native, Platform};
use sync::TaskCx;

use super::Patience;
use crate::machine::Lines;
use crate::task::{self, Builder, SpawnError, State, Task, TaskRef};
use crate::{sched, snapshot, tick};

/// Milliseconds; `u64::MAX` is for ever. Linux's: `hung_task_timeout_secs` is 120.
static LIMIT_MS: AtomicU64 = AtomicU64::new(120_000);
/// When ticks wake the task next, and when it looked last, in nanoseconds of the clock.
static NEXT_LOOK: AtomicU64 = AtomicU64::new(0);
static LAST_LOOK: AtomicU64 = AtomicU64::new(0);
/// How many tasks have been reported.
static REPORTED: AtomicU64 = AtomicU64::new(0);
/// The record of the task that looks, or 0. It does not end.
static WATCHER: AtomicUsize = AtomicUsize::new(0);

/// How many tasks one look reports. The next one goes on.
const AT_ONCE: usize = 8;

/// [`Platform::block`]: without a deadline the task is to be woken by somebody, and may be reported.
pub(crate) fn block(deadline_ns: Option<u64>) -> Wakeup {
    match deadline_ns {
        None => sched::block(None),
        deadline_ns => excused(|| sched::block(deadline_ns)),
    }
}

/// [`Platform::block_idle`].
pub(crate) fn block_idle() -> Wakeup {
    excused(|| sched::block(None))
}

/// Blocks the running task, however long that takes.
fn excused(block: impl FnOnce() -> Wakeup) -> Wakeup {
    let task = Task::current();
    // Relaxed, both: the watcher looks at it some other time again.
    task.excused.store(true, Ordering::Relaxed);
    let wakeup = block();
    task.excused.store(false, Ordering::Relaxed);
    wakeup
}

/// Sets how long a task may be blocked without having said that this is all right, in milliseconds, and returns what it
/// was. `None`: for ever. It is reported when it has been for that long, or up to a quarter longer.
///
/// Linux: `hung_task_timeout_secs`. Contexts: any but NMI.
pub fn set_hung_limit_ms(limit: Option<u64>) -> Option<u64> {
    let before = LIMIT_MS.swap(limit.unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    // The next tick looks, and says when the next look is. CPUs without one come round as often as the new limit needs.
    NEXT_LOOK.store(0, Ordering::Relaxed);
    tick::wake_all();
    (before != u64::MAX).then_some(before)
}

/// How long a task may be blocked, in milliseconds; see [`set_hung_limit_ms`]. Contexts: any.
pub fn hung_limit_ms() -> Option<u64> {
    Some(LIMIT_MS.load(Ordering::Relaxed)).filter(|limit| *limit != u64::MAX)
}

/// How many hung tasks have been reported. Contexts: any.
pub fn hung_count() -> u64 {
    REPORTED.load(Ordering::Relaxed)
}

/// How many ticks may pass before the next look: a CPU whose tick rests comes round as often.
pub(super) fn ticks_between_looks() -> u64 {
    LIMIT_MS.load(Ordering::Relaxed).saturating_mul(250_000) / timers::TICK_NS
}

/// Starts the task that looks. On the boot CPU, when others are started.
pub(crate) fn start() -> Result<(), SpawnError> {
    let watcher = Builder::new("watchdog").spawn(|cx| -> () { watch(cx) })?;
    let record: &Task = watcher.task();
    // Release: pairs with the Acquire in `check_hung_tasks`.
    WATCHER.store(core::ptr::from_ref(record) as usize, Ordering::Release);
    Ok(())
}

/// Has the tasks looked at, if it is time to. To be called now and then, at least a few times in each quarter of the limit;
/// more seldom, the reports come later.
///
/// Contexts: any but NMI. Cost: a reading of the clock and a comparison, and every quarter of the limit a wake-up.
pub fn check_hung_tasks() {
    let limit = LIMIT_MS.load(Ordering::Relaxed);
    let (now, due) = (Native::now_ns(), NEXT_LOOK.load(Ordering::Relaxed));
    if limit == u64::MAX || now < due {
        return;
    }
    let next = now.saturating_add(limit.saturating_mul(250_000));
    // One CPU is enough.
    if NEXT_LOOK.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        // Acquire: pairs with the Release in `start`.
        // SAFETY: null, or the record of a task that never ends.
        if let Some(watcher) = unsafe { (WATCHER.load(Ordering::Acquire) as *const Task).as_ref() } {
            watcher.unpark();
        }
    }
}

fn watch(cx: &mut TaskCx) -> ! {
    loop {
        look();
        task::park(cx);
    }
}

/// Whether the task waits for somebody who must do something.
fn is_stuck(task: &Task) -> bool {
    task.state() == State::Blocked && !task.excused.load(Ordering::Relaxed)
}

fn look() {
    let (limit, now) = (LIMIT_MS.load(Ordering::Relaxed), Native::now_ns());
    let passed_ms = now.saturating_sub(LAST_LOOK.swap(now, Ordering::Relaxed)) / 1_000_000;
    let mut hung: [Option<(TaskRef, u64)>; AT_ONCE] = [const { None }; AT_ONCE];
    let mut free = hung.iter_mut();
    task::for_each(|task| {
        let mut patience = Patience::from_bits(task.patience.load(Ordering::Relaxed));
        if let Some(ms) = patience.look(is_stuck(task), task.switches() as u32, passed_ms, limit) {
            match free.next() {
                Some(slot) => *slot = Some((task.reference(), ms)),
                // Not told, so that the next look does.
                None => return,
            }
        }
        task.patience.store(patience.to_bits(), Ordering::Relaxed);
    });
    // Not under the lock of the table of tasks.
    for (task, ms) in hung.into_iter().flatten() {
        report(&task, ms);
    }
}

/// Names a task and shows where it is.
#[cold]
fn report(task: &Task, ms: u64) {
    let mut lines = Lines::new();
    let (number, name, cpu) = (task.number(), task.name(), task.cpu());
    // Writing to the log does not fail.
    let _ = writeln!(
        lines,
        "BUG: hung task - task {number} ({name}) blocked for {}.{} s, last on CPU#{cpu}",
        ms / 1_000,
        ms % 1_000 / 100
    );
    let _ = snapshot::print_steps(&mut lines, task.backtrace());
    REPORTED.fetch_add(1, Ordering::Relaxed);
}

/// How many tasks the report of a machine that stops shows at the most.
const SHOWN: usize = 8;

/// Shows where tasks are that wait for somebody who must do something, for the report of a machine that stops. Takes no
/// lock for which it would have to wait.
pub(crate) fn print_stuck(out: &mut dyn Write) -> fmt::Result {
    let (mut shown, mut left, mut written) = (0, 0, Ok(()));
    let looked = task::try_for_each(|task| {
        if written.is_err() || !is_stuck(task) {
            return;
        }
        if shown == SHOWN {
            left += 1;
            return;
        }
        shown += 1;
        written = writeln!(out, "waiting: {task:?}, last on CPU#{}", task.cpu())
            .and_then(|()| snapshot::print_steps(out, task.backtrace()));
    });
    written?;
    match (looked, left) {
        (false, _) => writeln!(out, "(which tasks wait cannot be said: their table is locked)"),
        (true, 0) => Ok(()),
        (true, left) => writeln!(out, "({left} more tasks wait)"),
    }
}

/// The tasks that wait for somebody who must do something, and for how long they have been seen to, in milliseconds.
///
/// Contexts: task.
pub fn stuck_tasks() -> Vec<(TaskRef, u64)> {
    let mut count = 0;
    task::for_each(|task| count += usize::from(is_stuck(task)));
    // Room first: the table's lock is not held while memory is allocated.
    let mut stuck = Vec::with_capacity(count);
    task::for_each(|task| {
        if stuck.len() < stuck.capacity() && is_stuck(task) {
            let patience = Patience::from_bits(task.patience.load(Ordering::Relaxed));
            stuck.push((task.reference(), patience.blocked_ms()));
        }
    });
    stuck
}
