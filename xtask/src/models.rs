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

use crate::ui::{Exit, Step, error, time};
use crate::workspace;

/// The crates that may have models.
const CRATES: [&str; 5] = ["hal", "sync", "timers", "rcu", "kernel"];
/// The longest that one crate's models may take.
const LIMIT: Duration = Duration::from_secs(900);

/// A model checker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Checker {
    /// All interleavings and all values that loads may return, of few threads
    Loom,
    /// Many random interleavings of more threads
    Shuttle,
}

impl Checker {
    const ALL: [Checker; 2] = [Checker::Loom, Checker::Shuttle];

    /// The name of its configuration, and of its target folder.
    fn name(self) -> &'static str {
        match self {
            Checker::Loom => "loom",
            Checker::Shuttle => "shuttle",
        }
    }

    /// What a source that starts a model contains.
    fn mark(self) -> &'static str {
        match self {
            Checker::Loom => "loom::model",
            Checker::Shuttle => "shuttle::check",
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
        for name in &self.crates {
            ensure!(CRATES.contains(&name.as_str()), "no crate `{name}`; there are: {}", CRATES.join(", "));
        }
        let (mut passed, mut failed) = (0, 0);
        for checker in Checker::ALL {
            for name in CRATES {
                let asked = self.checker.is_none_or(|only| only == checker)
                    && (self.crates.is_empty() || self.crates.iter().any(|other| other == name));
                if !asked || !has_models(name, checker)? {
                    continue;
                }
                let step = format!("{} models of {name}", checker.name());
                let result = Step::new(step).limit(LIMIT).try_run(self.command(name, checker))?;
                let (ok, bad) = count(&result.output);
                passed += ok;
                failed += bad;
                if !result.success || ok + bad == 0 {
                    failed += usize::from(bad == 0);
                    eprint!("{}", result.output);
                    let why = if result.timed_out {
                        "took too long"
                    } else if result.success {
                        "has models in its source but none ran"
                    } else {
                        "failed; its output is above"
                    };
                    error(&format!("{name} ({}): {why}", checker.name()));
                }
                println!("  {name}, {}: {ok} models, {}", checker.name(), time(result.elapsed));
            }
        }
        println!("{passed} passed, {failed} failed");
        if failed > 0 { Err(Exit::silent(1)) } else { Ok(()) }
    }

    fn command(&self, name: &str, checker: Checker) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(workspace::root())
            .args(["test", "--profile", "models", "--lib", "--package", name, "--target-dir"])
            .arg(workspace::target().join(checker.name()))
            .arg("--")
            .args(self.filter.as_ref().map_or(checker.filters(), |filter| vec![filter.as_str()]))
            .env("RUSTFLAGS", format!("--cfg {}", checker.name()));
        command
    }
}

fn has_models(name: &str, checker: Checker) -> Result<bool> {
    mentions(&workspace::root().join(name).join("src"), checker.mark())
}

/// Whether a source file in the folder contains the text.
fn mentions(folder: &Path, text: &str) -> Result<bool> {
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

/// Passed and failed tests in cargo's output.
fn count(output: &str) -> (usize, usize) {
    let results = output.lines().filter(|line| line.contains("test result:"));
    results.fold((0, 0), |(passed, failed), line| {
        let number = |what: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let at = words.iter().position(|word| word.trim_end_matches(';') == what);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
        };
        (passed + number("passed"), failed + number("failed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let output = "running 2 tests\ntest result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(count(output), (7, 1));
        assert_eq!(count(""), (0, 0));
    }
}
