//! Work on host threads: workers that start others, functions that sleep, and those who wait for them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use hal::{CpuId, hosted};
use sync::work::{Lane, Pool, Running, Work, WorkQueue};
use sync::{Completion, TaskCx};

use super::{let_go_by_others, task, tasks};

/// A pool whose workers are threads.
struct Workers {
    pool: &'static Pool,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

fn start(pool: &'static Pool, threads: &Arc<Mutex<Vec<JoinHandle<()>>>>) {
    let others = Arc::clone(threads);
    let worker = thread::spawn(move || {
        let _cpu = hosted::bind().expect("few threads");
        // SAFETY: this thread is a task, and this its only token.
        let mut cx = unsafe { TaskCx::new() };
        pool.serve(&mut cx, &mut || {
            start(pool, &others);
            true
        });
    });
    threads.lock().unwrap().push(worker);
}

impl Workers {
    fn new(limit: u32) -> Workers {
        Workers::of(Pool::new(limit))
    }

    fn of(pool: Pool) -> Workers {
        let workers = Workers { pool: Box::leak(Box::new(pool)), threads: Arc::default() };
        assert!(workers.pool.reserve());
        start(workers.pool, &workers.threads);
        workers
    }

    fn queue(&self, limit: u32) -> &'static WorkQueue {
        let lane: &'static Lane = Box::leak(Box::new(Lane::new(self.pool, limit)));
        Box::leak(Box::new(WorkQueue::new("test", Box::leak(Box::new([lane])))))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.pool.stop();
        loop {
            let Some(worker) = self.threads.lock().unwrap().pop() else { return };
            worker.join().unwrap();
        }
    }
}

#[test]
fn functions_that_sleep_hold_up_nobody_until_the_bound() {
    const BOUND: usize = 4;
    let workers = Workers::new(BOUND as u32);
    let queue = workers.queue(u32::MAX);
    // Each but the last sleeps until the last is called: that takes a worker for each.
    let event = Arc::new(Completion::new());
    let sleepers: Vec<_> = (1..BOUND)
        .map(|_| {
            let event = Arc::clone(&event);
            let sleeper = Arc::new(Work::new(move |running: &mut Running<'_>| event.wait(running.cx())));
            assert!(queue.queue(Arc::clone(&sleeper)));
            sleeper
        })
        .collect();
    let last = Arc::new(Work::new(move |_: &mut Running<'_>| event.complete_all()));
    assert!(queue.queue(Arc::clone(&last)));
    task(|cx| {
        sleepers.iter().for_each(|sleeper| _ = sleeper.flush(cx));
        queue.flush(cx);
    });
    let stats = workers.pool.stats();
    assert_eq!((stats.workers, stats.executed, stats.pending), (BOUND as u32, BOUND as u64, 0));
}

#[test]
fn an_ordered_queue_keeps_the_order() {
    let workers = Workers::new(4);
    let queue = workers.queue(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..100 {
        let order = Arc::clone(&order);
        queue.queue(Box::new(Work::new(move |_: &mut Running<'_>| {
            thread::yield_now();
            order.lock().unwrap().push(number);
        })));
    }
    task(|cx| queue.flush(cx));
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

#[test]
fn four_cpus_queue_one_item() {
    const TIMES: u32 = 2_000;
    let workers = [Workers::new(3), Workers::new(3)];
    let lane =
        |workers: &Workers| -> &'static Lane { Box::leak(Box::new(Lane::new(workers.pool, u32::MAX))) };
    let lanes: &'static [&'static Lane; 2] = Box::leak(Box::new([lane(&workers[0]), lane(&workers[1])]));
    let queue = WorkQueue::new("shared", lanes);
    let (inside, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let requests: Arc<[AtomicU32; 4]> = Arc::default();
    let seen: Arc<[AtomicU32; 4]> = Arc::default();
    let item = {
        let (inside, calls, requests, seen) =
            (inside, Arc::clone(&calls), Arc::clone(&requests), Arc::clone(&seen));
        Arc::new(Work::new(move |_: &mut Running<'_>| {
            assert!(!inside.swap(true, Ordering::Relaxed), "two calls at once");
            for (seen, requests) in seen.iter().zip(requests.iter()) {
                seen.store(requests.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            calls.fetch_add(1, Ordering::Relaxed);
            inside.store(false, Ordering::Relaxed);
        }))
    };
    tasks(4, |number, cx| {
        for request in 1..=TIMES {
            requests[number].store(request, Ordering::Relaxed);
            queue.queue_on(CpuId::new(number as u32 % 2).unwrap(), Arc::clone(&item));
            if request % 64 == 0 {
                match number {
                    0 => _ = item.flush(cx),
                    1 => queue.flush(cx),
                    _ => continue,
                }
                assert!(seen[number].load(Ordering::Relaxed) >= request, "flushed before it was called");
            }
        }
        item.flush(cx);
        assert_eq!(seen[number].load(Ordering::Relaxed), TIMES);
    });
    let_go_by_others(&item);
}

#[test]
fn cancelling_ends_one_that_queues_itself() {
    let workers = Workers::new(2);
    let queue = workers.queue(u32::MAX);
    for _ in 0..200 {
        let calls = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&calls);
        let item = Arc::new(Work::new(move |running: &mut Running<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
            running.again();
        }));
        queue.queue(Arc::clone(&item));
        task(|cx| {
            item.cancel_sync(cx);
            let then = calls.load(Ordering::Relaxed);
            assert!(!item.is_pending() && !item.is_running());
            thread::yield_now();
            assert_eq!(calls.load(Ordering::Relaxed), then, "called after it was cancelled");
        });
        // And it can be queued again.
        assert!(queue.queue(Arc::clone(&item)));
        task(|cx| _ = item.cancel_sync(cx));
        let_go_by_others(&item);
    }
}

#[test]
fn idle_workers_end_but_for_one() {
    const CROWD: usize = 5;
    let workers = Workers::of(Pool::new(CROWD as u32).with_idle_ns(2_000_000));
    let queue = workers.queue(u32::MAX);
    let crowd = || {
        let event = Arc::new(Completion::new());
        let works: Vec<_> = (0..CROWD)
            .map(|number| {
                let event = Arc::clone(&event);
                let work = Arc::new(Work::new(move |running: &mut Running<'_>| match number {
                    last if last == CROWD - 1 => event.complete_all(),
                    _ => event.wait(running.cx()),
                }));
                assert!(queue.queue(Arc::clone(&work)));
                work
            })
            .collect();
        task(|cx| works.iter().for_each(|work| _ = work.flush(cx)));
    };
    // Twice: those who ended make room for others.
    for _ in 0..2 {
        crowd();
        let begun = std::time::Instant::now();
        while workers.pool.stats().workers > 1 {
            assert!(begun.elapsed().as_secs() < 60, "{:?}", workers.pool.stats());
            thread::sleep(std::time::Duration::from_millis(1));
        }
        thread::sleep(std::time::Duration::from_millis(10));
        assert_eq!(workers.pool.stats().workers, 1, "the last one stays");
    }
    crowd();
}
