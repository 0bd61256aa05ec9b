//! What a run queue's operations cost.
//!
//! `cargo run --release -p kernel --example run_queue` prints nanoseconds a round. With two arguments, a kind of round and
//! a number of tasks, it does 10,000 rounds of that alone, to be counted: `valgrind --tool=callgrind`; a second run with
//! a third argument, the number of rounds, gives the difference that is free of the start.

use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use kernel::sched::policy::{Departure, Entity, Policy, RunQueue, Why};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    /// The current task blocks, the next one runs, and after a microsecond it wakes the first again: dequeue, pick, enqueue,
    /// and the question whether to preempt.
    Block,
    /// The current task has had its slice: tick, pick.
    Slice,
    /// A tick with which nothing ends.
    Tick,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [kind, tasks, rounds @ ..] = arguments.as_slice() {
        let round = match kind.as_str() {
            "slice" => Round::Slice,
            "tick" => Round::Tick,
            _ => Round::Block,
        };
        let rounds = rounds.first().map_or(10_000, |rounds| rounds.parse().expect("a number of rounds"));
        measure(round, tasks.parse().expect("a number of tasks"), rounds);
        return;
    }
    for round in [Round::Block, Round::Slice, Round::Tick] {
        for tasks in [1, 2, 10, 1_000, 10_000] {
            let mut samples: Vec<f64> = (0..15).map(|_| measure(round, tasks, 100_000)).collect();
            samples.sort_by(f64::total_cmp);
            println!("{round:?} with {tasks} tasks: {:.1} ns", samples[samples.len() / 2]);
        }
    }
}

/// Nanoseconds a round.
fn measure(round: Round, tasks: usize, rounds: u64) -> f64 {
    let entities: Vec<Entity> =
        (0..tasks).map(|task| Entity::new(Policy::fair((task % 11) as i8 - 5))).collect();
    let mut queue = RunQueue::new();
    let mut now = 0;
    for entity in &entities {
        // SAFETY: queue and entities stay in place until the entities are taken out below.
        unsafe { queue.enqueue(NonNull::from(entity), Why::New, now) };
    }
    queue.pick(now);
    let start = Instant::now();
    for _ in 0..rounds {
        match round {
            Round::Block => {
                let current = queue.current().expect("somebody runs");
                now += 1_000;
                // SAFETY: it is the current one; it comes back at once.
                unsafe {
                    queue.dequeue(current, Departure::Blocked, now);
                    black_box(queue.pick(now));
                    now += 1_000;
                    queue.enqueue(current, Why::Woken, now);
                    if black_box(queue.should_preempt(current)) {
                        queue.pick(now);
                    }
                }
            }
            Round::Slice => {
                now += 4_000_000;
                if black_box(queue.tick(now)) {
                    black_box(queue.pick(now));
                }
            }
            Round::Tick => {
                now += 1;
                black_box(queue.tick(now));
            }
        }
    }
    let elapsed = start.elapsed();
    while let Some(entity) = queue.pick(now) {
        // SAFETY: it is the current one.
        unsafe { queue.dequeue(entity, Departure::Ended, now) };
    }
    elapsed.as_nanos() as f64 / rounds as f64
}
