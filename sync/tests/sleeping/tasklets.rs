//! Tasklets between CPUs, and those who wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sync::TaskCx;
use sync::context::enter_softirq;
use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};

use super::{let_go_by_others, tasks};

/// Runs the queue's tasklets on this CPU.
fn serve(queue: &TaskletQueue) -> usize {
    // SAFETY: a task that serves softirqs itself; the guard goes before it goes on.
    let serving = unsafe { enter_softirq() };
    queue.run(&serving)
}

fn queues() -> [TaskletQueue; 2] {
    [TaskletQueue::new(Vector::Tasklet), TaskletQueue::new(Vector::Tasklet)]
}

#[test]
fn two_cpus_run_it_one_at_a_time_and_once_for_each_request() {
    const TIMES: u32 = 20_000;
    let (queues, served) = (queues(), AtomicU32::new(0));
    let (inside, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let requests: Arc<[AtomicU32; 2]> = Arc::default();
    let seen: Arc<[AtomicU32; 2]> = Arc::default();
    let tasklet = {
        let (inside, runs, requests, seen) =
            (inside, Arc::clone(&runs), Arc::clone(&requests), Arc::clone(&seen));
        Arc::new(Tasklet::new(move |_| {
            assert!(!inside.swap(true, Ordering::Relaxed), "two CPUs run it");
            for (seen, requests) in seen.iter().zip(requests.iter()) {
                seen.store(requests.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            runs.fetch_add(1, Ordering::Relaxed);
            inside.store(false, Ordering::Relaxed);
        }))
    };
    tasks(2, |number, _| {
        for request in 1..=TIMES {
            requests[number].store(request, Ordering::Relaxed);
            queues[number].schedule(Arc::clone(&tasklet));
            served.fetch_add(serve(&queues[number]) as u32, Ordering::Relaxed);
        }
    });
    for queue in &queues {
        while serve(queue) > 0 {
            served.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Whatever was asked for, there was a run that began after it.
    assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == TIMES), "{seen:?}");
    assert_eq!(runs.load(Ordering::Relaxed), served.load(Ordering::Relaxed));
    let_go_by_others(&tasklet);
}

#[test]
fn killing_ends_one_that_schedules_itself() {
    for _ in 0..200 {
        let (queues, over) = (queues(), AtomicBool::new(false));
        let runs = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&runs);
        let tasklet = Arc::new(Tasklet::new(move |running: &Running<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
            running.again();
        }));
        queues[0].schedule(Arc::clone(&tasklet));
        tasks(2, |number, cx| match number {
            0 => {
                while !over.load(Ordering::Acquire) {
                    serve(&queues[0]);
                }
            }
            _ => {
                tasklet.kill(cx);
                let then = runs.load(Ordering::Relaxed);
                assert!(!tasklet.is_running() && !tasklet.is_scheduled());
                std::thread::yield_now();
                assert_eq!(runs.load(Ordering::Relaxed), then, "it ran after it was killed");
                over.store(true, Ordering::Release);
            }
        });
        let_go_by_others(&tasklet);
    }
}

#[test]
fn disabling_waits_for_the_run_and_loses_nothing() {
    let queues = queues();
    let (running, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (inside, count) = (Arc::clone(&running), Arc::clone(&runs));
    let tasklet = Arc::new(Tasklet::new(move |_: &Running<'_>| {
        inside.store(true, Ordering::Relaxed);
        std::thread::yield_now();
        count.fetch_add(1, Ordering::Relaxed);
        inside.store(false, Ordering::Relaxed);
    }));
    let requests = AtomicU32::new(0);
    let over = AtomicBool::new(false);
    tasks(2, |number, cx: &mut TaskCx| match number {
        0 => {
            while !over.load(Ordering::Relaxed) {
                requests.fetch_add(u32::from(queues[0].schedule(Arc::clone(&tasklet))), Ordering::Relaxed);
                serve(&queues[0]);
            }
        }
        _ => {
            for _ in 0..2_000 {
                let off = tasklet.disable(cx);
                let then = runs.load(Ordering::Relaxed);
                assert!(!running.load(Ordering::Relaxed), "it runs while it is disabled");
                std::thread::yield_now();
                assert_eq!(runs.load(Ordering::Relaxed), then, "it ran while it was disabled");
                off.enable(&queues[1]);
                serve(&queues[1]);
            }
            over.store(true, Ordering::Relaxed);
        }
    });
    while serve(&queues[0]) + serve(&queues[1]) > 0 {}
    assert_eq!(runs.load(Ordering::Relaxed), requests.load(Ordering::Relaxed));
    let_go_by_others(&tasklet);
}
