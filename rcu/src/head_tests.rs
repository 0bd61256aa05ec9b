//! Queueing twice, invoking, dropping.

use std::cell::RefCell;
use std::rc::Rc;

use hal::Native;
use hal::hosted::{Hooks, set_hooks};

use super::*;

unsafe fn nothing(_: NonNull<Head>) {}

unsafe fn queue_again(head: NonNull<Head>) {
    // SAFETY: the test's head; being invoked it is in no queue.
    assert!(unsafe { Head::prepare::<Native>(head, nothing) });
}

#[test]
#[cfg(debug_assertions)]
fn queueing_twice_names_both_lines() {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&reports);
    let _hooks = set_hooks(Hooks {
        report: Some(Rc::new(move |report| into.borrow_mut().push(report.to_string()))),
        ..Default::default()
    });
    let head = Head::new();
    let at = NonNull::from(&head);
    // SAFETY: the head stays here, and is invoked before it is dropped.
    unsafe {
        let first_line = line!() + 1;
        assert!(Head::prepare::<Native>(at, nothing));
        assert!(head.is_queued());
        let second_line = line!() + 1;
        assert!(!Head::prepare::<Native>(at, nothing));
        Head::invoke(at);
        let reports = reports.take();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains(&format!("head_tests.rs:{first_line}:")), "{}", reports[0]);
        assert!(reports[0].contains(&format!("head_tests.rs:{second_line}:")), "{}", reports[0]);
    }
    assert!(!head.is_queued());
}

#[test]
fn a_callback_may_queue_its_head_again() {
    let head = Head::new();
    let at = NonNull::from(&head);
    // SAFETY: the head stays here, and is invoked before it is dropped.
    unsafe {
        assert!(Head::prepare::<Native>(at, queue_again));
        Head::invoke(at);
        assert_eq!(Head::next(at), None);
        Head::invoke(at);
    }
    assert!(!head.is_queued());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "dropped while it is queued")]
fn a_queued_head_is_not_dropped() {
    let head = Head::new();
    // SAFETY: the head stays here; that it is dropped too early is what is tested.
    assert!(unsafe { Head::prepare::<Native>(NonNull::from(&head), nothing) });
}

#[test]
fn sizes() {
    let words = if cfg!(debug_assertions) { 3 } else { 2 };
    assert_eq!(size_of::<Head>(), words * size_of::<usize>());
}
