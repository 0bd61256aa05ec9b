//! What sleeps, on the hosted machine: real threads that block and wake each other.
#![cfg(not(loom))]

mod channel;
mod completion;
mod condvar;
mod mutex;
mod percpu_rwsem;
mod queue;
mod rwsem;
mod semaphore;
mod tasklets;
mod work;

use hal::{Native, Platform, hosted};
use sync::TaskCx;

/// Runs `body` as `count` tasks at the same time, each on a CPU of its own.
fn tasks<R: Send>(count: usize, body: impl Fn(usize, &mut TaskCx) -> R + Sync) -> Vec<R> {
    hosted::run_cpus(count, |number| {
        // SAFETY: a thread is a task, this is its only token, and nothing is switched off.
        let mut cx = unsafe { TaskCx::new() };
        body(number, &mut cx)
    })
}

/// Runs `body` as one task.
fn task<R: Send>(body: impl Fn(&mut TaskCx) -> R + Sync) -> R {
    tasks(1, |_, cx| body(cx)).pop().expect("one task")
}

/// A deadline `ms` milliseconds from now.
fn in_ms(ms: u64) -> u64 {
    Native::now_ns() + ms * 1_000_000
}

/// A deadline that has passed.
fn passed() -> u64 {
    Native::now_ns()
}

/// Waits until nobody else has a share in `shared`. Who runs a function for others lets go of it after it has said that it
/// is done.
fn let_go_by_others<T>(shared: &std::sync::Arc<T>) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::sync::Arc::strong_count(shared) != 1 {
        assert!(std::time::Instant::now() < patience, "somebody keeps a share");
        std::thread::yield_now();
    }
}
