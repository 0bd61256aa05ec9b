//! Timers that all CPUs arm, move and delete at random.
//!
//! 1. By the clock none is called early, and none later than its bucket comes and the CPU's absence explains: a virtual CPU
//!    that the host has stopped, or that others have kept busy, calls nothing.
//! 2. At the end what was armed was called or deleted, each once.
//! 3. After a synchronous delete it was one of the two, and nothing is under way.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::chaos::mix;
use hal::{MAX_CPUS, Native, Platform};
use spin::Once;
use sync::{IrqSpinLock, TaskCx};

use super::control::{Tally, error, goes_on};
use super::{MS, Plan, Scenario};
use crate::task::{Builder, JoinHandle};
use crate::testing::comes_true_by_others;
use crate::timer::{self, Deletion, Fault, Firing, Timer, TimerFlags, precise};
use crate::{cpus, tick};

const NAME: &str = "timers";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "all CPUs arm, move, delete and free timers at random; none early, lost or called twice",
    twins: &[
        ("timers-early", "the tick that the wheel is told runs ahead of the clock"),
        ("timers-late", "the tick that the wheel is told is four seconds behind the clock"),
        ("timers-loses", "one timer in fifty is taken away, and nobody is told"),
        ("timers-twice", "one call in twenty of a CPU's own timer is made twice"),
    ],
    start,
    settle,
    counts,
};

fn counts(tallies: &mut Vec<Tally>) {
    let Totals { armed, called, deleted, moved, waited } = &TALLY;
    tallies.extend([
        Tally::of("exact_calls", &EXACT, 50),
        Tally::of("armed_by_themselves", &CHAINED, 50),
        Tally::of("armed", armed, 200),
        Tally::of("called", called, 200),
        Tally::of("deleted", deleted, 150),
        Tally::of("moved", moved, 200),
        Tally::of("deleted_sync", waited, 200),
    ]);
}

/// What happened to the timers of a run. At the end what was armed was called or deleted, each once.
struct Totals {
    armed: AtomicU64,
    called: AtomicU64,
    deleted: AtomicU64,
    moved: AtomicU64,
    waited: AtomicU64,
}

/// Calls of exact timers, and of timers that their functions had armed.
static EXACT: AtomicU64 = AtomicU64::new(0);
static CHAINED: AtomicU64 = AtomicU64::new(0);

static LOSES: AtomicBool = AtomicBool::new(false);
static TWICE: AtomicBool = AtomicBool::new(false);

/// The timers that all CPUs use.
const SLOTS: usize = 48;

struct Slot {
    number: usize,
}

static TALLY: Totals = Totals {
    armed: AtomicU64::new(0),
    called: AtomicU64::new(0),
    deleted: AtomicU64::new(0),
    moved: AtomicU64::new(0),
    waited: AtomicU64::new(0),
};

fn timers() -> &'static [Timer<Slot>] {
    static ALL: Once<Vec<Timer<Slot>>> = Once::new();
    let make = |number| {
        let flags = match number % 8 {
            0 => TimerFlags::PINNED,
            1 => TimerFlags::DEFERRABLE,
            2 => TimerFlags::IRQSAFE,
            _ => TimerFlags::NONE,
        };
        Timer::with_state(flags, Slot { number }, on_time)
    };
    ALL.call_once(|| (0..SLOTS).map(make).collect())
}

/// Counts one more if it happened.
fn count(counter: &AtomicU64, happened: bool) {
    counter.fetch_add(u64::from(happened), Ordering::Relaxed);
}

/// By the clock, and not by what the wheel believes.
fn judge(due: u64) {
    let now = Native::now_ns();
    if now < due {
        error(NAME, format_args!("called {} ns too early", due - now));
    }
}

/// When each CPU's task of this load was seen last.
static SEEN: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// The longest time for which one was not, in the present two seconds and in those before: which seconds, and how long.
static ABSENCES: IrqSpinLock<[(u64, u64); 2]> = IrqSpinLock::new([(0, 0); 2]);
const WINDOW_NS: u64 = 2_000 * MS;

/// This CPU's task goes on.
fn note_presence() {
    let here = sync::migrate::disable();
    let now = Native::now_ns();
    let before = SEEN[Native::cpu().index()].swap(now, Ordering::Relaxed);
    drop(here);
    let absence = now.saturating_sub(before);
    if absence > 5 * MS {
        let window = now / WINDOW_NS;
        let mut absences = ABSENCES.lock();
        let [(present, longest), former] = &mut *absences;
        if *present != window {
            *former = (*present, *longest);
            (*present, *longest) = (window, 0);
        }
        *longest = absence.max(*longest);
    }
}

/// Three times as long as CPUs have lately been away, this one until now, and the time in which softirqs may wait for others.
fn allowance(now: u64) -> u64 {
    let here = SEEN[Native::cpu().index()].load(Ordering::Relaxed);
    let oldest = (now / WINDOW_NS).saturating_sub(2);
    let recent =
        ABSENCES.lock().iter().filter(|(window, _)| *window >= oldest).map(|(_, longest)| *longest).max();
    100 * MS + 3 * (now.saturating_sub(here) + recent.unwrap_or(0))
}

/// The same, for one that nobody has moved since it was armed, and whose bucket is `granule` ns long.
fn judge_both(due: u64, granule: u64) {
    judge(due);
    let now = Native::now_ns();
    let allowed = granule + allowance(now);
    if now > due + allowed {
        error(NAME, format_args!("called {} ns too late, {allowed} allowed for", now - due));
    }
}

/// Arms its timer three times.
fn link(timer: &Timer<AtomicU64>, firing: &Firing<'_>) {
    judge_both(firing.expired_at().as_ns(), timers::TICK_NS);
    if timer.state().fetch_add(1, Ordering::Relaxed) < 3 {
        firing.rearm_at(timer::ticks_from_now(mix(Native::now_ns()) % (5 * MS)));
        count(&CHAINED, true);
    } else {
        count(&TALLY.called, true);
    }
}

fn on_time(timer: &Timer<Slot>, firing: &Firing<'_>) {
    count(&TALLY.called, true);
    judge(firing.expired_at().as_ns());
    let draw = mix(Native::now_ns());
    if draw.is_multiple_of(4) {
        let armed_before =
            timer::modify(&timers()[timer.state().number], timer::ticks_from_now(draw % (20 * MS)));
        count(&TALLY.armed, !armed_before);
    }
}

fn count_call(timer: &Timer<AtomicU64>, _: &Firing<'_>) {
    let before = timer.state().fetch_add(1, Ordering::Relaxed);
    if TWICE.load(Ordering::Relaxed) && before.is_multiple_of(20) {
        timer.state().fetch_add(1, Ordering::Relaxed);
    }
}

/// One CPU's task: does this and that with all timers until it is told to stop.
fn play(seed: u64, cx: &mut TaskCx) {
    let mut draw = seed;
    let own = Arc::new(Timer::with_state(TimerFlags::NONE, AtomicU64::new(0), count_call));
    while goes_on(cx) {
        draw = mix(draw);
        note_presence();
        let timer = &timers()[(draw >> 32) as usize % SLOTS];
        let at = timer::ticks_from_now((draw >> 8) % (60 * MS));
        match draw % 10 {
            0..=2 => {
                let armed_before = timer::modify(timer, at);
                count(&TALLY.armed, !armed_before);
                count(&TALLY.moved, armed_before);
                if LOSES.load(Ordering::Relaxed) && draw.rotate_right(16).is_multiple_of(50) {
                    timer.delete();
                }
            }
            3 => count(&TALLY.moved, timer.modify_pending(at)),
            4 => count(&TALLY.deleted, timer.delete()),
            5 => {
                // As `delete_sync` does, which does not tell how often others armed it meanwhile.
                loop {
                    match timer.try_delete_sync() {
                        Deletion::Deleted => count(&TALLY.deleted, true),
                        Deletion::Running => Native::relax(),
                        Deletion::Idle => break,
                    }
                }
            }
            6 => {
                let before = own.state().load(Ordering::Relaxed);
                timer::add(&own, timer::ticks_from_now((draw >> 8) % (2 * MS)));
                (0..(draw >> 40) % 2_000).for_each(|_| Native::relax());
                let deleted = own.delete_sync(cx);
                // It was called or deleted, and nothing is under way.
                let called = own.state().load(Ordering::Relaxed) - before;
                if called + u64::from(deleted) != 1 {
                    error(NAME, format_args!("deleted synchronously: {deleted}, and called {called} times"));
                }
                count(&TALLY.waited, true);
            }
            7 => {
                count(&TALLY.armed, true);
                let ns = (draw >> 16) % (300 * MS);
                // A tick more than it says: when it begins is the wheel's business.
                let granule = timers::wheel::granule(timers::wheel::level_of(ns / timers::TICK_NS + 2))
                    * timers::TICK_NS;
                timer::after(ns, move |fired| {
                    judge_both(fired.expired_at().as_ns(), granule);
                    count(&TALLY.called, true);
                });
            }
            8 => {
                count(&TALLY.armed, true);
                precise::after((draw >> 16) % (10 * MS), |fired| {
                    judge_both(fired.expired_at(), 0);
                    count(&TALLY.called, true);
                    count(&EXACT, true);
                });
            }
            _ => {
                count(&TALLY.armed, true);
                // The armed state keeps it.
                let chain = Arc::new(Timer::with_state(TimerFlags::NONE, AtomicU64::new(0), link));
                timer::add(&chain, timer::ticks_from_now((draw >> 16) % (10 * MS)));
            }
        }
        if draw.is_multiple_of(64) {
            // Now and then the CPU idles.
            cx.sleep_ns(draw % (4 * MS));
        }
    }
}

/// What is armed and has been neither called nor deleted.
fn outstanding() -> u64 {
    let Totals { armed, called, deleted, .. } = &TALLY;
    // What is over is read first, so that what happens meanwhile does not look like too much of it.
    let over = called.load(Ordering::Relaxed) + deleted.load(Ordering::Relaxed);
    armed.load(Ordering::Relaxed).wrapping_sub(over)
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    let Totals { armed, called, deleted, moved, waited } = &TALLY;
    [armed, called, deleted, moved, waited]
        .into_iter()
        .for_each(|counter| counter.store(0, Ordering::Relaxed));
    [&EXACT, &CHAINED].into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    // Nobody has been away yet.
    let now = Native::now_ns();
    SEEN.iter().for_each(|seen| seen.store(now, Ordering::Relaxed));
    *ABSENCES.lock() = [(0, 0); 2];
    LOSES.store(plan.is("timers-loses"), Ordering::Relaxed);
    TWICE.store(plan.is("timers-twice"), Ordering::Relaxed);
    if plan.is("timers-early") {
        timer::plant(Fault::RunAhead);
    } else if plan.is("timers-late") {
        timer::plant(Fault::RunBehind);
    }
    let play_on = |cpu: hal::CpuId| {
        let seed = mix(plan.seed ^ u64::from(cpu.as_u32()) << 48);
        Builder::named(format_args!("timers/{cpu}")).on(cpu).spawn(move |cx| play(seed, cx)).ok()
    };
    cpus::online().filter_map(play_on).collect()
}

fn settle(cx: &mut TaskCx) {
    // Everything that is still armed is due within 300 ms; deferrable ones want their CPU to tick.
    let ticking = tick::keep_all();
    let over = comes_true_by_others(|| {
        timers().iter().all(|timer| !timer.is_pending() && !timer.is_running()) && outstanding() == 0
    });
    if !over {
        let stuck = timers().iter().filter(|timer| timer.is_pending() || timer.is_running());
        let numbers: Vec<_> =
            stuck.map(|timer| (timer.state().number, timer.expires(), timer.is_running())).collect();
        error(
            NAME,
            format_args!(
                "{} timers too few were called or deleted, at tick {}; armed or running: {numbers:?}",
                outstanding().cast_signed(),
                timer::now()
            ),
        );
        // What a broken run has left must not count in the next one.
        timers().iter().for_each(|timer| _ = timer.delete_sync(cx));
    }
    drop(ticking);
    timer::plant(Fault::None);
    // Until the clock has come up with the ticks, if they ran ahead.
    cx.sleep_ns(10 * timers::TICK_NS);
}
