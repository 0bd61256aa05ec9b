//! Two tasks that take turns. A switch is half of a turn: signalling, blocking, and the other one's waking up.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::wait::WaitQueue;
use sync::{Completion, TaskCx};

use super::{Benchmark, Figures, Unit, WARM};
use crate::sched::policy::Policy;
use crate::task::Builder;

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::task("pingpong_completion_same_cpu", |place, cx| turns::<Completion>(Some(place.here), cx)),
    Benchmark::task("pingpong_waitqueue_same_cpu", |place, cx| turns::<Flag>(Some(place.here), cx)),
    Benchmark::pair("pingpong_completion_cross_cpu", |place, cx| turns::<Completion>(place.there, cx)),
    Benchmark::pair("pingpong_waitqueue_cross_cpu", |place, cx| turns::<Flag>(place.there, cx)),
];

/// How a task tells another one that it is its turn.
trait Signal: Send + Sync + 'static {
    fn new() -> Self;
    fn send(&self);
    fn receive(&self, cx: &mut TaskCx);
}

impl Signal for Completion {
    fn new() -> Completion {
        Completion::new()
    }

    fn send(&self) {
        self.complete();
    }

    fn receive(&self, cx: &mut TaskCx) {
        self.wait(cx);
    }
}

/// A flag, and who waits for it.
struct Flag {
    set: AtomicU32,
    queue: WaitQueue,
}

impl Signal for Flag {
    fn new() -> Flag {
        Flag { set: AtomicU32::new(0), queue: WaitQueue::new() }
    }

    fn send(&self) {
        // Release: pairs with the Acquire in `receive`.
        self.set.store(1, Ordering::Release);
        self.queue.wake_one();
    }

    fn receive(&self, cx: &mut TaskCx) {
        // Acquire: pairs with the Release in `send`.
        self.queue.wait(cx, || self.set.load(Ordering::Acquire) != 0);
        self.set.store(0, Ordering::Relaxed);
    }
}

/// Turns that are timed as a whole.
const TURNS: u64 = 100;
const TRIES: usize = 31;

fn turns<S: Signal>(partners_cpu: Option<CpuId>, cx: &mut TaskCx) -> Figures {
    let signals = Arc::new([S::new(), S::new()]);
    let theirs = Arc::clone(&signals);
    let answer = move |cx: &mut TaskCx| {
        for _ in 0..TURNS * (TRIES + WARM) as u64 {
            theirs[1].receive(cx);
            theirs[0].send();
        }
    };
    let cpu = partners_cpu.unwrap_or(Native::cpu());
    let Ok(partner) = Builder::new("bench/partner").on(cpu).policy(Policy::fifo(10)).spawn(answer) else {
        return Figures::new(Unit::Ns, Vec::new());
    };
    let tries = super::samples(TRIES, || {
        let begun = Native::now_ns();
        for _ in 0..TURNS {
            signals[1].send();
            signals[0].receive(cx);
        }
        (Native::now_ns() - begun) * 1_000 / (2 * TURNS)
    });
    partner.join(cx);
    Figures::new(Unit::Ns, tries)
}
