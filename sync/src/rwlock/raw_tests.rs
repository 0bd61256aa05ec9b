//! The lock words on host threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::test_platform::Journaling;

/// Everybody joins the line as soon as they have to wait.
enum Impatient {}

impl Rules for Impatient {
    const PATIENCE: u32 = 0;
}

fn never() -> bool {
    false
}

/// Two words that writers keep equal, with plain loads and stores.
fn hammer<R: Rules>(writers: u64, readers: u64, times: u64) {
    let lock = RawRw::<R>::new();
    let words = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                for _ in 0..times {
                    lock.write::<Journaling>();
                    for word in &words {
                        word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                    // SAFETY: entered above.
                    unsafe { lock.unlock_write() };
                }
            });
        }
        for reader in 0..readers {
            let (lock, words) = (&lock, &words);
            scope.spawn(move || {
                for i in 0..times {
                    lock.read::<Journaling>(|| (i + reader) % 3 == 0);
                    let seen = words.each_ref().map(|word| word.load(Ordering::Relaxed));
                    assert_eq!(seen[0], seen[1], "read beside a writer");
                    // SAFETY: entered above.
                    unsafe { lock.unlock_read() };
                }
            });
        }
    });
    assert_eq!(words[0].load(Ordering::Relaxed), writers * times);
    assert!(!lock.is_locked() && !lock.has_line());
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn writers_exclude_all() {
    hammer::<Sound>(2, 2, 30_000);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn writers_exclude_all_in_line() {
    hammer::<Impatient>(2, 2, 5_000);
}

/// Two readers hand the lock to each other so that it is never free; a writer gets in all the same.
#[test]
fn readers_without_a_gap_do_not_starve_a_writer() {
    let lock = RawRw::<Sound>::new();
    let (inside, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    lock.read::<Journaling>(never);
                    inside.fetch_add(1, Ordering::Relaxed);
                    // Stays until the other one is inside too, unless it is kept out by the line.
                    while inside.load(Ordering::Relaxed) < 2
                        && !lock.has_line()
                        && !done.load(Ordering::Relaxed)
                    {
                        thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::Relaxed);
                    // SAFETY: entered above.
                    unsafe { lock.unlock_read() };
                }
            });
        }
        for _ in 0..200 {
            lock.write::<Journaling>();
            // SAFETY: entered above.
            unsafe { lock.unlock_write() };
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn writers_without_a_gap_do_not_starve_a_reader() {
    let lock = RawRw::<Sound>::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    lock.write::<Journaling>();
                    // SAFETY: entered above.
                    unsafe { lock.unlock_write() };
                }
            });
        }
        for _ in 0..2_000 {
            lock.read::<Journaling>(never);
            // SAFETY: entered above.
            unsafe { lock.unlock_read() };
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A reader is inside, a writer waits in line. Tasks queue behind the writer; a handler does not.
#[test]
fn a_reader_in_an_interrupt_passes_a_writer_that_waits() {
    let lock = RawRw::<Impatient>::new();
    lock.read::<Journaling>(never);
    thread::scope(|scope| {
        scope.spawn(|| {
            lock.write::<Journaling>();
            // SAFETY: entered above.
            unsafe { lock.unlock_write() };
        });
        while !lock.has_line() {
            thread::yield_now();
        }
        assert!(!lock.try_read(never) && !lock.try_write());
        assert!(lock.try_read(|| true));
        lock.read::<Journaling>(|| true);
        // SAFETY: entered three times above.
        unsafe {
            lock.unlock_read();
            lock.unlock_read();
            assert!(lock.is_locked() && !lock.is_write_locked());
            lock.unlock_read();
        }
    });
    assert!(!lock.is_locked());
}

/// Somebody drew a ticket and does not run. The others get on, one time of waiting for it.
#[test]
fn one_that_does_not_run_does_not_stop_the_others() {
    let lock = RawRw::<Sound>::new();
    lock.line.store(lock.line().joined().0, Ordering::Relaxed);
    assert!(!lock.try_read(never) && !lock.try_write());
    lock.read::<Journaling>(never);
    // SAFETY: entered above.
    unsafe { lock.unlock_read() };
    assert!(lock.try_write(), "skipped once, and not waited for again");
}

#[test]
fn a_downgraded_writer_lets_readers_in_and_writers_not() {
    let lock = RawRw::<Sound>::new();
    assert!(lock.try_write() && !lock.try_read(never));
    // SAFETY: entered above.
    unsafe { lock.downgrade() };
    assert!(!lock.is_write_locked() && lock.try_read(never) && !lock.try_write());
    // SAFETY: entered twice.
    unsafe {
        lock.unlock_read();
        lock.unlock_read();
    }
    assert!(!lock.is_locked());
}
