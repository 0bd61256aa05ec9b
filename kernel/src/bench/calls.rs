//! What it costs to have another CPU do something, and what an interrupt alone costs beside it.
//!
//! All operations are timed by turns, some thousands of times; the median is what usually happens, the best what happens
//! when the host disturbs nothing. The bare round trip is an interrupt whose handler sets a flag that the sender looks
//! at: nothing that waits for another CPU can take less.
//!
//! | name | from | to | Linux |
//! |---|---|---|---|
//! | `interrupt_and_flag` | before the interrupt is sent | the flag is seen | none |
//! | `irq_work_self_ipi` | before the work is queued | the work is seen to be idle | `irq_work_queue` |
//! | `smp_call_single` | before the call | its return | `smp_call_function_single` with `wait` |
//! | `wake_up_to_run` | before a task is woken | a flag that it sets is seen | `complete`, `wait_for_completion` |
//! | `smp_call_function_all` | before the call | its return | `smp_call_function` with `wait` |
//!
//! The target is *itself*, *idle*, which halts or is about to, or *busy*, which computes in a task.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::{Completion, TaskCx};

use crate::calls::{self, CallData};
use crate::cpus;
use crate::sched::policy::Policy;
use crate::task::{Builder, JoinHandle};
use crate::testing::irq::{Source, send_call, set_hook};

const TIMES: usize = 2_001;

/// One operation's times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// What was done.
    pub name: &'static str,
    /// What the other CPU was doing.
    pub target: &'static str,
    /// In nanoseconds, the clock's own reading not included.
    pub median_ns: u64,
    /// The shortest one.
    pub best_ns: u64,
}

/// What is timed: a name, and one time of it.
type Operation<'a> = (&'static str, &'a mut dyn FnMut());

/// Times every operation `TIMES` times, by turns: a host that takes its time for a while does so for all of them. Every
/// other turn goes backwards, so that none has the same one before it each time.
fn figures(target: &'static str, operations: &mut [Operation<'_>]) -> Vec<Figure> {
    let mut times: Vec<Vec<u64>> = operations.iter().map(|_| Vec::with_capacity(TIMES)).collect();
    let mut empty = u64::MAX;
    for turn in 0..TIMES {
        for place in 0..operations.len() {
            let at = if turn % 2 == 0 { place } else { operations.len() - 1 - place };
            let begun = Native::now_ns();
            operations[at].1();
            times[at].push(Native::now_ns() - begun);
        }
        let begun = Native::now_ns();
        empty = empty.min(Native::now_ns() - begun);
    }
    let names = operations.iter().map(|(name, _)| *name);
    let figure = |(name, mut times): (_, Vec<u64>)| {
        times.sort_unstable();
        let [median_ns, best_ns] = [TIMES / 2, 0].map(|at| times[at].saturating_sub(empty));
        Figure { name, target, median_ns, best_ns }
    };
    names.zip(times).map(figure).collect()
}

/// The flag of the bare round trip.
static FLAG: AtomicU32 = AtomicU32::new(0);
static SET_FLAG: fn() = || FLAG.store(1, Ordering::Release);

fn round_trip(cpu: CpuId) {
    FLAG.store(0, Ordering::Relaxed);
    send_call(cpu);
    await_flag();
}

fn await_flag() {
    // Acquire: pairs with the Release in `SET_FLAG`, `Sleeper::new`.
    while FLAG.load(Ordering::Acquire) == 0 {
        Native::relax();
    }
}

/// A task on `cpu` that sets the flag each time it is woken: more urgent than one that computes.
struct Sleeper {
    go: Arc<Completion>,
    task: JoinHandle<()>,
}

impl Sleeper {
    fn new(cpu: CpuId) -> Option<Sleeper> {
        let go = Arc::new(Completion::new());
        let awaited = go.clone();
        let body = move |cx: &mut TaskCx| {
            // `TIMES` for each of two targets, and one to end.
            for _ in 0..=2 * TIMES {
                awaited.wait(cx);
                FLAG.store(1, Ordering::Release);
            }
        };
        let task = Builder::new("sleeper").on(cpu).policy(Policy::fifo(50)).spawn(body).ok()?;
        Some(Sleeper { go, task })
    }

    /// Wakes it and waits for the flag.
    fn round_trip(&self) {
        FLAG.store(0, Ordering::Relaxed);
        self.go.complete();
        await_flag();
    }

    fn end(self, cx: &mut TaskCx) {
        self.go.complete();
        self.task.join(cx);
    }
}

fn between(cpu: CpuId, target: &'static str, sleeper: &Sleeper) -> Vec<Figure> {
    figures(
        target,
        &mut [
            ("interrupt_and_flag", &mut || round_trip(cpu)),
            ("smp_call_single", &mut || _ = calls::single(cpu, || ())),
            ("wake_up_to_run", &mut || sleeper.round_trip()),
            ("smp_call_function_all", &mut || _ = calls::others(|_| ())),
        ],
    )
}

static OVER: AtomicBool = AtomicBool::new(false);

/// A task on each other CPU that computes and never sleeps.
fn keep_busy(me: CpuId) -> Vec<JoinHandle<()>> {
    OVER.store(false, Ordering::Relaxed);
    let spin = || {
        while !OVER.load(Ordering::Relaxed) {
            Native::relax();
        }
    };
    let spawn = |cpu| Builder::new("busy").on(cpu).spawn(move |_| spin()).ok();
    cpus::online().filter(|cpu| *cpu != me).filter_map(spawn).collect()
}

/// Measures everything, in the calling task, which stays where it is meanwhile. Takes about a second.
pub fn measure(cx: &mut TaskCx) -> Vec<Figure> {
    static WORK: CallData = CallData::new(|| ());
    let _stay = sync::migrate::disable();
    let me = Native::cpu();
    set_hook(Source::Call, Some(&SET_FLAG));
    let mut measured = figures(
        "itself",
        &mut [
            ("interrupt_and_flag", &mut || round_trip(me)),
            ("irq_work_self_ipi", &mut || {
                calls::irq_work(&WORK);
                while WORK.is_busy() {
                    Native::relax();
                }
            }),
        ],
    );
    let other = cpus::online().find(|cpu| *cpu != me);
    if let Some((other, sleeper)) = other.and_then(|other| Some((other, Sleeper::new(other)?))) {
        measured.extend(between(other, "idle", &sleeper));
        let busy = keep_busy(me);
        measured.extend(between(other, "busy", &sleeper));
        OVER.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|task| task.join(cx));
        sleeper.end(cx);
    }
    set_hook(Source::Call, None);
    measured
}
