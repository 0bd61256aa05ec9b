//! A tasklet that two CPUs schedule and run, in all interleavings.
//!
//! What its function touches is a tracked cell, so that two runs at once, or one that does not see the other's, are
//! reported by the model checker.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::{Running, Tasklet, TaskletQueue, Vector};
use crate::context::SoftirqGuard;
use crate::faults::{Fault, is_caught};
use crate::test_platform::{Modelled, become_task};
use crate::{Cpu, TaskCx};

fn check(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 50_000;
    test_support::check(&builder, f);
}

/// What is to be seen by a run: what each CPU did before it scheduled; and what the last run saw.
struct Shared {
    requests: [AtomicU32; 2],
    seen: UnsafeCell<[u32; 2]>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared { requests: Default::default(), seen: UnsafeCell::new([0; 2]) })
    }

    fn look(&self) {
        let now = [0, 1].map(|cpu| self.requests[cpu].load(Ordering::Relaxed));
        // SAFETY: the model checker reports accesses that are not ordered.
        self.seen.with_mut(|seen| unsafe { *seen = now });
    }
}

fn serve(queue: &TaskletQueue<Modelled>) -> usize {
    // SAFETY: the models serve softirqs themselves.
    let serving: SoftirqGuard<Modelled> = unsafe { Cpu::<Modelled>::enter_softirq() };
    queue.run(&serving)
}

/// The standard `Arc`, which is what a queue holds; the model does not look into it.
type Shareable<F> = std::sync::Arc<Tasklet<F, Modelled>>;

#[test]
fn every_request_is_followed_by_a_run_and_no_two_run_at_once() {
    check(|| {
        let shared = Shared::new();
        let inside = Arc::clone(&shared);
        let tasklet: Shareable<_> =
            Shareable::new(Tasklet::new_in(move |_: &Running<'_, Modelled>| inside.look()));
        let queues = Arc::new([TaskletQueue::new(Vector::Tasklet), TaskletQueue::new(Vector::Tasklet)]);
        let cpus: Vec<_> = [0, 1]
            .map(|cpu| {
                let (shared, queues, tasklet) =
                    (Arc::clone(&shared), Arc::clone(&queues), Shareable::clone(&tasklet));
                thread::spawn(move || {
                    shared.requests[cpu].store(1, Ordering::Relaxed);
                    queues[cpu].schedule(tasklet);
                    serve(&queues[cpu]);
                    serve(&queues[cpu]);
                })
            })
            .into_iter()
            .collect();
        for cpu in cpus {
            cpu.join().unwrap();
        }
        assert!(queues.iter().all(|queue| queue.is_empty()), "two looks are enough");
        assert_eq!(Shareable::strong_count(&tasklet), 1, "the queue's reference is gone");
        // SAFETY: as above.
        let seen = shared.seen.with(|seen| unsafe { *seen });
        assert_eq!(seen, [1, 1], "a request was not followed by a run");
    });
}

const MODEL: &str = "softirq::models::every_request_is_followed_by_a_run_and_no_two_run_at_once";

#[test]
fn queueing_what_runs_is_noticed() {
    is_caught(Fault::ScheduleBlindly, MODEL, "Causality violation");
}

#[test]
fn forgetting_a_request_is_noticed() {
    is_caught(Fault::ForgetReschedule, MODEL, "panicked");
}

#[test]
fn steps_that_order_nothing_are_noticed() {
    is_caught(Fault::StepRelaxed, MODEL, "panicked");
}

/// One CPU runs it, a task on another one ends it and frees what it uses.
#[test]
fn what_was_killed_is_over() {
    check(|| {
        let shared = Shared::new();
        let inside = Arc::clone(&shared);
        let tasklet: Shareable<_> =
            Shareable::new(Tasklet::new_in(move |running: &Running<'_, Modelled>| {
                inside.look();
                running.again();
            }));
        let queue = Arc::new(TaskletQueue::new(Vector::Tasklet));
        queue.schedule(Shareable::clone(&tasklet));
        let runner = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                while !queue.is_empty() {
                    serve(&queue);
                    thread::yield_now();
                }
            })
        };
        let killer = {
            let (shared, tasklet) = (Arc::clone(&shared), Shareable::clone(&tasklet));
            thread::spawn(move || {
                become_task(1);
                // SAFETY: the thread is this task, and this its only token.
                tasklet.kill(&mut unsafe { TaskCx::new_in() });
                // SAFETY: nobody runs it any more; the model checks.
                shared.seen.with_mut(|seen| unsafe { *seen = [9; 2] });
            })
        };
        killer.join().unwrap();
        runner.join().unwrap();
        assert_eq!(Shareable::strong_count(&tasklet), 1);
    });
}
