//! The lock word on host threads, and a waiter's patience as a plain value.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{thread, time};

use proptest::prelude::*;

use super::*;
use crate::test_platform::Journaling;

/// Runs `threads` threads that each take the lock `times` times around a plain read-modify-write.
fn hammer<R: Rules>(threads: u64, times: u64) -> u64 {
    let lock = RawLock::<R>::new();
    // Loaded and stored separately, so that updates are lost if two threads are inside.
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..times {
                    lock.lock::<Journaling>(|| ());
                    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    // SAFETY: taken above.
                    unsafe { lock.unlock() };
                }
            });
        }
    });
    assert!(!lock.is_locked() && !lock.has_line());
    count.into_inner()
}

/// Rules in which everybody who waits joins the line at the first occasion.
enum Impatient {}

impl Rules for Impatient {
    const PATIENCE: u32 = 0;
}

#[test]
fn one_at_a_time() {
    assert_eq!(hammer::<Sound>(4, 100_000), 400_000);
}

#[test]
fn one_at_a_time_in_line() {
    assert_eq!(hammer::<Impatient>(4, 20_000), 80_000);
}

#[test]
fn who_waits_in_line_is_not_passed_and_is_served_in_order() {
    let lock = RawLock::<Impatient>::new();
    let served = std::sync::Mutex::new(Vec::new());
    assert!(lock.try_lock());
    thread::scope(|scope| {
        for number in 0..3 {
            let (lock, served) = (&lock, &served);
            scope.spawn(move || {
                lock.lock::<Journaling>(|| ());
                served.lock().unwrap().push(number);
                // SAFETY: taken above.
                unsafe { lock.unlock() };
            });
            // The line grows by one thread at a time, so that its order is known.
            while lock.next.load(Ordering::Relaxed) != number + 1 {
                thread::yield_now();
            }
        }
        assert!(lock.is_locked());
        // SAFETY: taken above, and nobody else touches the flag while it is set.
        unsafe { lock.unlock() };
        // From here on this thread is a latecomer, and every success must come after the line is empty.
        lock.lock::<Journaling>(|| ());
        let before_this_one = served.lock().unwrap().clone();
        // SAFETY: taken above.
        unsafe { lock.unlock() };
        assert_eq!(before_this_one, [0, 1, 2]);
    });
}

#[test]
fn try_lock_respects_the_line_even_while_the_flag_is_clear() {
    let lock = RawLock::<Sound>::new();
    lock.next.fetch_add(1, Ordering::Relaxed); // somebody drew a ticket and has not looked at the flag yet
    assert!(!lock.try_lock());
    lock.served.fetch_add(1, Ordering::Relaxed);
    assert!(lock.try_lock());
}

#[test]
fn tickets_and_turns_wrap() {
    let lock = RawLock::<Impatient>::new();
    lock.next.store(u16::MAX, Ordering::Relaxed);
    lock.served.store(u16::MAX, Ordering::Relaxed);
    lock.turn.store(u16::MAX, Ordering::Relaxed);
    assert!(lock.try_lock());
    thread::scope(|scope| {
        scope.spawn(|| lock.lock::<Journaling>(|| ()));
        while !lock.has_line() {
            thread::yield_now();
        }
        // SAFETY: taken above.
        unsafe { lock.unlock() };
    });
    assert!(lock.is_locked() && !lock.has_line());
    assert_eq!(lock.turn.load(Ordering::Relaxed), 1);
}

#[test]
fn a_waiter_that_runs_is_not_passed_over_without_end() {
    // A greedy thread retakes the lock with next to no gap. The other one must get it all the same, again and again.
    let lock = RawLock::<Sound>::new();
    let done = AtomicBool::new(false);
    let started = time::Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                lock.lock::<Journaling>(|| ());
                for _ in 0..50 {
                    core::hint::spin_loop();
                }
                // SAFETY: taken above.
                unsafe { lock.unlock() };
            }
        });
        for _ in 0..2_000 {
            lock.lock::<Journaling>(|| ());
            // SAFETY: taken above.
            unsafe { lock.unlock() };
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(started.elapsed() < time::Duration::from_secs(10));
}

proptest! {
    /// Patience against sums: it ends at the look at which the counted misses first reach the limit.
    #[test]
    fn patience_ends_when_the_counted_misses_reach_the_limit(
        start: u16, limit in 1..300_u32, misses in prop::collection::vec(0..40_u16, 0..200)
    ) {
        let mut patience = Patience::new(limit, start);
        let (mut turn, mut counted) = (start, 0);
        for missed in misses {
            turn = turn.wrapping_add(missed);
            counted += u32::from(missed).min(MOST_PER_LOOK);
            prop_assert_eq!(patience.is_exhausted(turn), counted >= limit);
        }
    }
}
