//! Timers that two CPUs arm, delete and call, in all interleavings.
//!
//! What functions touch, what queues are made of, and what is freed are tracked cells: the model checker reports accesses
//! that nothing orders.

mod changes;
mod deletes;
mod references;

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use sync::lockdep::Level;
use sync::{Cpu, TaskCx};

use super::{Armed, Base, Call, Core, Flags, How, Kinds, Ops, Reference, arm};
use crate::faults::{Fault, is_caught};
use crate::modelled::{MiniEntry, MiniQueue, Modelled, become_cpu};
use crate::timer::{Firing, Timer, TimerFlags};

type MiniBase = Base<MiniQueue, Modelled>;
type MiniTimer<T> = Timer<T, MiniQueue, Modelled>;

fn check(f: impl Fn() + Send + Sync + 'static) {
    check_bounded(3, f);
}

fn check_bounded(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    test_support::check(&builder, f);
}

/// Bases that live for ever, as far as their timers know: until the model's threads have ended.
struct Bases([NonNull<MiniBase>; 2]);

// SAFETY: bases may be used by all threads.
unsafe impl Send for Bases {}
// SAFETY: as above.
unsafe impl Sync for Bases {}

/// Makes the bases of a model.
type MakeBases = fn() -> Arc<Bases>;

/// The same model with bases that take out what is due together, and with those that have a way for what is due alone.
fn check_both(preemptions: usize, f: impl Fn(MakeBases) + Copy + Send + Sync + 'static) {
    for make in [Bases::new, Bases::of_singles] as [MakeBases; 2] {
        check_bounded(preemptions, move || f(make));
    }
}

impl Bases {
    fn new() -> Arc<Bases> {
        Bases::with(MiniQueue::new)
    }

    /// Times do not change here without the lock.
    fn of_singles() -> Arc<Bases> {
        Bases::with(MiniQueue::of_singles)
    }

    fn with(queue: fn() -> MiniQueue) -> Arc<Bases> {
        let base = || NonNull::from(Box::leak(Box::new(MiniBase::new(queue(), |_, _| ()))));
        Arc::new(Bases([(); 2].map(|()| base())))
    }

    fn get(&self, cpu: usize) -> &'static MiniBase {
        // SAFETY: freed when the last thread has ended.
        unsafe { self.0[cpu].as_ref() }
    }
}

impl Drop for Bases {
    fn drop(&mut self) {
        for base in self.0 {
            // SAFETY: leaked by `new`; nobody uses it any more.
            drop(unsafe { Box::from_raw(base.as_ptr()) });
        }
    }
}

/// Something with which the model checker sees whether two calls overlap, and whether they are seen by who waits for them.
struct Seen {
    calls: UnsafeCell<u32>,
    /// What a CPU did before it armed the timer, and what the last call saw of it.
    asked: AtomicU32,
    saw: UnsafeCell<u32>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Seen {}
// SAFETY: as above.
unsafe impl Sync for Seen {}

impl Seen {
    fn new() -> Arc<Seen> {
        Arc::new(Seen { calls: UnsafeCell::new(0), asked: AtomicU32::new(0), saw: UnsafeCell::new(0) })
    }

    fn call(&self) {
        // SAFETY: as above.
        self.calls.with_mut(|calls| unsafe { *calls += 1 });
        let asked = self.asked.load(Ordering::Relaxed);
        // SAFETY: as above.
        self.saw.with_mut(|saw| unsafe { *saw = asked });
    }

    fn calls(&self) -> u32 {
        // SAFETY: as above.
        self.calls.with(|calls| unsafe { *calls })
    }

    fn saw(&self) -> u32 {
        // SAFETY: as above.
        self.saw.with(|saw| unsafe { *saw })
    }
}

fn timer<T: Send + Sync + 'static>(
    state: T,
    function: fn(&MiniTimer<T>, &Firing<'_, MiniQueue, Modelled>),
) -> std::sync::Arc<MiniTimer<T>> {
    std::sync::Arc::new(Timer::from_parts(
        MiniEntry::new(),
        Level::Softirq,
        TimerFlags::NONE,
        state,
        function,
    ))
}

/// What whoever has a machine's timers does for its users.
fn put<T: Send + Sync + 'static>(
    timer: impl crate::timer::sealed::Handle<T, MiniQueue, Modelled>,
    base: &'static MiniBase,
    expires: u64,
    how: How,
) -> Armed {
    if how == How::Modify && timer.core().modify_in_place(expires) {
        return Armed::Before;
    }
    let quiet = Cpu::<Modelled>::disable_interrupts();
    let reference = timer.into_reference();
    arm(quiet, reference, base, expires, how, std::panic::Location::caller())
}

fn cx() -> TaskCx<Modelled> {
    // SAFETY: the models' threads are tasks.
    unsafe { TaskCx::new_in() }
}

/// A thread that calls what is due in the first base at time 1.
fn runner(bases: &Arc<Bases>) -> thread::JoinHandle<()> {
    let bases = Arc::clone(bases);
    thread::spawn(move || {
        bases.get(0).run(|| 1);
    })
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}
