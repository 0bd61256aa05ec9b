//! Everything that sleeps, with four to six tasks, in many random schedules.
//!
//! A lost wake-up is a deadlock, which shuttle reports by itself. Each way to lose one that is listed in `faults.rs` is
//! planted in turn, and must be found.

use shuttle::sync::Arc;
use shuttle::thread;

use super::{Limits, WaitQueue};
use crate::faults::{Fault, is_caught};
use crate::primitives::{AtomicBool, AtomicU32, Ordering};
use crate::shuttle_platform::{AT_ONCE, Modelled, all_run, become_task};
use crate::{Channel, Completion, Condvar, Mutex, ReceiveError, RwSemaphore, Semaphore, TaskCx};

/// Random schedules, and schedules by priorities that change at three places.
fn check(f: impl Fn() + Send + Sync + Copy + 'static) {
    test_support::schedules(f, 2_000, 2_000);
}

/// Runs `bodies` as tasks 0, 1, .. and waits for all.
fn tasks(bodies: Vec<Box<dyn FnOnce(&mut TaskCx<Modelled>) + Send>>) {
    let threads: Vec<_> = bodies
        .into_iter()
        .enumerate()
        .map(|(number, body)| {
            thread::spawn(move || {
                become_task(number);
                // SAFETY: the thread is this task, and this its only token.
                body(&mut unsafe { TaskCx::new_in() });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// `count` tasks with the same body.
fn alike<S: Send + Sync + 'static>(
    count: usize,
    shared: &Arc<S>,
    body: fn(&S, usize, &mut TaskCx<Modelled>),
) -> Vec<Box<dyn FnOnce(&mut TaskCx<Modelled>) + Send>> {
    (0..count)
        .map(|number| {
            let shared = Arc::clone(shared);
            Box::new(move |cx: &mut TaskCx<Modelled>| body(&shared, number, cx))
                as Box<dyn FnOnce(&mut _) + Send>
        })
        .collect()
}

/// Notices two that are inside at the same time.
#[derive(Default)]
struct Inside(AtomicBool);

impl Inside {
    fn visit(&self) {
        assert!(!self.0.swap(true, Ordering::Relaxed), "two are inside");
        thread::yield_now();
        self.0.store(false, Ordering::Relaxed);
    }

    /// For those who may be there together, but not with a visitor.
    fn look(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "two are inside");
    }
}

#[test]
fn every_item_of_a_queue_finds_its_taker() {
    check(|| {
        let shared = Arc::new((AtomicU32::new(0), WaitQueue::<Modelled>::new()));
        tasks(alike(4, &shared, |(items, queue), number, cx| {
            for _ in 0..2 {
                if number % 2 == 0 {
                    items.fetch_add(1, Ordering::Relaxed);
                    queue.wake_one();
                } else {
                    let take = || {
                        items.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
                    };
                    queue.wait_exclusive(Limits::NONE, cx, take).unwrap();
                }
            }
        }));
    });
}

#[test]
fn testing_before_standing_in_line_is_caught() {
    let model = "wait::models::every_item_of_a_queue_finds_its_taker";
    is_caught(Fault::TestBeforeJoining, model, "deadlock");
}

#[test]
fn every_completion_lets_one_go_on() {
    check(|| {
        let event = Arc::new(Completion::<Modelled>::new());
        tasks(alike(4, &event, |event, number, cx| {
            for _ in 0..2 {
                match number {
                    0 | 1 => event.complete(),
                    2 => event.wait(cx),
                    // What a limit refused was not consumed, and is there for a second try.
                    _ => event.wait_with(Limits::NONE.until(AT_ONCE), cx).unwrap_or_else(|_| event.wait(cx)),
                }
            }
        }));
        assert!(!event.is_done());
    });
}

#[test]
fn a_mutex_is_shared() {
    check(|| {
        let mutex = Arc::new(Mutex::<Inside, Modelled>::new(Inside::default()));
        tasks(alike(4, &mutex, |mutex, number, cx| {
            for _ in 0..2 {
                if number == 0 {
                    drop(mutex.lock_with(Limits::NONE.until(AT_ONCE), cx).map(|inside| inside.visit()));
                } else {
                    mutex.lock(cx).visit();
                }
            }
        }));
        assert!(mutex.try_lock().is_some(), "is free, and nobody waits");
    });
}

#[test]
fn a_mutex_is_shared_and_watched() {
    all_run();
    a_mutex_is_shared();
}

#[test]
fn a_mutex_let_go_blindly_is_caught() {
    is_caught(Fault::UnlockBlindly, "wait::models::a_mutex_is_shared", "deadlock");
}

#[test]
fn a_waiter_that_does_not_look_again_is_caught() {
    is_caught(Fault::AnnounceAndSleep, "wait::models::a_mutex_is_shared", "deadlock");
}

#[test]
fn giving_up_on_a_mutex_silently_is_caught() {
    is_caught(Fault::GiveUpSilently, "wait::models::a_mutex_is_shared", "deadlock");
}

#[test]
fn readers_and_writers_exclude_each_other() {
    check(|| {
        let semaphore = Arc::new(RwSemaphore::<Inside, Modelled>::new(Inside::default()));
        tasks(alike(5, &semaphore, |semaphore, number, cx| {
            for _ in 0..2 {
                match number {
                    0 => semaphore.write(cx).visit(),
                    1 => drop(
                        semaphore.write_with(Limits::NONE.until(AT_ONCE), cx).map(|inside| inside.visit()),
                    ),
                    2 => {
                        let inside = semaphore.write(cx);
                        inside.visit();
                        inside.downgrade().look();
                    }
                    _ => semaphore.read(cx).look(),
                }
            }
        }));
        assert!(semaphore.try_write().is_some(), "is free, and nobody waits");
    });
}

#[test]
fn no_more_than_there_are_permits() {
    check(|| {
        let shared = Arc::new((Inside::default(), Semaphore::<Modelled>::new(1)));
        tasks(alike(4, &shared, |(inside, permit), number, cx| {
            for _ in 0..2 {
                let limits = if number == 0 { Limits::NONE.until(AT_ONCE) } else { Limits::NONE };
                if permit.down_with(limits, cx).is_ok() {
                    inside.visit();
                    permit.up();
                }
            }
        }));
        assert_eq!(shared.1.permits(), 1);
    });
}

#[test]
fn no_change_is_missed() {
    check(|| {
        let shared = Arc::new((Mutex::<usize, Modelled>::new(0), Condvar::<Modelled>::new()));
        tasks(alike(3, &shared, |(turn, changed), number, cx| {
            for round in 0..2 {
                let turn = turn.lock(cx);
                let mut turn = changed.wait_while(turn, cx, |turn| *turn != round * 3 + number);
                *turn += 1;
                changed.notify_all();
            }
        }));
    });
}

/// Two senders, two receivers, and a ring of `N`.
fn values_pass<const N: usize>() {
    check(|| {
        let shared = Arc::new((Channel::<u32, N, Modelled>::new(), AtomicU32::new(2), AtomicU32::new(0)));
        tasks(alike(4, &shared, |(channel, open, sum), number, cx| {
            if number < 2 {
                channel.send(1, cx).unwrap();
                channel.send(2, cx).unwrap();
                if open.fetch_sub(1, Ordering::Relaxed) == 1 {
                    channel.close();
                }
                return;
            }
            let end = loop {
                match channel.receive(cx) {
                    Ok(value) => sum.fetch_add(value, Ordering::Relaxed),
                    Err(end) => break end,
                };
            };
            assert_eq!(end, ReceiveError::Closed);
        }));
        assert_eq!(shared.2.load(Ordering::Relaxed), 6);
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
