//! Arming, moving, taking back and calling timers, and how late they are called.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{Native, Platform};
use sync::TaskCx;
use timers::HZ;

use super::{BATCHES, Benchmark, Figures, Unit, WARM};
use crate::timer::precise::{self, HrTimer};
use crate::timer::{self, Firing, Ticks, Timer, TimerFlags};

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::task("mod_timer_pending_requeue", |place, _| {
        beside_another(|timer, base| {
            timer::add(timer, Ticks(base));
            let figures =
                place.batches(|turn| _ = timer::modify(timer, Ticks(base + u64::from(turn % 2) * 4_096)));
            timer.delete();
            figures
        })
    }),
    Benchmark::task("mod_timer_pending_same_bucket", |place, _| {
        beside_another(|timer, base| {
            timer::add(timer, Ticks(base));
            let figures = place.batches(|_| _ = timer::modify(timer, Ticks(base)));
            timer.delete();
            figures
        })
    }),
    Benchmark::task("add_timer_timer_delete_pair", |place, _| {
        beside_another(|timer, base| {
            place.batches(|_| {
                timer::add(timer, Ticks(base));
                timer.delete();
            })
        })
    }),
    Benchmark::task("add_timer_1e5", |_, _| add_and_delete().0),
    Benchmark::task("timer_delete_1e5", |_, _| add_and_delete().1),
    Benchmark::task("hrtimer_start_cancel_far", |place, _| {
        let base = Native::now_ns() + 3_600_000_000_000;
        place.batches(|turn| {
            precise::add(&PRECISE, base + u64::from(turn));
            PRECISE.delete();
        })
    }),
    Benchmark::task("hrtimer_start_cancel_near", |place, _| {
        place.batches(|_| {
            precise::add(&PRECISE, Native::now_ns() + 1_000_000);
            PRECISE.delete();
        })
    }),
    Benchmark::task("hrtimer_latency_idle", |_, cx| latency(|| cx.sleep_ns(5_000_000))),
    Benchmark::task("hrtimer_latency_busy", |_, _| latency(Native::relax)),
    Benchmark::task("mass_expiry_1jiffy_1e5", |_, cx| mass_expiry(1, cx)),
    Benchmark::task("mass_expiry_10jiffies_1e5", |_, cx| mass_expiry(10, cx)),
    Benchmark::task("timer_late_L0", |_, cx| lateness(8, 60, cx)),
    Benchmark::task("timer_late_L1", |_, cx| lateness(70, 500, cx)),
    Benchmark::task("timer_late_L2", |_, cx| lateness(520, 1_500, cx)),
];

/// How many timers are many.
const MANY: u64 = 100_000;

static NOTHING: Timer<()> = Timer::with_state(TimerFlags::NONE, (), |_, _| ());
static OTHER: Timer<()> = Timer::with_state(TimerFlags::NONE, (), |_, _| ());
static PRECISE: HrTimer<()> = HrTimer::soft_with_state(TimerFlags::NONE, (), |_, _| ());

/// Calls `measure` with a timer and a tick ten seconds ahead, while another timer is armed, so that no turn is about an empty
/// wheel.
fn beside_another(measure: impl FnOnce(&'static Timer<()>, u64) -> Figures) -> Figures {
    let now = timer::now().0;
    timer::modify(&OTHER, Ticks(now + 1_000 * HZ));
    let figures = measure(&NOTHING, now + 10 * HZ);
    OTHER.delete();
    figures
}

/// How many timers are due together, how many of them are called until it is the first or the last one's turn, and how many
/// times all of them were.
static GROUP: AtomicU64 = AtomicU64::new(MANY);
static LEFT: Left = Left(UnsafeCell::new(1));
static GROUPS: AtomicU64 = AtomicU64::new(0);
/// When the first timer of the present group was called, 0 if none was, and the time between first and last calls of those
/// before.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static TOOK: AtomicU64 = AtomicU64::new(0);

/// A plain number.
struct Left(UnsafeCell<u64>);

// SAFETY: only functions of the timers of `with_many` reach it. Those are armed by a task that stays on its CPU, so that they are
// in one base, which one CPU at a time runs, each with its lock.
unsafe impl Sync for Left {}

/// As few instructions as will do: they count. So this is one that subtracts, as in the module for Linux.
fn note(_: &Timer<()>, _: &Firing<'_>) {
    // SAFETY: these functions are called one after the other, and nobody else reaches it.
    let left = unsafe { &mut *LEFT.0.get() };
    *left -= 1;
    if *left == 0 {
        note_time(left);
    }
}

/// The first of a group is called, or the last.
#[cold]
#[inline(never)]
fn note_time(left: &mut u64) {
    let (now, begun) = (Native::now_ns(), BEGUN.load(Ordering::Relaxed));
    if begun == 0 {
        BEGUN.store(now, Ordering::Relaxed);
        *left = GROUP.load(Ordering::Relaxed) - 1;
        return;
    }
    BEGUN.store(0, Ordering::Relaxed);
    *left = 1;
    TOOK.store(TOOK.load(Ordering::Relaxed) + now - begun, Ordering::Relaxed);
    GROUPS.store(GROUPS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Calls `measure` with many timers that live for ever as far as it knows. It must leave none armed or running.
fn with_many(measure: impl FnOnce(&'static [Timer<()>]) -> Figures) -> Figures {
    let timers: Vec<Timer<()>> = (0..MANY).map(|_| Timer::with_state(TimerFlags::NONE, (), note)).collect();
    let timers = Box::into_raw(timers.into_boxed_slice());
    // SAFETY: freed below, when nobody refers to them any more; a drop of one that is armed would stop the machine.
    let figures = measure(unsafe { &*timers });
    // SAFETY: from `into_raw`, and none is armed or running.
    drop(unsafe { Box::from_raw(timers) });
    figures
}

/// What arming costs while there are more and more of them, and what deleting costs, each.
fn add_and_delete() -> (Figures, Figures) {
    const TRIES: usize = 5;
    let mut deletes = Vec::new();
    let adds = with_many(|timers| {
        let tries = (0..TRIES).map(|_| {
            let base = timer::now().0 + 20 * HZ;
            let begun = Native::now_ns();
            for (number, timer) in (0..).zip(timers) {
                timer::add(timer, Ticks(base + number % 4_000));
            }
            let armed = Native::now_ns();
            timers.iter().for_each(|timer| _ = timer.delete());
            deletes.push((Native::now_ns() - armed) * 1_000 / MANY);
            (armed - begun) * 1_000 / MANY
        });
        Figures::new(Unit::Ns, tries.collect())
    });
    (adds, Figures::new(Unit::Ns, deletes))
}

/// From the first to the last call of each group of timers that are due at one tick.
fn mass_expiry(groups: u64, cx: &mut TaskCx) -> Figures {
    const TRIES: usize = 3;
    let group = MANY / groups;
    GROUP.store(group, Ordering::Relaxed);
    with_many(|timers| {
        let tries = (0..TRIES).map(|_| {
            GROUPS.store(0, Ordering::Relaxed);
            TOOK.store(0, Ordering::Relaxed);
            // Late enough for all of them to be armed before the first is due.
            let base = timer::now().0 + 2 * HZ;
            for (number, timer) in (0..).zip(timers) {
                timer::add(timer, Ticks(base + number / group * 64));
            }
            while GROUPS.load(Ordering::Relaxed) < groups {
                cx.sleep_ns(50_000_000);
            }
            timers.iter().for_each(|timer| _ = timer.delete_sync(cx));
            TOOK.load(Ordering::Relaxed) * 1_000 / MANY
        });
        Figures::new(Unit::Ns, tries.collect())
    })
}

/// How long after its time a timer's function is called in the interrupt, while this task does `meanwhile`.
fn latency(mut meanwhile: impl FnMut()) -> Figures {
    let fired = Arc::new(AtomicU64::new(0));
    let note = Arc::clone(&fired);
    let timer = Arc::new(HrTimer::hard(move |_| note.store(Native::now_ns(), Ordering::Relaxed)));
    let mut late = Vec::new();
    for _ in 0..WARM + BATCHES {
        fired.store(0, Ordering::Relaxed);
        let due = Native::now_ns() + 1_000_000;
        precise::add(&timer, due);
        while fired.load(Ordering::Relaxed) == 0 {
            meanwhile();
        }
        late.push((fired.load(Ordering::Relaxed) - due) * 1_000);
    }
    Figures::new(Unit::Ns, late.split_off(WARM))
}

/// A timer that notes how many ticks late it is called.
type Noting = Timer<Late>;

#[derive(Default)]
struct Late {
    asked: AtomicU64,
    late: AtomicU64,
}

static LATE_CALLED: AtomicU32 = AtomicU32::new(0);

fn note_late(timer: &Noting, _: &Firing<'_>) {
    let Late { asked, late } = timer.state();
    late.store(timer::now().0 - asked.load(Ordering::Relaxed), Ordering::Relaxed);
    // Release: pairs with the Acquire in `lateness`.
    LATE_CALLED.fetch_add(1, Ordering::Release);
}

/// How many ticks late timers are that are armed `least` to `most` ticks ahead.
fn lateness(least: u64, most: u64, cx: &mut TaskCx) -> Figures {
    const TIMERS: u64 = 64;
    LATE_CALLED.store(0, Ordering::Relaxed);
    let timers: Vec<Arc<Noting>> = (0..TIMERS)
        .map(|_| Arc::new(Timer::with_state(TimerFlags::NONE, Late::default(), note_late)))
        .collect();
    for (number, timer) in (0..).zip(&timers) {
        let asked = timer::now().0 + least + (most - least) * number / TIMERS;
        timer.state().asked.store(asked, Ordering::Relaxed);
        timer::add(timer, Ticks(asked));
    }
    // Acquire: pairs with the Release in `note_late`.
    while u64::from(LATE_CALLED.load(Ordering::Acquire)) < TIMERS {
        cx.sleep_ns(20_000_000);
    }
    let late = |timer: &Arc<Noting>| {
        timer.delete_sync(cx);
        timer.state().late.load(Ordering::Relaxed) * 1_000
    };
    Figures::new(Unit::Ticks, timers.iter().map(late).collect())
}
