//! The queued lock in the model checkers.

use super::super::models::{self, CPUS, Line};
use super::*;

impl<R: Rules> Line for Word<R> {
    fn joined(&self) -> u32 {
        u32::from(self.tail.load(Ordering::Relaxed))
    }
}

#[test]
fn two_exclude_each_other() {
    models::exclusion::<QueuedLock>(2, 2, 3);
}

#[test]
fn many_exclude_each_other() {
    models::exclusion::<QueuedLock>(CPUS, 1, 1);
}

#[test]
fn a_try_that_succeeds_excludes() {
    models::tries::<QueuedLock>();
}

#[test]
fn served_in_order() {
    models::order::<QueuedLock>(CPUS as u32 - 1, 1, models::by_lock);
    models::order::<QueuedLock>(CPUS as u32 - 1, 1, models::by_trying);
}

/// Broken: what the holder did is not published.
#[cfg(loom)]
struct RelaxedUnlock;
#[cfg(loom)]
impl Rules for RelaxedUnlock {
    const UNLOCK: Ordering = Ordering::Relaxed;
}

#[cfg(loom)]
#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_unlock_is_refused() {
    models::exclusion::<Word<RelaxedUnlock>>(2, 1, 3);
}

/// Broken: who leaves the queue does not wait for one behind it that has a place and has not announced itself.
struct Hasty;
impl Rules for Hasty {
    const AWAIT_SUCCESSOR: bool = false;
}

// The one behind is never told that it is head, and the checkers end a wait without end.
#[test]
#[cfg_attr(loom, should_panic(expected = "exceeded maximum number of branches"))]
#[cfg_attr(shuttle, should_panic(expected = "exceeded max_steps"))]
fn a_lost_hand_over_is_noticed() {
    models::exclusion::<Word<Hasty>>(CPUS, 1, 2);
}

/// Broken: latecomers do not look at the queue.
struct Rude;
impl Rules for Rude {
    const HONOUR_QUEUE: bool = false;
}

#[test]
#[should_panic(expected = "served out of order")]
fn passing_the_queue_is_noticed() {
    models::order::<Word<Rude>>(CPUS as u32 - 1, 2, models::by_trying);
}
