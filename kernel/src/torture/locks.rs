//! Locks of every kind, taken by two tasks for each CPU, alone and within each other.
//!
//! Each lock guards a room. Whoever is inside as a writer must be alone, whoever is inside as a reader must meet no writer.
//! Locks are taken in the order of the table below, up to four within each other: sleeping ones first.
//!
//! Those that are handed on in order of arrival have a word that looks whether it is so (`line.rs`). There is a line only while many
//! want the same lock, which chance brings about too seldom. So up to four tasks more take one of these locks in bursts.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::{Native, Platform};
use spin::Once;
use sync::spin::raw::{QueuedLock, TicketLock};
use sync::wait::Limits;
use sync::{
    BottomHalf, Irq, Mutex, PerCpuRwSemaphore, PiMutex, RwLock, RwSemaphore, Semaphore, SeqLock, SpinLock,
    Task, TaskCx,
};

use super::control::{Random, Tally, bump, error, goes_on, spin};
use super::line::{InLine, UNFAIR, WAITS};
use super::{MS, Plan, Scenario};
use crate::cpus;
use crate::task::{Builder, JoinHandle};

pub(super) const NAME: &str = "locks";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "every kind of lock: waited for, tried, with a limit, nested; nobody meets a writer, lines are kept",
    twins: &[
        ("locks-open", "one in a hundred goes in without the lock"),
        ("locks-torn", "what a SeqLock guards is changed in two halves"),
        ("locks-unfair", "who waits for a lock that keeps its line has no place in it"),
    ],
    start,
    settle: |_| (),
    counts,
};

/// What a lock guards.
struct Room {
    writer: AtomicBool,
    readers: AtomicU32,
}

impl Room {
    const fn new() -> Room {
        Room { writer: AtomicBool::new(false), readers: AtomicU32::new(0) }
    }

    /// Is inside for as long as `stay` takes.
    fn visit(&self, name: &str, write: bool, stay: impl FnOnce()) {
        if write {
            let met = self.writer.swap(true, Ordering::AcqRel) || self.readers.load(Ordering::Acquire) != 0;
            stay();
            let met = met || self.readers.load(Ordering::Acquire) != 0;
            if !self.writer.swap(false, Ordering::AcqRel) || met {
                error(NAME, format_args!("a writer was not alone: {name}"));
            }
        } else {
            self.readers.fetch_add(1, Ordering::AcqRel);
            let met = self.writer.load(Ordering::Acquire);
            stay();
            if met || self.writer.load(Ordering::Acquire) {
                error(NAME, format_args!("a reader met a writer: {name}"));
            }
            self.readers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// How to go in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Wait,
    Try,
    /// With a limit of time, where there is such a form.
    Limited,
}

/// Goes in, calls the function there, comes out. Returns whether it got in.
type Enter = fn(How, bool, &mut TaskCx, &mut dyn FnMut(&mut TaskCx)) -> bool;

struct Kind {
    name: &'static str,
    /// Whoever is inside may sleep.
    sleeps: bool,
    /// Handed on in order of arrival: where CPUs outnumber the host's, sooner or later to one that the host does not run.
    in_order: bool,
    enter: Enter,
}

fn within<G>(guard: Option<G>, cx: &mut TaskCx, inside: &mut dyn FnMut(&mut TaskCx)) -> bool {
    let entered = guard.is_some();
    if entered {
        inside(cx);
    }
    drop(guard);
    entered
}

/// A limit that is sometimes reached.
fn soon() -> Limits {
    Limits::NONE.until(Native::now_ns() + MS)
}

macro_rules! sleeping {
    ($lock:expr, $how:expr, $cx:expr, $inside:expr, $wait:ident, $limited:ident, $try:ident) => {{
        let guard = match $how {
            How::Wait => Some($lock.$wait($cx)),
            How::Limited => $lock.$limited(soon(), $cx).ok(),
            How::Try => $lock.$try(),
        };
        within(guard, $cx, $inside)
    }};
}

macro_rules! spinning {
    ($lock:expr, $how:expr, $cx:expr, $inside:expr, $wait:ident, $try:ident) => {{
        let guard = if $how == How::Try { $lock.$try() } else { Some($lock.$wait()) };
        within(guard, $cx, $inside)
    }};
}

static MUTEX: Mutex<()> = Mutex::new(());
static PI_MUTEX: PiMutex<()> = PiMutex::new(());
static RW_SEMAPHORE: RwSemaphore<()> = RwSemaphore::new(());
static SEMAPHORE: Semaphore = Semaphore::new(1);
static TASK: SpinLock<(), Task> = SpinLock::new(());
static TICKETED: SpinLock<(), InLine<TicketLock>> = SpinLock::new(());
static QUEUED: SpinLock<(), InLine<QueuedLock>> = SpinLock::new(());
static RW_LOCK: RwLock<(), Task> = RwLock::new(());
static SEQ_LOCK: SeqLock<[u64; 8], Task> = SeqLock::new([0; 8]);
static BOTTOM_HALF: SpinLock<(), BottomHalf> = SpinLock::new(());
static IRQ_RW_LOCK: RwLock<(), Irq> = RwLock::new(());
static IRQ: SpinLock<(), Irq> = SpinLock::new(());

fn per_cpu() -> Option<&'static PerCpuRwSemaphore<()>> {
    static LOCK: Once<Option<PerCpuRwSemaphore<()>>> = Once::new();
    LOCK.call_once(|| PerCpuRwSemaphore::new(()).ok()).as_ref()
}

static KINDS: [Kind; 13] = [
    Kind {
        name: "PerCpuRwSemaphore",
        sleeps: true,
        in_order: false,
        enter: |how, write, cx, inside| {
            let Some(lock) = per_cpu() else { return false };
            match write {
                true => sleeping!(lock, how, cx, inside, write, write_with, try_write),
                false => sleeping!(lock, how, cx, inside, read, read_with, try_read),
            }
        },
    },
    Kind {
        name: "Mutex",
        sleeps: true,
        in_order: false,
        enter: |how, _, cx, inside| sleeping!(MUTEX, how, cx, inside, lock, lock_with, try_lock),
    },
    Kind {
        name: "RwSemaphore",
        sleeps: true,
        in_order: false,
        enter: |how, write, cx, inside| match write {
            true => sleeping!(RW_SEMAPHORE, how, cx, inside, write, write_with, try_write),
            false => sleeping!(RW_SEMAPHORE, how, cx, inside, read, read_with, try_read),
        },
    },
    Kind {
        name: "PiMutex",
        sleeps: true,
        in_order: false,
        enter: |how, _, cx, inside| sleeping!(PI_MUTEX, how, cx, inside, lock, lock_with, try_lock),
    },
    Kind {
        name: "Semaphore",
        sleeps: true,
        in_order: false,
        enter: |how, _, cx, inside| {
            let entered = match how {
                How::Wait => {
                    SEMAPHORE.down(cx);
                    true
                }
                How::Limited => SEMAPHORE.down_with(soon(), cx).is_ok(),
                How::Try => SEMAPHORE.try_down(),
            };
            if entered {
                inside(cx);
                SEMAPHORE.up();
            }
            entered
        },
    },
    Kind {
        name: "SpinLock",
        sleeps: false,
        in_order: false,
        enter: |how, _, cx, inside| spinning!(TASK, how, cx, inside, lock, try_lock),
    },
    Kind {
        name: "SpinLock, Ticketed",
        sleeps: false,
        in_order: true,
        enter: |how, _, cx, inside| spinning!(TICKETED, how, cx, inside, lock, try_lock),
    },
    Kind {
        name: "SpinLock, Queued",
        sleeps: false,
        in_order: true,
        enter: |how, _, cx, inside| spinning!(QUEUED, how, cx, inside, lock, try_lock),
    },
    Kind {
        name: "RwLock",
        sleeps: false,
        in_order: false,
        enter: |how, write, cx, inside| match write {
            true => spinning!(RW_LOCK, how, cx, inside, write, try_write),
            false => spinning!(RW_LOCK, how, cx, inside, read, try_read),
        },
    },
    Kind {
        name: "SeqLock",
        sleeps: false,
        in_order: false,
        enter: |how, _, cx, inside| {
            let mut entered = false;
            let mut change = |guard: &mut [u64; 8], cx: &mut TaskCx| {
                let next = guard[0] + 1;
                let changed = if TORN.load(Ordering::Relaxed) && next % 2 == 1 { 4 } else { 8 };
                guard[..changed].iter_mut().for_each(|word| *word = next);
                inside(cx);
                entered = true;
            };
            match how {
                How::Try => {
                    if let Some(mut guard) = SEQ_LOCK.try_write() {
                        change(&mut guard, cx);
                    }
                }
                _ => change(&mut SEQ_LOCK.write(), cx),
            }
            let row = SEQ_LOCK.read();
            if row.iter().any(|word| *word != row[0]) {
                error(NAME, format_args!("a reader of a SeqLock saw half of a change: {row:?}"));
            }
            entered
        },
    },
    Kind {
        name: "SpinLock, BottomHalf",
        sleeps: false,
        in_order: false,
        enter: |how, _, cx, inside| spinning!(BOTTOM_HALF, how, cx, inside, lock, try_lock),
    },
    Kind {
        name: "RwLock, Irq",
        sleeps: false,
        in_order: false,
        enter: |how, write, cx, inside| match write {
            true => spinning!(IRQ_RW_LOCK, how, cx, inside, write, try_write),
            false => spinning!(IRQ_RW_LOCK, how, cx, inside, read, try_read),
        },
    },
    Kind {
        name: "SpinLock, Irq",
        sleeps: false,
        in_order: false,
        enter: |how, _, cx, inside| spinning!(IRQ, how, cx, inside, lock, try_lock),
    },
];

static ROOMS: [Room; KINDS.len()] = [const { Room::new() }; KINDS.len()];
static VISITS: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicU64 = AtomicU64::new(0);
static NOT_ENTERED: AtomicU64 = AtomicU64::new(0);
static SLEPT: AtomicU64 = AtomicU64::new(0);
static OPEN: AtomicBool = AtomicBool::new(false);
static TORN: AtomicBool = AtomicBool::new(false);

fn counts(tallies: &mut Vec<Tally>) {
    tallies.extend([
        Tally::of("visits", &VISITS, 3000),
        Tally::of("nested", &NESTED, 600),
        Tally::of("tried_or_limited_in_vain", &NOT_ENTERED, 0),
        Tally::of("slept_inside", &SLEPT, 6),
        Tally::of("waits_in_line", &WAITS, 100 * u64::from(cpus::online_count() > 1)),
    ]);
}

/// Takes these, each within the one before it.
fn enter(kinds: &[usize], random: &mut Random, cx: &mut TaskCx) {
    let Some((&number, rest)) = kinds.split_first() else { return };
    let kind = &KINDS[number];
    let how = [How::Wait, How::Wait, How::Try, How::Limited][random.below(4)];
    let write = random.one_in(3)
        || !matches!(kind.name, "PerCpuRwSemaphore" | "RwSemaphore" | "RwLock" | "RwLock, Irq");
    let mut inside = |cx: &mut TaskCx| {
        bump(&VISITS);
        ROOMS[number].visit(kind.name, write, || {
            if kind.sleeps && random.one_in(200) {
                bump(&SLEPT);
                cx.block(Some(Native::now_ns() + random.next() % (20 * MS)));
            } else {
                spin(random.next() % 4_000);
            }
            if !rest.is_empty() {
                bump(&NESTED);
            }
            enter(rest, random, cx);
        });
    };
    if OPEN.load(Ordering::Relaxed) && VISITS.load(Ordering::Relaxed) % 100 == 99 {
        inside(cx);
    } else if !(kind.enter)(how, write, cx, &mut inside) {
        bump(&NOT_ENTERED);
    }
}

fn play(seed: u64, cx: &mut TaskCx) {
    let mut random = Random(seed);
    while goes_on(cx) {
        let in_order = cpus::online_count() <= 4;
        let deep = if random.one_in(4) { 1 + random.below(4) } else { 1 };
        let mut kinds: Vec<usize> = (0..deep).map(|_| random.below(KINDS.len())).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.retain(|number| in_order || !KINDS[*number].in_order);
        enter(&kinds, &mut random, cx);
        if random.one_in(16) {
            cx.block(Some(Native::now_ns() + random.next() % MS));
        }
        cx.cond_resched();
    }
}

/// Takes a lock that keeps its line again and again, at the same time as the others who do.
fn burst(seed: u64, cx: &mut TaskCx) {
    let lines: Vec<usize> = (0..KINDS.len()).filter(|number| KINDS[*number].in_order).collect();
    let mut random = Random(seed);
    while goes_on(cx) {
        let number = lines[(Native::now_ns() / (10 * MS)) as usize % lines.len()];
        for _ in 0..16 + random.below(49) {
            (KINDS[number].enter)(How::Wait, true, cx, &mut |_| {
                ROOMS[number].visit(KINDS[number].name, true, || spin(random.next() % 1_000));
            });
        }
        if random.one_in(4) {
            cx.block(Some(Native::now_ns() + random.next() % MS));
        }
        cx.cond_resched();
    }
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    [&VISITS, &NESTED, &NOT_ENTERED, &SLEPT, &WAITS]
        .into_iter()
        .for_each(|counter| counter.store(0, Ordering::Relaxed));
    OPEN.store(plan.is("locks-open"), Ordering::Relaxed);
    TORN.store(plan.is("locks-torn"), Ordering::Relaxed);
    UNFAIR.store(plan.is("locks-unfair"), Ordering::Relaxed);
    // A twin that ran before has perhaps left half of a change.
    *SEQ_LOCK.write() = [0; 8];
    let visitor = |number: u64| {
        let seed = hal::chaos::mix(plan.seed ^ 0x10c ^ number << 32);
        Builder::new("visitor").spawn(move |cx| play(seed, cx)).ok()
    };
    let in_bursts = |number: u64| {
        let seed = hal::chaos::mix(plan.seed ^ 0xb0457 ^ number << 32);
        Builder::new("burst").spawn(move |cx| burst(seed, cx)).ok()
    };
    let online = cpus::online_count() as u64;
    let visitors = (0..2 * online.min(16)).filter_map(visitor);
    visitors.chain((0..online.min(4)).filter_map(in_bursts)).collect()
}
