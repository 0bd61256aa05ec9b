//! Steps that are done in order, undone in the opposite order, and taken back when one of them refuses.
//!
//! A CPU that comes needs things in a certain order: nobody may be sent work before it takes interrupts. A CPU that goes
//! needs them in the opposite order. And a step may say no, on either way: then those that were done on this way are taken
//! back, and the CPU is what it was.
//!
//! The table is a plain value that knows neither CPUs nor subsystems: what it hands to the functions is the caller's.
//!
//! Linux: `struct cpuhp_step`, `cpuhp_invoke_callback`.

use core::fmt;

use hal::CpuId;

/// Why a step says no, in a few words.
pub type Refusal = &'static str;

/// What one subsystem does when a CPU comes or goes.
pub struct Step<C> {
    /// The subsystem's name, for messages.
    pub name: &'static str,
    /// The CPU comes.
    pub up: fn(CpuId, &mut C) -> Result<(), Refusal>,
    /// The CPU goes.
    pub down: fn(CpuId, &mut C) -> Result<(), Refusal>,
}

impl<C> fmt::Debug for Step<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A step that refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its name.
    pub step: &'static str,
    /// What it said.
    pub why: Refusal,
    /// A step that refused to be taken back after that, and what it said. Its CPU is in between; all other steps were taken
    /// back.
    pub stuck: Option<(&'static str, Refusal)>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` refuses: {}", self.step, self.why)?;
        match self.stuck {
            Some((step, why)) => write!(f, "; and `{step}` cannot be taken back: {why}"),
            None => Ok(()),
        }
    }
}

/// All steps, in the order in which they are done for a CPU that comes.
#[derive(Debug)]
pub struct StepTable<C: 'static>(pub &'static [&'static Step<C>]);

impl<C> StepTable<C> {
    /// Does all steps.
    ///
    /// # Errors
    /// The first that refused. Those before it were taken back, the last first.
    pub fn up(&self, cpu: CpuId, cx: &mut C) -> Result<(), Refused> {
        self.walk(|n| self.0[n], cpu, cx, |step| (step.up, step.down))
    }

    /// Undoes all steps, the last first.
    ///
    /// # Errors
    /// The first that refused. Those that had been undone were done again, in order.
    pub fn down(&self, cpu: CpuId, cx: &mut C) -> Result<(), Refused> {
        self.walk(|n| self.0[self.0.len() - 1 - n], cpu, cx, |step| (step.down, step.up))
    }

    /// Goes along the steps as `at` has them, forth by the first of `ways` and, from one that refuses, back by the second.
    fn walk(
        &self,
        at: impl Fn(usize) -> &'static Step<C>,
        cpu: CpuId,
        cx: &mut C,
        ways: impl Fn(&Step<C>) -> (Way<C>, Way<C>),
    ) -> Result<(), Refused> {
        for n in 0..self.0.len() {
            let step = at(n);
            let Err(why) = ways(step).0(cpu, cx) else { continue };
            let mut refused = Refused { step: step.name, why, stuck: None };
            for step in (0..n).rev().map(&at) {
                if let Err(why) = ways(step).1(cpu, cx) {
                    refused.stuck = refused.stuck.or(Some((step.name, why)));
                }
            }
            return Err(refused);
        }
        Ok(())
    }
}

type Way<C> = fn(CpuId, &mut C) -> Result<(), Refusal>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// What was done, and which steps refuse which way.
    #[derive(Default, Debug)]
    struct Journal {
        /// Whether each step is done.
        done: [bool; 4],
        calls: Vec<(usize, bool)>,
        refuse_up: [bool; 4],
        refuse_down: [bool; 4],
    }

    fn go<const N: usize, const UP: bool>(_: CpuId, journal: &mut Journal) -> Result<(), Refusal> {
        journal.calls.push((N, UP));
        assert_ne!(journal.done[N], UP, "a step is done or undone twice");
        // Whoever is done has all before it done, and nobody behind it.
        assert_eq!(journal.done[..N], vec![true; N]);
        assert_eq!(journal.done[N + 1..], vec![false; 3 - N]);
        let refuses = if UP { journal.refuse_up[N] } else { journal.refuse_down[N] };
        if refuses {
            return Err("no");
        }
        journal.done[N] = UP;
        Ok(())
    }

    macro_rules! step {
        ($n:literal) => {
            &Step { name: stringify!($n), up: go::<$n, true>, down: go::<$n, false> }
        };
    }

    static TABLE: StepTable<Journal> = StepTable(&[step!(0), step!(1), step!(2), step!(3)]);

    #[test]
    fn up_is_in_order_and_down_the_other_way() {
        let mut journal = Journal::default();
        TABLE.up(CpuId::BOOT, &mut journal).unwrap();
        TABLE.down(CpuId::BOOT, &mut journal).unwrap();
        let order: Vec<_> = (0..4).map(|n| (n, true)).chain((0..4).rev().map(|n| (n, false))).collect();
        assert_eq!(journal.calls, order);
    }

    #[test]
    fn whichever_refuses_the_others_are_taken_back() {
        for n in 0..4 {
            let mut journal = Journal::default();
            journal.refuse_up[n] = true;
            let refused = TABLE.up(CpuId::BOOT, &mut journal).unwrap_err();
            assert_eq!((refused.step, refused.stuck, journal.done), (TABLE.0[n].name, None, [false; 4]));
            let mut journal = Journal { done: [true; 4], ..Journal::default() };
            journal.refuse_down[n] = true;
            let refused = TABLE.down(CpuId::BOOT, &mut journal).unwrap_err();
            assert_eq!((refused.step, refused.stuck, journal.done), (TABLE.0[n].name, None, [true; 4]));
        }
    }

    #[test]
    fn what_is_said() {
        let mut refused = Refused { step: "timers", why: "too many", stuck: None };
        assert_eq!(refused.to_string(), "`timers` refuses: too many");
        refused.stuck = Some(("calls", "gone"));
        assert_eq!(refused.to_string(), "`timers` refuses: too many; and `calls` cannot be taken back: gone");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        /// Refusals on one way only: the CPU ends all up or all down, and says what the outcome was.
        #[test]
        fn a_cpu_is_never_left_in_between(
            ways in prop::collection::vec((any::<bool>(), prop::option::of(0_usize..4)), 1..30)
        ) {
            let mut journal = Journal::default();
            for (up, refuses) in ways {
                (journal.refuse_up, journal.refuse_down) = ([false; 4], [false; 4]);
                let before = journal.done[0];
                if before == up {
                    continue;
                }
                if let Some(n) = refuses {
                    (if up { &mut journal.refuse_up } else { &mut journal.refuse_down })[n] = true;
                }
                let outcome = match up {
                    true => TABLE.up(CpuId::BOOT, &mut journal),
                    false => TABLE.down(CpuId::BOOT, &mut journal),
                };
                prop_assert_eq!(outcome.is_ok(), refuses.is_none());
                prop_assert_eq!(journal.done, [if outcome.is_ok() { up } else { before }; 4]);
            }
        }
    }

    #[test]
    fn one_that_cannot_be_taken_back_is_named_and_the_others_are() {
        fn well(_: CpuId, calls: &mut u32) -> Result<(), Refusal> {
            *calls += 1;
            Ok(())
        }
        static FIRST: Step<u32> = Step { name: "first", up: well, down: well };
        static STUCK: Step<u32> = Step { name: "stuck", up: well, down: |_, _| Err("broken") };
        static LAST: Step<u32> = Step { name: "last", up: |_, _| Err("no"), down: well };
        static STEPS: StepTable<u32> = StepTable(&[&FIRST, &STUCK, &LAST]);
        let mut calls = 0;
        let refused = STEPS.up(CpuId::BOOT, &mut calls).unwrap_err();
        assert_eq!(refused, Refused { step: "last", why: "no", stuck: Some(("stuck", "broken")) });
        assert_eq!(calls, 3);
    }
}
