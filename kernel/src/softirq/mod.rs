//! Softirqs: which function serves a vector, for how long, and who goes on when that was too long.
//!
//! 1. The machine keeps the pending bits and says when they are served ([`hal::x86_64::softirq`]); the rounds and their
//!    budget are [`sync::softirq`]'s. Here each vector but two has one function, the same on all CPUs.
//! 2. What a budget leaves goes to `softirq/N`, a task of CPU N ([`daemon`]). From then on *these vectors* are the task's,
//!    until it has found none of them raised: neither the ends of interrupts nor enabling bottom halves serve them. All
//!    other vectors are served at once as ever, so that a flood of tasklets does not hold up timers.
//! 3. Those two run tasklets, from a queue on each CPU ([`tasklets`]).

pub mod daemon;
pub mod tasklets;

use core::panic::Location;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use hal::x86_64::softirq as pending;
use hal::{CpuId, Native, Platform, percpu};
use sync::context::{Balance, SoftirqGuard, enter_softirq};
use sync::softirq::{Budget, Ending, Source};
pub use sync::softirq::{Running, Tasklet, Vector};

pub use tasklets::{enable, schedule, schedule_high};

use crate::trace;

/// A vector's function. It runs on the CPU where the softirq was raised, with bottom halves off, as its argument shows,
/// and interrupts on.
pub type Handler = fn(&SoftirqGuard);

/// The vectors' functions, or null.
static HANDLERS: [AtomicPtr<Handler>; Vector::COUNT] =
    [const { AtomicPtr::new(ptr::null_mut()) }; Vector::COUNT];

percpu! {
    /// How often this CPU served each vector.
    static SERVED: [AtomicU64; Vector::COUNT] = [const { AtomicU64::new(0) }; Vector::COUNT];
    /// How often vectors were left to this CPU's task, because of rounds, time, or a due reschedule.
    static LEFT: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
}

/// From now on `vector` is served by `handler`. `None` takes the function away; one that is running goes on.
///
/// Linux: `open_softirq`. Contexts: any.
///
/// # Panics
/// For [`Vector::High`] and [`Vector::Tasklet`], which run tasklets.
pub fn set_handler(vector: Vector, handler: Option<&'static Handler>) {
    assert!(!matches!(vector, Vector::High | Vector::Tasklet), "softirq {} runs tasklets", vector.name());
    let pointer = handler.map_or(ptr::null_mut(), |handler| ptr::from_ref(handler).cast_mut());
    // Release: pairs with the Acquire in `call`; the function sees what was prepared for it.
    HANDLERS[vector as usize].store(pointer, Ordering::Release);
}

/// Has `vector` served on this CPU, soon: when it leaves interrupt context or enables bottom halves, and before this
/// returns if it does neither and interrupts are on.
///
/// Linux: `raise_softirq`. Contexts: any but NMI. See [`Platform::raise_softirq`].
pub fn raise(vector: Vector) {
    Native::raise_softirq(vector.index());
}

/// This CPU's pending softirqs, as far as they are not left to its task.
struct ThisCpu;

impl Source<Native> for ThisCpu {
    #[inline(always)]
    fn pending(&self) -> u32 {
        pending::pending_here()
    }

    #[inline(always)]
    fn take(&self) -> u32 {
        pending::take_pending()
    }

    #[inline(always)]
    fn take_at_once(&self) -> u32 {
        pending::take_pending_at_once()
    }

    #[inline(always)]
    fn run(&self, vectors: u32, serving: &SoftirqGuard) {
        run(vectors, serving);
    }
}

/// Calls the functions of the vectors whose bits are set, the most urgent first.
#[inline(always)]
fn run(vectors: u32, serving: &SoftirqGuard) {
    for vector in Vector::in_mask(vectors) {
        call(vector, serving);
    }
}

#[inline(always)]
fn call(vector: Vector, serving: &SoftirqGuard) {
    let served = &SERVED.get(serving)[vector as usize];
    // This CPU counts, and no other softirq comes in between; others only read.
    served.store(served.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    if trace::is_told() {
        return call_traced(vector, serving);
    }
    if vector == Vector::Tasklet {
        // In line: these are what most vectors were raised for.
        tasklets::run(serving);
    } else {
        call_handler(vector, serving);
    }
}

#[cold]
#[inline(never)]
fn call_traced(vector: Vector, serving: &SoftirqGuard) {
    trace::softirq_enter(vector.index());
    call_handler(vector, serving);
    trace::softirq_exit(vector.index());
}

/// Calls a vector's function, and finds out if it leaves the context other than it was. The vectors of tasklets have none:
/// with those each tasklet is looked at by itself.
#[inline(never)]
fn call_handler(vector: Vector, serving: &SoftirqGuard) {
    match vector {
        Vector::High => return tasklets::run_high(serving),
        Vector::Tasklet => return tasklets::run(serving),
        _ => {}
    }
    // SAFETY: null, or a `'static` function. Acquire: pairs with the Release in `set_handler`.
    match unsafe { HANDLERS[vector as usize].load(Ordering::Acquire).as_ref() } {
        Some(handler) => {
            let balance = Balance::<Native>::now();
            handler(serving);
            if !balance.is_kept() {
                report_leak(balance, vector);
            }
        }
        None => warn_of_nobody(vector),
    }
}

#[cold]
fn report_leak(balance: Balance, vector: Vector) {
    balance.check(format_args!("softirq {}", vector.name()), Location::caller());
}

#[cold]
fn warn_of_nobody(vector: Vector) {
    ::log::warn!("softirq {} was raised and has no handler", vector.name());
}

/// Serves this CPU's pending softirqs, for a while. Called by the machine, with interrupts off.
pub(crate) fn serve() {
    // SAFETY: the machine calls this where nothing forbids softirqs; dropped before it goes on.
    let serving = unsafe { enter_softirq() };
    let ending = sync::softirq::serve(&ThisCpu, Budget::USUAL, &serving);
    if ending != Ending::Served {
        leave(ending, &serving);
    }
}

/// Serves what a section without bottom halves has held up, for a while. Called by the machine, in tasks with interrupts on.
pub(crate) fn serve_in_task() {
    // SAFETY: the machine calls this where nothing forbids softirqs, and goes on when it returns.
    unsafe { sync::softirq::serve_in_task(&ThisCpu, Budget::USUAL, leave) };
}

/// Leaves what is pending to the task.
#[cold]
fn leave(ending: Ending, serving: &SoftirqGuard) {
    let reason = match ending {
        Ending::Served => return,
        Ending::OutOfRounds => 0,
        Ending::OutOfTime => 1,
        Ending::RescheduleDue => 2,
    };
    if daemon::take_over(serving) {
        LEFT.get(serving)[reason].fetch_add(1, Ordering::Relaxed);
    }
    // Before there is such a task it waits for the end of the next interrupt, at the latest the tick.
}

/// How often `cpu` has served each vector, in their order.
pub fn served(cpu: CpuId) -> [u64; Vector::COUNT] {
    SERVED.on(cpu).each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// How often vectors were left to the task of `cpu`: because as many rounds as allowed had run, the time was up, or a
/// reschedule was due.
pub fn left(cpu: CpuId) -> [u64; 3] {
    LEFT.on(cpu).each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// Takes over what `cpu` has left behind, which has gone off-line and serves nothing any more: its pending softirqs and
/// its tasklets, which run on this CPU from here on.
///
/// Linux: `takeover_tasklets`. Contexts: task. The caller knows, with an acquire, that the CPU has stopped.
pub fn inherit(cpu: CpuId) {
    let here = sync::preempt::disable();
    tasklets::inherit(cpu, &here);
    pending::inherit(cpu);
}
