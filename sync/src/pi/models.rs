//! The mutex and the inheritance, under every interleaving of two or three tasks.
//!
//! A task's number is its priority. What the platform was told last is compared with what the records say, and at the
//! end nobody must have kept anything.

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::PiMutex;
use crate::TaskCx;
use crate::faults::{Fault, is_caught};
use crate::test_platform::{AT_ONCE, Event, Modelled, become_task, inherited_by, when_blocked};
use crate::wait::Limits;

fn bounded(preemptions: usize) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder
}

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    test_support::check(&bounded(preemptions), f);
}

/// Runs `body` as task `number` on a thread of the model.
fn task(number: usize, body: impl FnOnce(&mut TaskCx<Modelled>) + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        become_task(number);
        // SAFETY: the thread is this task, and this its only token.
        body(&mut unsafe { TaskCx::new_in() });
    })
}

fn nobody_has_kept_anything() {
    for number in 0..4 {
        assert_eq!(inherited_by(number), 0, "task {number} keeps a priority");
    }
}

/// Data that may only be touched by one task at a time.
struct Tracked(UnsafeCell<u32>);

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Tracked {}
// SAFETY: as above.
unsafe impl Sync for Tracked {}

impl Tracked {
    fn new() -> Tracked {
        Tracked(UnsafeCell::new(0))
    }

    fn increment(&self) {
        // SAFETY: the model checker reports accesses that are not ordered.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }
}

type Shared = PiMutex<Tracked, Modelled>;

fn tasks_share<const TASKS: usize>(preemptions: usize) {
    check(preemptions, || {
        let mutex = Arc::new(Shared::new(Tracked::new()));
        let tasks: Vec<_> = (1..=TASKS)
            .map(|number| {
                let mutex = Arc::clone(&mutex);
                task(number, move |cx| mutex.lock(cx).increment())
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(mutex.try_lock().is_some(), "free, and nobody waits");
        nobody_has_kept_anything();
    });
}

#[test]
fn two_tasks_share_one() {
    tasks_share::<2>(3);
}

#[test]
fn three_tasks_share_one() {
    tasks_share::<3>(2);
}

#[test]
fn who_keeps_what_it_inherited_is_noticed() {
    is_caught(Fault::KeepInherited, "pi::models::two_tasks_share_one", "keeps a priority");
}

/// One gives up, at any moment, while another waits and a third lets go.
#[test]
fn who_gives_up_takes_its_priority_back() {
    check(2, || {
        let mutex = Arc::new(Shared::new(Tracked::new()));
        let tasks: Vec<_> = [(1, Limits::NONE), (2, Limits::NONE), (3, Limits::NONE.until(AT_ONCE))]
            .map(|(number, limits)| {
                let mutex = Arc::clone(&mutex);
                task(number, move |cx| {
                    if let Ok(guard) = mutex.lock_with(limits, cx) {
                        guard.increment();
                    }
                })
            })
            .into_iter()
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(mutex.try_lock().is_some());
        nobody_has_kept_anything();
    });
}

struct Chain {
    a: PiMutex<(), Modelled>,
    b: PiMutex<(), Modelled>,
}

/// Task 1 holds `a`, task 2 holds `b` and waits for `a`, task 3 waits for `b`: when 2 and 3 sleep, task 1 is as urgent as
/// 3, in whatever order they came.
fn chain(preemptions: usize, limit: Option<Duration>) {
    let mut builder = bounded(preemptions);
    builder.max_duration = limit;
    test_support::check(&builder, || {
        let chain = Arc::new(Chain { a: PiMutex::new(()), b: PiMutex::new(()) });
        let [a_is_held, b_is_held, middle_sleeps, high_sleeps] =
            std::array::from_fn(|_| Arc::new(Event::new()));
        let high = {
            let (chain, b_is_held, high_sleeps) =
                (Arc::clone(&chain), Arc::clone(&b_is_held), Arc::clone(&high_sleeps));
            task(3, move |cx| {
                b_is_held.wait();
                when_blocked(high_sleeps);
                drop(chain.b.lock(cx));
            })
        };
        let middle = {
            let (chain, a_is_held, middle_sleeps) =
                (Arc::clone(&chain), Arc::clone(&a_is_held), Arc::clone(&middle_sleeps));
            task(2, move |cx| {
                a_is_held.wait();
                let b = chain.b.lock(cx);
                b_is_held.happens();
                when_blocked(middle_sleeps);
                drop(chain.a.lock(cx));
                drop(b);
            })
        };
        let low = task(1, move |cx| {
            let a = chain.a.lock(cx);
            a_is_held.happens();
            middle_sleeps.wait();
            high_sleeps.wait();
            assert_eq!(inherited_by(1), 3, "the priority was lost on the way");
            drop(a);
        });
        for task in [low, middle, high] {
            task.join().unwrap();
        }
        nobody_has_kept_anything();
    });
}

#[test]
fn a_priority_goes_along_the_chain() {
    chain(0, None);
}

/// With more preemptions there are more schedules than can all be tried.
#[test]
fn a_priority_goes_along_the_chain_in_many_schedules() {
    chain(2, Some(Duration::from_secs(8)));
}

#[test]
fn a_chain_that_is_not_followed_is_noticed() {
    is_caught(Fault::StopAtOwner, "pi::models::a_priority_goes_along_the_chain", "lost on the way");
}

#[test]
fn a_walk_that_ends_where_another_is_at_work_is_noticed() {
    is_caught(
        Fault::EndTheWalk,
        "pi::models::a_priority_goes_along_the_chain_in_many_schedules",
        "lost on the way",
    );
}
