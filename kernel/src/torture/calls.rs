//! Calls between CPUs in all their forms: each where it should be, in order, none lost and none twice.
//!
//! Each task numbers its calls to each CPU. A call that finds another number than the next one tells of a call that was
//! lost, came twice, or overtook one. CPUs that are gone refuse; then the number is not used.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::cpumask::CpuMask;
use hal::{CpuId, Native, Platform, percpu};
use sync::{TaskCx, context};

use super::control::{Random, Tally, bump, error, goes_on};
use super::{MS, Plan, Scenario};
use crate::calls::{self, CallData};
use crate::cpus;
use crate::task::{Builder, JoinHandle};
use crate::testing::comes_true_by_others;

const NAME: &str = "calls";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "calls to one CPU, to many, to all, queued and to oneself; on the right CPU, in order, once",
    twins: &[
        ("calls-drops", "one call in a hundred is never sent"),
        ("calls-stray", "one call in a hundred is made on the CPU that sent it"),
        ("calls-refused", "that a CPU which is gone refuses a call is taken for success"),
    ],
    start,
    settle,
    counts,
};

static SINGLE: AtomicU64 = AtomicU64::new(0);
static MANY: AtomicU64 = AtomicU64::new(0);
static QUEUED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// Queued calls that ran.
static RAN: AtomicU64 = AtomicU64::new(0);
static DROPS: AtomicBool = AtomicBool::new(false);
static STRAYS: AtomicBool = AtomicBool::new(false);
static DEAF: AtomicBool = AtomicBool::new(false);

percpu! {
    static SHARED: CallData = CallData::new(|| bump(&RAN));
}

fn counts(tallies: &mut Vec<Tally>) {
    tallies.extend([
        Tally::of("single", &SINGLE, 100),
        Tally::of("to_many", &MANY, 50),
        Tally::of("queued", &QUEUED, 55),
        Tally::of("refused", &REFUSED, 0),
    ]);
}

/// What a called function may expect.
fn judge(on: CpuId) {
    let proper = context::in_hardirq() && !context::in_nmi() && context::irqs_disabled();
    if Native::cpu() != on || !proper {
        error(
            NAME,
            format_args!("a call to CPU {on} runs on CPU {}, as in an interrupt: {proper}", Native::cpu()),
        );
    }
}

/// A call that returns the number it found, and leaves its own.
fn send(cpu: CpuId, last: &AtomicU64, random: &mut Random) {
    let number = last.load(Ordering::Relaxed) + 1;
    let came = || {
        judge(cpu);
        last.store(number, Ordering::Relaxed);
    };
    let is_rare = random.one_in(100);
    let answer = if is_rare && DROPS.load(Ordering::Relaxed) {
        Ok(())
    } else if is_rare && STRAYS.load(Ordering::Relaxed) {
        calls::single(Native::cpu(), came)
    } else {
        calls::single(cpu, came)
    };
    let answer = if DEAF.load(Ordering::Relaxed) { Ok(()) } else { answer };
    match answer {
        Ok(()) if last.load(Ordering::Relaxed) == number => bump(&SINGLE),
        Ok(()) => error(NAME, format_args!("a call to CPU {cpu} was answered and did not run")),
        Err(_) => bump(&REFUSED),
    }
}

fn play(seed: u64, cx: &mut TaskCx) {
    let mut random = Random(seed);
    let all: Vec<CpuId> = percpu::cpus().collect();
    let last: Vec<AtomicU64> = all.iter().map(|_| AtomicU64::new(0)).collect();
    while goes_on(cx) {
        let index = random.below(all.len());
        let cpu = all[index];
        match random.below(4) {
            0 | 1 => send(cpu, &last[index], &mut random),
            2 => {
                let ran = AtomicU64::new(0);
                let to_all = random.one_in(2);
                let mask: CpuMask = cpus::online().filter(|_| random.one_in(2)).collect();
                let called = |on: CpuId| {
                    judge(on);
                    bump(&ran);
                };
                let (expected, answer) = match to_all {
                    true => (None, calls::all(called)),
                    false => (Some(mask.weight() as u64), calls::many(&mask, called).map(|()| 0)),
                };
                let ran = ran.into_inner();
                match answer {
                    Ok(count) if ran == expected.unwrap_or(u64::from(count)) => bump(&MANY),
                    Ok(count) => {
                        let expected = expected.unwrap_or(u64::from(count));
                        error(NAME, format_args!("a call to {expected} CPUs ran {ran} times"));
                    }
                    // One of them has gone meanwhile.
                    Err(_) => bump(&REFUSED),
                }
            }
            _ => match calls::queue(cpu, SHARED.on(cpu)) {
                Ok(()) => bump(&QUEUED),
                Err(_) => bump(&REFUSED),
            },
        }
        if random.one_in(8) {
            cx.block(Some(Native::now_ns() + random.next() % MS));
        }
        cx.cond_resched();
    }
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    let all = [&SINGLE, &MANY, &QUEUED, &REFUSED, &RAN];
    all.into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    DROPS.store(plan.is("calls-drops"), Ordering::Relaxed);
    STRAYS.store(plan.is("calls-stray"), Ordering::Relaxed);
    DEAF.store(plan.is("calls-refused"), Ordering::Relaxed);
    let caller = |number: u64| {
        let seed = hal::chaos::mix(plan.seed ^ 0xca11 ^ number << 32);
        Builder::new("caller").spawn(move |cx| play(seed, cx)).ok()
    };
    (0..cpus::online_count().min(8) as u64).filter_map(caller).collect()
}

/// What was queued has run, once.
fn settle(_: &mut TaskCx) {
    let (queued, ran) = (|| QUEUED.load(Ordering::Relaxed), || RAN.load(Ordering::Relaxed));
    let idle = || percpu::cpus().all(|cpu| !SHARED.on(cpu).is_busy());
    if !comes_true_by_others(|| idle() && queued() == ran()) {
        error(NAME, format_args!("of {} queued calls {} ran", queued(), ran()));
    }
}
