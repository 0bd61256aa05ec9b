//! `cargo xtask models`: each crate's models, in two checkers.
//!
//! 1. *loom* goes through all interleavings of two or three threads, up to a bound, and through all values that their
//!    loads may return.
//! 2. *shuttle* runs more threads in many interleavings, at random, each of which is sequentially consistent.
//!
//! Models compile under `--cfg loom` or `--cfg shuttle`, which changes every crate, so each checker has a target folder of
//! its own. They are library tests in modules whose names contain `models` (or, for loom, `loom`); a crate takes part
//! as soon as its source starts a `loom::model` or `shuttle::check`, and then at least one has to run.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::tally::Tally;
use crate::ui::{Exit, Step, error, time};
use crate::workspace;

/// The crates that may have models.
pub(crate) const CRATES: [&str; 5] = ["hal", "sync", "timers", "rcu", "kernel"];
/// The longest that one crate's models may take.
const LIMIT: Duration = Duration::from_secs(900);

/// A model checker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Checker {
    /// All interleavings and all values that loads may return, of few threads
    Loom,
    /// Many random interleavings of more threads
    Shuttle,
}

impl Checker {
    pub(crate) const ALL: [Checker; 2] = [Checker::Loom, Checker::Shuttle];

    /// The name of its configuration, and of its target folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Checker::Loom => "loom",
            Checker::Shuttle => "shuttle",
        }
    }

    /// What a source that starts a model contains.
    fn mark(self) -> &'static str {
        match self {
            Checker::Loom => "loom::model",
            Checker::Shuttle => "test_support::schedules",
        }
    }

    /// Which tests are models, by their names. Other tests must not run: the checker's atomics work in models only.
    fn filters(self) -> Vec<&'static str> {
        match self {
            Checker::Loom => vec!["models", "loom"],
            Checker::Shuttle => vec!["::models::"],
        }
    }
}

/// Run the model-checked tests (loom, shuttle) of the crates that have them.
///
/// A model runs a piece of concurrent code through all interleavings of its threads, up to a bound, or through many.
#[derive(Args)]
pub(crate) struct Models {
    /// Only these crates
    #[arg(value_name = "CRATE")]
    crates: Vec<String>,
    /// Only this checker
    #[arg(long, value_name = "CHECKER")]
    checker: Option<Checker>,
    /// Only models whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

impl Models {
    pub(crate) fn run(self) -> Result<()> {
        require_known(&self.crates)?;
        let (mut passed, mut failed) = (0, 0);
        for checker in Checker::ALL {
            for name in CRATES {
                let asked = self.checker.is_none_or(|only| only == checker)
                    && (self.crates.is_empty() || self.crates.iter().any(|other| other == name));
                if !asked {
                    continue;
                }
                let Some(outcome) = explore(name, checker, self.filter.as_deref())? else { continue };
                passed += outcome.tally.passed;
                failed += outcome.tally.failed.max(u64::from(outcome.problem.is_some()));
                let Tally { passed: ok, .. } = outcome.tally;
                let explored = outcome.tally.explored_in_words();
                let comma = if explored.is_empty() { "" } else { ", " };
                println!(
                    "  {name}, {}: {ok} models{comma}{explored}, {}",
                    checker.name(),
                    time(outcome.elapsed)
                );
            }
        }
        println!("{passed} passed, {failed} failed");
        if failed > 0 { Err(Exit::silent(1)) } else { Ok(()) }
    }
}

/// Refuses names of crates that have no tests of this kind.
pub(crate) fn require_known(names: &[String]) -> Result<()> {
    for name in names {
        ensure!(CRATES.contains(&name.as_str()), "no crate `{name}`; there are: {}", CRATES.join(", "));
    }
    Ok(())
}

/// What came of a crate's models.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    /// Why this is a failure; it has been said, after the output.
    pub(crate) problem: Option<&'static str>,
}

/// Runs the models of a crate whose names contain `filter`. `None` if it has none.
pub(crate) fn explore(name: &str, checker: Checker, filter: Option<&str>) -> Result<Option<Outcome>> {
    if !has_models(name, checker)? {
        return Ok(None);
    }
    let step = Step::new(format!("{} models of {name}", checker.name())).limit(LIMIT);
    let result = step.try_run(command(name, checker, filter))?;
    let tally = Tally::of(&result.output);
    let problem = if result.timed_out {
        Some("took too long")
    } else if !result.success {
        Some("failed; its output is above")
    } else if tally.is_empty() && filter.is_none() {
        Some("has models in its source but none ran")
    } else {
        None
    };
    if let Some(why) = problem {
        eprint!("{}", result.output);
        error(&format!("{name} ({}): {why}", checker.name()));
    }
    if tally.is_empty() && problem.is_none() {
        return Ok(None);
    }
    Ok(Some(Outcome { tally, elapsed: result.elapsed, problem }))
}

fn command(name: &str, checker: Checker, filter: Option<&str>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace::root())
        .args(["test", "--profile", "models", "--lib", "--package", name, "--target-dir"])
        .arg(workspace::target().join(checker.name()))
        .args(["--", "--show-output"])
        .args(filter.map_or(checker.filters(), |filter| vec![filter]))
        .env("RUSTFLAGS", format!("--cfg {}", checker.name()));
    command
}

fn has_models(name: &str, checker: Checker) -> Result<bool> {
    mentions(&workspace::root().join(name).join("src"), checker.mark())
}

/// Whether a source file in the folder contains the text.
pub(crate) fn mentions(folder: &Path, text: &str) -> Result<bool> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let found = if path.is_dir() {
            mentions(&path, text)?
        } else {
            path.extension().is_some_and(|extension| extension == "rs")
                && fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?
                    .contains(text)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
