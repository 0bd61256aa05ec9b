//! Spin locks on host threads: every word with every flavour, and what the typed lock adds.
#![cfg(not(any(loom, shuttle)))]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

#[cfg(debug_assertions)]
use hal::hosted::TestClock;
use hal::hosted::{self, ReportCapture};
use hal::{Native, Platform};
use sync::lockdep::Subclass;
use sync::spin::raw::{AdaptiveLock, QueuedLock, RawSpin, TicketLock};
use sync::{BottomHalf, Flavor, Irq, IrqSpinLock, Queued, SpinLock, Task, TaskCx, Ticketed, irq};

/// Threads take one lock around a plain read-modify-write in two steps, so that updates are lost if two are inside.
fn hammer<F: Flavor>(threads: u64, times: u64) {
    let lock = SpinLock::<(u64, u64), F>::new((0, 0));
    thread::scope(|scope| {
        for thread in 0..threads {
            let lock = &lock;
            scope.spawn(move || {
                for i in 0..times {
                    let mut guard = match (thread + i) % 8 {
                        0 => lock.try_lock_for(1_000_000).unwrap_or_else(|| lock.lock()),
                        1 => lock.try_lock().unwrap_or_else(|| lock.lock()),
                        _ => lock.lock(),
                    };
                    let former = guard.0;
                    assert_eq!(guard.0, guard.1);
                    guard.0 = former + 1;
                    if i % 64 == 0 {
                        Native::relax();
                    }
                    guard.1 = former + 1;
                }
            });
        }
    });
    assert!(!lock.is_locked());
    assert_eq!(lock.into_inner(), (threads * times, threads * times));
}

#[test]
fn one_at_a_time_with_every_word_and_flavour() {
    const TIMES: u64 = 20_000;
    hammer::<Task>(4, TIMES);
    hammer::<BottomHalf>(4, TIMES);
    hammer::<Irq>(4, TIMES);
    hammer::<Queued<Task>>(4, TIMES / 10);
    hammer::<Queued<BottomHalf>>(4, TIMES / 10);
    hammer::<Queued<Irq>>(4, TIMES / 10);
    hammer::<Ticketed<Task>>(4, TIMES / 10);
    hammer::<Ticketed<BottomHalf>>(4, TIMES / 10);
    hammer::<Ticketed<Irq>>(4, TIMES / 10);
}

/// Two CPUs whose tasks and interrupt handlers all want one queued lock: each level of each CPU waits with its own node.
#[test]
fn handlers_wait_in_the_queue_below_which_their_task_waits() {
    static OUTER: SpinLock<u64, Queued<Task>> = SpinLock::new(0);
    static INNER: SpinLock<u64, Queued<Irq>> = SpinLock::new(0);
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    const ROUNDS: u64 = 2_000;
    hosted::run_cpus(2, |_| {
        for _ in 0..ROUNDS {
            hosted::send_interrupt(Native::cpu(), || {
                *INNER.lock() += 1;
                TAKEN.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            // The wait for this one is a place where the interrupt comes.
            *OUTER.lock() += 1;
            *INNER.lock() += 1;
        }
        while TAKEN.load(Ordering::Relaxed) < 2 * ROUNDS {
            Native::relax();
        }
    });
    assert_eq!((*OUTER.lock(), *INNER.lock()), (2 * ROUNDS, 4 * ROUNDS));
}

/// The node of this level is in use, as in an interrupt that interrupts an interrupt that waits.
#[test]
fn who_finds_no_node_gets_the_lock_without_a_place_in_the_queue() {
    let _cpu = hosted::bind().unwrap();
    let lock = QueuedLock::UNLOCKED;
    assert!(lock.try_lock());
    let waits = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _cpu = hosted::bind().unwrap();
            // SAFETY: bound to this CPU.
            let node = &unsafe { Native::record().as_ref() }.nodes[0];
            node.busy.store(1, Ordering::Relaxed);
            node.next.store(u32::MAX, Ordering::Relaxed);
            lock.lock::<Native>(|_| {
                waits.store(true, Ordering::Relaxed);
                Native::relax();
            });
            assert_eq!(node.next.load(Ordering::Relaxed), u32::MAX, "the node was used");
            node.busy.store(0, Ordering::Relaxed);
            // SAFETY: taken above.
            unsafe { lock.unlock() };
        });
        while !waits.load(Ordering::Relaxed) {
            Native::relax();
        }
        // SAFETY: taken above.
        unsafe { lock.unlock() };
    });
    assert!(!lock.is_locked());
}

#[test]
fn every_word_has_four_bytes() {
    assert_eq!(size_of::<AdaptiveLock>(), 4);
    assert_eq!(size_of::<QueuedLock>(), 4);
    assert_eq!(size_of::<TicketLock>(), 4);
    if !cfg!(debug_assertions) {
        assert_eq!(size_of::<SpinLock<u32>>(), 8);
    }
}

#[test]
fn a_try_with_a_limit_waits_no_less_than_that_and_changes_nothing() {
    let _cpu = hosted::bind().unwrap();
    let lock = IrqSpinLock::new(0);
    let held = lock.lock();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _cpu = hosted::bind().unwrap();
            let start = Native::now_ns();
            assert!(lock.try_lock_for(3_000_000).is_none());
            assert!(Native::now_ns() - start >= 3_000_000, "gave up early");
            assert_eq!((Native::irq_depth(), Native::context().count()), (0, 0));
            assert!(lock.try_lock_for(0).is_none());
        });
    });
    drop(held);
    // Nothing is left of the attempts: the lock is free, and nobody has the right of way.
    *lock.try_lock().unwrap() += 1;
    *lock.try_lock_for(0).unwrap() += 1;
    assert_eq!(lock.into_inner(), 2);
}

#[test]
fn interrupts_come_while_a_try_with_a_limit_waits() {
    let _cpu = hosted::bind().unwrap();
    let lock = IrqSpinLock::new(());
    let came = AtomicBool::new(false);
    let held = lock.lock();
    thread::scope(|scope| {
        let (lock, came) = (&lock, &came);
        let waiter = scope.spawn(move || {
            let cpu = hosted::bind().unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            hosted::send_interrupt(cpu.cpu(), move || tell.send(()).unwrap()).unwrap();
            let _ = lock.try_lock_for(1_000_000);
            came.store(told.try_recv().is_ok(), Ordering::Relaxed);
        });
        waiter.join().unwrap();
    });
    drop(held);
    assert!(came.load(Ordering::Relaxed));
}

#[test]
fn a_lock_is_handed_over_with_what_its_flavour_switched_off() {
    let _cpu = hosted::bind().unwrap();
    let run_queue = IrqSpinLock::new(vec![1]);
    let mut guard = run_queue.lock();
    guard.push(2);
    guard.into_handover();
    assert!(run_queue.is_locked() && run_queue.try_lock().is_none());
    assert_eq!(Native::irq_depth(), 1);
    run_queue.assert_held();
    // SAFETY: handed over above, on this CPU.
    let guard = unsafe { run_queue.adopt_handover() };
    assert_eq!(*guard, [1, 2]);
    drop(guard);
    assert!(!run_queue.is_locked());
    assert_eq!(Native::irq_depth(), 0);
}

#[test]
fn one_of_a_class_inside_of_another_by_subclass_and_by_proof() {
    let _cpu = hosted::bind().unwrap();
    let reports = ReportCapture::new();
    let locks = [1, 2].map(IrqSpinLock::new);
    {
        let _outer = locks[0].lock();
        let _inner = locks[1].lock_nested(Subclass::NESTED);
    }
    let quiet = irq::disable();
    {
        let outer = locks[0].lock_with(&quiet);
        let mut inner = locks[1].lock_with_nested(&outer, Subclass::NESTED);
        *inner += *outer;
    }
    drop(quiet);
    assert_eq!(*locks[1].lock(), 3);
    assert_eq!(reports.take(), []);
}

#[test]
fn a_lock_taken_with_the_right_to_sleep_switches_off_as_always() {
    let _cpu = hosted::bind().unwrap();
    // SAFETY: the thread's only token.
    let mut cx = unsafe { TaskCx::new() };
    let lock = SpinLock::<_>::new(1);
    {
        let mut guard = lock.lock_in(&cx);
        *guard += 1;
        assert_eq!(Native::context().preempt_depth(), 1);
    }
    cx.cond_resched();
    assert_eq!(*lock.lock_in(&cx), 2);
    assert_eq!(Native::context().preempt_depth(), 0);
}

#[test]
fn the_conveniences() {
    let mut lock = SpinLock::<Vec<u8>>::default();
    lock.get_mut().push(1);
    assert_eq!(format!("{lock:?}"), "SpinLock { data: [1] }");
    {
        let _guard = lock.lock();
        assert_eq!(format!("{lock:?}"), "SpinLock { data: <locked> }");
    }
    let lock = SpinLock::<_>::from(lock.into_inner());
    assert_eq!(lock.into_inner(), [1]);
}

/// Moves what must not be moved, as unsafe code can.
#[cfg(debug_assertions)]
struct Smuggled<T>(T);
#[cfg(debug_assertions)]
// SAFETY: none; the test shows what becomes of it.
unsafe impl<T> Send for Smuggled<T> {}

#[cfg(debug_assertions)]
impl<T> Smuggled<T> {
    fn take(self) -> T {
        self.0
    }
}

#[cfg(debug_assertions)]
mod reports {
    use super::*;

    fn messages(capture: &ReportCapture) -> Vec<String> {
        capture.take().into_iter().map(|report| report.message).collect()
    }

    #[test]
    fn a_guard_dropped_on_another_cpu_is_the_wrong_owner() {
        let cpu = hosted::bind().unwrap().cpu();
        let lock = SpinLock::<_>::new(());
        let line = line!() + 1;
        let guard = Smuggled(lock.lock());
        let (text, other) = thread::scope(|scope| {
            let thief = scope.spawn(|| {
                let binding = hosted::bind().unwrap();
                let capture = ReportCapture::new();
                lock.assert_held();
                drop(guard.take());
                (messages(&capture), binding.cpu())
            });
            thief.join().unwrap()
        });
        let since = format!("CPU#{cpu} has held since {}:{line}:", file!());
        assert!(text[0].starts_with(&format!("spinlock not held by CPU#{other}: {since}")), "{text:?}");
        let expected = format!("spinlock wrong owner: CPU#{other} gives up a lock that {since}");
        assert!(text[1].starts_with(&expected), "{text:?}");
        assert!(!lock.is_locked());
        // The thief did not undo what the guard had switched off here.
        Native::preempt_enable();
    }

    #[test]
    fn a_hand_over_to_another_cpu_is_the_wrong_owner() {
        let cpu = hosted::bind().unwrap().cpu();
        let lock = SpinLock::<_>::new(());
        lock.lock().into_handover();
        let (text, other) = thread::scope(|scope| {
            let thief = scope.spawn(|| {
                let binding = hosted::bind().unwrap();
                let capture = ReportCapture::new();
                Native::preempt_disable();
                // SAFETY: none, which is what is to be found out.
                drop(unsafe { lock.adopt_handover() });
                (messages(&capture), binding.cpu())
            });
            thief.join().unwrap()
        });
        let expected =
            format!("spinlock wrong owner: CPU#{other} gives up a lock that CPU#{cpu} has held since");
        assert!(text[0].starts_with(&expected), "{text:?}");
        Native::preempt_enable();
    }

    #[test]
    fn nobody_holds_it() {
        let cpu = hosted::bind().unwrap();
        let capture = ReportCapture::new();
        let lock = SpinLock::<_>::new(());
        lock.assert_held();
        assert_eq!(messages(&capture), [format!("spinlock not held by CPU#{}: nobody holds it", cpu.cpu())]);
    }

    #[test]
    fn a_wait_of_ten_seconds_is_reported_once_with_the_holder() {
        let cpu = hosted::bind().unwrap();
        let clock = TestClock::install();
        let lock = IrqSpinLock::new(());
        let line = line!() + 1;
        let held = lock.lock();
        let waits = AtomicBool::new(false);
        let (text, other) = thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let other = hosted::bind().unwrap().cpu();
                let capture = ReportCapture::new();
                waits.store(true, Ordering::Relaxed);
                drop(lock.lock());
                (messages(&capture), other)
            });
            while !waits.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            // Time passes, in steps that each are less than the limit, while the other one looks at its clock.
            for _ in 0..6 {
                thread::sleep(std::time::Duration::from_millis(60));
                clock.advance(3_000_000_000);
            }
            thread::sleep(std::time::Duration::from_millis(200));
            drop(held);
            waiter.join().unwrap()
        });
        assert_eq!(text.len(), 1, "{text:?}");
        let expected = format!("spinlock lockup suspected on CPU#{other}: it has waited 1");
        assert!(text[0].starts_with(&expected), "{text:?}");
        let expected = format!(" s for a lock that CPU#{} has held since {}:{line}:", cpu.cpu(), file!());
        assert!(text[0].contains(&expected), "{text:?}");
    }
}
