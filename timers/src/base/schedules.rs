//! Two timers, two bases and five CPUs, in many random schedules: each base is run by a CPU of its own, each timer has an owner
//! that arms it anywhere and deletes it synchronously, again and again, and somebody deletes both without waiting. The
//! functions arm their timers again.
//!
//! Faults that such schedules can show are planted in turn, and must be found. What weak memory breaks is loom's part.

use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use shuttle::thread;
use sync::lockdep::Level;
use sync::{Cpu, TaskCx};

use super::{Armed, Base, How, arm};
use crate::faults::{Fault, is_caught};
use crate::modelled::{MiniEntry, MiniQueue, Modelled, become_cpu};
use crate::primitives::{AtomicU32, Ordering};
use crate::timer::sealed::Handle;
use crate::timer::{Firing, Timer, TimerFlags};

type MiniBase = Base<MiniQueue, Modelled>;
type MiniTimer = Timer<Seen, MiniQueue, Modelled>;

/// How often a timer is armed and deleted, and a base is run.
const ROUNDS: u64 = 3;
const RUNS: u64 = 4;

/// What calls see.
struct Seen {
    inside: AtomicU32,
    forbidden: AtomicU32,
    rearms: AtomicU32,
}

fn called(timer: &MiniTimer, firing: &Firing<'_, MiniQueue, Modelled>) {
    let seen = timer.state();
    assert_eq!(seen.inside.swap(1, Ordering::Relaxed), 0, "two calls at once");
    assert_eq!(seen.forbidden.load(Ordering::Relaxed), 0, "called after it was deleted");
    if seen.rearms.load(Ordering::Relaxed) > 0 {
        seen.rearms.fetch_sub(1, Ordering::Relaxed);
        firing.rearm_at(1);
    }
    seen.inside.store(0, Ordering::Relaxed);
}

/// Bases that live until the threads have ended.
struct World {
    bases: [NonNull<MiniBase>; 2],
    timers: [Arc<MiniTimer>; 2],
}

// SAFETY: bases may be used by all threads.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl Drop for World {
    fn drop(&mut self) {
        for base in self.bases {
            // SAFETY: leaked by `new`; nobody uses it any more.
            drop(unsafe { Box::from_raw(base.as_ptr()) });
        }
    }
}

impl World {
    fn new(queue: fn() -> MiniQueue) -> Arc<World> {
        let base = |()| NonNull::from(Box::leak(Box::new(MiniBase::new(queue(), |_, _| ()))));
        let zero = || AtomicU32::new(0);
        let timer = |()| {
            let state = Seen { inside: zero(), forbidden: zero(), rearms: AtomicU32::new(2) };
            let flags = TimerFlags::NONE;
            Arc::new(Timer::from_parts(MiniEntry::new(), Level::Softirq, flags, state, called))
        };
        Arc::new(World { bases: [(); 2].map(base), timers: [(); 2].map(timer) })
    }

    fn base(&self, number: usize) -> &'static MiniBase {
        // SAFETY: freed when the last thread has ended.
        unsafe { self.bases[number].as_ref() }
    }

    fn arm(&self, timer: usize, base: usize, expires: u64) {
        let timer = &self.timers[timer];
        if timer.core().modify_in_place(expires) {
            return;
        }
        let quiet = Cpu::<Modelled>::disable_interrupts();
        let reference = timer.into_reference();
        arm(quiet, reference, self.base(base), expires, How::Modify, Location::caller());
    }

    /// Only this one arms the timer from outside. What it has deleted is not called until it arms it again.
    fn own(&self, number: usize) {
        let timer = &self.timers[number];
        let seen = timer.state();
        for round in 0..ROUNDS {
            // The second time it may be running where it was armed the first time, and stays there.
            for base in [number, number + 1] {
                self.arm(number, base % 2, round);
                thread::yield_now();
            }
            timer.delete_sync(&mut cx());
            seen.forbidden.store(1, Ordering::Relaxed);
            assert_eq!(seen.inside.load(Ordering::Relaxed), 0, "deleted, and still called");
            assert!(!timer.is_pending(), "deleted, and pending");
            thread::yield_now();
            seen.forbidden.store(0, Ordering::Relaxed);
        }
    }

    fn run(&self, base: usize) {
        for now in 1..=RUNS {
            self.base(base).run(|| now);
            thread::yield_now();
        }
    }
}

fn cx() -> TaskCx<Modelled> {
    // SAFETY: the models' threads are tasks.
    unsafe { TaskCx::new_in() }
}

fn five_cpus(queue: fn() -> MiniQueue) {
    let world = World::new(queue);
    let roles: [fn(&World); 5] = [
        |world| world.run(0),
        |world| world.run(1),
        |world| world.own(0),
        |world| world.own(1),
        |world| {
            for _ in 0..ROUNDS {
                for timer in &world.timers {
                    timer.delete();
                }
                thread::yield_now();
            }
        },
    ];
    let cpus: Vec<_> = roles
        .into_iter()
        .enumerate()
        .map(|(cpu, role)| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                become_cpu(cpu as u32);
                role(&world);
            })
        })
        .collect();
    cpus.into_iter().for_each(|cpu| cpu.join().unwrap());
    for timer in &world.timers {
        assert!(!timer.is_pending(), "its owner has deleted it last");
        assert_eq!(Arc::strong_count(timer), 1, "references are let go of");
    }
}

#[test]
fn five_cpus_with_batches() {
    test_support::schedules(|| five_cpus(MiniQueue::new), 1_500, 1_500);
}

#[test]
fn five_cpus_with_a_way_for_single_timers() {
    test_support::schedules(|| five_cpus(MiniQueue::of_singles), 1_500, 1_500);
}

#[test]
fn not_waiting_is_noticed() {
    is_caught(Fault::DeleteAndGo, "base::models::five_cpus_with_batches", "panicked at timers/src/base");
}

#[test]
fn moving_what_runs_is_noticed() {
    is_caught(Fault::MoveRunning, "base::models::five_cpus_with_batches", "panicked at timers/src/base");
}

#[test]
fn noting_the_end_of_a_call_before_it_is_noticed() {
    is_caught(Fault::EndEarly, "base::models::five_cpus_with_batches", "panicked at timers/src/base");
}
