use std::sync::atomic::{AtomicU32, Ordering};

use hal::{Native, Platform};
use sync::wait::{Limits, WaitError, WaitQueue};

use super::*;

#[test]
fn two_tasks_take_turns() {
    let (turn, changed) = (AtomicU32::new(0), WaitQueue::<Native>::new());
    let rounds = tasks(2, |number, cx| {
        let mut rounds = 0;
        while rounds < 2_000 {
            changed.wait(cx, || turn.load(Ordering::Acquire) % 2 == number as u32);
            turn.fetch_add(1, Ordering::Release);
            changed.wake_one();
            rounds += 1;
        }
        rounds
    });
    assert_eq!((rounds, turn.into_inner()), (vec![2_000, 2_000], 4_000));
    assert!(!changed.has_waiters());
}

#[test]
fn every_item_finds_a_taker() {
    // Tasks 0 and 1 produce, the others consume, one wake-up for each item.
    let (items, taken, more) = (AtomicU32::new(0), AtomicU32::new(0), WaitQueue::<Native>::new());
    let take =
        |n: &AtomicU32| n.fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
    tasks(5, |number, cx| {
        for _ in 0..3_000 {
            if number < 2 {
                items.fetch_add(3, Ordering::Release);
                for _ in 0..3 {
                    more.wake_one();
                }
            } else {
                for _ in 0..2 {
                    more.wait_exclusive(Limits::NONE, cx, || take(&items)).unwrap();
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    assert_eq!((items.into_inner(), taken.into_inner()), (0, 18_000));
}

#[test]
fn one_wake_up_goes_to_all_shared_and_one_exclusive_waiter() {
    let (queue, in_line, open) = (WaitQueue::<Native>::new(), AtomicU32::new(0), AtomicU32::new(0));
    let woken = tasks(5, |number, cx| {
        if number == 0 {
            // Each waiter tests twice before it sleeps: once before it stands in line, once in it.
            while in_line.load(Ordering::Acquire) < 8 {
                Native::relax();
            }
            open.store(1, Ordering::Release);
            let first = queue.wake_one();
            while queue.has_waiters() {
                queue.wake_one();
            }
            return first;
        }
        let condition = || {
            in_line.fetch_add(1, Ordering::Release);
            open.load(Ordering::Acquire) == 1
        };
        let result = match number {
            1 | 2 => queue.wait_with(Limits::NONE, cx, condition),
            _ => queue.wait_exclusive(Limits::NONE, cx, condition),
        };
        result.map(|()| 0).unwrap()
    });
    assert_eq!(woken[0], 3, "two that wait together, and one of two that do not");
    assert!(!queue.has_waiters());
}

#[test]
fn a_deadline_ends_the_wait_and_never_early() {
    let queue = WaitQueue::<Native>::new();
    let deadline = in_ms(20);
    let result = task(|cx| queue.wait_with(Limits::NONE.until(deadline), cx, || false));
    assert_eq!(result, Err(WaitError::TimedOut));
    assert!(Native::now_ns() >= deadline);
    assert!(!queue.has_waiters(), "who gives up leaves the line");
    assert_eq!(task(|cx| queue.wait_with(Limits::NONE.until(passed()), cx, || true)), Ok(()));
}

#[test]
fn a_condition_that_panics_leaves_the_line() {
    let queue = WaitQueue::<Native>::new();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        task(|cx| {
            let mut looks = 0;
            queue.wait_with(Limits::NONE, cx, || {
                looks += 1;
                assert!(looks < 2, "second look, in line");
                false
            })
        })
    }));
    assert!(unwound.is_err());
    assert!(!queue.has_waiters());
}
