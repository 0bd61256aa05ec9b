//! The hosted domain on threads that come and go.

use core::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use sync::TaskCx;

use super::*;
use crate::{Domain, Head, Rcu, RcuBox, RcuOption, Retired, read};

/// An object that tells when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_grace_period_waits_for_the_section_that_began_before_it() {
    crate::hosted_domain! { struct Mine; }
    let (begun, over) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (outer, inner) = (read::<Mine>(), read::<Mine>());
            drop(outer); // in any order
            begun.wait();
            thread::sleep(std::time::Duration::from_millis(20));
            over.store(true, Ordering::Relaxed);
            drop(inner);
        });
        begun.wait();
        let state = Mine::start_poll();
        assert!(!Mine::poll(state) || over.load(Ordering::Relaxed));
        Mine::wait_for_readers();
        assert!(over.load(Ordering::Relaxed));
        assert!(Mine::poll(state));
    });
}

#[test]
fn one_domain_does_not_wait_for_readers_of_another() {
    crate::hosted_domain! { struct Mine; struct Other; }
    let _reader = read::<Other>();
    Mine::wait_for_readers();
    assert!(!Mine::is_reading() && Other::is_reading());
}

#[test]
#[should_panic(expected = "Illegal synchronize in RCU read-side critical section (domain Mine)")]
fn waiting_in_a_section_is_refused() {
    crate::hosted_domain! { struct Mine; }
    let _reader = read::<Mine>();
    Mine::wait_for_readers();
}

#[test]
#[should_panic(expected = "Illegal barrier with bottom halves off")]
fn waiting_with_bottom_halves_off_is_refused() {
    crate::hosted_domain! { struct Mine; }
    let _off = sync::bh::disable();
    Mine::wait_for_callbacks();
}

#[test]
fn all_ways_to_give_up_free_once_and_not_before_the_reader_has_gone() {
    crate::hosted_domain! { struct Mine; }
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    let freed = Arc::new(AtomicUsize::new(0));
    let new = || RcuBox::new(Counted(freed.clone()));
    let pointer = RcuOption::<_, Mine>::from(new());
    let reader = read::<Mine>();
    let first = pointer.load(&reader).map(|first| Arc::clone(&first.0));
    drop(pointer.replace(Some(new())));
    pointer.replace(Some(new())).unwrap().free_after_grace_period();
    pointer.replace(None).unwrap().call(|object| {
        CALLED.fetch_add(1, Ordering::Relaxed);
        drop(object);
    });
    let boxed = RcuOption::<_, Mine>::from(Box::new(Counted(freed.clone())));
    drop(boxed.replace(None));
    let shared = RcuOption::<_, Mine>::from(Arc::new(Counted(freed.clone())));
    drop(shared.replace(None));
    Mine::work();
    assert_eq!(freed.load(Ordering::Relaxed), 0);
    assert_eq!(Mine::stats().callbacks, 5);
    drop(reader);
    Mine::wait_for_callbacks();
    assert_eq!((freed.load(Ordering::Relaxed), CALLED.load(Ordering::Relaxed)), (5, 1));
    drop((pointer, first));
    assert_eq!(Arc::strong_count(&freed), 1);
}

#[test]
fn callbacks_wait_where_softirqs_may_not_come() {
    crate::hosted_domain! { struct Mine; }
    let freed = Arc::new(AtomicUsize::new(0));
    {
        let _held = sync::preempt::disable();
        for _ in 0..1_000 {
            Retired::<_, Mine>::new(RcuBox::new(Counted(freed.clone()))).free_after_grace_period();
        }
        assert_eq!(freed.load(Ordering::Relaxed), 0);
    }
    for _ in 0..1_000 {
        Retired::<_, Mine>::new(RcuBox::new(Counted(freed.clone()))).free_after_grace_period();
    }
    assert!(freed.load(Ordering::Relaxed) >= 1_000, "they are called on the way");
    Mine::wait_for_callbacks();
    assert_eq!(freed.load(Ordering::Relaxed), 2_000);
}

#[test]
fn a_callback_may_queue_itself_again_and_runs_with_bottom_halves_off() {
    crate::hosted_domain! { struct Mine; }
    static LEFT: AtomicU32 = AtomicU32::new(3);
    unsafe fn again(head: NonNull<Head>) {
        assert!(sync::context::in_softirq());
        if LEFT.fetch_sub(1, Ordering::Relaxed) > 1 {
            // SAFETY: the static head is in no queue while it is invoked.
            unsafe { Mine::call(head, again) };
        }
    }
    static HEAD: Head = Head::new();
    // SAFETY: a static, queued by nobody else.
    unsafe { Mine::call(NonNull::from(&HEAD), again) };
    for left in [2, 1, 0, 0] {
        Mine::wait_for_callbacks();
        assert_eq!(LEFT.load(Ordering::Relaxed), left);
    }
}

#[test]
fn threads_come_and_go_and_leave_callbacks_behind() {
    crate::hosted_domain! { struct Mine; }
    const THREADS: usize = 60;
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..THREADS / 4 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let reader = read::<Mine>();
                    Retired::<_, Mine>::new(RcuBox::new(Counted(freed.clone()))).free_after_grace_period();
                    drop(reader);
                });
            }
        });
    }
    // A scope ends before the destructors of its threads' locals.
    while Mine::stats().threads > 0 {
        thread::yield_now();
    }
    assert!(Mine::instance().grace().readers.records().count() <= 2 * 4, "records are used again");
    Mine::work();
    Mine::work();
    assert_eq!(freed.load(Ordering::Relaxed), THREADS, "somebody else called what they left");
}

#[test]
fn barrier_waits_for_what_others_have_taken_out() {
    crate::hosted_domain! { struct Mine; }
    const THREADS: usize = 4;
    const ROUNDS: usize = 200;
    let freed: [Arc<AtomicUsize>; THREADS] = Default::default();
    thread::scope(|scope| {
        for mine in &freed {
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    for _ in 0..7 {
                        drop(Retired::<_, Mine>::new(RcuBox::new(Counted(mine.clone()))));
                    }
                    Mine::wait_for_callbacks();
                    assert!(mine.load(Ordering::Relaxed) >= 7 * round, "barrier returned early");
                }
            });
        }
    });
}

#[test]
fn updates_are_not_lost() {
    crate::hosted_domain! { struct Mine; }
    static WRITERS: sync::SpinLock<()> = sync::SpinLock::new(());
    let free = Rcu::<_, Mine>::new(RcuBox::new(0_u32));
    let locked = Rcu::<_, Mine>::new(RcuBox::new(0_u32));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    drop(free.update(|n| RcuBox::new(n + 1)));
                    let old = locked.update_with(&mut WRITERS.lock(), |n| RcuBox::new(n + 1));
                    drop(old);
                }
            });
        }
    });
    assert_eq!((*free.into_inner(), *locked.into_inner()), (6_000, 6_000));
}

#[test]
#[should_panic(expected = "all its writers must hold that lock")]
fn an_update_without_the_lock_is_noticed() {
    crate::hosted_domain! { struct Mine; }
    let lock: sync::SpinLock<()> = sync::SpinLock::new(());
    let pointer = Rcu::<_, Mine>::new(RcuBox::new(0));
    let _old = pointer.update_with(&mut lock.lock(), |n| {
        drop(pointer.replace(RcuBox::new(7)));
        RcuBox::new(n + 1)
    });
}

#[test]
fn a_stall_names_the_thread_that_reads() {
    crate::hosted_domain! { struct Mine; }
    let (reads, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        thread::Builder::new()
            .name("sleepy".into())
            .spawn_scoped(scope, || {
                let _section = read::<Mine>();
                reads.store(true, Ordering::Release); // pairs with the Acquire below
                while !done.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            })
            .unwrap();
        while !reads.load(Ordering::Acquire) {
            thread::yield_now();
        }
        Mine::set_stall_ns(1_000);
        let reports = hal::hosted::ReportCapture::new();
        let state = Mine::start_poll();
        thread::sleep(std::time::Duration::from_millis(1));
        assert!(!Mine::poll(state));
        let said = reports.take();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].message.starts_with("rcu: Mine stalls: grace period 1 has waited"), "{said:?}");
        assert!(said[0].message.contains("thread 'sleepy' (ThreadId("), "{said:?}");
        done.store(true, Ordering::Relaxed);
    });
    Mine::wait_for_readers();
}

/// The age of what readers hold: writers send objects through a pipe of ten stages, one grace period each. No reader may
/// ever hold an object that has passed more than one.
mod age {
    use super::*;

    const STAGES: usize = 10;

    #[derive(Default)]
    struct Aged {
        stage: AtomicUsize,
    }

    /// What the readers have seen, by stage.
    type Seen = [AtomicUsize; STAGES + 1];

    fn torture<D: Domain<Platform = hal::Native>>(grace_period: fn(&mut TaskCx)) -> Seen {
        let current = Rcu::<RcuBox<Aged>, D>::new(RcuBox::new(Aged::default()));
        let (seen, stop) = (Seen::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            for number in 0..3_usize {
                let (current, seen, stop) = (&current, &seen, &stop);
                scope.spawn(move || {
                    let mut turn = number;
                    while !stop.load(Ordering::Relaxed) {
                        let outer = read::<D>();
                        let inner = turn.is_multiple_of(3).then(read::<D>);
                        let object = current.load(&outer);
                        turn += 1;
                        for _ in 0..turn % 50 {
                            std::hint::spin_loop();
                        }
                        if turn.is_multiple_of(64) {
                            thread::sleep(std::time::Duration::from_micros(50));
                        }
                        drop(inner);
                        // Acquire: pairs with nothing; keeps the load inside of the section.
                        seen[object.stage.load(Ordering::Acquire)].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // SAFETY: this thread's only token.
            let mut cx = unsafe { TaskCx::new() };
            let mut pipe: Vec<Retired<RcuBox<Aged>, D>> = Vec::new();
            let until = std::time::Instant::now() + std::time::Duration::from_millis(700);
            while std::time::Instant::now() < until {
                let old = current.replace(RcuBox::new(Aged::default()));
                old.stage.store(1, Ordering::Relaxed);
                pipe.push(old);
                grace_period(&mut cx);
                for object in &pipe {
                    object.stage.fetch_add(1, Ordering::Relaxed);
                }
                // The objects are freed by real grace periods in any case.
                pipe.retain(|object| object.stage.load(Ordering::Relaxed) < STAGES);
            }
            stop.store(true, Ordering::Relaxed);
        });
        seen
    }

    fn too_old(seen: &Seen) -> usize {
        seen[2..].iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    #[test]
    #[cfg_attr(miri, ignore = "there are few grace periods in the time")]
    fn no_reader_holds_what_is_older_than_a_grace_period() {
        crate::hosted_domain! { struct Mine; }
        let seen = torture::<Mine>(Mine::synchronize);
        assert_eq!(too_old(&seen), 0, "{seen:?}");
        assert!(
            seen[0].load(Ordering::Relaxed) > 0 && seen[1].load(Ordering::Relaxed) > 0,
            "nothing was exercised: {seen:?}"
        );
        assert!(Mine::stats().grace_periods > 100);
    }

    /// The twin: a grace period that does not wait must be noticed.
    #[test]
    fn a_grace_period_that_ends_too_early_is_caught() {
        crate::hosted_domain! { struct Mine; }
        let seen = torture::<Mine>(|_| std::hint::spin_loop());
        assert!(too_old(&seen) > 0, "the torture cannot fail: {seen:?}");
    }
}
