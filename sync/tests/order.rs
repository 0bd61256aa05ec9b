//! In which order guards and locks give back what they took, and where the scheduler may run.
#![cfg(not(loom))]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::{Event, Journaling, is_at_rest, journal, reschedule_comes_due, times_scheduled};
use sync::{Cpu, Irq, IrqGuard, PreemptGuard, Task};
use sync::{Flavor, SpinLock};

type TaskLock = SpinLock<u32, Task<Journaling>>;
type IrqLock = SpinLock<u32, Irq<Journaling>>;

fn disable_preemption() -> PreemptGuard<Journaling> {
    Cpu::<Journaling>::disable_preemption()
}

fn disable_interrupts() -> IrqGuard<Journaling> {
    Cpu::<Journaling>::disable_interrupts()
}

/// Takes a lock of flavour `F`, has a reschedule come due inside, and tells what happened.
fn journal_of_a_section<F: Flavor>() -> Vec<Event> {
    let lock = Arc::new(SpinLock::<u32, F>::new(0));
    let watched = Arc::clone(&lock);
    support::watch(move || watched.is_locked());
    journal();
    let guard = lock.lock();
    reschedule_comes_due();
    drop(guard);
    journal()
}

#[test]
fn a_task_lock_is_released_before_the_preemption_point() {
    assert_eq!(
        journal_of_a_section::<Task<Journaling>>(),
        [Event::PreemptOff, Event::PreemptOn, Event::Scheduled { watched_lock_is_held: false }]
    );
}

#[test]
fn an_irq_lock_is_released_then_interrupts_come_on_then_the_preemption_point_follows() {
    assert_eq!(
        journal_of_a_section::<Irq<Journaling>>(),
        [Event::IrqOff, Event::IrqOn, Event::Scheduled { watched_lock_is_held: false }]
    );
}

#[test]
fn a_reschedule_happens_once_and_at_the_outermost_guard() {
    let (outer, inner) = (TaskLock::new(0), IrqLock::new(0));
    let a = disable_preemption();
    let b = outer.lock();
    let c = inner.lock();
    reschedule_comes_due();
    drop(c);
    drop(b);
    assert_eq!(times_scheduled(), 0);
    drop(a);
    assert_eq!(times_scheduled(), 1);
    drop(disable_preemption());
    assert_eq!(times_scheduled(), 1, "it was due once");
}

#[test]
fn nothing_schedules_while_interrupts_are_off() {
    let lock = TaskLock::new(0);
    let quiet = disable_interrupts();
    reschedule_comes_due();
    drop(disable_preemption());
    drop(lock.lock());
    drop(lock.lock_with(&quiet));
    drop(disable_interrupts());
    Journaling::check();
    assert_eq!(times_scheduled(), 0);
    drop(quiet);
    assert_eq!(times_scheduled(), 1);
}

#[test]
fn the_forms_without_a_preemption_point_leave_the_reschedule_due() {
    let a = disable_preemption();
    reschedule_comes_due();
    a.enable_no_resched();
    assert!(is_at_rest());
    disable_interrupts().enable_no_resched();
    assert!(is_at_rest());
    assert_eq!(times_scheduled(), 0);
    drop(disable_preemption());
    assert_eq!(times_scheduled(), 1);
}

#[test]
fn a_failed_try_gives_back_what_it_switched_off() {
    let (task, irq) = (TaskLock::new(0), IrqLock::new(0));
    std::thread::scope(|scope| {
        let (_a, _b) = (task.lock(), irq.lock());
        let other = scope.spawn(|| {
            assert!(task.try_lock().is_none());
            assert!(irq.try_lock().is_none());
            assert!(is_at_rest());
        });
        other.join().unwrap();
    });
    assert!(is_at_rest());
}

#[test]
fn with_a_proof_nothing_is_switched() {
    let (task, irq) = (TaskLock::new(0), IrqLock::new(0));
    let quiet = disable_interrupts();
    journal();
    {
        let a = irq.lock_with(&quiet);
        let mut b = task.lock_with(&a);
        *b = *a + 1;
    }
    assert_eq!(journal(), []);
    assert!(!irq.is_locked() && !task.is_locked());
}

#[test]
fn taking_a_held_lock_again_is_reported_with_both_lines() {
    if !cfg!(debug_assertions) {
        return;
    }
    let lock = TaskLock::new(0);
    let first_line = line!() + 1;
    let _held = lock.lock();
    let second_line = line!() + 1;
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lock.lock())));
    let message = *again.expect_err("reported").downcast::<String>().expect("formatted");
    let expected = format!(
        "BUG: spinlock recursion on CPU#{}: it waits for a lock that it has held since {file}:{first_line}:",
        Journaling::cpu_number(),
        file = file!(),
    );
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains(&format!("at {}:{second_line}:", file!())), "{message}");
}

/// A guard in the random test.
#[expect(dead_code, reason = "guards are there to be dropped")]
enum Any<'a> {
    Preempt(PreemptGuard<Journaling>),
    Irq(IrqGuard<Journaling>),
    Task(sync::spin::SpinLockGuard<'a, u32, Task<Journaling>>),
    IrqLock(sync::spin::SpinLockGuard<'a, u32, Irq<Journaling>>),
}

proptest! {
    /// Any guards, taken in any order and dropped in any other: interrupts are off exactly while a guard wants them
    /// off, and whenever a reschedule is due it happens exactly when the last guard that forbids it goes.
    #[test]
    fn guards_count_in_any_order(steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<bool>()), 1..60)) {
        let locks: Vec<_> = (0..60).map(|_| (TaskLock::new(0), IrqLock::new(0))).collect();
        let mut held: Vec<Any<'_>> = Vec::new();
        let (mut due, mut scheduled) = (false, 0);
        journal();
        for (step, (kind, index, becomes_due)) in steps.into_iter().enumerate() {
            if index.index(3) == 0 && !held.is_empty() {
                drop(held.swap_remove(index.index(held.len())));
            } else {
                held.push(match kind {
                    0 => Any::Preempt(disable_preemption()),
                    1 => Any::Irq(disable_interrupts()),
                    2 => Any::Task(locks[step].0.lock()),
                    _ => Any::IrqLock(locks[step].1.lock()),
                });
                if becomes_due {
                    reschedule_comes_due();
                    due = true;
                }
            }
            if held.is_empty() && due {
                due = false;
                scheduled += 1;
            }
            let off = held.iter().filter(|g| matches!(g, Any::Irq(_) | Any::IrqLock(_))).count();
            let pinned = held.iter().filter(|g| matches!(g, Any::Preempt(_) | Any::Task(_))).count();
            prop_assert_eq!(Journaling::depths(), (pinned as u32, off as u32));
            prop_assert_eq!(times_scheduled(), scheduled);
        }
        drop(held);
        prop_assert!(is_at_rest());
    }
}

impl Journaling {
    fn check() {
        <Journaling as hal::Platform>::check_resched();
    }

    fn cpu_number() -> u32 {
        <Journaling as hal::Platform>::cpu().as_u32()
    }

    fn depths() -> (u32, u32) {
        (<Journaling as hal::Platform>::context().preempt_depth(), <Journaling as hal::Platform>::irq_depth())
    }
}
