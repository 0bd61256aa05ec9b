//! Readers and writers of a gate, under every schedule and every value that a load may return.
//!
//! Each task counts in slots of its own, as tasks do that run on different CPUs. One that is moved to another CPU between
//! coming in and leaving has two.

use std::cell::Cell;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::gate::{Gate, Slots};
use crate::TaskCx;
use crate::faults::{Fault, is_caught};
use crate::primitives::{AtomicIsize, Ordering};
use crate::test_platform::{AT_ONCE, Modelled, become_task};
use crate::wait::Limits;

loom::thread_local! {
    /// Where the executing thread counts.
    static SLOT: Cell<usize> = Cell::new(0);
}

struct ModelSlots([AtomicIsize; 4]);

impl Slots for ModelSlots {
    fn with_mine<R>(&self, f: impl FnOnce(&AtomicIsize) -> R) -> R {
        f(&self.0[SLOT.with(Cell::get)])
    }

    fn sum(&self) -> isize {
        self.0.iter().map(|slot| slot.load(Ordering::Acquire)).sum()
    }
}

struct Shared {
    gate: Gate<ModelSlots, Modelled>,
    data: UnsafeCell<u32>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        let slots = ModelSlots(std::array::from_fn(|_| AtomicIsize::new(0)));
        Arc::new(Shared { gate: Gate::new(slots), data: UnsafeCell::new(0) })
    }

    fn look(&self) -> u32 {
        // SAFETY: as above.
        self.data.with(|data| unsafe { *data })
    }

    fn change(&self) {
        // SAFETY: as above.
        self.data.with_mut(|data| unsafe { *data += 1 });
    }
}

fn task<R: 'static>(
    number: usize,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Shared, &mut TaskCx<Modelled>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        become_task(number);
        SLOT.with(|slot| slot.set(number));
        // SAFETY: the thread is this task, and this its only token.
        body(&shared, &mut unsafe { TaskCx::new_in() })
    })
}

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    test_support::check(&builder, f);
}

fn read(shared: &Shared, cx: &mut TaskCx<Modelled>) -> u32 {
    shared.gate.enter(Limits::NONE, cx).unwrap();
    let seen = shared.look();
    shared.gate.leave();
    seen
}

fn write(shared: &Shared, limits: Limits, cx: &mut TaskCx<Modelled>) -> bool {
    let is_in = shared.gate.close_noting(limits, cx, || ()).is_ok();
    if is_in {
        shared.change();
        shared.gate.open();
    }
    is_in
}

/// The reader leaves on another CPU than it came in on, and comes once more.
#[test]
fn a_reader_that_moves_and_a_writer() {
    check(2, || {
        let shared = Shared::new();
        let reader = task(1, &shared, |shared, cx| {
            shared.gate.enter(Limits::NONE, cx).unwrap();
            let seen = shared.look();
            SLOT.with(|slot| slot.set(3));
            shared.gate.leave();
            assert!(read(shared, cx) >= seen);
        });
        let writer = task(2, &shared, |shared, cx| assert!(write(shared, Limits::NONE, cx)));
        reader.join().unwrap();
        writer.join().unwrap();
        assert!(!shared.gate.is_closed() && shared.gate.slots.sum() == 0);
    });
}

#[test]
fn two_readers_and_a_writer() {
    check(1, || {
        let shared = Shared::new();
        let readers: Vec<_> = (0..2).map(|number| task(number, &shared, read)).collect();
        let writer = task(2, &shared, |shared, cx| write(shared, Limits::NONE, cx));
        for reader in readers {
            assert!(reader.join().unwrap() <= 1);
        }
        assert!(writer.join().unwrap());
        assert!(!shared.gate.is_closed() && shared.gate.slots.sum() == 0);
    });
}

#[test]
fn two_writers_and_a_reader() {
    check(1, || {
        let shared = Shared::new();
        let writers: Vec<_> = (0..2)
            .map(|number| task(number, &shared, |shared, cx| write(shared, Limits::NONE, cx)))
            .collect();
        let reader = task(2, &shared, read);
        for writer in writers {
            assert!(writer.join().unwrap());
        }
        assert!(reader.join().unwrap() <= 2);
        assert!(!shared.gate.is_closed() && shared.gate.slots.sum() == 0);
    });
}

/// One writer has no patience: whether it waits in line or for readers, the others get on.
#[test]
fn a_writer_that_gives_up_opens_the_gate() {
    check(1, || {
        let shared = Shared::new();
        let hasty = task(0, &shared, |shared, cx| write(shared, Limits::NONE.until(AT_ONCE), cx));
        let writer = task(1, &shared, |shared, cx| write(shared, Limits::NONE, cx));
        let reader = task(2, &shared, read);
        hasty.join().unwrap();
        assert!(writer.join().unwrap());
        assert!(reader.join().unwrap() <= 2);
        assert!(!shared.gate.is_closed() && shared.gate.slots.sum() == 0);
    });
}

#[test]
fn tries_exclude_each_other() {
    check(3, || {
        let shared = Shared::new();
        let reader = task(1, &shared, |shared, _| {
            if shared.gate.try_enter() {
                shared.look();
                shared.gate.leave();
            }
        });
        let writer = task(2, &shared, |shared, _| {
            if shared.gate.try_close() {
                shared.change();
                shared.gate.open();
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
        assert!(!shared.gate.is_closed() && shared.gate.slots.sum() == 0);
    });
}

#[test]
fn a_sum_without_the_fence_misses_a_reader() {
    is_caught(
        Fault::SumWithoutFence,
        "percpu_rwsem::models::tries_exclude_each_other",
        "Causality violation",
    );
}

#[test]
fn a_reader_that_goes_back_quietly_leaves_the_writer_asleep() {
    is_caught(Fault::LeaveQuietly, "percpu_rwsem::models::a_reader_that_moves_and_a_writer", "deadlock");
}

#[test]
fn opening_without_release_shows_a_reader_old_data() {
    is_caught(
        Fault::OpenRelaxed,
        "percpu_rwsem::models::a_reader_that_moves_and_a_writer",
        "Causality violation",
    );
}
