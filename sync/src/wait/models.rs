//! Everything that sleeps, under every interleaving of two or three tasks.
//!
//! All sides are threads that the model spawns, as `docs/testing.md` advises. A lost wake-up is a deadlock, which the model
//! checker reports by itself. What is waited for is a tracked cell, so that an access too many or too early is reported
//! too, and so are the fields of the waiters.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::{Limits, WaitQueue};
use crate::faults::{Fault, is_caught};
use crate::test_platform::{AT_ONCE, Modelled, all_run, become_task};
use crate::{Channel, Completion, Mutex, RwSemaphore, Semaphore, TaskCx};

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    test_support::check(&builder, f);
}

/// Runs `body` as task `number` on a thread of the model.
fn task<R: 'static>(
    number: usize,
    body: impl FnOnce(&mut TaskCx<Modelled>) -> R + 'static,
) -> thread::JoinHandle<R> {
    thread::spawn(move || {
        become_task(number);
        // SAFETY: the thread is this task, and this its only token.
        body(&mut unsafe { TaskCx::new_in() })
    })
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

    fn increment(&self) -> u32 {
        // SAFETY: the model checker reports accesses that are not ordered.
        self.0.with_mut(|value| unsafe {
            *value += 1;
            *value
        })
    }

    fn get(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }
}

#[test]
fn no_wake_up_of_a_queue_is_lost() {
    check(3, || {
        let shared = Arc::new((AtomicU32::new(0), WaitQueue::<Modelled>::new()));
        let other = Arc::clone(&shared);
        let waiter = task(1, move |cx| other.1.wait(cx, || other.0.load(Ordering::Relaxed) == 1));
        let waker = task(2, move |_| {
            shared.0.store(1, Ordering::Relaxed);
            shared.1.wake_one();
        });
        waiter.join().unwrap();
        waker.join().unwrap();
    });
}

#[test]
fn a_wake_up_that_one_has_no_use_for_reaches_another() {
    check(1, || {
        // Two items, one wake-up each, two takers.
        let shared = Arc::new((AtomicU32::new(0), WaitQueue::<Modelled>::new()));
        let takers: Vec<_> = (1..3)
            .map(|number| {
                let shared = Arc::clone(&shared);
                task(number, move |cx| {
                    let take = || {
                        let take_one = |n: u32| n.checked_sub(1);
                        shared.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_ok()
                    };
                    shared.1.wait_exclusive(Limits::NONE, cx, take).unwrap();
                })
            })
            .collect();
        let giver = task(3, move |_| {
            for _ in 0..2 {
                shared.0.fetch_add(1, Ordering::Relaxed);
                shared.1.wake_one();
            }
        });
        giver.join().unwrap();
        for taker in takers {
            taker.join().unwrap();
        }
    });
}

#[test]
fn a_completion_carries_what_was_done_before_it() {
    check(3, || {
        let shared = Arc::new((Tracked::new(), Completion::<Modelled>::new()));
        let other = Arc::clone(&shared);
        let waiter = task(1, move |cx| {
            other.1.wait(cx);
            other.0.get()
        });
        let completer = task(2, move |_| {
            shared.0.increment();
            shared.1.complete();
        });
        completer.join().unwrap();
        assert_eq!(waiter.join().unwrap(), 1);
    });
}

#[test]
fn signalling_without_the_lock_races_with_the_waiters_end() {
    is_caught(
        Fault::SignalWithoutLock,
        "wait::models::a_completion_carries_what_was_done_before_it",
        "Causality violation",
    );
}

#[test]
fn a_deadline_and_a_completion_lose_nothing_between_them() {
    check(3, || {
        let event = Arc::new(Completion::<Modelled>::new());
        let other = Arc::clone(&event);
        let waiter = task(1, move |cx| other.wait_with(Limits::NONE.until(AT_ONCE), cx).is_ok());
        let other = Arc::clone(&event);
        let completer = task(2, move |_| other.complete());
        completer.join().unwrap();
        let consumed = waiter.join().unwrap();
        assert_eq!(event.try_wait(), !consumed);
    });
}

fn a_mutex_is_shared<const TASKS: usize>(preemptions: usize) {
    check(preemptions, || {
        let mutex = Arc::new(Mutex::<Tracked, Modelled>::new(Tracked::new()));
        let tasks: Vec<_> = (1..=TASKS)
            .map(|number| {
                let mutex = Arc::clone(&mutex);
                task(number, move |cx| {
                    mutex.lock(cx).increment();
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(!mutex.is_locked());
        assert_eq!(mutex.try_lock().expect("is free, and nobody waits").get(), TASKS as u32);
    });
}

#[test]
fn two_tasks_share_a_mutex() {
    a_mutex_is_shared::<2>(3);
}

#[test]
fn three_tasks_share_a_mutex() {
    a_mutex_is_shared::<3>(1);
}

#[test]
fn two_tasks_share_a_mutex_that_is_watched() {
    all_run();
    a_mutex_is_shared::<2>(3);
}

#[test]
fn three_tasks_share_a_mutex_that_is_watched() {
    all_run();
    a_mutex_is_shared::<3>(1);
}

#[test]
fn a_mutex_that_is_let_go_blindly_is_noticed() {
    is_caught(Fault::UnlockBlindly, "wait::models::two_tasks_share_a_mutex", "deadlock");
}

#[test]
fn one_that_is_taken_for_woken_is_noticed() {
    is_caught(
        Fault::StayWoken,
        "wait::models::three_tasks_share_a_mutex",
        "requiring the processor to make progress",
    );
}

/// One holds the mutex, one waits with a deadline, one waits without.
#[test]
fn who_gives_up_on_a_mutex_passes_the_wake_up_on() {
    one_gives_up(1);
}

#[test]
fn who_ends_its_watch_leaves_nobody_asleep() {
    all_run();
    one_gives_up(2);
}

#[test]
fn a_mutex_left_to_a_watcher_that_is_gone_is_noticed() {
    is_caught(Fault::TrustTheWatcher, "wait::models::who_ends_its_watch_leaves_nobody_asleep", "deadlock");
}

fn one_gives_up(preemptions: usize) {
    check(preemptions, || {
        let mutex = Arc::new(Mutex::<Tracked, Modelled>::new(Tracked::new()));
        let impatient = {
            let mutex = Arc::clone(&mutex);
            task(1, move |cx| {
                if let Ok(guard) = mutex.lock_with(Limits::NONE.until(AT_ONCE), cx) {
                    guard.increment();
                }
            })
        };
        let patient = {
            let mutex = Arc::clone(&mutex);
            task(2, move |cx| {
                mutex.lock(cx).increment();
            })
        };
        let owner = {
            let mutex = Arc::clone(&mutex);
            task(3, move |cx| {
                mutex.lock(cx).increment();
            })
        };
        owner.join().unwrap();
        impatient.join().unwrap();
        patient.join().unwrap();
        assert!(mutex.try_lock().is_some());
    });
}

fn readers_and_a_writer(writer_gives_up: bool) {
    check(1, move || {
        let semaphore = Arc::new(RwSemaphore::<Tracked, Modelled>::new(Tracked::new()));
        let writer = {
            let semaphore = Arc::clone(&semaphore);
            let limits = if writer_gives_up { Limits::NONE.until(AT_ONCE) } else { Limits::NONE };
            task(1, move |cx| semaphore.write_with(limits, cx).map(|guard| guard.increment()).is_ok())
        };
        let reader = {
            let semaphore = Arc::clone(&semaphore);
            task(2, move |cx| semaphore.read(cx).get())
        };
        let first_reader = {
            let semaphore = Arc::clone(&semaphore);
            task(3, move |cx| semaphore.read(cx).get())
        };
        first_reader.join().unwrap();
        let written = writer.join().unwrap();
        assert!(reader.join().unwrap() <= u32::from(written));
        assert!(written || writer_gives_up);
        assert!(semaphore.try_write().is_some());
    });
}

#[test]
fn readers_and_a_writer_exclude_each_other() {
    readers_and_a_writer(false);
}

#[test]
fn a_writer_that_gives_up_stands_in_nobodys_way() {
    readers_and_a_writer(true);
}

#[test]
fn permits_are_handed_over() {
    check(3, || {
        let shared = Arc::new((Tracked::new(), Semaphore::<Modelled>::new(1)));
        let tasks: Vec<_> = (1..3)
            .map(|number| {
                let shared = Arc::clone(&shared);
                task(number, move |cx| {
                    shared.1.down(cx);
                    shared.0.increment();
                    shared.1.up();
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(shared.1.permits(), 1);
    });
}

/// A sender, a receiver, and a ring of `N`.
fn values_pass<const N: usize>() {
    check(3, || {
        let channel = Arc::new(Channel::<u32, N, Modelled>::new());
        let sender = {
            let channel = Arc::clone(&channel);
            task(1, move |cx| {
                channel.send(1, cx).unwrap();
                channel.send(2, cx).unwrap();
            })
        };
        let receiver = task(2, move |cx| (channel.receive(cx).unwrap(), channel.receive(cx).unwrap()));
        sender.join().unwrap();
        assert_eq!(receiver.join().unwrap(), (1, 2));
    });
}

#[test]
fn values_pass_through_a_ring() {
    values_pass::<1>();
}

#[test]
fn values_pass_from_hand_to_hand() {
    values_pass::<0>();
}
