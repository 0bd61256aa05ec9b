//! The ticket lock in the model checkers.

use super::super::models::{self, CPUS, Line};
use super::*;

impl<R: Rules> Line for Word<R> {
    fn joined(&self) -> u32 {
        u32::from(self.next.load(Ordering::Relaxed))
    }
}

#[test]
fn two_exclude_each_other() {
    models::exclusion::<TicketLock>(2, 2, 3);
}

#[test]
fn many_exclude_each_other() {
    models::exclusion::<TicketLock>(CPUS, 1, 1);
}

#[test]
fn a_try_that_succeeds_excludes() {
    models::tries::<TicketLock>();
}

#[test]
fn served_in_order() {
    models::order::<TicketLock>(CPUS as u32 - 1, 1, models::by_lock);
    models::order::<TicketLock>(CPUS as u32 - 1, 1, models::by_trying);
}

/// Broken: what the holder did is not published.
#[cfg(loom)]
struct RelaxedServe;
#[cfg(loom)]
impl Rules for RelaxedServe {
    const SERVE: Ordering = Ordering::Relaxed;
}

#[cfg(loom)]
#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_unlock_is_refused() {
    models::exclusion::<Word<RelaxedServe>>(2, 1, 3);
}

/// Broken: a try draws a number whether or not it is being served.
struct PushyTry;
impl Rules for PushyTry {
    const TRY_IN_TURN: bool = false;
}

#[test]
#[cfg_attr(loom, should_panic(expected = "Causality violation"))]
#[cfg_attr(shuttle, should_panic(expected = "two are inside"))]
fn a_try_out_of_turn_is_refused() {
    models::tries::<Word<PushyTry>>();
}
