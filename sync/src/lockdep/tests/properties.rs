//! The checker against the models, on random programs.

use std::string::String;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{LOCKS, Routine, Seen, some_schedule_deadlocks};
use crate::lockdep::checker::Here;
use crate::lockdep::held::Held;
use crate::lockdep::map::{Acquire, Mode};
use crate::lockdep::sim::*;
use crate::lockdep::usage::Irq;

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![2 => Just(Mode::Write), 1 => Just(Mode::Read), 2 => Just(Mode::RecursiveRead)]
}

fn irq() -> impl Strategy<Value = Irq> {
    prop_oneof![Just(Irq::Hard), Just(Irq::Soft)]
}

#[derive(Clone, Debug)]
enum Op {
    Acquire {
        class: u32,
        instance: usize,
        mode: Mode,
        is_try: bool,
    },
    /// Of what was taken in this context, any.
    Release(usize),
    /// A handler comes; nothing if it cannot.
    Interrupt(Irq),
    Return,
    SwitchOff(Irq),
    SwitchOn(Irq),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..=4u32, 0..2usize, mode(), prop::bool::weighted(0.15))
            .prop_map(|(class, instance, mode, is_try)| Op::Acquire { class, instance, mode, is_try }),
        5 => (0..8usize).prop_map(Op::Release),
        1 => irq().prop_map(Op::Interrupt),
        2 => Just(Op::Return),
        1 => irq().prop_map(Op::SwitchOff),
        1 => irq().prop_map(Op::SwitchOn),
    ]
}

/// A context: which handler it is, and what it holds.
type Holding = (Option<Irq>, Vec<(Lock, Mode)>);

/// One CPU, as the model sees it.
#[derive(Default)]
struct Cpu {
    /// The task's context first, then those that interrupt.
    contexts: Vec<Holding>,
    irqs_off: bool,
    bh_off: bool,
}

impl Cpu {
    fn handler(&self) -> Option<Irq> {
        self.contexts.last().and_then(|(handler, _)| *handler)
    }

    fn lets_in(&self, irq: Irq) -> bool {
        let hard = self.handler() != Some(Irq::Hard) && !self.irqs_off;
        hard && (irq == Irq::Hard || (self.handler().is_none() && !self.bh_off))
    }

    /// In the checker's terms.
    fn here(&self) -> Here {
        match self.handler() {
            Some(Irq::Hard) => HARDIRQ,
            Some(Irq::Soft) if self.irqs_off => SOFTIRQ_IRQS_OFF,
            Some(Irq::Soft) => SOFTIRQ,
            None if self.irqs_off => TASK_IRQS_OFF,
            None if self.bh_off => TASK_BH_OFF,
            None => TASK,
        }
    }
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    let (sim, mut held) = (Sim::new(), Held::new());
    let mut seen = Seen::default();
    let mut cpu = Cpu { contexts: std::vec![(None, std::vec![])], ..Cpu::default() };
    let mut reported = Vec::new();
    for (n, op) in ops.iter().enumerate() {
        let here = cpu.here();
        let handler = cpu.handler();
        let (_, holds) = cpu.contexts.last_mut().expect("the task's is never removed");
        match *op {
            Op::Acquire { class, instance, mode, is_try } => {
                let taken = Lock { instance, ..lock(class) };
                if !is_try {
                    holds.iter().for_each(|(below, held)| seen.order((below.class, *held), (class, mode)));
                    if let Some(irq) = handler {
                        seen.handler_waits(irq, (class, mode));
                    }
                }
                holds.push((taken, mode));
                sim.acquire(&mut held, taken, Acquire { mode, is_try, ..Acquire::WRITE }, here);
            }
            Op::Release(which) if !holds.is_empty() => {
                // The newest of the same lock, if it was taken several times.
                let (taken, _) = holds[which % holds.len()];
                let at = holds.iter().rposition(|(lock, _)| lock.address() == taken.address());
                holds.remove(at.expect("it is there"));
                sim.release(&mut held, taken);
            }
            Op::Interrupt(irq) if cpu.lets_in(irq) => cpu.contexts.push((Some(irq), std::vec![])),
            Op::Return if cpu.contexts.len() > 1 => {
                for (taken, _) in cpu.contexts.pop().into_iter().flat_map(|(_, holds)| holds).rev() {
                    sim.release(&mut held, taken);
                }
                // It came with them on.
                cpu.irqs_off = false;
            }
            Op::SwitchOff(Irq::Hard) if handler != Some(Irq::Hard) => cpu.irqs_off = true,
            Op::SwitchOff(Irq::Soft) if handler.is_none() => cpu.bh_off = true,
            Op::SwitchOn(irq) if handler != Some(Irq::Hard) => {
                match irq {
                    Irq::Hard => cpu.irqs_off = false,
                    Irq::Soft if handler.is_none() => cpu.bh_off = false,
                    Irq::Soft => (),
                }
                sim.expose(&held, cpu.here());
            }
            _ => (),
        }
        for irq in Irq::BOTH {
            if cpu.lets_in(irq) {
                let all = cpu.contexts.iter().flat_map(|(_, holds)| holds);
                all.for_each(|(lock, mode)| seen.exposed(irq, (lock.class, *mode)));
            }
        }
        reported.extend(sim.take());
        prop_assert_eq!(
            !reported.is_empty(),
            seen.can_deadlock(),
            "after {}: {:#?}\n{:?}",
            n,
            reported,
            seen
        );
    }
    Ok(())
}

/// Locks to be taken one inside the other. One that is taken twice is waited for: whether it is missed without waiting
/// depends on the other CPUs, and the checker is shown one run of each routine.
fn locks(most: usize) -> impl Strategy<Value = Vec<(usize, Mode, bool)>> {
    vec((0..LOCKS, mode(), prop::bool::weighted(0.1)), 1..=most).prop_map(|mut locks| {
        for i in 0..locks.len() {
            let times = locks.iter().filter(|(lock, ..)| *lock == locks[i].0).count();
            locks[i].2 &= times == 1;
        }
        locks
    })
}

/// A routine: of a task with everything off or on, or of a handler. One that lets handlers in takes one lock only: with
/// two, the outer one could be what keeps others from ever meeting it, which the checker does not consider.
fn routine() -> impl Strategy<Value = Routine> {
    prop_oneof![
        4 => locks(2).prop_map(|locks| Routine { handler: None, keeps_off: Some(Irq::Hard), locks }),
        1 => locks(1).prop_map(|locks| Routine { handler: None, keeps_off: Some(Irq::Soft), locks }),
        2 => locks(1).prop_map(|locks| Routine { handler: None, keeps_off: None, locks }),
        1 => locks(1).prop_map(|locks| Routine { handler: Some(Irq::Soft), keeps_off: None, locks }),
        1 => locks(2)
            .prop_map(|locks| Routine { handler: Some(Irq::Soft), keeps_off: Some(Irq::Hard), locks }),
        1 => locks(1).prop_map(|locks| Routine { handler: Some(Irq::Hard), keeps_off: None, locks }),
    ]
}

/// Any routines: only what deadlocks must be reported, and more may be.
fn deep_routine() -> impl Strategy<Value = Routine> {
    let off = prop_oneof![Just(None), irq().prop_map(Some)];
    let handler = prop_oneof![3 => Just(None), 1 => irq().prop_map(Some)];
    (handler, off, locks(3)).prop_map(|(handler, keeps_off, locks)| Routine { handler, keeps_off, locks })
}

/// Shows each routine to the checker, once; returns what it reports.
fn reports_of(routines: &[Routine]) -> Vec<String> {
    let sim = Sim::new();
    for Routine { handler, keeps_off, locks } in routines {
        let here = match (handler, keeps_off) {
            (Some(Irq::Hard), _) => HARDIRQ,
            (Some(Irq::Soft), Some(Irq::Hard)) => SOFTIRQ_IRQS_OFF,
            (Some(Irq::Soft), _) => SOFTIRQ,
            (None, Some(Irq::Hard)) => TASK_IRQS_OFF,
            (None, Some(Irq::Soft)) => TASK_BH_OFF,
            (None, None) => TASK,
        };
        let mut held = Held::new();
        for (class, mode, is_try) in locks {
            let how = Acquire { mode: *mode, is_try: *is_try, ..Acquire::WRITE };
            sim.acquire(&mut held, lock(*class as u32 + 1), how, here);
        }
    }
    sim.take()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: test_support::cases(100), ..ProptestConfig::default() })]

    /// After each event the checker has reported exactly if a circle exists in what was seen.
    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn agrees_with_trying_all_circles(ops in vec(op(), 1..60)) {
        run(&ops)?;
    }

    /// What is reported is a deadlock in some interleaving of the routines, and no deadlock goes unreported.
    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn agrees_with_trying_all_schedules(routines in vec(routine(), 1..=4)) {
        let reports = reports_of(&routines);
        prop_assert_eq!(!reports.is_empty(), some_schedule_deadlocks(&routines), "{:#?}", reports);
    }

    /// However the routines nest, no deadlock goes unreported.
    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn misses_no_deadlock(routines in vec(deep_routine(), 1..=3)) {
        if some_schedule_deadlocks(&routines) {
            prop_assert!(!reports_of(&routines).is_empty());
        }
    }
}

/// Both verdicts of the models occur, or the properties would say little.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn the_models_say_yes_and_no() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let verdicts: Vec<_> = (0..60)
        .map(|_| {
            let routines = vec(routine(), 1..=4).new_tree(&mut runner).expect("can be made").current();
            some_schedule_deadlocks(&routines)
        })
        .collect();
    let yes = verdicts.iter().filter(|yes| **yes).count();
    assert!((6..54).contains(&yes), "{yes} of 60 deadlock");
}
