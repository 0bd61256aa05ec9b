//! What operations cost on one CPU when nobody else wants anything.
//!
//! 1. A loop does the operation `TIMES` times, and is timed as a whole. The same loop around nothing is subtracted.
//! 2. That is done `TRIES` times and the shortest counts: a timer interrupt that comes in between makes a try longer,
//!    and a try is so short that most see none.
//! 3. Under an emulator that counts an instruction as a nanosecond (`--icount 0`) the nanoseconds are instructions, the
//!    same in every run.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::x86_64::fpu::FpuGuard;
use hal::{Native, Platform, percpu};
use sync::list::{self, List};
use sync::llist::{self, LList};
use sync::{
    BottomHalf, IrqRwLock, IrqSpinLock, Latch, Queued, RwLock, SeqLock, SpinLock, Task, Ticketed, bh, irq,
    preempt,
};

const TIMES: u32 = 1_000;
const TRIES: u32 = 25;

/// An operation, or a pair that belongs together.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What the table calls it.
    pub name: &'static str,
    /// Does it `TIMES` times.
    run: fn(),
}

/// The loop. The compiler must not know how long it is, nor merge two turns, or it would be another one for every
/// operation.
#[inline(always)]
fn repeat(mut once: impl FnMut()) {
    for _ in 0..black_box(TIMES) {
        once();
        black_box(());
    }
}

percpu! {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
}

struct Item {
    link: list::Link,
    push: llist::Link,
}

sync::link_field! {
    struct InList = Item => link: list::Link;
    struct InLList = Item => push: llist::Link;
}

/// A loop around an operation on a value that lives as long as the loop.
macro_rules! operations {
    ($($(#[$meta:meta])* $name:literal: $($setup:pat = $value:expr),* => $once:expr;)*) => {
        /// What is measured, in the order of the table.
        pub const OPERATIONS: &[Operation] = &[$($(#[$meta])* Operation {
            name: $name,
            run: || {
                $(let $setup = black_box($value);)*
                repeat(|| { $once; });
            },
        }),*];
    };
}

operations! {
    "preemption off, on": => drop(preempt::disable());
    "interrupts off, on": => drop(irq::disable());
    "bottom halves off, on": => drop(bh::disable());
    "spin lock, unlock": lock = SpinLock::<u64>::new(0) => drop(lock.lock());
    "spin lock, unlock, bottom halves": lock = SpinLock::<u64, BottomHalf>::new(0) => drop(lock.lock());
    "spin lock, unlock, interrupts": lock = IrqSpinLock::new(0_u64) => drop(lock.lock());
    "spin lock, unlock, with a proof": lock = IrqSpinLock::new(0_u64), quiet = irq::disable() =>
        drop(lock.lock_with(&quiet));
    "spin try_lock, unlock": lock = SpinLock::<u64>::new(0) => drop(lock.try_lock());
    "ticket lock, unlock": lock = SpinLock::<u64, Ticketed<Task>>::new(0) => drop(lock.lock());
    "queued lock, unlock": lock = SpinLock::<u64, Queued<Task>>::new(0) => drop(lock.lock());
    "rwlock read": lock = RwLock::<u64>::new(0) => drop(lock.read());
    "rwlock write": lock = RwLock::<u64>::new(0) => drop(lock.write());
    "rwlock read, interrupts": lock = IrqRwLock::new(0_u64) => drop(lock.read());
    "seqlock read, 1 word": lock = SeqLock::<u64>::new(0) => black_box(lock.read());
    "seqlock write, 1 word": lock = SeqLock::<u64>::new(0) => lock.set(1);
    "latch read, 1 word": latch = Latch::<u64>::new(0) => black_box(latch.read());
    "list push_back, pop_front": item = Item::new(), mut list = List::<&Item, InList>::new() => {
        list.push_back(&item);
        black_box(list.pop_front());
    };
    "vector section begin, end": => drop(FpuGuard::begin());
    "llist push, take_all": item = Item::new(), list = LList::<&Item, InLList>::new() => {
        list.push(&item);
        black_box(list.take_all().next());
    };
    #[cfg(target_os = "none")]
    "tasklet, bottom halves on": => {
        let no_softirqs = bh::disable();
        crate::softirq::schedule(&TASKLET);
        drop(no_softirqs);
    };
    #[cfg(target_os = "none")]
    "tasklet, interrupts on": => {
        let quiet = irq::disable();
        crate::softirq::schedule(&TASKLET);
        drop(quiet);
    };
    #[cfg(target_os = "none")]
    "tasklet, nothing off": => crate::softirq::schedule(&TASKLET);
    #[cfg(target_os = "none")]
    "work queued, run, flushed": mut cx = token() => {
        crate::workqueue::queue(&WORK);
        WORK.flush(&mut cx);
    };
    "per-CPU increment": => COUNTER.inc();
    "atomic increment": count = AtomicU64::new(0) => count.fetch_add(1, Ordering::Relaxed);
    "clock read": => black_box(Native::now_ns());
}

/// A tasklet and a work item that do nothing.
#[cfg(target_os = "none")]
static TASKLET: sync::softirq::Tasklet<fn(&sync::softirq::Running<'_>)> = sync::softirq::Tasklet::new(|_| ());
#[cfg(target_os = "none")]
static WORK: sync::work::Work<fn(&mut sync::work::Running<'_>)> = sync::work::Work::new(|_| ());

/// The right to sleep of the task that measures.
#[cfg(target_os = "none")]
fn token() -> sync::TaskCx {
    // SAFETY: the console's task measures, and uses no other token meanwhile; nothing is switched off.
    unsafe { sync::TaskCx::new() }
}

impl Item {
    const fn new() -> Item {
        Item { link: list::Link::new(), push: llist::Link::new() }
    }
}

/// The shortest that `run` takes, in nanoseconds.
fn shortest(run: fn()) -> u64 {
    let time = |_| {
        let begun = Native::now_ns();
        run();
        Native::now_ns() - begun
    };
    (0..TRIES).map(time).min().unwrap_or(0)
}

/// What one turn of the loop costs by itself, in tenths of nanoseconds.
pub fn measure_loop() -> u64 {
    shortest(|| repeat(|| {})) * 10 / u64::from(TIMES)
}

/// What `operation` costs, the loop not counted, in tenths of nanoseconds.
///
/// Task context.
pub fn measure(operation: &Operation) -> u64 {
    let net = shortest(operation.run).saturating_sub(shortest(|| repeat(|| {})));
    net * 10 / u64::from(TIMES)
}
