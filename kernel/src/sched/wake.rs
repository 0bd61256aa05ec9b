//! Blocking and waking.
//!
//! A task's state word decides between the two, with one exchange: a wake-up that finds the task awake is noted in it,
//! and ends the next block at once; one that finds it blocked makes it runnable, and whoever did that, and nobody else,
//! puts it into a queue.
//!
//! A task becomes blocked under the lock of its CPU's queue, which is held until its registers are saved. So whoever has
//! found it blocked and then gets that lock finds it off its CPU.

use core::sync::atomic::Ordering;

use hal::platform::Wakeup;
use hal::{Native, Platform};

use super::placement::{choose, enter, lock_home, notify, publish};
use super::policy::{Departure, Why};
use super::queue::{LockedQueue, quietly, switch_to_next};
use crate::task::{Task, state};
use crate::{rcu, tick, trace};

/// [`Platform::block`].
#[track_caller]
pub(crate) fn block(deadline_ns: Option<u64>) -> Wakeup {
    let context = Native::context();
    if context.count() != 0 || Native::irq_depth() != 0 {
        panic!(
            "scheduling while atomic: {:?} blocks with preempt count {:#x}, interrupt depth {}",
            Task::current(),
            context.count(),
            Native::irq_depth()
        );
    }
    let task = Task::current();
    // Acquire: pairs with the Release in `wake`; the woken task sees what was done before.
    let woken = || {
        let notified = state::NOTIFIED;
        task.state.compare_exchange(notified, state::RUNNABLE, Ordering::Acquire, Ordering::Relaxed).is_ok()
    };
    if woken() {
        return Wakeup::Woken;
    }
    if deadline_ns.is_some_and(|deadline| Native::now_ns() >= deadline) {
        return Wakeup::TimedOut;
    }
    rcu::check_before_block();
    let blocked = quietly(|quiet| {
        rcu::note_switch(quiet);
        let mut queue = quiet.lock();
        // Acquire, when it fails: pairs with the Release in `wake`. Release: pairs with the Acquire there; who wakes
        // this task sees what it did before.
        let (awake, blocked) = (state::RUNNABLE, state::BLOCKED);
        if task.state.compare_exchange(awake, blocked, Ordering::Release, Ordering::Acquire).is_err() {
            return false;
        }
        let now = Native::now_ns();
        if let Some(deadline) = deadline_ns {
            queue.sleepers.add(task, deadline);
            tick::note_deadline(quiet, deadline);
        }
        // SAFETY: the running task's, in this CPU's queue.
        unsafe { queue.ready.dequeue(task.entity(), Departure::Blocked, now) };
        switch_to_next(queue, quiet, now);
        true
    });
    if !blocked {
        // Only wake-ups change the word from runnable.
        let was_woken = woken();
        debug_assert!(was_woken);
        return Wakeup::Woken;
    }
    // Relaxed: set before this task was put into a queue, and read after it came out.
    if task.timed_out.load(Ordering::Relaxed) {
        task.timed_out.store(false, Ordering::Relaxed);
        return Wakeup::TimedOut;
    }
    Wakeup::Woken
}

/// Wakes `task`, now or at its next block. Returns whether it was blocked. Contexts: any but NMI.
pub(crate) fn wake(task: &Task) -> bool {
    let mut seen = task.state.load(Ordering::Relaxed);
    loop {
        let next = match seen {
            state::BLOCKED => state::RUNNABLE,
            state::ENDED => return false,
            _ => state::NOTIFIED,
        };
        // Release: pairs with the Acquire in `block`. Acquire: pairs with the Release there.
        match task.state.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => seen = now,
        }
    }
    if seen == state::BLOCKED {
        ready_again(task);
    }
    seen == state::BLOCKED
}

/// Puts a task that the caller has woken into a queue.
fn ready_again(task: &Task) {
    let quiet = sync::irq::disable();
    // When we have it the task is off its CPU.
    let (last, mut queue) = lock_home(task, &quiet);
    queue.sleepers.remove(task);
    trace::wakeup(task.number(), last);
    let target = choose(task, &queue, last, quiet.cpu());
    enter(task, last, queue, target, Why::Woken, &quiet);
}

/// Lets a new task run.
pub(crate) fn admit(task: &'static Task) {
    let quiet = sync::irq::disable();
    let (cpu, queue) = lock_home(task, &quiet);
    enter(task, cpu, queue, cpu, Why::New, &quiet);
}

/// The running task has ended: its last act.
pub(crate) fn end() -> ! {
    rcu::end_of_task();
    quietly(|quiet| {
        rcu::note_switch(quiet);
        let task = Task::current();
        let now = Native::now_ns();
        let mut queue = quiet.lock();
        task.state.store(state::ENDED, Ordering::Relaxed);
        // SAFETY: the running task's, in this CPU's queue.
        unsafe { queue.ready.dequeue(task.entity(), Departure::Ended, now) };
        switch_to_next(queue, quiet, now);
    });
    unreachable!("a task that has ended was continued")
}

/// Makes those ready whose deadline has passed. On the CPU where they wait, from its timer.
pub(super) fn wake_due(queue: &mut LockedQueue<'_>, now: u64) {
    while let Some(task) = queue.sleepers.take_due(now) {
        // Somebody may be waking it, and waits for our lock to put it into a queue. Acquire: pairs with the Release in
        // `block`.
        let (from, to) = (state::BLOCKED, state::RUNNABLE);
        if task.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_err() {
            continue;
        }
        task.timed_out.store(true, Ordering::Relaxed);
        // SAFETY: in no queue, and only we may put it into one.
        unsafe { queue.ready.enqueue(task.entity(), Why::Woken, now) };
        let here = Native::cpu();
        notify(queue, task, here, here);
        publish(queue, here);
    }
}
