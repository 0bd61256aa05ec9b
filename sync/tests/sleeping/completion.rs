use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use hal::{Native, Platform};
use sync::Completion;
use sync::wait::{Limits, WaitError};

use super::*;

#[test]
fn completions_are_counted() {
    let event = Completion::<Native>::new();
    assert!(!event.try_wait() && !event.is_done());
    event.complete();
    event.complete();
    task(|cx| event.wait(cx));
    assert!(event.try_wait() && !event.try_wait());
    event.complete();
    event.reset();
    assert!(!event.is_done());
}

#[test]
fn all_means_those_to_come_too() {
    let event = Completion::<Native>::new();
    tasks(4, |number, cx| match number {
        0 => event.complete_all(),
        _ => event.wait(cx),
    });
    assert!(event.try_wait() && event.try_wait());
    event.complete();
    assert!(event.is_done());
}

#[test]
fn each_completion_lets_one_wait_return() {
    let (event, returned) = (Completion::<Native>::new(), AtomicU32::new(0));
    tasks(4, |number, cx| {
        for _ in 0..2_000 {
            if number % 2 == 0 {
                event.complete();
            } else {
                event.wait(cx);
                returned.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert_eq!(returned.into_inner(), 4_000);
    assert!(!event.is_done());
}

#[test]
fn it_may_live_on_the_waiting_tasks_stack() {
    // Freed, and overwritten by the next one, at the moment that the wait returns.
    let to_complete = AtomicPtr::<Completion>::new(std::ptr::null_mut());
    tasks(2, |number, cx| {
        for _ in 0..5_000 {
            if number == 0 {
                let mut event = Completion::new();
                to_complete.store(&raw mut event, Ordering::Release);
                event.wait(cx);
            } else {
                let event = loop {
                    let event = to_complete.swap(std::ptr::null_mut(), Ordering::Acquire);
                    if !event.is_null() {
                        break event;
                    }
                    Native::relax();
                };
                // SAFETY: the waiting task keeps it until it has been completed.
                unsafe { &*event }.complete();
            }
        }
    });
}

#[test]
fn who_gives_up_consumes_nothing() {
    let event = Completion::<Native>::new();
    let deadline = in_ms(10);
    let result = task(|cx| event.wait_with(Limits::NONE.until(deadline), cx));
    assert_eq!(result, Err(WaitError::TimedOut));
    assert!(Native::now_ns() >= deadline);
    event.complete();
    assert!(event.try_wait());
}

#[test]
fn deadlines_and_completions_that_meet_lose_nothing() {
    let (event, consumed) = (Completion::<Native>::new(), AtomicU32::new(0));
    tasks(3, |number, cx| {
        for _ in 0..3_000 {
            if number == 0 {
                event.complete();
            } else if event.wait_with(Limits::NONE.until(Native::now_ns() + 2_000), cx).is_ok() {
                consumed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut left = 0;
    while event.try_wait() {
        left += 1;
    }
    assert_eq!(consumed.into_inner() + left, 3_000);
}
