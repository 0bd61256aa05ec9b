use std::sync::atomic::{AtomicBool, Ordering};

use hal::{Native, Platform};
use sync::wait::{Limits, WaitError};
use sync::{Completion, Mutex};

use super::*;

#[test]
fn one_at_a_time() {
    let mutex = Mutex::<(u64, u64)>::new((0, 0));
    tasks(6, |number, cx| {
        for n in 0..5_000 {
            let mut pair = mutex.lock(cx);
            assert_eq!(pair.0, pair.1);
            pair.0 += 1;
            if n % 64 == number as u64 {
                std::thread::yield_now();
            }
            pair.1 += 1;
        }
    });
    assert!(!mutex.is_locked());
    assert_eq!(mutex.into_inner(), (30_000, 30_000));
}

#[test]
fn tries_and_limits() {
    let mutex = Mutex::<u32>::new(1);
    let (held, tried) = (Completion::<Native>::new(), Completion::<Native>::new());
    tasks(2, |number, cx| {
        if number == 0 {
            let guard = mutex.lock(cx);
            assert_eq!(mutex.owner(), Some(Native::current_task()));
            held.complete();
            tried.wait(cx);
            drop(guard);
            return;
        }
        held.wait(cx);
        assert!(mutex.try_lock().is_none() && mutex.is_locked());
        let deadline = in_ms(10);
        let result = mutex.lock_with(Limits::NONE.until(deadline), cx).map(|_| ());
        assert_eq!(result, Err(WaitError::TimedOut));
        assert!(Native::now_ns() >= deadline);
        tried.complete();
        *mutex.lock(cx) += 1;
    });
    assert_eq!(mutex.try_lock().map(|guard| *guard), Some(2));
    assert!(mutex.owner().is_none());
}

#[test]
fn a_greedy_owner_does_not_starve_a_waiter() {
    let (mutex, done) = (Mutex::<u64>::new(0), AtomicBool::new(false));
    tasks(2, |number, cx| {
        if number == 0 {
            while !done.load(Ordering::Relaxed) {
                let mut count = mutex.lock(cx);
                *count += 1;
                // Long enough that the other one sleeps; retaken without a gap.
                for _ in 0..500 {
                    core::hint::spin_loop();
                }
            }
        } else {
            for _ in 0..300 {
                drop(mutex.lock(cx));
                std::thread::yield_now();
            }
            done.store(true, Ordering::Relaxed);
        }
    });
}

#[test]
fn waiters_that_give_up_leave_a_mutex_that_works() {
    let mutex = Mutex::<u64>::new(0);
    let taken: u64 = tasks(4, |number, cx| {
        let mut taken = 0;
        for n in 0..3_000_u64 {
            let patience = Native::now_ns() + n % 7 * 500;
            let limits = if number == 0 { Limits::NONE } else { Limits::NONE.until(patience) };
            if let Ok(mut count) = mutex.lock_with(limits, cx) {
                *count += 1;
                taken += 1;
                if n % 16 == 0 {
                    std::thread::yield_now();
                }
            }
        }
        taken
    })
    .into_iter()
    .sum();
    assert!(!mutex.is_locked());
    assert!(taken >= 3_000 && mutex.into_inner() == taken);
}

/// Who watches a running owner looks at its limits, too.
#[test]
fn a_deadline_passes_while_the_owner_runs() {
    let mutex = Mutex::<u32>::new(1);
    let (held, tried) = (Completion::<Native>::new(), AtomicBool::new(false));
    tasks(2, |number, cx| {
        if number == 0 {
            let _guard = mutex.lock(cx);
            held.complete();
            while !tried.load(Ordering::Relaxed) {
                Native::relax();
            }
            return;
        }
        held.wait(cx);
        let result = mutex.lock_with(Limits::NONE.until(in_ms(5)), cx).map(|_| ());
        assert_eq!(result, Err(WaitError::TimedOut));
        tried.store(true, Ordering::Relaxed);
    });
}
