//! Reader-writer locks: what is switched off, who may be inside with whom, and interrupts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;

use hal::{Native, Platform, hosted};
use proptest::prelude::*;
use sync::rwlock::{RwLockReadGuard, RwLockWriteGuard};
use sync::{Cpu, Irq, IrqRwLock, IrqSpinLock, RwLock, SpinLock, Task};

use super::support::{Event, Journaling, is_at_rest, journal, reschedule_comes_due, watch};

type TaskLock = RwLock<u32, Task<Journaling>>;
type IrqLock = RwLock<u32, Irq<Journaling>>;

#[test]
fn a_lock_is_left_before_the_preemption_point() {
    let lock = Arc::new(TaskLock::new(0));
    let watched = Arc::clone(&lock);
    watch(move || watched.is_locked());
    let expected = [Event::PreemptOff, Event::PreemptOn, Event::Scheduled { watched_lock_is_held: false }];
    journal();
    let guard = lock.read();
    reschedule_comes_due();
    drop(guard);
    assert_eq!(journal(), expected);
    let guard = lock.write();
    reschedule_comes_due();
    drop(guard);
    assert_eq!(journal(), expected);
    let guard = lock.write();
    reschedule_comes_due();
    drop(guard.downgrade());
    assert_eq!(journal(), expected);
}

#[test]
fn the_flavour_is_in_force_while_a_guard_lives() {
    let lock = IrqLock::new(1);
    journal();
    drop(lock.read());
    drop(lock.write());
    assert_eq!(journal(), [Event::IrqOff, Event::IrqOn, Event::IrqOff, Event::IrqOn]);
    drop(lock.read_irqs_on());
    assert_eq!(journal(), [Event::PreemptOff, Event::PreemptOn]);
    let quiet = Cpu::<Journaling>::disable_interrupts();
    journal();
    *lock.write_with(&quiet) += 1;
    assert_eq!(*lock.read_with(&quiet), 2);
    drop(lock.write_with(&quiet).downgrade());
    assert_eq!(journal(), []);
    drop(quiet);
    let held = lock.write();
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    assert!(lock.is_locked() && lock.is_write_locked());
    assert_eq!(format!("{lock:?}"), "RwLock { data: <locked> }");
    drop(held);
    assert_eq!(format!("{lock:?}"), "RwLock { data: 2 }");
    assert!(is_at_rest() && !lock.is_locked());
}

#[test]
fn guards_prove_what_they_are_good_for() {
    let (task, irq) = (RwLock::<u32>::new(1), IrqRwLock::new(2));
    let (inner_task, inner_irq) = (SpinLock::<u32>::new(3), IrqSpinLock::new(4));
    let sum = |a: &u32, b: &u32| a + b;
    {
        let guard = task.read();
        assert_eq!(sum(&guard, &inner_task.lock_with(&guard)), 4);
    }
    {
        let guard = irq.write();
        assert_eq!(sum(&guard, &inner_irq.lock_with(&guard)), 6);
        assert_eq!(sum(&guard, &inner_task.lock_with(&guard)), 5);
        let nested = task.write_with(&guard);
        assert_eq!(sum(&nested, &inner_task.lock_with(&nested)), 4);
    }
    let guard = irq.read_irqs_on();
    assert_eq!(sum(&guard, &inner_task.lock_with(&guard)), 5);
}

/// The case for which readers in interrupts do not queue: a handler interrupts a reader, and a writer waits on another
/// CPU. With a queue for all, this does not end.
#[test]
fn a_handler_that_interrupts_a_reader_reads_although_a_writer_waits() {
    static LOCK: IrqRwLock<u32> = IrqRwLock::new(5);
    static HANDLED: AtomicU32 = AtomicU32::new(0);
    let stopped = AtomicBool::new(false);
    let _cpu = hosted::bind().unwrap();
    let reading = LOCK.read_irqs_on();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _cpu = hosted::bind().unwrap();
            *LOCK.write() += 1;
            stopped.store(true, Relaxed);
        });
        // When a task's attempt fails although nobody writes, the writer is in line.
        while LOCK.try_read().is_some() {
            thread::yield_now();
        }
        hosted::send_interrupt(Native::cpu(), || {
            HANDLED.fetch_add(*LOCK.read(), Relaxed);
            HANDLED.fetch_add(*LOCK.try_read().expect("a handler passes those who wait"), Relaxed);
        })
        .unwrap();
        Native::relax();
        assert_eq!(HANDLED.load(Relaxed), 10);
        assert!(!stopped.load(Relaxed));
        drop(reading);
        writer.join().unwrap();
    });
    assert_eq!(*LOCK.read(), 6);
}

/// Tasks and handlers of three CPUs read and write, with interrupts that come at any time.
#[test]
fn tasks_and_handlers_share_a_lock() {
    const CPUS: usize = 3;
    const ROUNDS: u32 = 1_500;
    static LOCK: IrqRwLock<[u32; 2]> = IrqRwLock::new([0; 2]);
    fn step(kind: u32) {
        if kind.is_multiple_of(3) {
            let mut words = LOCK.write();
            words[0] += 1;
            Native::relax(); // a delivery point, if interrupts were on
            words[1] += 1;
        } else {
            let words = LOCK.read();
            assert_eq!(words[0], words[1]);
        }
    }
    let taken = AtomicU32::new(0);
    let taken: &'static AtomicU32 = Box::leak(Box::new(taken));
    hosted::run_cpus(CPUS, |me| {
        for round in 0..ROUNDS {
            step(round + me as u32);
            hosted::send_interrupt(Native::cpu(), move || {
                step(round);
                taken.fetch_add(1, Relaxed);
            })
            .unwrap();
        }
        while taken.load(Relaxed) < CPUS as u32 * ROUNDS {
            Native::relax();
        }
    });
    let writes = LOCK.read()[0];
    assert_eq!(writes, 2 * CPUS as u32 * ROUNDS / 3);
}

#[test]
fn sizes() {
    let map = size_of::<sync::lockdep::Map>();
    assert_eq!(size_of::<RwLock<u64>>(), (8 + map).next_multiple_of(8) + 8);
    if !cfg!(debug_assertions) {
        assert_eq!(size_of::<RwLockReadGuard<'_, u64, Irq>>(), size_of::<usize>());
        assert_eq!(size_of::<RwLockWriteGuard<'_, u64, Irq>>(), size_of::<usize>());
    }
}

enum Any<'a> {
    Read(RwLockReadGuard<'a, u32, Task<Journaling>>),
    Write(RwLockWriteGuard<'a, u32, Task<Journaling>>),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// One task tries this and that on one lock, against a count of readers and a flag.
    #[test]
    fn tries_succeed_exactly_if_they_may(steps in prop::collection::vec((0..5_u8, any::<prop::sample::Index>()), 0..60)) {
        let lock = TaskLock::new(0);
        let mut held: Vec<Any<'_>> = Vec::new();
        let mut value = 0;
        for (kind, index) in steps {
            let writes = held.iter().any(|guard| matches!(guard, Any::Write(_)));
            match kind {
                0 => {
                    let guard = lock.try_read();
                    prop_assert_eq!(guard.is_some(), !writes);
                    held.extend(guard.map(Any::Read));
                }
                1 => {
                    let guard = lock.try_write();
                    prop_assert_eq!(guard.is_some(), held.is_empty());
                    held.extend(guard.map(|mut guard| {
                        *guard += 1;
                        value += 1;
                        Any::Write(guard)
                    }));
                }
                2 => held = held.into_iter().map(|guard| match guard {
                    Any::Write(guard) => Any::Read(guard.downgrade()),
                    read => read,
                }).collect(),
                _ if held.is_empty() => (),
                _ => drop(held.swap_remove(index.index(held.len()))),
            }
            for guard in &held {
                prop_assert_eq!(value, match guard { Any::Read(guard) => **guard, Any::Write(guard) => **guard });
            }
            prop_assert_eq!(lock.is_locked(), !held.is_empty());
        }
        drop(held);
        prop_assert!(is_at_rest() && !lock.is_locked());
        prop_assert_eq!(lock.into_inner(), value);
    }
}
