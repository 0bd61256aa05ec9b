//! Items, workers, and those who wait, in many random schedules.
//!
//! A lost wake-up is a deadlock, which shuttle reports by itself. Each fault of `faults.rs` that concerns work is planted in
//! turn, and must be found.

use hal::CpuId;
use shuttle::sync::Arc;
use shuttle::thread;

use super::{Lane, Pool, Running, Work, WorkQueue};
use crate::TaskCx;
use crate::faults::{Fault, is_caught};
use crate::primitives::{AtomicBool, AtomicU32, Ordering};
use crate::shuttle_platform::{Modelled, become_task};

/// Random schedules, and schedules by priorities that change at three places.
fn check(f: impl Fn() + Send + Sync + Copy + 'static) {
    test_support::schedules(f, 2_000, 2_000);
}

/// Runs `body` as task `number`.
fn task(number: usize, body: impl FnOnce(&mut TaskCx<Modelled>) + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        become_task(number);
        // SAFETY: the thread is this task, and this its only token.
        body(&mut unsafe { TaskCx::new_in() });
    })
}

/// Two pools, a lane into each, and a queue of the two.
struct Works {
    pools: [&'static Pool<Modelled>; 2],
    lanes: [&'static Lane<Modelled>; 2],
    queue: &'static WorkQueue<Modelled>,
}

impl Works {
    fn new(limit: u32) -> Works {
        let pools: [&'static Pool<Modelled>; 2] = [(); 2].map(|()| &*Box::leak(Box::new(Pool::new(2))));
        let first: &'static Lane<Modelled> = Box::leak(Box::new(Lane::new(pools[0], limit)));
        let second: &'static Lane<Modelled> =
            Box::leak(Box::new(Lane::new(pools[1], limit).with_heir(first)));
        let lanes = [first, second];
        let queue = Box::leak(Box::new(WorkQueue::new("model", Box::leak(Box::new(lanes)))));
        Works { pools, lanes, queue }
    }

    /// Starts a worker as task `number`. It starts no others.
    fn worker(&self, pool: usize, number: usize) -> thread::JoinHandle<()> {
        let pool = self.pools[pool];
        assert!(pool.reserve());
        task(number, move |cx| pool.serve(cx, &mut || false))
    }

    fn stop(&self) {
        self.pools.iter().for_each(|pool| pool.stop());
    }
}

/// What calls see.
#[derive(Default)]
struct Seen {
    inside: AtomicBool,
    requests: AtomicU32,
    seen: AtomicU32,
    calls: AtomicU32,
    forbidden: AtomicBool,
}

impl Seen {
    fn visit(&self) {
        assert!(!self.inside.swap(true, Ordering::Relaxed), "two calls at once");
        assert!(!self.forbidden.load(Ordering::Relaxed), "called after it was cancelled");
        self.seen.store(self.requests.load(Ordering::Relaxed), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
        self.inside.store(false, Ordering::Relaxed);
    }
}

/// The standard `Arc`, which is what a queue holds; the checker does not look into it.
type Counted<T> = std::sync::Arc<T>;

fn item(
    seen: &Arc<Seen>,
    again: u32,
) -> Counted<Work<impl Fn(&mut Running<'_, Modelled>) + Send + Sync + 'static, Modelled>> {
    let seen = Arc::clone(seen);
    Counted::new(Work::new_in(move |running: &mut Running<'_, Modelled>| {
        seen.visit();
        if seen.calls.load(Ordering::Relaxed) <= again {
            running.again();
        }
    }))
}

fn cpu(number: usize) -> CpuId {
    CpuId::new(number as u32).expect("few CPUs")
}

#[test]
fn every_request_is_followed_by_a_call_and_none_overlap() {
    check(|| {
        let works = Works::new(u32::MAX);
        let seen = Arc::new(Seen::default());
        let item = item(&seen, 0);
        // Two workers share a pool, one has another.
        let workers = [works.worker(0, 0), works.worker(0, 1), works.worker(1, 2)];
        let requesters = [3, 4].map(|number| {
            let (queue, item, seen) = (works.queue, Counted::clone(&item), Arc::clone(&seen));
            task(number, move |cx| {
                for _ in 0..2 {
                    let request = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
                    queue.queue_on(cpu(number - 3), Counted::clone(&item));
                    if number == 3 {
                        item.flush(cx);
                    } else {
                        queue.flush(cx);
                    }
                    assert!(seen.seen.load(Ordering::Relaxed) >= request, "flushed before it was called");
                }
            })
        });
        requesters.into_iter().for_each(|requester| requester.join().unwrap());
        works.stop();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(Counted::strong_count(&item), 1);
    });
}

const REQUESTS: &str = "work::models::every_request_is_followed_by_a_call_and_none_overlap";

#[test]
fn taking_what_is_being_called_is_caught() {
    is_caught(Fault::CallTwice, REQUESTS, "double add");
}

#[test]
fn a_worker_that_stays_called_is_caught() {
    is_caught(Fault::StayCalled, REQUESTS, "deadlock");
}

#[test]
fn what_was_cancelled_is_over() {
    check(|| {
        let works = Works::new(1);
        let seen = Arc::new(Seen::default());
        let item = item(&seen, 3);
        let workers = [works.worker(0, 0), works.worker(0, 1)];
        let canceller = {
            let (queue, item, seen) = (works.queue, Counted::clone(&item), Arc::clone(&seen));
            task(2, move |cx| {
                queue.queue_on(cpu(0), Counted::clone(&item));
                thread::yield_now();
                item.cancel_sync(cx);
                // Nobody queues it now but its own function, which does not run.
                seen.forbidden.store(true, Ordering::Relaxed);
                assert!(!item.is_pending() && !item.is_running());
                thread::yield_now();
            })
        };
        canceller.join().unwrap();
        works.stop();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(Counted::strong_count(&item), 1);
    });
}

#[test]
fn cancelling_without_waiting_is_caught() {
    is_caught(Fault::CancelAndGo, "work::models::what_was_cancelled_is_over", "panicked");
}

#[test]
fn a_flush_does_not_miss_what_moves_to_the_heir() {
    check(|| {
        let works = Works::new(u32::MAX);
        let seen = Arc::new(Seen::default());
        let item = item(&seen, 0);
        let workers = [works.worker(0, 0), works.worker(1, 1)];
        let closer = {
            let pool = works.pools[1];
            task(2, move |cx| {
                pool.close();
                pool.drain(cx);
                pool.open();
            })
        };
        let flusher = {
            let (queue, item, seen) = (works.queue, Counted::clone(&item), Arc::clone(&seen));
            task(3, move |cx| {
                for request in 1..3 {
                    seen.requests.fetch_add(1, Ordering::Relaxed);
                    queue.queue_on(cpu(1), Counted::clone(&item));
                    queue.flush(cx);
                    assert_eq!(seen.seen.load(Ordering::Relaxed), request, "flushed before it was called");
                }
            })
        };
        closer.join().unwrap();
        flusher.join().unwrap();
        works.stop();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(works.lanes.map(|lane| lane.pool().stats().pending), [0, 0]);
    });
}

#[test]
fn flushing_the_heir_first_is_caught() {
    let model = "work::models::a_flush_does_not_miss_what_moves_to_the_heir";
    is_caught(Fault::FlushHeirFirst, model, "flushed before it was called");
}
