//! Each report, to the word.

use core::panic::Location;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::lockdep::held::Held;
use crate::lockdep::map::{Acquire, Level, WaitType};
use crate::lockdep::sim::*;

/// Replaces each place in this file by `@N`, N lines below `base`, and each lock's creation, all in one place, by nothing.
fn shorten(text: &str, base: &Location<'_>) -> String {
    let created = std::format!(" ({})", lock(1).identity().site);
    let mut text = text.replace(&created, "");
    let prefix = std::format!("{}:", base.file());
    while let Some(at) = text.find(&prefix) {
        let rest = &text[at + prefix.len()..];
        let line: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let column: String = rest[line.len() + 1..].chars().take_while(char::is_ascii_digit).collect();
        let end = at + prefix.len() + line.len() + 1 + column.len();
        let below = line.parse::<u32>().expect("digits") - base.line();
        text.replace_range(at..end, &std::format!("@{below}"));
    }
    text
}

/// Compares the one report since the last call.
#[track_caller]
fn check(sim: &Sim, base: &Location<'_>, expected: &str) {
    let reports = sim.take();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    let text = shorten(&reports[0], base);
    assert_eq!(text, expected.trim(), "\n{text}\n");
    // Reported for the line at which it came to light: the last one before the check.
    let at = sim.places.take()[0].line();
    assert_eq!(at + 1, Location::caller().line());
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

#[test]
#[rustfmt::skip]
fn circular() {
    let (sim, mut held, mut other) = (Sim::new(), Held::new(), Held::new());
    let (a, b, c) = (lock(1), lock(2), lock(3));
    let base = here();
    sim.acquire(&mut held, a, Acquire::WRITE, TASK);
    sim.acquire(&mut held, b, Acquire::READ, TASK);
    sim.acquire(&mut held, c, Acquire::WRITE, TASK);
    sim.acquire(&mut other, c, Acquire::READ, TASK);
    sim.acquire(&mut other, a, Acquire::RECURSIVE_READ, TASK);
    check(&sim, base, "
possible circular locking dependency detected
  taking  A[1] for recursive reading, at @5
  under   C[3] for reading, at @4
  which closes a circle with the orders seen before:
    A[1] -> B[2]
      first seen: the former at @1, the latter at @2
    B[2] -> C[3]
      first seen: the former at @2, the latter at @3
  held on CPU 0, the newest last:
    C[3] for reading, at @4");
}

#[test]
#[rustfmt::skip]
fn recursive() {
    let (sim, mut held) = (Sim::new(), Held::new());
    let base = here();
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK);
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK);
    check(&sim, base, "
possible recursive locking detected
  taking  A[1], at @2
  under   A[1], at @1
  which is the same lock
  held on CPU 0, the newest last:
    A[1], at @1");
    let (sim, mut held) = (Sim::new(), Held::new());
    let base = here();
    sim.acquire(&mut held, Lock { instance: 1, ..lock(1) }, Acquire::WRITE, TASK);
    sim.acquire(&mut held, lock(1), Acquire::READ, TASK);
    check(&sim, base, "
possible recursive locking detected
  taking  A[1] for reading, at @2
  under   A[1], at @1
  which is another lock of the class
  held on CPU 0, the newest last:
    A[1], at @1");
}

#[test]
#[rustfmt::skip]
fn inconsistent() {
    let (sim, mut held) = (Sim::new(), Held::new());
    let base = here();
    sim.nest(HARDIRQ, &[(lock(1), Acquire::WRITE)]);
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK_IRQS_OFF);
    sim.expose(&held, TASK);
    check(&sim, base, "
inconsistent lock state
  A[1]
  a hardirq waits for it: taken at @1
  it is held with interrupts on: taken at @2, and switched on at @3
  held on CPU 0, the newest last:
    A[1], at @2");
}

#[test]
#[rustfmt::skip]
fn inversions() {
    let (sim, mut held) = (Sim::new(), Held::new());
    let base = here();
    sim.nest(HARDIRQ, &[(lock(1), Acquire::WRITE)]);
    sim.nest(TASK, &[(lock(2), Acquire::WRITE)]);
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK_IRQS_OFF);
    sim.acquire(&mut held, lock(2), Acquire::WRITE, TASK_IRQS_OFF);
    check(&sim, base, "
irq-safe -> irq-unsafe lock order detected
  A[1]
    a hardirq waits for it: taken at @1
  B[2]
    it is held with interrupts on: taken at @2
  the orders that lead from the first to the second:
    A[1] -> B[2]
      first seen: the former at @3, the latter at @4
  held on CPU 0, the newest last:
    A[1], at @3");
    let (sim, mut held) = (Sim::new(), Held::new());
    let base = here();
    sim.nest(TASK_BH_OFF, &[(lock(1), Acquire::WRITE), (lock(2), Acquire::WRITE)]);
    sim.nest(TASK, &[(lock(2), Acquire::WRITE)]);
    sim.acquire(&mut held, lock(1), Acquire::WRITE, SOFTIRQ_IRQS_OFF);
    check(&sim, base, "
softirq-safe -> softirq-unsafe lock order detected
  A[1]
    a softirq waits for it: taken at @3
  B[2]
    it is held with bottom halves on: taken at @2
  the orders that lead from the first to the second:
    A[1] -> B[2]
      first seen: the former at @1, the latter at @1
  held on CPU 0, the newest last:
    nothing");
}

#[test]
#[rustfmt::skip]
fn wait_context() {
    let (sim, mut held) = (Sim::new(), Held::new());
    let mutex = Lock { wait: WaitType::Sleep, level: Level::Task, ..lock(2) };
    let base = here();
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK);
    sim.acquire(&mut held, mutex, Acquire::WRITE, TASK);
    check(&sim, base, "
invalid wait context
  taking  B[2], at @2
  who waits for it sleeps, under the spinning lock A[1], taken at @1
  held on CPU 0, the newest last:
    A[1], at @1");
    let whys = [
        (mutex, HARDIRQ, "who waits for it sleeps, in an interrupt"),
        (mutex, TASK_PREEMPT_OFF, "who waits for it sleeps, with preemption off"),
        (mutex, TASK_IRQS_OFF, "who waits for it sleeps, with interrupts off"),
        (Lock { level: Level::Task, ..lock(2) }, SOFTIRQ, "it is shared between tasks, and waited for in an interrupt"),
        (Lock { level: Level::Softirq, ..lock(2) }, HARDIRQ, "it is shared with softirqs at most, and waited for in a hardirq"),
    ];
    for (lock, place, why) in whys {
        let sim = Sim::new();
        let base = here();
        sim.nest(place, &[(lock, Acquire::WRITE)]);
        check(&sim, base, &std::format!("
invalid wait context
  taking  B[2], at @1
  {why}
  held on CPU 0, the newest last:
    nothing"));
    }
    let sim = Sim::new();
    let base = here();
    sim.waits_in_nmi(lock(1));
    check(&sim, base, "
invalid wait context
  taking  A[1], at @1
  nothing may be waited for in an NMI");
}

#[test]
#[rustfmt::skip]
fn unlocking_and_freeing() {
    let (sim, mut held) = (Sim::new(), Held::new());
    let base = here();
    sim.release(&mut held, lock(1));
    check(&sim, base, "
bad unlock balance detected
  releasing A[1], which is not held
  held on CPU 0, the newest last:
    nothing");
    let base = here();
    sim.acquire(&mut held, lock(1), Acquire::WRITE, TASK); sim.freed(&mut held, 0..usize::MAX);
    check(&sim, base, "
held lock freed
  taken   A[1], at @1
  held on CPU 0, the newest last:
    A[1], at @1");
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_long_path_is_cut() {
    let sim = Sim::new();
    let locks: Vec<_> = (1..=40).map(|n| (lock(n), Acquire::WRITE)).collect();
    sim.nest(TASK, &locks);
    sim.nest(TASK, &[locks[39], locks[0]]);
    let reports = sim.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("\n    and more\n"), "{}", reports[0]);
}

#[test]
fn a_label_says_what_tells_the_class_apart() {
    use crate::lockdep::class::Label;
    use crate::lockdep::map::Subclass;
    let label = |class, subclass| Label { identity: lock(class).identity(), subclass };
    let site = lock(0).identity().site;
    assert_eq!(label(2, Subclass::OUTER).to_string(), std::format!("B[2] ({site})"));
    assert_eq!(label(2, Subclass::new(3)).to_string(), std::format!("B[2]/3 ({site})"));
    let mut plain = label(0, Subclass::OUTER);
    plain.identity.name = None;
    assert_eq!(plain.to_string(), std::format!("lock ({site})"));
}
