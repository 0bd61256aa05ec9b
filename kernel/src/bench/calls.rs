//! What it costs to have another CPU do something, and what an interrupt alone costs beside it.
//!
//! Each operation is timed by itself, some thousands of times; the median is what usually happens, the best what happens
//! when the host disturbs nothing. The bare round trip is an interrupt whose handler sets a flag that the sender looks
//! at: nothing that waits for another CPU can take less.
//!
//! | name | from | to | Linux |
//! |---|---|---|---|
//! | `interrupt_and_flag` | before the interrupt is sent | the flag is seen | none |
//! | `irq_work_self_ipi` | before the work is queued | the work is seen to be idle | `irq_work_queue` |
//! | `smp_call_single` | before the call | its return | `smp_call_function_single` with `wait` |
//! | `smp_call_function_all` | before the call | its return | `smp_call_function` with `wait` |
//!
//! The target is *itself*, *idle*, which halts or is about to, or *busy*, which computes in a task.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use crate::calls::{self, CallData};
use crate::cpus;
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

/// The median and the shortest time of `TIMES`, the clock's reading included.
fn time(mut once: impl FnMut()) -> [u64; 2] {
    let mut times: Vec<u64> = (0..TIMES)
        .map(|_| {
            let begun = Native::now_ns();
            once();
            Native::now_ns() - begun
        })
        .collect();
    times.sort_unstable();
    [times[TIMES / 2], times[0]]
}

fn figure(name: &'static str, target: &'static str, once: impl FnMut()) -> Figure {
    let ([median, best], [empty, _]) = (time(once), time(|| ()));
    Figure { name, target, median_ns: median.saturating_sub(empty), best_ns: best.saturating_sub(empty) }
}

/// The flag of the bare round trip.
static FLAG: AtomicU32 = AtomicU32::new(0);
static SET_FLAG: fn() = || FLAG.store(1, Ordering::Release);

fn round_trip(cpu: CpuId) {
    FLAG.store(0, Ordering::Relaxed);
    send_call(cpu);
    // Acquire: pairs with the Release in `SET_FLAG`.
    while FLAG.load(Ordering::Acquire) == 0 {
        Native::relax();
    }
}

fn between(cpu: CpuId, target: &'static str, figures: &mut Vec<Figure>) {
    set_hook(Source::Call, Some(&SET_FLAG));
    figures.push(figure("interrupt_and_flag", target, || round_trip(cpu)));
    set_hook(Source::Call, None);
    figures.push(figure("smp_call_single", target, || _ = calls::single(cpu, || ())));
    figures.push(figure("smp_call_function_all", target, || _ = calls::others(|_| ())));
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
    let mut figures = Vec::new();
    set_hook(Source::Call, Some(&SET_FLAG));
    figures.push(figure("interrupt_and_flag", "itself", || round_trip(me)));
    set_hook(Source::Call, None);
    figures.push(figure("irq_work_self_ipi", "itself", || {
        calls::irq_work(&WORK);
        while WORK.is_busy() {
            Native::relax();
        }
    }));
    let Some(other) = cpus::online().find(|cpu| *cpu != me) else { return figures };
    between(other, "idle", &mut figures);
    let busy = keep_busy(me);
    between(other, "busy", &mut figures);
    OVER.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|task| task.join(cx));
    figures
}
