//! What every lock word must do, under every schedule (loom) and under many (shuttle).
//!
//! Run with `cargo xtask models sync --filter spin`. Each property has a twin in which one rule of a lock is broken, and
//! which must be refused; otherwise the property would prove nothing. Loom tries all the values that loads may return,
//! with two or three threads; shuttle runs four to six threads in sequentially consistent schedules, at random and by
//! priorities that change at a few places.

#[cfg(loom)]
use loom::{cell::UnsafeCell, sync::Arc, thread};
#[cfg(shuttle)]
use shuttle::{sync::Arc, thread};

use super::{RawSpin, unlocked};
#[cfg(shuttle)]
use crate::primitives::{AtomicBool, AtomicU32, Ordering};

#[cfg(shuttle)]
use crate::shuttle_platform::Modelled;
#[cfg(loom)]
use crate::test_platform::Modelled;

/// A lock that tells how often somebody has joined its line, as a number that changes each time.
pub(super) trait Line: RawSpin {
    fn joined(&self) -> u32;
}

/// A lock around a number, which finds out if two are inside.
struct Guarded<L> {
    lock: L,
    /// Loom checks that accesses are ordered.
    #[cfg(loom)]
    data: UnsafeCell<u32>,
    /// Shuttle lets others run between two accesses.
    #[cfg(shuttle)]
    data: AtomicU32,
    #[cfg(shuttle)]
    inside: AtomicBool,
}

// SAFETY: the models check what this claims.
unsafe impl<L: RawSpin> Sync for Guarded<L> {}
// SAFETY: as above.
unsafe impl<L: RawSpin> Send for Guarded<L> {}

impl<L: RawSpin> Guarded<L> {
    fn new() -> Arc<Guarded<L>> {
        Arc::new(Guarded {
            lock: unlocked!(L),
            data: Default::default(),
            #[cfg(shuttle)]
            inside: AtomicBool::new(false),
        })
    }

    fn acquire(&self) {
        self.lock.lock::<Modelled>(|_| <Modelled as hal::Platform>::relax());
    }

    /// One critical section; returns the number that it found.
    fn increment(&self) -> u32 {
        self.acquire();
        self.finish()
    }

    /// The rest of a critical section.
    fn finish(&self) -> u32 {
        #[cfg(loom)]
        let found = self.data.with_mut(|data| {
            // SAFETY: the model reports any other access that is not ordered with this one.
            unsafe {
                *data += 1;
                *data - 1
            }
        });
        #[cfg(shuttle)]
        let found = {
            assert!(!self.inside.swap(true, Ordering::Relaxed), "two are inside");
            let found = self.data.load(Ordering::Relaxed);
            self.data.store(found + 1, Ordering::Relaxed);
            self.inside.store(false, Ordering::Relaxed);
            found
        };
        // SAFETY: the callers hold the lock.
        unsafe { self.lock.unlock() };
        found
    }
}

/// Runs `f` under many schedules. `preemptions` is loom's bound.
fn check(preemptions: usize, f: impl Fn() + Send + Sync + Clone + 'static) {
    #[cfg(loom)]
    {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 20_000;
        test_support::check(&builder, f);
    }
    #[cfg(shuttle)]
    {
        let _ = preemptions;
        test_support::schedules(f, 3_000, 1_000);
    }
}

/// `cpus` CPUs, `sections` critical sections each: they exclude each other and none is lost.
pub(super) fn exclusion<L: RawSpin>(cpus: usize, sections: u32, preemptions: usize) {
    check(preemptions, move || {
        let shared = Guarded::<L>::new();
        let others: Vec<_> = (1..cpus)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for _ in 0..sections {
                        shared.increment();
                    }
                })
            })
            .collect();
        for _ in 0..sections {
            shared.increment();
        }
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.increment(), cpus as u32 * sections);
    });
}

/// Two CPUs try once each: whoever succeeds is alone, and one does.
pub(super) fn tries<L: RawSpin>() {
    check(3, || {
        let shared = Guarded::<L>::new();
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
        // Nobody is inside any more, so that the last try must succeed.
        assert!(shared.lock.try_lock());
        assert!(shared.finish() >= 1, "at least one of two tries succeeds");
    });
}

/// `cpus` CPUs join the line of a held lock one after the other, and are served in that order; the last one comes by
/// `late` when all the others are in line.
pub(super) fn order<L: Line>(cpus: u32, preemptions: usize, late: fn(&L)) {
    check(preemptions, move || {
        let shared = Guarded::<L>::new();
        shared.acquire();
        let mut joined = shared.lock.joined();
        let mut waiters = Vec::new();
        for number in 0..cpus {
            let waiter = Arc::clone(&shared);
            let last = number == cpus - 1;
            waiters.push(thread::spawn(move || {
                if last {
                    late(&waiter.lock);
                } else {
                    waiter.acquire();
                }
                (number, waiter.finish())
            }));
            while !last && shared.lock.joined() == joined {
                thread::yield_now();
            }
            joined = shared.lock.joined();
        }
        // SAFETY: taken above.
        unsafe { shared.lock.unlock() };
        for waiter in waiters {
            let (number, found) = waiter.join().unwrap();
            assert_eq!(found, number, "served out of order");
        }
    });
}

/// Comes late by `lock`.
pub(super) fn by_lock<L: Line>(lock: &L) {
    lock.lock::<Modelled>(|_| <Modelled as hal::Platform>::relax());
}

/// Comes late by trying again and again.
pub(super) fn by_trying<L: Line>(lock: &L) {
    while !lock.try_lock() {
        <Modelled as hal::Platform>::relax();
    }
}

/// The numbers of CPUs that a checker can manage.
pub(super) const CPUS: usize = if cfg!(loom) { 3 } else { 5 };
