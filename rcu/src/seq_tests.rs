//! Rounds against a plain model with unbounded numbers, and on threads.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

use proptest::prelude::*;

use super::*;

/// A cookie and what the model says it waits for: the first round, counted from 0, that began after it was taken.
struct Waiting {
    cookie: Cookie,
    round: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Any run of starts, ends and snapshots, from any number on, the wrap included: a cookie is done exactly when the
    /// first round that began after it has ended.
    #[test]
    fn a_cookie_is_done_when_the_first_round_after_it_has_ended(
        begin in prop_oneof![any::<usize>(), (0..200_usize).prop_map(|n| 0_usize.wrapping_sub(n))],
        steps in prop::collection::vec(0..3_u8, 0..300),
    ) {
        let count = Count::<Sound>::starting_at(begin & !RUNNING);
        let (mut begun, mut ended) = (0_u64, 0_u64);
        let mut waiting: Vec<Waiting> = Vec::new();
        for step in steps {
            match step {
                0 => {
                    prop_assert_eq!(count.try_start(), begun == ended);
                    begun = ended + 1;
                }
                1 if begun > ended => {
                    count.end();
                    ended += 1;
                }
                _ => waiting.push(Waiting { cookie: count.snapshot(), round: begun }),
            }
            for w in &waiting {
                prop_assert_eq!(count.done(w.cookie), ended > w.round);
                for other in &waiting {
                    prop_assert_eq!(w.cookie.is_after(other.cookie), w.round > other.round);
                    prop_assert_eq!(w.cookie == other.cookie, w.round == other.round);
                }
            }
        }
    }
}

#[test]
fn the_wrap_comes_early() {
    let rounds = Sequence::new();
    for round in 0..600 {
        let cookie = rounds.snapshot();
        assert_eq!(rounds.completed(), round);
        assert!(!rounds.done(cookie));
        rounds.start();
        assert!(rounds.is_running() && !rounds.try_start());
        rounds.end();
        assert!(rounds.done(cookie));
    }
}

#[test]
#[should_panic(expected = "started while one is running")]
fn two_drivers_are_noticed() {
    let rounds = Sequence::new();
    rounds.start();
    rounds.start();
}

#[test]
#[should_panic(expected = "ended while none is running")]
fn an_end_without_a_start_is_noticed() {
    Sequence::new().end();
}

/// What page-table changes do: each thread publishes a number and returns when a round that began later has made a
/// "CPU" take it over. Rounds are shared.
#[test]
fn waiters_share_rounds_and_none_returns_early() {
    const THREADS: usize = 4;
    const CHANGES: u64 = 20_000;
    let rounds = Sequence::new();
    let changed: [AtomicU64; THREADS] = Default::default();
    let flushed: [AtomicU64; THREADS] = Default::default();
    let in_round = AtomicBool::new(false);
    thread::scope(|scope| {
        for me in 0..THREADS {
            let (rounds, changed, flushed, in_round) = (&rounds, &changed, &flushed, &in_round);
            scope.spawn(move || {
                for change in 1..=CHANGES {
                    changed[me].store(change, Ordering::Relaxed);
                    let cookie = rounds.snapshot();
                    while !rounds.done(cookie) {
                        if rounds.try_start() {
                            assert!(!in_round.swap(true, Ordering::Relaxed), "two rounds at once");
                            for (from, to) in changed.iter().zip(flushed) {
                                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                            }
                            in_round.store(false, Ordering::Relaxed);
                            rounds.end();
                        } else {
                            thread::yield_now();
                        }
                    }
                    assert!(flushed[me].load(Ordering::Relaxed) >= change, "returned before a full round");
                }
            });
        }
    });
    assert!(rounds.completed() <= THREADS * CHANGES as usize);
}
