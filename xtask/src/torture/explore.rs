//! Many seeds where instructions are counted.
//!
//! QEMU then runs the guest's CPUs by turns on one thread, and everything that happens depends on the command line alone.
//! The seed makes the kernel pause at chaos points, around its atomic operations, so that each seed is another schedule;
//! shift and number of CPUs change by turns. A run that fails fails again, to the instruction, with the same QEMU, which is
//! what `--gdb` is for.
//!
//! That this is so is looked at in every exploration: the first of its runs is done twice, and must say the same to the last
//! byte; others must not.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Torture;
use super::campaign::{Bench, add, cores};
use super::plan;
use super::report::{Failure, Outcome};
use super::scenario::Scenario;
use crate::schedule;
use crate::ui;

/// An instruction takes 1, 8, 2 and 32 ns: between two interrupts there are many instructions or few.
const SHIFTS: [u8; 4] = [0, 3, 1, 5];
/// Two CPUs have the shortest way to most mistakes.
const CPUS: [u32; 4] = [2, 3, 2, 4];
/// A run that takes longer is a failure; most take some seconds.
const LIMIT: Duration = Duration::from_secs(900);

/// One run of many.
struct Run {
    scenario: Scenario,
    seed: u64,
    label: &'static str,
}

/// Runs `seeds` seeds of each scenario, and the first one twice.
pub(super) fn run(
    options: &Torture,
    scenarios: Vec<Scenario>,
    seeds: u64,
    seed: u64,
) -> Result<Vec<Outcome>> {
    ensure!(seeds > 0, "--explore takes a number of seeds");
    let runs = runs(options, &scenarios, seeds, seed);
    let all: Vec<Scenario> = runs.iter().map(|run| run.scenario.clone()).collect();
    let bench = Bench::new(options, &all)?;
    let mut outcomes: Vec<Outcome> = scenarios
        .iter()
        .map(|scenario| Outcome {
            name: scenario.name.clone(),
            cpus: scenario.cpus,
            seed,
            least: seeds,
            ..Outcome::default()
        })
        .collect();
    let mut hashes: Vec<Vec<u64>> = vec![Vec::new(); outcomes.len()];
    let mut broken = None;
    schedule::run(
        &runs,
        options.jobs.unwrap_or_else(cores),
        |_| 1,
        |_| false,
        |run, events| {
            drop(events.send(bench.boot(&run.scenario, run.seed, Some(Instant::now() + LIMIT), run.label)));
        },
        |run, round| match round {
            Ok(mut round) => {
                if round.passed == 0 && round.problems.is_empty() {
                    round.problems.push(format!("it did not end in {}", ui::time(LIMIT)));
                }
                let again = repeats(&bench, run);
                if !round.problems.is_empty() {
                    println!("seed {:#x}: {} (again: {again})", run.seed, round.problems[0]);
                }
                let index =
                    scenarios.iter().position(|scenario| scenario.name == run.scenario.name).unwrap_or(0);
                hashes[index].push(round.hash);
                add(&mut outcomes[index], round, again);
            }
            Err(error) => broken = Some(error),
        },
    );
    if let Some(error) = broken {
        return Err(error);
    }
    for (outcome, hashes) in outcomes.iter_mut().zip(hashes) {
        if let Some(problem) = objection(&hashes) {
            let again = format!("cargo xtask torture {} --explore {seeds} --seed {seed:#x}", outcome.name);
            outcome.failures.push(Failure { problems: vec![problem], again, ..Failure::default() });
        }
        outcome.print();
    }
    Ok(outcomes)
}

fn runs(options: &Torture, scenarios: &[Scenario], seeds: u64, first: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    for scenario in scenarios {
        for index in 0..seeds {
            let turn = usize::try_from(index % 4).unwrap_or(0);
            let shift = options.icount.unwrap_or(SHIFTS[turn]);
            let cpus = if options.cpus.is_empty() { CPUS[turn] } else { scenario.cpus };
            let scenario = Scenario { cpus, ..plan::counted(scenario.clone(), shift) };
            let seed = first.wrapping_add(index);
            if index == 0 {
                runs.push(Run { scenario: scenario.clone(), seed, label: "-first" });
            }
            runs.push(Run { scenario, seed, label: "" });
        }
    }
    runs
}

/// The command that repeats a run, which may have another number of CPUs than its scenario.
fn repeats(bench: &Bench<'_>, run: &Run) -> String {
    let words = bench.again(&run.scenario, run.seed);
    if words.contains("--cpus") { words } else { format!("{words} --cpus {}", run.scenario.cpus) }
}

/// What is wrong with the hashes of what the runs said, the first of which was done twice.
fn objection(hashes: &[u64]) -> Option<String> {
    let [first, second, others @ ..] = hashes else { return None };
    if first != second {
        return Some("two runs with the same seed did not say the same".to_owned());
    }
    let different: HashSet<u64> = others.iter().copied().chain([*first]).collect();
    (different.len() != others.len() + 1).then(|| "runs with different seeds said the same".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_compared() {
        assert_eq!(objection(&[]), None);
        assert_eq!(objection(&[1, 1]), None);
        assert_eq!(objection(&[1, 1, 2, 3]), None);
        assert!(objection(&[1, 2, 3]).unwrap().contains("the same seed"));
        assert!(objection(&[1, 1, 2, 1]).unwrap().contains("different seeds"));
        assert!(objection(&[1, 1, 2, 2]).unwrap().contains("different seeds"));
    }
}
