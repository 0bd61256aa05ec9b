//! The ordering claims under every schedule and every value that loads may return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p rcu --lib models`. Each claim has twins in which one rule is broken,
//! and which the model must refuse; otherwise the claim would prove nothing.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;

/// Broken: at a running round the cookie names that round's end.
enum OneRoundEarly {}
impl Rules for OneRoundEarly {
    const AHEAD: usize = RUNNING;
}

/// Broken: nothing orders the change against the load of the number.
enum NoFences {}
impl Rules for NoFences {
    const FENCES: bool = false;
}

/// Broken: the end of a round does not publish what the participants did.
enum RelaxedEnd {}
impl Rules for RelaxedEnd {
    const END: Ordering = Ordering::Relaxed;
}

/// One waiter changes a value; one driver runs rounds, each of which looks at the value as a participant would. Whoever
/// finds the cookie done must find that a participant saw the change.
fn change_then_round<R: Rules + 'static>() {
    test_support::model(|| {
        struct Shared<R> {
            rounds: Count<R>,
            changed: AtomicUsize,
            seen: AtomicUsize,
        }
        let shared = Arc::new(Shared {
            rounds: Count::<R>::starting_at(0_usize.wrapping_sub(ROUND)), // the second round wraps
            changed: AtomicUsize::new(0),
            seen: AtomicUsize::new(0),
        });
        let driver = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..2 {
                    assert!(shared.rounds.try_start());
                    shared.seen.store(shared.changed.load(Ordering::Relaxed), Ordering::Relaxed);
                    shared.rounds.end();
                }
            })
        };
        shared.changed.store(1, Ordering::Relaxed);
        let cookie = shared.rounds.snapshot();
        if shared.rounds.done(cookie) {
            assert_eq!(shared.seen.load(Ordering::Relaxed), 1, "done before a full round");
        }
        driver.join().unwrap();
    });
}

#[test]
fn done_means_that_a_full_round_saw_the_change() {
    change_then_round::<Sound>();
}

#[test]
#[should_panic(expected = "done before a full round")]
fn a_cookie_that_is_one_round_early_is_refused() {
    change_then_round::<OneRoundEarly>();
}

#[test]
#[should_panic(expected = "done before a full round")]
fn a_round_without_fences_is_refused() {
    change_then_round::<NoFences>();
}

/// A participant's unsynchronised write comes before the end of the round, and the waiter's read after `done`.
fn participants_before_done<R: Rules + 'static>() {
    test_support::model(|| {
        struct Shared<R> {
            rounds: Count<R>,
            work: UnsafeCell<u32>,
        }
        // SAFETY: the model checks what this claims.
        unsafe impl<R> Sync for Shared<R> {}
        // SAFETY: as above.
        unsafe impl<R> Send for Shared<R> {}

        let shared = Arc::new(Shared { rounds: Count::<R>::starting_at(0), work: UnsafeCell::new(0) });
        let cookie = shared.rounds.snapshot();
        let waiter = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if shared.rounds.done(cookie) {
                    // SAFETY: the model reports accesses that are not ordered with this one.
                    assert_eq!(shared.work.with(|work| unsafe { *work }), 1);
                }
            })
        };
        assert!(shared.rounds.try_start());
        // SAFETY: as above.
        shared.work.with_mut(|work| unsafe { *work = 1 });
        shared.rounds.end();
        waiter.join().unwrap();
    });
}

#[test]
fn what_participants_did_is_visible_after_done() {
    participants_before_done::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_end_is_refused() {
    participants_before_done::<RelaxedEnd>();
}

/// Two waiters race to run rounds, as in the module's example: never two rounds at once, and nobody returns before a
/// full round.
#[test]
fn waiters_that_run_rounds_themselves() {
    struct Shared {
        rounds: Count<Sound>,
        changed: [AtomicUsize; 2],
        /// Written by whoever runs a round, so that the model sees if two do.
        seen: UnsafeCell<[usize; 2]>,
        /// The same, for the waiters to read.
        flushed: [AtomicUsize; 2],
    }
    // SAFETY: the model checks what this claims.
    unsafe impl Sync for Shared {}
    // SAFETY: as above.
    unsafe impl Send for Shared {}

    impl Shared {
        fn change(&self, me: usize) {
            self.changed[me].store(1, Ordering::Relaxed);
            let cookie = self.rounds.snapshot();
            while !self.rounds.done(cookie) {
                if self.rounds.try_start() {
                    // SAFETY: the model reports accesses that are not ordered with this one.
                    self.seen.with_mut(|seen| unsafe {
                        *seen = [0, 1].map(|n| self.changed[n].load(Ordering::Relaxed));
                        for (from, to) in (*seen).iter().zip(&self.flushed) {
                            to.store(*from, Ordering::Relaxed);
                        }
                    });
                    self.rounds.end();
                } else {
                    thread::yield_now();
                }
            }
            assert_eq!(self.flushed[me].load(Ordering::Relaxed), 1, "returned before a full round");
        }
    }

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    test_support::check(&builder, || {
        let zeros = || [AtomicUsize::new(0), AtomicUsize::new(0)];
        let shared = Arc::new(Shared {
            rounds: Count::starting_at(0),
            changed: zeros(),
            seen: UnsafeCell::new([0, 0]),
            flushed: zeros(),
        });
        let other = Arc::clone(&shared);
        let t = thread::spawn(move || other.change(1));
        shared.change(0);
        t.join().unwrap();
    });
}
