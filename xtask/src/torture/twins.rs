//! What is broken on purpose must be noticed, and what is sound must not.
//!
//! A twin is a load of the kernel's with one thing broken; it is caught if the load says so, or the kernel reports something.
//! Its sound counterpart is the load as it is, for as long as the twin has time to be noticed. Both run with the same ten seeds. Chance is part of finding races, so one seed of ten may miss.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Torture;
use super::campaign::{Bench, cores};
use super::guest::Round;
use super::report::{Failure, Outcome};
use super::scenario::{Files, Scenario, Twin};
use crate::schedule;
use crate::test_smp::nearest;

const SEEDS: u64 = 10;
const NEEDED: u64 = 9;

/// One guest.
struct Run {
    twin: usize,
    scenario: Scenario,
    seed: u64,
    is_broken: bool,
}

/// Runs the twins that `name` means, each with its counterpart.
pub(super) fn run(options: &Torture, files: &Files, name: &str, seed: u64) -> Result<Vec<Outcome>> {
    let twins: Vec<&Twin> = files.twins.iter().filter(|twin| name == "all" || twin.name == name).collect();
    if twins.is_empty() {
        let near = nearest(name, files.twins.iter().map(|twin| twin.name.as_str())).join(", ");
        let hint = if near.is_empty() {
            "`torture --list` names them".to_owned()
        } else {
            format!("near it: {near}")
        };
        bail!("no twin is called `{name}`; {hint}");
    }
    let mut runs = Vec::new();
    for (index, twin) in twins.iter().enumerate() {
        for seed in (0..SEEDS).map(|n| seed.wrapping_add(n)) {
            for is_broken in [true, false] {
                runs.push(Run { twin: index, scenario: twin.scenario(is_broken), seed, is_broken });
            }
        }
    }
    let all: Vec<Scenario> = runs.iter().map(|run| run.scenario.clone()).collect();
    let bench = Bench::new(options, &all)?;
    let mut tallies: Vec<Tally> = twins.iter().map(|twin| Tally::new(twin, seed)).collect();
    let mut broken = None;
    let cores = options.jobs.unwrap_or_else(cores);
    schedule::run(
        &runs,
        cores,
        |run| if options.jobs.is_some() { 1 } else { run.scenario.cores().min(cores) },
        |_| false,
        |run, events| drop(events.send(bench.boot(&run.scenario, run.seed, None, ""))),
        |run, round| match round {
            Ok(round) => tallies[run.twin].take(round, run.is_broken),
            Err(error) => broken = Some(error),
        },
    );
    if let Some(error) = broken {
        return Err(error);
    }
    let outcomes: Vec<Outcome> = tallies.into_iter().map(Tally::close).collect();
    outcomes.iter().for_each(Outcome::print);
    Ok(outcomes)
}

/// What is known of a twin.
struct Tally {
    outcome: Outcome,
    /// What was to be seen when it was missed.
    missed: Vec<String>,
    log: Option<PathBuf>,
}

impl Tally {
    fn new(twin: &Twin, seed: u64) -> Self {
        let outcome =
            Outcome { name: twin.name.clone(), cpus: twin.cpus, seed, least: NEEDED, ..Outcome::default() };
        Self { outcome, missed: Vec::new(), log: None }
    }

    fn take(&mut self, round: Round, is_broken: bool) {
        self.outcome.guests += 1;
        self.outcome.took += round.took;
        if !is_broken && !round.problems.is_empty() {
            self.outcome.failures.push(Failure {
                problems: round.problems,
                context: round.context,
                log: Some(round.log),
                again: self.again(),
            });
        } else if is_broken && round.noticed > 0 {
            self.outcome.exercised += 1;
        } else if is_broken {
            self.missed.push(round.problems.into_iter().next().unwrap_or("not noticed".to_owned()));
            self.log = Some(round.log);
        }
    }

    fn again(&self) -> String {
        format!("cargo xtask torture --broken {} --seed {:#x}", self.outcome.name, self.outcome.seed)
    }

    fn close(mut self) -> Outcome {
        if self.outcome.exercised < NEEDED {
            let mut problems = vec![format!(
                "noticed with {} of {SEEDS} seeds; {NEEDED} are needed",
                self.outcome.exercised
            )];
            problems.append(&mut self.missed);
            problems.dedup();
            let again = self.again();
            self.outcome.failures.push(Failure {
                problems,
                again,
                log: self.log.take(),
                ..Failure::default()
            });
        }
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_of_the_sound_one_fails() {
        let mut tally = Tally { outcome: Outcome::default(), missed: Vec::new(), log: None };
        for _ in 0..SEEDS {
            tally.take(Round { noticed: 1, problems: vec!["x".to_owned()], ..Round::default() }, true);
            tally.take(Round { passed: 1, ..Round::default() }, false);
        }
        assert_eq!((tally.outcome.exercised, tally.outcome.guests), (SEEDS, 2 * SEEDS));
        assert!(tally.outcome.is_good());
        tally.take(Round { problems: vec!["x".to_owned()], ..Round::default() }, false);
        assert!(!tally.close().is_good());
    }

    fn tally(caught: u64) -> Outcome {
        let mut outcome = Outcome { name: "x".to_owned(), seed: 7, ..Outcome::default() };
        outcome.exercised = caught;
        let missed = (caught..SEEDS).map(|_| "not noticed".to_owned()).collect();
        Tally { outcome, missed, log: None }.close()
    }

    #[test]
    fn one_of_ten_may_be_missed() {
        assert!(tally(10).is_good() && tally(9).is_good());
        let outcome = tally(8);
        assert_eq!(outcome.failures[0].problems, ["noticed with 8 of 10 seeds; 9 are needed", "not noticed"]);
        assert!(outcome.failures[0].again.contains("--broken x --seed 0x7"));
    }
}
