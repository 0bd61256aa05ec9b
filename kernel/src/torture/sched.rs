//! Tasks that wake each other, end, are joined, stay on a CPU because they must, and come and go.
//!
//! 1. Two that take turns: a turn that does not come within a long time tells of a lost wake-up.
//! 2. A task that is pinned, or may not migrate, is where it should be whenever it looks.
//! 3. What a task returns is what who joins it gets, and what it wrote into a frame of memory that it was given is there. Either may be
//!    refused for lack of memory; then both are given back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::x86_64::layout::phys_to_virt;
use hal::{CpuId, Native, Platform};
use sync::wait::Limits;
use sync::{Completion, TaskCx};

use super::control::{Random, Tally, bump, error, goes_on};
use super::{MS, Plan, Scenario};
use crate::task::{self, Builder, JoinHandle};
use crate::{cpus, memory};

const NAME: &str = "sched";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "tasks that take turns, are pinned, do not migrate, are started and joined; no wake-up is lost",
    twins: &[
        ("sched-drops", "one wake-up in two hundred is not sent"),
        ("sched-unpinned", "a task that is to stay on one CPU may run on all"),
        ("sched-strays", "a task that may not migrate does not say so"),
        ("sched-leaks", "who is refused a task keeps the memory that it had for it"),
        ("sched-greedy", "who is refused memory takes somebody else's"),
    ],
    start,
    settle: |_| (),
    counts,
};

static TURNS: AtomicU64 = AtomicU64::new(0);
static PINNED: AtomicU64 = AtomicU64::new(0);
static STAYED: AtomicU64 = AtomicU64::new(0);
static JOINED: AtomicU64 = AtomicU64::new(0);
static DROPS: AtomicBool = AtomicBool::new(false);
static STRAYS: AtomicBool = AtomicBool::new(false);
static LEAKS: AtomicBool = AtomicBool::new(false);
static GREEDY: AtomicBool = AtomicBool::new(false);

/// How long a turn may take before it counts as lost. Virtual CPUs may be stopped for seconds.
const LONGEST_NS: u64 = 30_000 * MS;
const LONGEST_BROKEN_NS: u64 = 500 * MS;

fn counts(tallies: &mut Vec<Tally>) {
    tallies.extend([
        Tally::of("turns", &TURNS, 600),
        Tally::of("pinned_looks", &PINNED, 100),
        Tally::of("stayed", &STAYED, 10),
        Tally::of("joined", &JOINED, 110),
    ]);
}

/// One of two who take turns.
fn take_turns(mine: &Completion, others: &Completion, mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        if !(DROPS.load(Ordering::Relaxed) && random.one_in(200)) {
            others.complete();
        }
        let longest = if DROPS.load(Ordering::Relaxed) { LONGEST_BROKEN_NS } else { LONGEST_NS };
        match mine.wait_with(Limits::NONE.until(Native::now_ns() + longest), cx) {
            Ok(()) => bump(&TURNS),
            Err(_) if !goes_on(cx) => (),
            Err(_) => error(NAME, format_args!("a turn did not come within {} ms", longest / MS)),
        }
        if random.one_in(32) {
            cx.block(Some(Native::now_ns() + random.next() % (2 * MS)));
        }
    }
    // Whoever waits for this one goes on, and ends.
    others.complete();
}

fn be_pinned(cpu: CpuId, mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        let here = Native::cpu();
        if here != cpu {
            error(NAME, format_args!("a task that is pinned to CPU {cpu} runs on CPU {here}"));
        }
        bump(&PINNED);
        match random.one_in(2) {
            true => _ = cx.block(Some(Native::now_ns() + random.next() % MS)),
            false => task::yield_now(cx),
        }
    }
}

fn stay(mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        let guard = (!STRAYS.load(Ordering::Relaxed)).then(sync::migrate::disable);
        let here = Native::cpu();
        for _ in 0..4 {
            match random.one_in(2) {
                true => _ = cx.block(Some(Native::now_ns() + random.next() % (MS / 2))),
                false => task::yield_now(cx),
            }
            let now = Native::cpu();
            if now != here {
                error(NAME, format_args!("a task that may not migrate went from CPU {here} to CPU {now}"));
            }
        }
        drop(guard);
        bump(&STAYED);
        cx.block(Some(Native::now_ns() + random.next() % MS));
    }
}

/// A frame of memory into which a task writes.
#[derive(Clone, Copy)]
struct Letter {
    frame: u64,
    is_own: bool,
}

impl Letter {
    /// With memory of its own, or none.
    fn new(others: Option<Letter>) -> Option<Letter> {
        match memory::allocate_frames(0) {
            Some(frame) => Some(Letter { frame, is_own: true }),
            None if GREEDY.load(Ordering::Relaxed) => others.map(|other| Letter { is_own: false, ..other }),
            None => None,
        }
    }

    fn text(&self) -> &AtomicU64 {
        // SAFETY: the direct map shows the frame, which is aligned for anything. It was allocated for this letter or, in a twin, for
        // one that is given back no earlier, and is only looked at in this way until then.
        unsafe { AtomicU64::from_ptr(phys_to_virt(self.frame).cast()) }
    }

    /// Nobody looks at it any more.
    fn give_back(self) {
        if self.is_own {
            memory::free_frames(self.frame, 0);
        }
    }
}

/// Starts a task that writes this number into a letter and returns it, or leaves everything as it was.
fn bear(number: u64, others: Option<Letter>) -> Option<(u64, Letter, JoinHandle<u64>)> {
    let letter = Letter::new(others)?;
    let body = move |cx: &mut TaskCx| {
        if number.is_multiple_of(3) {
            cx.block(Some(Native::now_ns() + number % MS));
        }
        letter.text().store(number, Ordering::Relaxed);
        number
    };
    match Builder::new("child").spawn(body) {
        Ok(child) => Some((number, letter, child)),
        Err(_) => {
            if !LEAKS.load(Ordering::Relaxed) {
                letter.give_back();
            }
            None
        }
    }
}

fn beget(mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        let mut children: Vec<(u64, Letter, JoinHandle<u64>)> = Vec::new();
        for _ in 0..1 + random.below(4) {
            let others = children.last().map(|(_, letter, _)| *letter);
            children.extend(bear(random.next(), others));
        }
        let mut letters = Vec::new();
        for (number, letter, child) in children {
            let result = child.join(cx);
            if result != number {
                error(NAME, format_args!("a task returned {number:#x}, and {result:#x} came"));
            }
            bump(&JOINED);
            letters.push((number, letter));
        }
        for (number, letter) in &letters {
            // Relaxed: who wrote it was joined.
            let text = letter.text().load(Ordering::Relaxed);
            if text != *number {
                error(NAME, format_args!("a task wrote {number:#x}, and {text:#x} is there"));
            }
        }
        letters.into_iter().for_each(|(_, letter)| letter.give_back());
        cx.block(Some(Native::now_ns() + random.next() % (4 * MS)));
    }
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    [&TURNS, &PINNED, &STAYED, &JOINED].into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    DROPS.store(plan.is("sched-drops"), Ordering::Relaxed);
    STRAYS.store(plan.is("sched-strays"), Ordering::Relaxed);
    LEAKS.store(plan.is("sched-leaks"), Ordering::Relaxed);
    GREEDY.store(plan.is("sched-greedy"), Ordering::Relaxed);
    let mut seeds = Random(plan.seed ^ 0x5c4ed);
    let mut tasks = Vec::new();
    let online = cpus::online_count().min(16);
    for _ in 0..online {
        let pair = Arc::new((Completion::new(), Completion::new()));
        let (other, a, b) = (Arc::clone(&pair), Random(seeds.next()), Random(seeds.next()));
        tasks.extend(Builder::new("ping").spawn(move |cx| take_turns(&pair.0, &pair.1, a, cx)));
        tasks.extend(Builder::new("pong").spawn(move |cx| take_turns(&other.1, &other.0, b, cx)));
        let (c, d) = (Random(seeds.next()), Random(seeds.next()));
        tasks.extend(Builder::new("stayer").spawn(move |cx| stay(c, cx)));
        if d.0 % 2 == 0 {
            tasks.extend(Builder::new("parent").spawn(move |cx| beget(d, cx)));
        }
    }
    let parent = Random(seeds.next());
    tasks.extend(Builder::new("parent").spawn(move |cx| beget(parent, cx)));
    let unpinned = plan.is("sched-unpinned");
    for cpu in cpus::online() {
        let random = Random(seeds.next());
        let builder = Builder::new("pinned");
        let builder = if unpinned { builder } else { builder.on(cpu) };
        tasks.extend(builder.spawn(move |cx| be_pinned(cpu, random, cx)));
    }
    tasks
}
