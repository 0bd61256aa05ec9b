//! The lock word under every schedule and every value that its loads may return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sync --lib models`. Each property has a twin in which one rule is
//! broken, and which the model must refuse; otherwise the property would prove nothing.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::test_platform::Modelled;

/// A lock around a cell whose accesses the model checks against each other.
struct Guarded<R: Rules> {
    lock: RawLock<R>,
    data: UnsafeCell<u32>,
}

// SAFETY: the model checks what this claims.
unsafe impl<R: Rules> Sync for Guarded<R> {}
// SAFETY: as above.
unsafe impl<R: Rules> Send for Guarded<R> {}

impl<R: Rules + 'static> Guarded<R> {
    fn new() -> Arc<Guarded<R>> {
        Arc::new(Guarded { lock: RawLock::new(), data: UnsafeCell::new(0) })
    }

    /// One critical section; returns the value that it found.
    fn increment(&self) -> u32 {
        self.lock.lock::<Modelled>(|| ());
        self.finish()
    }

    /// The rest of a critical section.
    fn finish(&self) -> u32 {
        let found = self.data.with_mut(|data| {
            // SAFETY: the model reports any other access that is not ordered with this one.
            unsafe {
                *data += 1;
                *data - 1
            }
        });
        // SAFETY: the callers hold the lock.
        unsafe { self.lock.unlock() };
        found
    }
}

/// Everybody joins the line as soon as they have to wait.
enum Impatient {}
impl Rules for Impatient {
    const PATIENCE: u32 = 0;
}

/// The line forms after one miss.
enum Touchy {}
impl Rules for Touchy {
    const PATIENCE: u32 = 1;
}

/// Broken: what the holder did is not published.
enum RelaxedUnlock {}
impl Rules for RelaxedUnlock {
    const UNLOCK: Ordering = Ordering::Relaxed;
}

/// Broken: latecomers do not look at the line.
enum Rude {}
impl Rules for Rude {
    const PATIENCE: u32 = 0;
    const HONOUR_LINE: bool = false;
}

fn model(preemptions: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 50_000;
    builder.check(f);
}

/// Two CPUs, `sections` critical sections each: they exclude each other and none is lost.
fn two_cpus<R: Rules + 'static>(sections: u32) {
    model(Some(3), move || {
        let shared = Guarded::<R>::new();
        let other = Arc::clone(&shared);
        let t = thread::spawn(move || {
            for _ in 0..sections {
                other.increment();
            }
        });
        for _ in 0..sections {
            shared.increment();
        }
        t.join().unwrap();
        assert_eq!(shared.increment(), 2 * sections);
    });
}

#[test]
fn two_cpus_exclude_each_other() {
    two_cpus::<Sound>(2);
}

#[test]
fn two_cpus_exclude_each_other_in_line() {
    two_cpus::<Impatient>(2);
}

#[test]
fn two_cpus_exclude_each_other_when_the_line_forms_late() {
    two_cpus::<Touchy>(2);
}

#[test]
fn three_cpus_exclude_each_other_in_line() {
    model(Some(1), || {
        let shared = Guarded::<Impatient>::new();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.increment())
            })
            .collect();
        shared.increment();
        for t in others {
            t.join().unwrap();
        }
        assert_eq!(shared.increment(), 3);
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_unlock_is_refused() {
    two_cpus::<RelaxedUnlock>(1);
}

/// Two CPUs try once each.
fn two_tries<R: Rules + 'static>() {
    model(None, || {
        let shared = Guarded::<R>::new();
        let other = Arc::clone(&shared);
        let t = thread::spawn(move || {
            if other.lock.try_lock() {
                other.finish();
            }
        });
        if shared.lock.try_lock() {
            shared.finish();
        }
        t.join().unwrap();
        // Nobody is inside any more, so the last try must succeed.
        assert!(shared.lock.try_lock());
        assert!(shared.finish() >= 1, "at least one of two tries succeeds");
    });
}

#[test]
fn a_try_that_succeeds_excludes() {
    two_tries::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_unlock_is_refused_by_tries() {
    two_tries::<RelaxedUnlock>();
}

/// A CPU draws a ticket and tells another one, which then takes the lock: it must not be before the first.
fn latecomer<R: Rules + 'static>() {
    model(Some(2), || {
        let shared = Guarded::<R>::new();
        let told = Arc::new(AtomicBool::new(false));
        assert!(shared.lock.try_lock());
        let t = {
            let (shared, told) = (Arc::clone(&shared), Arc::clone(&told));
            thread::spawn(move || {
                // Acquire: pairs with the Release below; the ticket was drawn before.
                if told.load(Ordering::Acquire) && shared.lock.try_lock() {
                    Some(shared.finish())
                } else {
                    None
                }
            })
        };
        // What `wait_in_line` begins with, split here so that the ticket can be told of.
        let ticket = shared.lock.next.fetch_add(1, Ordering::Relaxed);
        // SAFETY: taken above.
        unsafe { shared.lock.unlock() };
        // Release: pairs with the Acquire above.
        told.store(true, Ordering::Release);
        while !shared.lock.grab() {
            thread::yield_now();
        }
        shared.lock.served.store(ticket.wrapping_add(1), Ordering::Relaxed);
        let first = shared.finish();
        assert_eq!(first, 0, "passed by a latecomer");
        t.join().unwrap();
    });
}

#[test]
fn who_knows_of_the_line_does_not_pass_it() {
    latecomer::<Impatient>();
}

#[test]
#[should_panic(expected = "passed by a latecomer")]
fn passing_the_line_is_noticed() {
    latecomer::<Rude>();
}

/// Two CPUs are in line: the tickets decide who is first.
#[test]
fn the_line_is_served_in_order() {
    model(Some(2), || {
        let shared = Guarded::<Impatient>::new();
        assert!(shared.lock.try_lock());
        let second_in_line = Arc::new(AtomicBool::new(false));
        let t = {
            let (shared, second_in_line) = (Arc::clone(&shared), Arc::clone(&second_in_line));
            thread::spawn(move || {
                // Acquire: pairs with the Release below; ticket 0 was drawn before.
                let is_second = second_in_line.load(Ordering::Acquire);
                shared.lock.wait_in_line::<Modelled>();
                (is_second, shared.finish())
            })
        };
        let ticket = shared.lock.next.fetch_add(1, Ordering::Relaxed);
        // Release: pairs with the Acquire above.
        second_in_line.store(true, Ordering::Release);
        // SAFETY: taken above.
        unsafe { shared.lock.unlock() };
        while shared.lock.served.load(Ordering::Relaxed) != ticket {
            thread::yield_now();
        }
        while !shared.lock.grab() {
            thread::yield_now();
        }
        shared.lock.served.store(ticket.wrapping_add(1), Ordering::Relaxed);
        let found = shared.finish();
        let (is_second, found_by_second) = t.join().unwrap();
        if is_second {
            assert_eq!((found, found_by_second), (0, 1));
        }
        assert_eq!(found + found_by_second, 1);
    });
}
