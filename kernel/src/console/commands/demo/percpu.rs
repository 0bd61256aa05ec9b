//! Per-CPU counters: what goes wrong without a guard, and what being right costs.
//!
//! All CPUs count at once, each as often as the others, in four ways. The sum says how many updates were lost.

use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::{Native, Platform};

use crate::console::registry::{CommandResult, Context, Failure};

hal::percpu! {
    /// What the CPUs count with.
    static COUNTER: AtomicU64 = AtomicU64::new(0);
}

/// How often each CPU counts, in each way.
const TIMES: u64 = 100_000;
/// One in so many times a CPU pauses between reading and writing, so that the race also shows where CPUs take turns on
/// one core.
const PAUSE_EVERY: u64 = 256;

/// One way to count.
struct Way {
    title: &'static str,
    explanation: &'static str,
    /// Adds 1, [`TIMES`] times, on every CPU at once.
    count: fn(shared: &AtomicU64),
    /// Whether updates may get lost.
    may_lose: bool,
}

const WAYS: [Way; 4] = [
    Way {
        title: "stale area, read and write",
        explanation: "Each CPU works on cpu0's counter, as a task does that took the address there and was then\n\
                      moved: two CPUs read the same value, both write it plus one.",
        count: |_| {
            let stale = COUNTER.on(hal::CpuId::BOOT);
            split(stale);
        },
        may_lose: true,
    },
    Way {
        title: "guarded, read and write",
        explanation: "A guard keeps the task on its CPU while it uses the address: nobody else is in that area.",
        count: |_| {
            let here = sync::preempt::disable();
            split(COUNTER.get(&here));
        },
        may_lose: false,
    },
    Way {
        title: "one instruction",
        explanation: "`inc qword ptr gs:[COUNTER]` finds the area and counts in one step: there is no middle in\n\
                      which to be moved, and it needs no guard and no bus lock.",
        count: |_| (0..TIMES).for_each(|_| COUNTER.inc()),
        may_lose: false,
    },
    Way {
        title: "one shared atomic",
        explanation: "What one does without per-CPU data. Right, but all CPUs wait for the same cache line.",
        count: |shared| {
            for _ in 0..TIMES {
                shared.fetch_add(1, Ordering::Relaxed);
            }
        },
        may_lose: false,
    },
];

/// Counts in two steps, and lingers between them now and then.
fn split(counter: &AtomicU64) {
    for time in 0..TIMES {
        let value = counter.load(Ordering::Relaxed);
        if time % PAUSE_EVERY == 0 {
            Native::relax();
        }
        counter.store(black_box(value) + 1, Ordering::Relaxed);
    }
}

/// What came out of one way.
struct Result {
    expected: u64,
    counted: u64,
    ns_each: u64,
}

pub(super) fn run(cx: &mut Context<'_>) -> CommandResult {
    let mut missing = 0;
    for way in &WAYS {
        let Result { expected, counted, ns_each } = race(cx, way);
        let lost = expected - counted.min(expected);
        writeln!(cx.out, "{}: {counted} of {expected} counted, {lost} lost, {ns_each} ns each", way.title)?;
        way.explanation.lines().try_for_each(|line| writeln!(cx.out, "    {line}"))?;
        if !way.may_lose && counted != expected {
            missing += lost.max(1);
        }
    }
    if missing > 0 {
        return Err(Failure::Failed(alloc::format!("{missing} updates were lost where none may be")));
    }
    Ok(())
}

/// All CPUs count in one way at the same time.
fn race(cx: &Context<'_>, way: &Way) -> Result {
    let cpus: u32 = cx.machine.cpus().iter().filter(|cpu| cpu.state == "online").count() as u32;
    hal::percpu::cpus().for_each(|cpu| COUNTER.on(cpu).store(0, Ordering::Relaxed));
    let shared = AtomicU64::new(0);
    let arrived = AtomicU32::new(0);
    let took_ns = AtomicU64::new(0);
    cx.machine.on_all_cpus(&|_| {
        arrived.fetch_add(1, Ordering::Relaxed);
        // Start together: a race against CPUs that have not come yet is none.
        while arrived.load(Ordering::Relaxed) < cpus {
            Native::relax();
        }
        let start = Native::now_ns();
        (way.count)(&shared);
        took_ns.fetch_add(Native::now_ns() - start, Ordering::Relaxed);
    });
    let counted: u64 = hal::percpu::cpus().map(|cpu| COUNTER.on(cpu).load(Ordering::Relaxed)).sum();
    let expected = u64::from(cpus) * TIMES;
    Result {
        expected,
        counted: counted + shared.load(Ordering::Relaxed),
        ns_each: took_ns.load(Ordering::Relaxed) / expected.max(1),
    }
}
