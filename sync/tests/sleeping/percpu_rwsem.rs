use core::sync::atomic::{AtomicBool, Ordering};

use hal::Native;
use sync::wait::{Limits, WaitError};
use sync::{Completion, PerCpuRwSemaphore};

use super::*;

fn pair() -> PerCpuRwSemaphore<(u64, u64)> {
    let _cpu = hosted::bind().unwrap();
    PerCpuRwSemaphore::new((0, 0)).unwrap()
}

#[test]
fn readers_never_see_half_a_write() {
    const WRITES: u64 = 300;
    let semaphore = pair();
    let writing = AtomicBool::new(false);
    tasks(5, |number, cx| {
        if number < 2 {
            for _ in 0..WRITES {
                let mut pair = semaphore.write(cx);
                assert!(!writing.swap(true, Ordering::Relaxed), "one writer at a time");
                pair.0 += 1;
                std::thread::yield_now();
                pair.1 += 1;
                writing.store(false, Ordering::Relaxed);
            }
            return;
        }
        for round in 0.. {
            let pair = semaphore.read(cx);
            assert!(!writing.load(Ordering::Relaxed) && pair.0 == pair.1);
            if round % 64 == 0 {
                std::thread::yield_now();
            }
            if pair.0 == 2 * WRITES {
                break;
            }
        }
    });
    assert!(!semaphore.is_closed());
    assert_eq!(semaphore.into_inner(), (2 * WRITES, 2 * WRITES));
}

#[test]
fn tries_and_limits() {
    let semaphore = pair();
    let (reading, tried) = (Completion::<Native>::new(), Completion::<Native>::new());
    tasks(2, |number, cx| {
        if number == 0 {
            let guard = semaphore.read(cx);
            reading.complete();
            tried.wait(cx);
            drop(guard);
            return;
        }
        reading.wait(cx);
        assert!(semaphore.try_read().is_some(), "readers share");
        assert!(semaphore.try_write().is_none() && !semaphore.is_closed());
        let result = semaphore.write_with(Limits::NONE.until(in_ms(5)), cx).map(|_| ());
        assert_eq!(result, Err(WaitError::TimedOut));
        assert!(semaphore.try_read().is_some(), "who gave up stands in nobody's way");
        tried.complete();
        let mut guard = semaphore.write(cx);
        assert!(semaphore.try_read().is_none() && semaphore.try_write().is_none());
        guard.0 = 1;
    });
    assert_eq!(semaphore.try_read().map(|pair| pair.0), Some(1));
}

#[test]
fn who_waits_behind_a_writer_gives_up_in_time() {
    let semaphore = pair();
    let (writing, tried) = (Completion::<Native>::new(), Completion::<Native>::new());
    tasks(2, |number, cx| {
        if number == 0 {
            let guard = semaphore.write(cx);
            writing.complete();
            tried.wait(cx);
            drop(guard);
            return;
        }
        writing.wait(cx);
        let limits = Limits::NONE.until(passed());
        assert_eq!(semaphore.read_with(limits, cx).map(|_| ()), Err(WaitError::TimedOut));
        assert_eq!(semaphore.write_with(limits, cx).map(|_| ()), Err(WaitError::TimedOut));
        tried.complete();
    });
    assert!(semaphore.try_write().is_some());
}

#[test]
fn readers_of_all_cpus_count() {
    let semaphore = pair();
    tasks(3, |_, _| core::mem::forget(semaphore.try_read().expect("nobody writes")));
    let _cpu = hosted::bind().unwrap();
    assert!(semaphore.try_write().is_none(), "who never leaves is in for ever");
    assert!(semaphore.try_read().is_some());
}
