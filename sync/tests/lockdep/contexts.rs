//! Handlers, on the hosted machine: simulated interrupts and softirqs.

use core::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use hal::platform::Platform;
use hal::{Native, hosted};
use sync::call::Calls;
use sync::lockdep::{self, Acquire, Level, Map, WaitType};
use sync::{BhSpinLock, IrqSpinLock, SpinLock, irq};

use crate::checked::Checked;

/// Runs `f` as an interrupt handler of this CPU.
fn in_hardirq(f: impl FnOnce() + Send + 'static) {
    hosted::send_interrupt(Native::cpu(), f).expect("this CPU is online");
}

#[test]
fn a_task_lock_in_an_interrupt() {
    let checked = Checked::new();
    let lock = Arc::new(SpinLock::<_>::new(1));
    let theirs = Arc::clone(&lock);
    in_hardirq(move || drop(theirs.lock()));
    assert_eq!(checked.headlines(), ["invalid wait context"]);
    drop(lock.lock());
    assert_eq!(checked.headlines(), ["inconsistent lock state"]);
}

#[test]
fn a_softirq_lock_in_an_interrupt_and_in_a_softirq() {
    let checked = Checked::new();
    let lock = Rc::new(BhSpinLock::new(1));
    let theirs = Rc::clone(&lock);
    let _hooks = hosted::set_hooks(hosted::Hooks {
        softirq: Some(Rc::new(move |_| drop(theirs.lock()))),
        ..hosted::Hooks::default()
    });
    Native::raise_softirq(3);
    Native::serve_softirqs();
    drop(lock.lock());
    assert!(checked.reports().is_empty(), "that is what it is for");
    // With interrupts on, bottom halves off: fine as well. In a hardirq it is not.
    let other = Arc::new(BhSpinLock::new(1));
    let theirs = Arc::clone(&other);
    in_hardirq(move || drop(theirs.try_lock()));
    let headlines = checked.headlines();
    assert!(!headlines.contains(&"invalid wait context".to_owned()), "nothing was waited for: {headlines:?}");
}

#[test]
fn an_interrupt_lock_that_leads_to_a_task_lock() {
    let checked = Checked::new();
    let inner = SpinLock::<_>::new(1);
    let outer = Arc::new(IrqSpinLock::new(2));
    {
        let outer = outer.lock();
        drop(inner.lock_with(&outer));
    }
    drop(inner.lock());
    assert!(checked.reports().is_empty(), "no handler has been seen to take the outer one");
    let theirs = Arc::clone(&outer);
    in_hardirq(move || drop(theirs.lock()));
    let reports = checked.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.starts_with("irq-safe -> irq-unsafe lock order detected"), "{reports:?}");
}

#[test]
fn interrupts_that_come_on_under_a_lock() {
    let checked = Checked::new();
    let map = Map::new(WaitType::Spin, Level::Hardirq);
    let at = Location::caller();
    let quiet = irq::disable();
    map.acquire::<Native>(Acquire::WRITE, at);
    let usage = || lockdep::class::<Native>(checked.checker, 1).expect("the first").1;
    assert!(!usage().with_interrupts_on());
    // Two parties want them off: this is not the outermost.
    let inner = irq::disable();
    lockdep::interrupts_coming_on::<Native>(at);
    drop(inner);
    assert!(!usage().with_interrupts_on());
    lockdep::interrupts_coming_on::<Native>(at);
    assert!(usage().with_interrupts_on() && usage().with_bottom_halves_on());
    drop(quiet);
    map.release::<Native>(at);
}

#[test]
fn bottom_halves_that_come_on_under_a_lock() {
    let checked = Checked::new();
    let map = Map::new(WaitType::Spin, Level::Hardirq);
    let at = Location::caller();
    let no_softirqs = sync::bh::disable();
    map.acquire::<Native>(Acquire::WRITE, at);
    let usage = || lockdep::class::<Native>(checked.checker, 1).expect("the first").1;
    assert!(usage().with_interrupts_on() && !usage().with_bottom_halves_on());
    lockdep::bottom_halves_coming_on::<Native>(at);
    assert!(usage().with_bottom_halves_on());
    drop(no_softirqs);
    map.release::<Native>(at);
}

/// Calls need no map of their own: their functions run in hardirq on any CPU, that of a holder included, so that whatever
/// the caller may hold with interrupts on must not be waited for by them, through any number of others.
#[test]
fn waiting_for_a_call_under_a_lock_that_its_function_comes_to() {
    static CALLS: Calls = Calls::new(|cpu| {
        let _ = hosted::send_interrupt(cpu, || CALLS.serve(&irq::disable()));
    });
    let checked = Checked::new();
    CALLS.open(Native::cpu());
    let (of_tasks, of_all) = (SpinLock::<_>::new(1), IrqSpinLock::new(2));
    let call = || CALLS.single(Native::cpu(), || drop(of_all.lock())).unwrap();
    // Somebody holds the second, with interrupts off, and wants the first.
    {
        let all = of_all.lock();
        drop(of_tasks.lock_with(&all));
    }
    let held = of_tasks.lock();
    assert_eq!(checked.headlines(), [""; 0]);
    call();
    assert_eq!(checked.headlines(), ["irq-safe -> irq-unsafe lock order detected"]);
    drop(held);
    CALLS.close(&irq::disable());
}

#[test]
fn waiting_for_a_call_under_a_lock_that_its_function_takes() {
    static CALLS: Calls = Calls::new(|_| ());
    let checked = Checked::new();
    CALLS.open(Native::cpu());
    let lock = SpinLock::<_>::new(1);
    drop(lock.lock());
    CALLS.single(Native::cpu(), || drop(lock.lock())).unwrap();
    assert_eq!(checked.headlines(), ["invalid wait context", "inconsistent lock state"]);
    CALLS.close(&irq::disable());
}
