//! What waiting and waking cost.
//!
//! Each figure is measured by tasks of its own, bound to their CPUs: pairs of operations of one task that nobody disturbs,
//! and turns that two tasks take. A *switch* is one way of such a turn: signalling, blocking, and the other one's waking
//! up. Figures of one task are the shortest of several tries, as those of [`operations`](super::operations); those of two
//! are medians, because what they wait for is each other.
//!
//! | name | what is done | Linux |
//! |---|---|---|
//! | `mutex_lock_unlock`, `pi_mutex_lock_unlock`, `semaphore_down_up` | a pair that nobody else wants | `mutex_lock` and `mutex_unlock`, `rt_mutex_lock` .., `down` .. |
//! | `rwsem_down_up_read`, `rwsem_down_up_write` | the same | `down_read` and `up_read`, `down_write` .. |
//! | `complete_wait_nonblocking` | a completion is completed, then waited for | `complete`, `wait_for_completion` |
//! | `wake_up_empty_waitqueue` | one waiter is to be woken; nobody waits | `wake_up` |
//! | `cond_resched`, `yield_alone` | the CPU is offered, given up; nobody else wants it | `cond_resched`, `yield` |
//! | `workqueue_queue_to_run_same_cpu` | from queueing an item to the first thing it does, by a worker that slept | `queue_work_on` |
//! | `pingpong_completion_same_cpu`, `.._cross_cpu` | a switch, by two completions | `complete`, `wait_for_completion` |
//! | `pingpong_waitqueue_same_cpu`, `.._cross_cpu` | a switch, by two flags and wait queues | `wake_up`, `wait_event` |
//!
//! A switch across CPUs is from signalling on one CPU to the other task's going on there: the latency of a wake-up.

use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::wait::WaitQueue;
use sync::{Completion, Mutex, PiMutex, RwSemaphore, Semaphore, TaskCx};

use crate::cpus;
use crate::sched::policy::Policy;
use crate::task::{Builder, JoinHandle, SpawnError};
use crate::workqueue::{self, Running, Work};

/// A figure, in tenths of nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// What was done.
    pub name: &'static str,
    /// How long it took once.
    pub tenths: u64,
}

const TIMES: u32 = 500;
const TRIES: usize = 15;

/// Tenths of nanoseconds that one of `TIMES` turns of `once` takes, the shortest of several tries.
fn shortest(mut once: impl FnMut()) -> u64 {
    let mut time = || {
        let begun = Native::now_ns();
        for _ in 0..black_box(TIMES) {
            once();
            black_box(());
        }
        Native::now_ns() - begun
    };
    (0..TRIES).map(|_| time()).min().unwrap_or(0) * 10 / u64::from(TIMES)
}

/// What one task does alone.
fn alone(cx: &mut TaskCx) -> Vec<Figure> {
    let empty = shortest(|| ());
    let mut figures = Vec::new();
    let mut note = |name, gross: u64| figures.push(Figure { name, tenths: gross.saturating_sub(empty) });
    let mutex = Mutex::<u64>::new(0);
    note("mutex_lock_unlock", shortest(|| drop(mutex.lock(cx))));
    let urgent = PiMutex::<u64>::new(0);
    note("pi_mutex_lock_unlock", shortest(|| drop(urgent.lock(cx))));
    let semaphore = Semaphore::<Native>::new(1);
    note(
        "semaphore_down_up",
        shortest(|| {
            semaphore.down(cx);
            semaphore.up();
        }),
    );
    let rwsem = RwSemaphore::<u64>::new(0);
    note("rwsem_down_up_read", shortest(|| drop(rwsem.read(cx))));
    note("rwsem_down_up_write", shortest(|| drop(rwsem.write(cx))));
    let done = Completion::<Native>::new();
    note(
        "complete_wait_nonblocking",
        shortest(|| {
            done.complete();
            done.wait(cx);
        }),
    );
    let queue = WaitQueue::<Native>::new();
    note("wake_up_empty_waitqueue", shortest(|| _ = black_box(queue.wake_one())));
    note("cond_resched", shortest(|| _ = cx.cond_resched()));
    note("yield_alone", shortest(crate::sched::yield_now));
    figures.push(queue_to_run(cx));
    figures
}

/// When the item was called.
static CALLED: AtomicU64 = AtomicU64::new(0);
static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| CALLED.store(Native::now_ns(), Ordering::Relaxed));

/// From queueing an item on this CPU to its call, each time by itself; the median, the clock's reading not included. The
/// worker is of the fair class, and comes when this task blocks.
fn queue_to_run(cx: &mut TaskCx) -> Figure {
    let mut times: Vec<u64> = (0..TIMES)
        .map(|_| {
            let begun = Native::now_ns();
            workqueue::queue(&WORK);
            WORK.flush(cx);
            CALLED.load(Ordering::Relaxed) - begun
        })
        .collect();
    times.sort_unstable();
    let reading = |_| {
        let begun = Native::now_ns();
        Native::now_ns() - begun
    };
    let clock = (0..TRIES).map(reading).min().unwrap_or(0);
    let tenths = 10 * times[times.len() / 2].saturating_sub(clock);
    Figure { name: "workqueue_queue_to_run_same_cpu", tenths }
}

/// How two tasks tell each other that it is their turn.
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
const TURNS: u64 = 200;

/// Tenths of nanoseconds a switch, the median of several tries.
fn take_turns<S: Signal>(
    name: &'static str,
    on: [CpuId; 2],
) -> Result<JoinHandle<(JoinHandle<()>, Figure)>, SpawnError> {
    let signals = Arc::new([S::new(), S::new()]);
    let theirs = Arc::clone(&signals);
    let partner = Builder::new("bench/partner").on(on[1]).policy(Policy::fifo(10)).spawn(move |cx| {
        for _ in 0..TURNS * TRIES as u64 {
            theirs[1].receive(cx);
            theirs[0].send();
        }
    })?;
    Builder::new("bench/turns").on(on[0]).policy(Policy::fifo(10)).spawn(move |cx| {
        let mut tries: Vec<u64> = (0..TRIES)
            .map(|_| {
                let begun = Native::now_ns();
                for _ in 0..TURNS {
                    signals[1].send();
                    signals[0].receive(cx);
                }
                (Native::now_ns() - begun) * 10 / (2 * TURNS)
            })
            .collect();
        tries.sort_unstable();
        (partner, Figure { name, tenths: tries[TRIES / 2] })
    })
}

/// All figures, of the last CPU that is online, and between it and the one before.
///
/// # Errors
/// If there is no memory for the tasks.
pub fn measure(cx: &mut TaskCx) -> Result<Vec<Figure>, SpawnError> {
    let mut online: Vec<CpuId> = cpus::online().collect();
    let here = online.pop().unwrap_or(CpuId::BOOT);
    let mut figures = Builder::new("bench/alone").on(here).policy(Policy::fifo(10)).spawn(alone)?.join(cx);
    let mut turns = |handle: JoinHandle<(JoinHandle<()>, Figure)>| {
        let (partner, figure) = handle.join(cx);
        partner.join(cx);
        figures.push(figure);
    };
    turns(take_turns::<Completion>("pingpong_completion_same_cpu", [here; 2])?);
    turns(take_turns::<Flag>("pingpong_waitqueue_same_cpu", [here; 2])?);
    if let Some(there) = online.pop() {
        turns(take_turns::<Completion>("pingpong_completion_cross_cpu", [here, there])?);
        turns(take_turns::<Flag>("pingpong_waitqueue_cross_cpu", [here, there])?);
    }
    Ok(figures)
}
