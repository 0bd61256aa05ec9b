//! Handlers, on the hosted machine: simulated interrupts and softirqs.

use core::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use hal::platform::Platform;
use hal::{Native, hosted};
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
