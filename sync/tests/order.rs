//! In which order guards and locks give back what they took, and where the scheduler may run.
#![cfg(not(loom))]

mod support;

use std::sync::Arc;

use hal::Platform;
use proptest::prelude::*;
use support::{Event, Journaling, is_at_rest, journal, reschedule_comes_due, times_scheduled, times_served};
use sync::{BhGuard, BottomHalf, Cpu, Irq, IrqGuard, MigrateGuard, PreemptGuard, Task};
use sync::{Flavor, SpinLock};

type TaskLock = SpinLock<u32, Task<Journaling>>;
type BhLock = SpinLock<u32, BottomHalf<Journaling>>;
type IrqLock = SpinLock<u32, Irq<Journaling>>;

fn disable_preemption() -> PreemptGuard<Journaling> {
    Cpu::<Journaling>::disable_preemption()
}

fn disable_bottom_halves() -> BhGuard<Journaling> {
    Cpu::<Journaling>::disable_bottom_halves()
}

fn disable_interrupts() -> IrqGuard<Journaling> {
    Cpu::<Journaling>::disable_interrupts()
}

/// Takes a lock of flavour `F`, has a softirq raised and a reschedule come due inside, and tells what happened.
fn journal_of_a_section<F: Flavor>() -> Vec<Event> {
    let lock = Arc::new(SpinLock::<u32, F>::new(0));
    let watched = Arc::clone(&lock);
    support::watch(move || watched.is_locked());
    journal();
    let guard = lock.lock();
    Journaling::raise_softirq(3);
    reschedule_comes_due();
    drop(guard);
    journal()
}

/// Softirq 3 was served, and the lock had been released.
const SERVED: Event = Event::Served { vectors: 1 << 3, watched_lock_is_held: false };
/// The task was replaced, and the lock had been released.
const SCHEDULED: Event = Event::Scheduled { watched_lock_is_held: false };

#[test]
fn a_task_lock_is_released_before_the_preemption_point() {
    // A task lock does not hold softirqs up: this one is served where it is raised, in the middle of the section.
    let in_section = Event::Served { vectors: 1 << 3, watched_lock_is_held: true };
    assert_eq!(
        journal_of_a_section::<Task<Journaling>>(),
        [Event::PreemptOff, in_section, Event::PreemptOn, SCHEDULED]
    );
}

#[test]
fn a_bottom_half_lock_is_released_then_softirqs_are_served_then_the_preemption_point_follows() {
    assert_eq!(
        journal_of_a_section::<BottomHalf<Journaling>>(),
        [Event::BottomHalvesOff, Event::BottomHalvesOn, SERVED, Event::PreemptOn, SCHEDULED]
    );
}

#[test]
fn an_irq_lock_is_released_then_interrupts_come_on_then_softirqs_and_the_preemption_point_follow() {
    assert_eq!(journal_of_a_section::<Irq<Journaling>>(), [Event::IrqOff, Event::IrqOn, SERVED, SCHEDULED]);
}

#[test]
fn softirqs_are_served_once_and_at_the_outermost_guard() {
    let lock = BhLock::new(0);
    let a = disable_bottom_halves();
    let b = lock.lock();
    Journaling::raise_softirq(3);
    drop(a); // the older one first
    assert_eq!(times_served(), 0);
    drop(b);
    assert_eq!(times_served(), 1);
    drop(disable_bottom_halves());
    assert_eq!(times_served(), 1, "it was raised once");
    assert!(is_at_rest());
}

#[test]
fn a_reschedule_that_a_softirq_asks_for_happens_when_it_is_over() {
    support::on_softirq(|_| {
        let context = Journaling::context();
        assert!(context.in_serving_softirq() && !context.in_task());
        reschedule_comes_due();
        drop(disable_preemption());
        assert_eq!(times_scheduled(), 0, "a softirq was replaced");
    });
    let guard = disable_bottom_halves();
    Journaling::raise_softirq(3);
    drop(guard);
    assert_eq!((times_served(), times_scheduled()), (1, 1));
}

#[test]
fn what_a_softirq_raises_is_served_too() {
    support::on_softirq(|vectors| {
        if vectors == 1 << 3 {
            Journaling::raise_softirq(4);
            drop(disable_bottom_halves());
            assert_eq!(times_served(), 1, "a softirq was interrupted by one");
        }
    });
    let guard = disable_bottom_halves();
    Journaling::raise_softirq(3);
    drop(guard);
    let served: Vec<_> = journal().into_iter().filter(|e| matches!(e, Event::Served { .. })).collect();
    let second = Event::Served { vectors: 1 << 4, watched_lock_is_held: false };
    assert_eq!(served, [SERVED, second]);
}

#[test]
fn a_reschedule_happens_once_and_at_the_outermost_guard() {
    let (outer, middle, inner) = (TaskLock::new(0), BhLock::new(0), IrqLock::new(0));
    let a = disable_preemption();
    let b = outer.lock();
    let c = middle.lock();
    let d = inner.lock();
    reschedule_comes_due();
    drop(d);
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
    let b = disable_bottom_halves();
    Journaling::raise_softirq(3);
    b.enable_no_resched();
    assert!(is_at_rest());
    assert_eq!(times_served(), 0);
    disable_interrupts().enable_no_resched();
    assert!(is_at_rest());
    assert_eq!(times_scheduled(), 0);
    drop(disable_bottom_halves());
    assert_eq!((times_served(), times_scheduled()), (1, 1));
}

#[test]
fn a_failed_try_gives_back_what_it_switched_off() {
    let (task, bh, irq) = (TaskLock::new(0), BhLock::new(0), IrqLock::new(0));
    std::thread::scope(|scope| {
        let (_a, _b, _c) = (task.lock(), bh.lock(), irq.lock());
        let other = scope.spawn(|| {
            assert!(task.try_lock().is_none());
            assert!(bh.try_lock().is_none());
            assert!(irq.try_lock().is_none());
            assert!(is_at_rest());
        });
        other.join().unwrap();
    });
    assert!(is_at_rest());
}

#[test]
fn with_a_proof_nothing_is_switched() {
    let (task, bh, irq) = (TaskLock::new(0), BhLock::new(0), IrqLock::new(0));
    let quiet = disable_interrupts();
    journal();
    {
        let a = irq.lock_with(&quiet);
        let b = bh.lock_with(&a);
        let mut c = task.lock_with(&b);
        *c = *a + *b + 1;
    }
    assert_eq!(journal(), []);
    assert!(!irq.is_locked() && !bh.is_locked() && !task.is_locked());
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
        "BUG: spinlock recursion on CPU#{cpu}: it waits for a lock that CPU#{cpu} has held since {file}:{first_line}:",
        cpu = Journaling::cpu_number(),
        file = file!(),
    );
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains(&format!("at {}:{second_line}:", file!())), "{message}");
}

/// A guard in the random test.
#[expect(dead_code, reason = "guards are there to be dropped")]
enum Any<'a> {
    Preempt(PreemptGuard<Journaling>),
    Migrate(MigrateGuard<Journaling>),
    Bh(BhGuard<Journaling>),
    Irq(IrqGuard<Journaling>),
    Task(sync::spin::SpinLockGuard<'a, u32, Task<Journaling>>),
    BhLock(sync::spin::SpinLockGuard<'a, u32, BottomHalf<Journaling>>),
    IrqLock(sync::spin::SpinLockGuard<'a, u32, Irq<Journaling>>),
}

impl Any<'_> {
    fn holds_off_preemption(&self) -> bool {
        matches!(self, Any::Preempt(_) | Any::Migrate(_) | Any::Task(_))
    }

    fn holds_off_softirqs(&self) -> bool {
        matches!(self, Any::Bh(_) | Any::BhLock(_))
    }

    fn holds_off_interrupts(&self) -> bool {
        matches!(self, Any::Irq(_) | Any::IrqLock(_))
    }
}

/// What a step of the random test does besides taking or dropping a guard.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Nothing,
    RescheduleComesDue,
    SoftirqIsRaised,
    /// One that asks for a reschedule when it is served.
    UrgentSoftirqIsRaised,
}

fn step() -> impl Strategy<Value = (u8, prop::sample::Index, bool, Happens)> {
    let happens = prop_oneof![
        3 => Just(Happens::Nothing),
        1 => Just(Happens::RescheduleComesDue),
        1 => Just(Happens::SoftirqIsRaised),
        1 => Just(Happens::UrgentSoftirqIsRaised),
    ];
    (0..7_u8, any::<prop::sample::Index>(), prop::bool::weighted(0.45), happens)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(1_000)))]

    /// Any guards, taken in any order and dropped in any other, against a model that counts them. The depths are the
    /// numbers of guards; softirqs are served at once when nothing holds them off, and else exactly when the last guard
    /// that does goes; a due reschedule happens exactly when the last guard of all goes, after the softirqs.
    ///
    /// Dropping a guard that holds off softirqs with interrupts off is reported (by debug builds), and serves them when
    /// interrupts come on.
    #[test]
    fn guards_count_in_any_order(steps in prop::collection::vec(step(), 1..60)) {
        const URGENT: u32 = 7;
        let locks: Vec<_> = (0..60).map(|_| (TaskLock::new(0), BhLock::new(0), IrqLock::new(0))).collect();
        let mut held: Vec<Any<'_>> = Vec::new();
        // The model.
        let (mut due, mut pending, mut urgent) = (false, false, false);
        let (mut scheduled, mut served, mut misused) = (0, 0, 0);
        journal();
        support::collect_reports();
        support::on_softirq(|vectors| if vectors & 1 << URGENT != 0 { reschedule_comes_due() });
        for (step, (kind, index, drops, happens)) in steps.into_iter().enumerate() {
            if drops && !held.is_empty() {
                let guard = held.swap_remove(index.index(held.len()));
                if guard.holds_off_softirqs() && held.iter().any(Any::holds_off_interrupts) {
                    misused += usize::from(cfg!(debug_assertions));
                }
                drop(guard);
            } else {
                held.push(match kind {
                    0 => Any::Preempt(disable_preemption()),
                    1 => Any::Migrate(Cpu::<Journaling>::disable_migration()),
                    2 => Any::Bh(disable_bottom_halves()),
                    3 => Any::Irq(disable_interrupts()),
                    4 => Any::Task(locks[step].0.lock()),
                    5 => Any::BhLock(locks[step].1.lock()),
                    _ => Any::IrqLock(locks[step].2.lock()),
                });
                match happens {
                    Happens::Nothing => (),
                    Happens::RescheduleComesDue => {
                        reschedule_comes_due();
                        due = true;
                    }
                    Happens::SoftirqIsRaised => {
                        Journaling::raise_softirq(1);
                        pending = true;
                    }
                    Happens::UrgentSoftirqIsRaised => {
                        Journaling::raise_softirq(URGENT);
                        (pending, urgent) = (true, true);
                    }
                }
            }
            let depths = (
                held.iter().filter(|guard| guard.holds_off_preemption()).count() as u32,
                held.iter().filter(|guard| guard.holds_off_softirqs()).count() as u32,
                held.iter().filter(|guard| guard.holds_off_interrupts()).count() as u32,
            );
            if pending && depths.1 == 0 && depths.2 == 0 {
                served += 1;
                due |= urgent;
                (pending, urgent) = (false, false);
            }
            if due && depths == (0, 0, 0) {
                due = false;
                scheduled += 1;
            }
            prop_assert_eq!(Journaling::depths(), depths);
            prop_assert_eq!((times_served(), times_scheduled()), (served, scheduled));
        }
        let reports = support::reports();
        prop_assert_eq!(reports.len(), misused);
        for report in reports {
            prop_assert!(report.starts_with("BUG: bottom halves enabled with interrupts off on CPU#"), "{}", report);
        }
        // In an order that is legal, whatever is left.
        held.retain(|guard| guard.holds_off_softirqs() || guard.holds_off_preemption());
        drop(held);
        prop_assert!(is_at_rest());
        prop_assert_eq!(times_served(), served + usize::from(pending));
        prop_assert_eq!(support::reports(), Vec::<String>::new());
    }
}

impl Journaling {
    fn check() {
        <Journaling as Platform>::check_resched();
    }

    fn cpu_number() -> u32 {
        <Journaling as Platform>::cpu().as_u32()
    }

    /// How often preemption, bottom halves and interrupts are off.
    fn depths() -> (u32, u32, u32) {
        let context = Journaling::context();
        (context.preempt_depth(), context.bottom_half_depth(), Journaling::irq_depth())
    }
}
