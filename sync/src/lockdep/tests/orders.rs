//! Circles, with and without handlers, in all modes and in every order of events.

use std::vec;
use std::vec::Vec;

use crate::lockdep::held::Held;
use crate::lockdep::map::{Acquire, Mode, Subclass};
use crate::lockdep::sim::*;
use crate::lockdep::{CLASSES, EDGES};

const MODES: [Mode; 3] = [Mode::Write, Mode::Read, Mode::RecursiveRead];
const CIRCULAR: &str = "possible circular locking dependency detected";

fn wait(mode: Mode) -> Acquire {
    Acquire { mode, ..Acquire::WRITE }
}

/// Whether who waits so for a lock that is held so may wait for ever: a recursive reader does not wait for readers, and
/// another reader may stand behind a writer that does.
fn blocks(waiter: Mode, holder: Mode) -> bool {
    waiter != Mode::RecursiveRead || holder == Mode::Write
}

/// All rows of `N` modes.
fn all_modes<const N: usize>() -> impl Iterator<Item = [Mode; N]> {
    (0..3usize.pow(N as u32)).map(|n| core::array::from_fn(|i| MODES[n / 3usize.pow(i as u32) % 3]))
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn every_inversion_of_two_locks() {
    for modes @ [a1, b1, b2, a2] in all_modes() {
        let sim = Sim::new();
        let (a, b) = (lock(1), lock(2));
        sim.nest(TASK, &[(a, wait(a1)), (b, wait(b1))]);
        sim.nest(TASK, &[(a, wait(a1)), (b, wait(b1))]);
        assert!(sim.take().is_empty());
        sim.nest(TASK, &[(b, wait(b2)), (a, wait(a2))]);
        let expected = if blocks(b1, b2) && blocks(a2, a1) { vec![CIRCULAR] } else { vec![] };
        assert_eq!(sim.headlines(), expected, "{modes:?}");
        // Said once.
        sim.nest(TASK, &[(b, wait(b2)), (a, wait(a2))]);
        assert!(sim.take().is_empty());
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn every_circle_of_three_locks() {
    for modes @ [a1, b1, b2, c2, c3, a3] in all_modes() {
        let sim = Sim::new();
        let (a, b, c) = (lock(1), lock(2), lock(3));
        sim.nest(TASK, &[(a, wait(a1)), (b, wait(b1))]);
        sim.nest(TASK, &[(b, wait(b2)), (c, wait(c2))]);
        assert!(sim.take().is_empty(), "no circle yet");
        sim.nest(TASK, &[(c, wait(c3)), (a, wait(a3))]);
        let expected =
            if blocks(b1, b2) && blocks(c2, c3) && blocks(a3, a1) { vec![CIRCULAR] } else { vec![] };
        assert_eq!(sim.headlines(), expected, "{modes:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn the_same_order_is_no_circle_however_deep() {
    let sim = Sim::new();
    let locks: Vec<_> = (1..=20).map(|n| (lock(n), Acquire::WRITE)).collect();
    sim.nest(TASK, &locks);
    sim.nest(TASK, &locks[3..]);
    for pair in locks.chunks(2) {
        sim.nest(TASK, pair);
    }
    assert!(sim.take().is_empty());
    sim.nest(TASK, &[locks[19], locks[0]]);
    assert_eq!(sim.headlines(), [CIRCULAR]);
}

#[test]
fn an_order_across_a_recursive_reader_is_not_lost() {
    // The reader in the middle connects nothing with what is taken shared after it, so the order around it counts.
    let sim = Sim::new();
    let (a, b, c) = (lock(1), lock(2), lock(3));
    sim.nest(TASK, &[(a, Acquire::WRITE), (b, Acquire::RECURSIVE_READ), (c, Acquire::WRITE)]);
    sim.nest(TASK, &[(c, Acquire::WRITE), (a, Acquire::WRITE)]);
    assert_eq!(sim.headlines(), [CIRCULAR]);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn who_does_not_wait_closes_no_circle_but_is_waited_for() {
    let (a, b) = (lock(1), lock(2));
    let sim = Sim::new();
    sim.nest(TASK, &[(a, Acquire::WRITE), (b, Acquire::WRITE)]);
    sim.nest(TASK, &[(b, Acquire::WRITE), (a, Acquire::TRY_WRITE)]);
    assert!(sim.take().is_empty());

    let sim = Sim::new();
    sim.nest(TASK, &[(a, Acquire::TRY_WRITE), (b, Acquire::WRITE)]);
    sim.nest(TASK, &[(b, Acquire::WRITE), (a, Acquire::WRITE)]);
    assert_eq!(sim.headlines(), [CIRCULAR]);

    // What was held before the one without waiting counts too.
    let sim = Sim::new();
    sim.nest(TASK, &[(a, Acquire::WRITE), (lock(3), Acquire::TRY_WRITE), (b, Acquire::WRITE)]);
    sim.nest(TASK, &[(b, Acquire::WRITE), (a, Acquire::WRITE)]);
    assert_eq!(sim.headlines(), [CIRCULAR]);
}

#[test]
fn what_a_handler_takes_does_not_depend_on_what_it_interrupts() {
    let (a, b) = (lock(1), lock(2));
    for (outer, inner) in [(TASK, SOFTIRQ), (TASK, HARDIRQ), (SOFTIRQ, HARDIRQ)] {
        let sim = Sim::new();
        let mut held = Held::new();
        sim.acquire(&mut held, a, Acquire::WRITE, outer);
        sim.acquire(&mut held, b, Acquire::WRITE, inner);
        sim.release(&mut held, b);
        sim.release(&mut held, a);
        assert_eq!(sim.checker.summary(|| ()).orders, 0);
        assert!(sim.take().is_empty());
    }
}

#[test]
fn locks_may_be_released_in_any_order() {
    let (a, b, c) = (lock(1), lock(2), lock(3));
    let sim = Sim::new();
    let mut held = Held::new();
    sim.acquire(&mut held, a, Acquire::WRITE, TASK);
    sim.acquire(&mut held, b, Acquire::WRITE, TASK);
    sim.release(&mut held, a);
    sim.acquire(&mut held, c, Acquire::WRITE, TASK);
    sim.release(&mut held, b);
    // Only C is held: no order from the others.
    sim.acquire(&mut held, a, Acquire::WRITE, TASK);
    sim.release(&mut held, c);
    sim.release(&mut held, a);
    assert_eq!(held.depth(), 0);
    // A -> B, B -> C, C -> A: three pairs of hands, a circle.
    assert_eq!(sim.headlines(), [CIRCULAR]);
    assert_eq!(sim.checker.summary(|| ()).orders, 3);
}

/// A handler that waits for A in mode `w`; A then B, in `x` and `y`, where that handler cannot come; B held in mode `h`
/// where it can.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn every_inversion_with_a_handler_in_every_order_of_events() {
    let kinds = [
        (HARDIRQ, TASK_IRQS_OFF, TASK, "irq-safe -> irq-unsafe lock order detected"),
        (HARDIRQ, TASK_IRQS_OFF, SOFTIRQ, "irq-safe -> irq-unsafe lock order detected"),
        (SOFTIRQ_IRQS_OFF, TASK_BH_OFF, TASK, "softirq-safe -> softirq-unsafe lock order detected"),
    ];
    let (a, b) = (lock(1), lock(2));
    for (handler, off, on, headline) in kinds {
        for modes @ [w, x, y, h] in all_modes() {
            let expected = if blocks(w, x) && blocks(y, h) { vec![headline] } else { vec![] };
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                let sim = Sim::new();
                for event in order {
                    match event {
                        0 => sim.nest(handler, &[(a, wait(w))]),
                        1 => sim.nest(off, &[(a, wait(x)), (b, wait(y))]),
                        _ => sim.nest(on, &[(b, wait(h))]),
                    }
                }
                assert_eq!(sim.headlines(), expected, "{modes:?} {order:?}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn an_inversion_with_a_handler_through_more_locks() {
    let (a, b, c, d) = (lock(1), lock(2), lock(3), lock(4));
    let sim = Sim::new();
    sim.nest(HARDIRQ, &[(a, Acquire::WRITE)]);
    sim.nest(TASK_IRQS_OFF, &[(a, Acquire::WRITE), (b, Acquire::WRITE)]);
    sim.nest(TASK_IRQS_OFF, &[(c, Acquire::WRITE), (d, Acquire::WRITE)]);
    sim.nest(TASK, &[(d, Acquire::WRITE)]);
    assert!(sim.take().is_empty());
    // The order in the middle comes last.
    sim.nest(TASK_IRQS_OFF, &[(b, Acquire::WRITE), (c, Acquire::WRITE)]);
    assert_eq!(sim.headlines(), ["irq-safe -> irq-unsafe lock order detected"]);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn every_inconsistent_use() {
    let a = lock(1);
    for (handler, on) in
        [(HARDIRQ, TASK), (HARDIRQ, SOFTIRQ), (SOFTIRQ_IRQS_OFF, TASK), (HARDIRQ, TASK_BH_OFF)]
    {
        for [w, h] in all_modes() {
            let expected = if blocks(w, h) { vec!["inconsistent lock state"] } else { vec![] };
            for handler_first in [true, false] {
                let sim = Sim::new();
                let uses = [(handler, w), (on, h)];
                let uses = if handler_first { uses } else { [uses[1], uses[0]] };
                for (here, mode) in uses {
                    sim.nest(here, &[(a, wait(mode))]);
                }
                assert_eq!(sim.headlines(), expected, "{w:?} {h:?} {handler_first}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn uses_that_go_together() {
    let a = lock(1);
    for (one, other) in [(HARDIRQ, TASK_IRQS_OFF), (SOFTIRQ, TASK_BH_OFF), (SOFTIRQ, TASK_IRQS_OFF)] {
        let sim = Sim::new();
        sim.nest(one, &[(a, Acquire::WRITE)]);
        sim.nest(other, &[(a, Acquire::WRITE)]);
        assert!(sim.take().is_empty());
    }
    // A handler that does not wait does not hang.
    let sim = Sim::new();
    sim.nest(HARDIRQ, &[(a, Acquire::TRY_WRITE)]);
    sim.nest(TASK, &[(a, Acquire::WRITE)]);
    assert!(sim.take().is_empty());
}

#[test]
fn switching_handlers_on_exposes_what_is_held() {
    for (handler, off, on) in [(HARDIRQ, TASK_IRQS_OFF, TASK), (SOFTIRQ_IRQS_OFF, TASK_BH_OFF, TASK)] {
        let sim = Sim::new();
        sim.nest(handler, &[(lock(1), Acquire::WRITE)]);
        let mut held = Held::new();
        sim.acquire(&mut held, lock(1), Acquire::WRITE, off);
        assert!(sim.take().is_empty());
        sim.expose(&held, on);
        assert_eq!(sim.headlines(), ["inconsistent lock state"]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_class_is_taken_twice_at_once() {
    let other = Lock { instance: 1, ..lock(1) };
    for second in [lock(1), other] {
        for [outer, inner] in all_modes() {
            let sim = Sim::new();
            sim.nest(TASK, &[(lock(1), wait(outer)), (second, wait(inner))]);
            let fine = inner == Mode::RecursiveRead && outer != Mode::Write;
            let expected = if fine { vec![] } else { vec!["possible recursive locking detected"] };
            assert_eq!(sim.headlines(), expected, "{outer:?} {inner:?}");
        }
    }
    // Also with others in between, and not as another subclass.
    let sim = Sim::new();
    let nested = Acquire { subclass: Subclass::NESTED, ..Acquire::WRITE };
    sim.nest(TASK, &[(lock(1), Acquire::WRITE), (other, nested)]);
    assert!(sim.take().is_empty());
    sim.nest(TASK, &[(lock(1), Acquire::WRITE), (lock(2), Acquire::TRY_WRITE), (other, Acquire::WRITE)]);
    assert_eq!(sim.headlines(), ["possible recursive locking detected"]);
    // Subclasses are classes: their order counts.
    sim.nest(TASK, &[(other, nested), (lock(1), Acquire::WRITE)]);
    assert_eq!(sim.headlines(), [CIRCULAR]);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_full_table_is_reported_once_and_ends_the_checking() {
    let sim = Sim::new();
    for class in 1..CLASSES as u32 + 10 {
        sim.nest(TASK, &[(lock(class), Acquire::WRITE)]);
    }
    let reports = sim.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].starts_with("the table of lock sites is full"), "{reports:?}");
    sim.nest(TASK, &[(lock(1), Acquire::WRITE), (lock(2), Acquire::WRITE)]);
    sim.nest(TASK, &[(lock(2), Acquire::WRITE), (lock(1), Acquire::WRITE)]);
    assert!(sim.take().is_empty());
    assert!(!sim.checker.summary(|| ()).is_checking);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_full_table_of_orders_is_reported_too() {
    let sim = Sim::new();
    // All pairs of enough classes, smaller first.
    let classes = 2 * EDGES.isqrt() as u32;
    for a in 1..classes {
        for b in a + 1..classes {
            sim.nest(TASK, &[(lock(a), Acquire::WRITE), (lock(b), Acquire::WRITE)]);
        }
    }
    let reports = sim.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].starts_with("the table of lock orders is full"), "{reports:?}");
}
