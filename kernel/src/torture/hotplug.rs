//! CPUs that go and come back as fast as they can, under tasks, calls, timers and flushes.
//!
//! A CPU that should go goes, and comes back; nothing runs on one that is gone; tasks that are pinned to it wait for it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use super::control::{Random, Tally, bump, error, goes_on};
use super::{MS, Plan, Scenario};
use crate::hotplug::{self, HotplugError};
use crate::task::{Builder, JoinHandle};
use crate::{cpus, memory};

const NAME: &str = "hotplug";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "CPUs go and come back as fast as they can, under tasks that are pinned, that wander, and that flush",
    twins: &[
        ("hotplug-blind", "who takes a CPU off-line does not look whether it is"),
        ("hotplug-refused", "that the boot CPU may not go is taken for success"),
    ],
    start,
    settle: |_| (),
    counts,
};

static CYCLES: AtomicU64 = AtomicU64::new(0);
static HOPS: AtomicU64 = AtomicU64::new(0);
static FLUSHES: AtomicU64 = AtomicU64::new(0);
/// The CPU that is gone, plus one.
static GONE: AtomicU64 = AtomicU64::new(0);
static BLIND: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicBool = AtomicBool::new(false);

fn counts(tallies: &mut Vec<Tally>) {
    tallies.extend([
        Tally::of("cycles", &CYCLES, 6 * u64::from(cpus::online_count() > 1)),
        Tally::of("hops", &HOPS, 500),
        Tally::of("flushes", &FLUSHES, 21),
    ]);
}

/// Takes one off-line after the other and brings it back.
fn cycle(mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        let others: Vec<CpuId> = cpus::online().filter(|cpu| *cpu != CpuId::BOOT).collect();
        let Some(cpu) = others.get(random.below(others.len())).copied() else {
            cx.block(Some(Native::now_ns() + 10 * MS));
            continue;
        };
        let refused = REFUSED.load(Ordering::Relaxed);
        let cpu = if refused { CpuId::BOOT } else { cpu };
        if !BLIND.load(Ordering::Relaxed) {
            match hotplug::take_offline(cpu, cx) {
                // Whoever else takes CPUs off-line brings back only those, so that this one is gone until it is brought back here.
                Ok(()) if cpus::is_online(cpu) => error(NAME, format_args!("CPU {cpu} went, and is there")),
                Ok(()) => (),
                Err(_) if refused => (),
                // Somebody else was faster, or runs there and must.
                Err(HotplugError::Unchanged(..) | HotplugError::OnlyPlace(_)) => continue,
                Err(problem) => {
                    error(NAME, format_args!("CPU {cpu} does not go: {problem}"));
                    continue;
                }
            }
        }
        // Release: pairs with the Acquire in `hop`.
        GONE.store(u64::from(cpu.as_u32()) + 1, Ordering::Release);
        if refused {
            // Tasks that are not this one run there meanwhile.
            cx.block(Some(Native::now_ns() + 20 * MS));
            continue;
        }
        if cpus::is_online(cpu) && BLIND.load(Ordering::Relaxed) {
            cx.block(Some(Native::now_ns() + 20 * MS));
        } else if random.one_in(2) {
            cx.block(Some(Native::now_ns() + random.next() % (5 * MS)));
        }
        GONE.store(0, Ordering::Release);
        match hotplug::bring_online(cpu, cx) {
            Ok(()) => bump(&CYCLES),
            Err(HotplugError::Unchanged(..)) if BLIND.load(Ordering::Relaxed) => (),
            Err(problem) => error(NAME, format_args!("CPU {cpu} does not come back: {problem}")),
        }
    }
}

/// Blocks, wakes up by time, and is not on a CPU that is gone.
fn hop(cx: &mut TaskCx) {
    while goes_on(cx) {
        // Acquire: pairs with the Release in `cycle`. Before the look at where this runs: a CPU that was gone then, and that this
        // runs on, has come back meanwhile, or never went.
        let gone = GONE.load(Ordering::Acquire);
        let guard = sync::preempt::disable();
        let here = u64::from(guard.cpu().as_u32()) + 1;
        let still = GONE.load(Ordering::Acquire) == gone;
        drop(guard);
        if gone == here && still {
            error(NAME, format_args!("a task runs on CPU {}, which is gone", here - 1));
        }
        bump(&HOPS);
        cx.block(Some(Native::now_ns() + 200_000));
    }
}

fn flush(cx: &mut TaskCx) {
    while goes_on(cx) {
        memory::shootdown::fence_all();
        bump(&FLUSHES);
        cx.block(Some(Native::now_ns() + 300_000));
    }
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    [&CYCLES, &HOPS, &FLUSHES, &GONE].into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    BLIND.store(plan.is("hotplug-blind"), Ordering::Relaxed);
    REFUSED.store(plan.is("hotplug-refused"), Ordering::Relaxed);
    let random = Random(plan.seed ^ 0x407);
    let mut tasks: Vec<_> = (0..4 + cpus::online_count().min(12))
        .filter_map(|_| Builder::new("hopper").spawn(hop).ok())
        .collect();
    tasks.extend(cpus::online().filter_map(|cpu| Builder::new("pinned hopper").on(cpu).spawn(hop).ok()));
    tasks.extend(Builder::new("flusher").spawn(flush));
    tasks.extend(Builder::new("cycler").on(CpuId::BOOT).spawn(move |cx| cycle(random, cx)));
    tasks
}
