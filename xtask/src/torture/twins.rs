//! What is broken on purpose must be noticed, and what is sound must not.
//!
//! 1. A twin is a load of the kernel's with one thing broken; it is caught if the load says so, or the kernel reports something.
//! 2. Its sound counterpart is the load as it is, for as long as the twin has time to be noticed. Twins of one load that have
//!    the same time and the same number of CPUs share it: it would be the same guest.
//! 3. Both run with the same seeds, ten unless told otherwise. Chance is part of finding races, so one seed of ten may miss.
//!
//! Each guest is told about when it starts and when it has ended, as it happens: all of them take most of an hour.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::Torture;
use super::campaign::{Bench, cores};
use super::files::Files;
use super::guest::Round;
use super::report::{Failure, Outcome};
use super::scenario::{Scenario, Twin};
use crate::schedule;
use crate::test_smp::nearest;
use crate::ui;

const SEEDS: u64 = 10;

/// With how many of these seeds a twin must be noticed.
fn needed(seeds: u64) -> u64 {
    seeds - seeds / 10
}

/// One guest.
struct Run {
    /// The twins that it tells about: one that is broken, or all that share a sound load.
    twins: Vec<usize>,
    scenario: Scenario,
    seed: u64,
    is_broken: bool,
}

impl Run {
    fn what(&self) -> String {
        let how = if self.is_broken { "broken" } else { "sound" };
        format!("{} ({how}, seed {:#x})", self.scenario.name, self.seed)
    }

    /// How it went, in a few words.
    fn verdict(&self, round: &Round) -> String {
        let why = || round.problems.first().map_or(String::new(), |problem| format!(": {problem}"));
        match (self.is_broken, round.problems.is_empty()) {
            (true, _) if round.noticed > 0 => format!("noticed{}", why()),
            (true, _) => format!("NOT NOTICED{}", why()),
            (false, true) => "silent".to_owned(),
            (false, false) => format!("NOT SILENT{}", why()),
        }
    }
}

/// The guests of these twins: the broken one and the sound one by turns, seed by seed, so that much is known early.
fn runs(twins: &[&Twin], seeds: impl Iterator<Item = u64> + Clone) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for seed in seeds {
        for (index, twin) in twins.iter().enumerate() {
            runs.push(Run { twins: vec![index], scenario: twin.scenario(true), seed, is_broken: true });
            let sound = twin.scenario(false);
            match runs.iter_mut().find(|run| !run.is_broken && run.seed == seed && run.scenario == sound) {
                Some(run) => run.twins.push(index),
                None => runs.push(Run { twins: vec![index], scenario: sound, seed, is_broken: false }),
            }
        }
    }
    runs
}

/// The twins that `name` means, each with these numbers of CPUs if there are any.
fn pick(twins: &[Twin], name: &str, cpus: &[u32]) -> Vec<Twin> {
    let with = |twin: &Twin, cpus: u32| Twin { cpus, ..twin.clone() };
    twins
        .iter()
        .filter(|twin| name == "all" || twin.name == name)
        .flat_map(|twin| match cpus {
            [] => vec![twin.clone()],
            _ => cpus.iter().map(|&cpus| with(twin, cpus)).collect(),
        })
        .collect()
}

/// Runs the twins that `name` means, each with its counterpart.
pub(super) fn run(options: &Torture, files: &Files, name: &str, seed: u64) -> Result<Vec<Outcome>> {
    let twins = pick(&files.twins, name, &options.cpus);
    let any = !twins.is_empty();
    let twins = options.part.map_or_else(|| twins.clone(), |part| part.pick(twins.clone()));
    ensure!(!any || !twins.is_empty(), "nothing is left to run in this part");
    let twins: Vec<&Twin> = twins.iter().collect();
    if twins.is_empty() {
        let near = nearest(name, files.twins.iter().map(|twin| twin.name.as_str())).join(", ");
        let hint = if near.is_empty() {
            "`torture --list` names them".to_owned()
        } else {
            format!("near it: {near}")
        };
        bail!("no twin is called `{name}`; {hint}");
    }
    let seeds = options.seeds.unwrap_or(SEEDS);
    ensure!((1..=1000).contains(&seeds), "--seeds is 1 to 1000");
    let runs = runs(&twins, (0..seeds).map(|n| seed.wrapping_add(n)));
    let all: Vec<Scenario> = runs.iter().map(|run| run.scenario.clone()).collect();
    let bench = Bench::new(options, &all)?;
    ui::note(format_args!("{} twins, {seeds} seeds, {} guests", twins.len(), runs.len()));
    let mut tallies: Vec<Tally> = twins
        .iter()
        .map(|twin| {
            let cpus = options.cpus.first().map_or(String::new(), |_| format!(" --cpus {}", twin.cpus));
            Tally { words: cpus + &options.kernel_words(), ..Tally::new(twin, seed, seeds) }
        })
        .collect();
    let mut broken = None;
    let cores = options.jobs.unwrap_or_else(cores);
    let mut ended = 0;
    let begun = Instant::now();
    schedule::run(
        &runs,
        cores,
        |run| if options.jobs.is_some() { 1 } else { run.scenario.cores().min(cores) },
        |_| false,
        |run, events| {
            ui::note(format_args!("{} boots", run.what()));
            drop(events.send(bench.boot(&run.scenario, run.seed, None, "")));
        },
        |run, round| match round {
            Ok(round) => {
                ended += 1;
                println!(
                    "  {ended}/{} after {}: {}, {} in {}",
                    runs.len(),
                    ui::time(begun.elapsed()),
                    run.what(),
                    run.verdict(&round),
                    ui::time(round.took)
                );
                run.twins.iter().for_each(|&twin| tallies[twin].take(&round, run.is_broken));
            }
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
    seeds: u64,
    /// What else the caller said, for a command.
    words: String,
    /// What was to be seen when it was missed.
    missed: Vec<String>,
    log: Option<PathBuf>,
}

impl Tally {
    fn new(twin: &Twin, seed: u64, seeds: u64) -> Self {
        let outcome = Outcome {
            name: twin.name.clone(),
            cpus: twin.cpus,
            seed,
            least: needed(seeds),
            ..Outcome::default()
        };
        Self { outcome, seeds, words: String::new(), missed: Vec::new(), log: None }
    }

    fn take(&mut self, round: &Round, is_broken: bool) {
        self.outcome.guests += 1;
        self.outcome.took += round.took;
        if !is_broken && !round.problems.is_empty() {
            self.outcome.failures.push(Failure {
                problems: round.problems.clone(),
                context: round.context.clone(),
                log: Some(round.log.clone()),
                again: self.again(),
            });
        } else if is_broken && round.noticed > 0 {
            self.outcome.exercised += 1;
        } else if is_broken {
            self.missed.push(round.problems.first().cloned().unwrap_or("not noticed".to_owned()));
            self.log = Some(round.log.clone());
        }
    }

    fn again(&self) -> String {
        let seeds = if self.seeds == SEEDS { String::new() } else { format!(" --seeds {}", self.seeds) };
        format!(
            "cargo xtask torture --broken {} --seed {:#x}{seeds}{}",
            self.outcome.name, self.outcome.seed, self.words
        )
    }

    fn close(mut self) -> Outcome {
        let needed = needed(self.seeds);
        if self.outcome.exercised < needed {
            let mut problems = vec![format!(
                "noticed with {} of {} seeds; {needed} are needed",
                self.outcome.exercised, self.seeds
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
    use super::super::files::load;
    use super::*;

    #[test]
    fn an_alarm_of_the_sound_one_fails() {
        let mut tally = Tally {
            outcome: Outcome::default(),
            seeds: SEEDS,
            words: String::new(),
            missed: Vec::new(),
            log: None,
        };
        for _ in 0..SEEDS {
            tally.take(&Round { noticed: 1, problems: vec!["x".to_owned()], ..Round::default() }, true);
            tally.take(&Round { passed: 1, ..Round::default() }, false);
        }
        assert_eq!((tally.outcome.exercised, tally.outcome.guests), (SEEDS, 2 * SEEDS));
        assert!(tally.outcome.is_good());
        tally.take(&Round { problems: vec!["x".to_owned()], ..Round::default() }, false);
        assert!(!tally.close().is_good());
    }

    fn tally(caught: u64, seeds: u64) -> Outcome {
        let mut outcome = Outcome { name: "x".to_owned(), seed: 7, ..Outcome::default() };
        outcome.exercised = caught;
        let missed = (caught..seeds).map(|_| "not noticed".to_owned()).collect();
        Tally { outcome, seeds, words: String::new(), missed, log: None }.close()
    }

    #[test]
    fn one_of_ten_may_be_missed() {
        assert!(tally(10, 10).is_good() && tally(9, 10).is_good() && tally(3, 3).is_good());
        let outcome = tally(8, 10);
        assert_eq!(outcome.failures[0].problems, ["noticed with 8 of 10 seeds; 9 are needed", "not noticed"]);
        assert!(outcome.failures[0].again.ends_with("--broken x --seed 0x7"));
        assert!(tally(2, 3).failures[0].again.ends_with("--broken x --seed 0x7 --seeds 3"));
        let outcome = Outcome { name: "x".to_owned(), seed: 7, cpus: 2, ..Outcome::default() };
        let tally = Tally { outcome, seeds: 3, words: " --cpus 2".to_owned(), missed: Vec::new(), log: None };
        assert!(tally.again().ends_with("--broken x --seed 0x7 --seeds 3 --cpus 2"));
    }

    #[test]
    fn twins_run_with_the_numbers_of_cpus_that_are_asked_for() {
        let files = load().unwrap();
        let told = |cpus: &[u32]| -> Vec<(String, u32)> {
            pick(&files.twins, "rcu-early", cpus).into_iter().map(|twin| (twin.name, twin.cpus)).collect()
        };
        let early = || "rcu-early".to_owned();
        assert_eq!(told(&[]), [(early(), 4)]);
        assert_eq!(told(&[2, 8]), [(early(), 2), (early(), 8)]);
        assert_eq!(pick(&files.twins, "all", &[2]).len(), files.twins.len());
        assert!(pick(&files.twins, "rcu-earl", &[]).is_empty());
    }

    #[test]
    fn twins_of_one_load_share_the_sound_one() {
        let files = load().unwrap();
        let of_calls = |twin: &&Twin| twin.run == "calls";
        let twins: Vec<&Twin> =
            files.twins.iter().filter(of_calls).filter(|twin| twin.inside.is_empty()).collect();
        assert!(twins.len() > 1);
        // With faults it is another guest.
        let all: Vec<&Twin> = files.twins.iter().filter(of_calls).collect();
        let sound = runs(&all, 5..6).into_iter().filter(|run| !run.is_broken);
        let mut names: Vec<String> = sound.map(|run| run.scenario.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["calls-hotplug-sound", "calls-sound"]);
        let runs = runs(&twins, 5..7);
        assert_eq!(runs.len(), 2 * (twins.len() + 1));
        let sound: Vec<&Run> = runs.iter().filter(|run| !run.is_broken).collect();
        assert!(sound.iter().all(|run| run.twins.len() == twins.len()));
        assert_eq!((sound[0].seed, sound[1].seed), (5, 6));
    }
}
