//! The default lock word in the model checkers. Its fairness is tested on the waiters as plain values, in
//! `adaptive_tests.rs`.

use super::super::models::{self, CPUS, Line};
use super::*;

impl<R: Rules> Line for Word<R> {
    fn joined(&self) -> u32 {
        u32::from(self.line().next())
    }
}

/// The rules with other constants, so that few steps lead through all of the protocol.
struct Quick<const PATIENCE: u32, const ABSENT_AFTER: u32>;
impl<const PATIENCE: u32, const ABSENT_AFTER: u32> Rules for Quick<PATIENCE, ABSENT_AFTER> {
    const PATIENCE: u32 = PATIENCE;
    const LONGEST_PAUSE: u32 = 1;
    const ABSENT_AFTER: u32 = ABSENT_AFTER;
}

/// Nobody joins the line.
type Patient = Word<Quick<1_000_000, 1_000_000>>;
/// Everybody joins the line as soon as they have to wait, and is not skipped.
type Impatient = Word<Quick<0, 1_000_000>>;
/// The line forms after one look.
type Touchy = Word<Quick<1, 2>>;
/// Whoever is at the front and does not grab at once is skipped.
type Rash = Word<Quick<0, 1>>;

#[test]
fn two_exclude_each_other_without_a_line() {
    models::exclusion::<Patient>(2, 2, 3);
}

#[test]
fn two_exclude_each_other_in_line() {
    models::exclusion::<Impatient>(2, 2, 3);
}

#[test]
fn two_exclude_each_other_when_the_line_forms_late() {
    models::exclusion::<Touchy>(2, 2, 3);
}

#[test]
fn two_exclude_each_other_when_they_skip_each_other() {
    models::exclusion::<Rash>(2, 2, 3);
}

#[test]
fn many_exclude_each_other() {
    models::exclusion::<Impatient>(CPUS, 1, 1);
    models::exclusion::<Rash>(CPUS, 1, 1);
}

#[test]
fn a_try_that_succeeds_excludes() {
    models::tries::<Patient>();
}

#[test]
fn the_line_is_served_in_order_and_not_passed() {
    models::order::<Impatient>(CPUS as u32 - 1, 1, models::by_lock);
    models::order::<Impatient>(CPUS as u32 - 1, 1, models::by_trying);
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

/// Broken: latecomers do not look at the line.
struct Rude;
impl Rules for Rude {
    const HONOUR_LINE: bool = false;
    const PATIENCE: u32 = 0;
    const LONGEST_PAUSE: u32 = 1;
}

#[test]
#[should_panic(expected = "served out of order")]
fn passing_the_line_is_noticed() {
    models::order::<Word<Rude>>(CPUS as u32 - 1, 2, models::by_trying);
}
