//! Where which lock may be waited for, and releasing.

use std::vec;

use crate::lockdep::held::{DEPTH, Held};
use crate::lockdep::map::{Acquire, Level, WaitType};
use crate::lockdep::sim::*;
use crate::lockdep::verdicts::{CHAINS, Verdicts};

const WRONG: &str = "invalid wait context";

fn sleeping(class: u32) -> Lock {
    Lock { wait: WaitType::Sleep, level: Level::Task, ..lock(class) }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn each_level_in_each_context() {
    use Level::*;
    use WaitType::*;
    #[rustfmt::skip]
    let rows = [
        // wait  level    task   irqs off  bh off preempt off softirq hardirq
        (Sleep, Task,    [true,  false,    false, false,      false,  false]),
        (Spin,  Task,    [true,  true,     true,  true,       false,  false]),
        (Spin,  Softirq, [true,  true,     true,  true,       true,   false]),
        (Spin,  Hardirq, [true,  true,     true,  true,       true,   true]),
    ];
    let contexts = [TASK, TASK_IRQS_OFF, TASK_BH_OFF, TASK_PREEMPT_OFF, SOFTIRQ, HARDIRQ];
    for (wait, level, row) in rows {
        for (here, allowed) in contexts.into_iter().zip(row) {
            let sim = Sim::new();
            let lock = Lock { wait, level, ..lock(1) };
            sim.nest(here, &[(lock, Acquire::WRITE)]);
            assert_eq!(sim.headlines(), if allowed { vec![] } else { vec![WRONG] }, "{wait:?} {level:?}");
            // Without waiting everything is allowed.
            let sim = Sim::new();
            sim.nest(here, &[(lock, Acquire::TRY_WRITE)]);
            assert!(sim.take().is_empty());
        }
    }
}

#[test]
fn who_spins_does_not_sleep() {
    for (outer, inner, allowed) in [
        (sleeping(1), sleeping(2), true),
        (sleeping(1), lock(2), true),
        (lock(1), lock(2), true),
        (lock(1), sleeping(2), false),
    ] {
        let sim = Sim::new();
        sim.nest(TASK, &[(outer, Acquire::WRITE), (inner, Acquire::WRITE)]);
        assert_eq!(sim.headlines(), if allowed { vec![] } else { vec![WRONG] });
    }
    // The spinning one need not be the last.
    let sim = Sim::new();
    sim.nest(
        TASK,
        &[(lock(1), Acquire::WRITE), (sleeping(2), Acquire::TRY_WRITE), (sleeping(3), Acquire::WRITE)],
    );
    assert_eq!(sim.headlines(), [WRONG]);
}

#[test]
#[cfg_attr(miri, ignore = "a place in the source has another address there each time")]
fn nothing_is_waited_for_in_an_nmi() {
    let sim = Sim::new();
    for _ in 0..2 {
        // One place, twice: one report.
        sim.waits_in_nmi(lock(1));
    }
    let reports = sim.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].starts_with(WRONG) && reports[0].contains("in an NMI"), "{reports:?}");
}

#[test]
fn what_is_not_held_cannot_be_released() {
    let sim = Sim::new();
    let mut held = Held::new();
    sim.release(&mut held, lock(1));
    sim.release(&mut held, lock(1));
    assert_eq!(sim.headlines(), ["bad unlock balance detected"], "once for the class");
    sim.acquire(&mut held, lock(2), Acquire::WRITE, TASK);
    // Another lock of the class is not this lock.
    sim.release(&mut held, Lock { instance: 1, ..lock(2) });
    assert_eq!(sim.headlines(), ["bad unlock balance detected"]);
    assert_eq!(held.depth(), 1);
}

#[test]
fn what_is_held_is_not_given_back() {
    let sim = Sim::new();
    let mut held = Held::new();
    let at = lock(1).address();
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK);
    sim.freed(&mut held, at - 64..at);
    sim.freed(&mut held, at + 1..at + 64);
    assert!(sim.take().is_empty());
    sim.freed(&mut held, at - 64..at + 64);
    assert_eq!(sim.headlines(), ["held lock freed"]);
    assert_eq!(held.depth(), 0, "it is gone");
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_stack_that_is_full_keeps_its_balance() {
    let sim = Sim::new();
    let mut held = Held::new();
    for class in 1..=DEPTH as u32 + 2 {
        sim.acquire(&mut held, lock(class), Acquire::WRITE, TASK);
    }
    let reports = sim.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].starts_with("the table of a task's held locks is full"));
    for class in (1..=DEPTH as u32 + 2).rev() {
        sim.release(&mut held, lock(class));
    }
    assert!(sim.take().is_empty());
    assert_eq!(held.depth(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn what_is_known_does_not_grow() {
    let sim = Sim::new();
    for _ in 0..1000 {
        sim.nest(TASK, &[(lock(1), Acquire::WRITE), (lock(2), Acquire::WRITE), (lock(3), Acquire::WRITE)]);
    }
    let summary = sim.checker.summary(|| ());
    assert_eq!((summary.classes, summary.orders, summary.chains, summary.deepest), (3, 2, 3, 3));
}

#[test]
fn verdicts_are_remembered_while_there_is_room() {
    let verdicts = Box::new(Verdicts::new());
    // All of these want the same slot, and there are eight for it.
    let keys = (1..=9).map(|n| 7 + n * CHAINS as u64);
    for (n, key) in keys.clone().enumerate() {
        assert!(!verdicts.knows(key));
        verdicts.insert(key);
        verdicts.insert(key);
        assert_eq!(verdicts.knows(key), n < 8);
        assert!(keys.clone().take(n.min(8)).all(|key| verdicts.knows(key)));
    }
    assert_eq!((verdicts.count(), verdicts.turned_away()), (8, 2));
}
