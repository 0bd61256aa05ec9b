use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hal::{Native, Platform};
use sync::wait::{Limits, WaitError};
use sync::{Completion, RwSemaphore};

use super::*;

#[test]
fn writers_exclude_everybody() {
    let semaphore = RwSemaphore::<(u64, u64)>::new((0, 0));
    tasks(5, |number, cx| {
        for n in 0..3_000 {
            if number < 2 {
                let mut pair = semaphore.write(cx);
                pair.0 += 1;
                if n % 32 == 0 {
                    std::thread::yield_now();
                }
                pair.1 += 1;
                if n % 3 == 0 {
                    let pair = pair.downgrade();
                    assert_eq!(pair.0, pair.1);
                }
            } else {
                let pair = semaphore.read(cx);
                assert_eq!(pair.0, pair.1);
            }
        }
    });
    assert!(!semaphore.is_locked());
    assert_eq!(semaphore.into_inner(), (6_000, 6_000));
}

#[test]
fn readers_are_inside_together() {
    let (semaphore, inside) = (RwSemaphore::<()>::new(()), AtomicU32::new(0));
    tasks(3, |_, cx| {
        let _guard = semaphore.read(cx);
        inside.fetch_add(1, Ordering::Relaxed);
        // Ends only if all three are.
        while inside.load(Ordering::Relaxed) < 3 {
            Native::relax();
        }
    });
}

#[test]
fn readers_that_come_and_go_do_not_starve_a_writer() {
    let (semaphore, done) = (RwSemaphore::<u32>::new(0), AtomicBool::new(false));
    tasks(4, |number, cx| {
        if number == 0 {
            for _ in 0..200 {
                *semaphore.write(cx) += 1;
            }
            done.store(true, Ordering::Relaxed);
        } else {
            while !done.load(Ordering::Relaxed) {
                let _guard = semaphore.read(cx);
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(semaphore.into_inner(), 200);
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_pass() {
    let semaphore = RwSemaphore::<()>::new(());
    let (held, given_up) = (Completion::<Native>::new(), Completion::<Native>::new());
    tasks(3, |number, cx| match number {
        0 => {
            let _guard = semaphore.read(cx);
            held.complete_all();
            given_up.wait(cx);
        }
        1 => {
            held.wait(cx);
            let result = semaphore.write_with(Limits::NONE.until(in_ms(20)), cx).map(|_| ());
            assert_eq!(result, Err(WaitError::TimedOut));
        }
        _ => {
            held.wait(cx);
            // A reader is let in at once until the writer is in line.
            while semaphore.try_read().is_some() {
                Native::relax();
            }
            drop(semaphore.read(cx));
            given_up.complete();
        }
    });
    assert!(!semaphore.is_locked() && semaphore.try_write().is_some());
}

#[test]
fn tries() {
    let semaphore = RwSemaphore::<u32>::new(1);
    {
        let first = semaphore.try_read().unwrap();
        assert!(semaphore.try_read().is_some() && semaphore.try_write().is_none());
        assert_eq!(*first, 1);
    }
    let writer = semaphore.try_write().unwrap();
    assert!(semaphore.try_read().is_none() && semaphore.try_write().is_none());
    drop(writer);
    assert!(semaphore.try_write().is_some());
}
