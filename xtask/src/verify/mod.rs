//! `cargo xtask verify`: everything that this machine can show without a guest, in one table of what was explored.
//!
//! 1. *loom* and *shuttle* go through the models, as `cargo xtask models` does, by the same code.
//! 2. *properties* runs each crate's tests with a multiple of the random cases that `cargo test` takes.
//! 3. *fuzz* gives the tests that can go on for ever the time that was asked for.
//! 4. *address* runs the tests under the compiler's address sanitizer. It is an option that stable compilers take only
//!    when told to (`RUSTC_BOOTSTRAP`); a tool chain without its run-time library is said to be skipped.
//! 5. *miri*, if it is asked for, interprets the tests with Miri, which knows what every pointer may be used for, and finds data
//!    races. It takes hours, and is part of the nightly tool chain; without it this is said to be skipped.
//!
//! Each is a [`Row`] of the closing table. All run, whatever fails; one that failed makes the whole fail.

mod row;
mod suites;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::models::{self, CRATES, Checker};
use crate::ui::{Exit, error, note};
use row::{Row, Verdict};

/// What is done with each crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// Models, in all interleavings of few threads
    Loom,
    /// Models, in many random interleavings of more threads
    Shuttle,
    /// All tests, properties with more cases
    Properties,
    /// Tests that go on for a stated time
    Fuzz,
    /// All tests under the address sanitizer
    Address,
    /// Most tests in Miri, an interpreter that finds undefined behaviour: hours, and only if asked for
    Miri,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Loom, Kind::Shuttle, Kind::Properties, Kind::Fuzz, Kind::Address, Kind::Miri];

    /// Whether it is done if `only` these are asked for, or none.
    fn is_wanted(self, only: &[Kind]) -> bool {
        if only.is_empty() { self != Kind::Miri } else { only.contains(&self) }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Loom => "loom",
            Kind::Shuttle => "shuttle",
            Kind::Properties => "properties",
            Kind::Fuzz => "fuzz",
            Kind::Address => "address",
            Kind::Miri => "miri",
        }
    }
}

/// Run all models, the tests with many more random cases, fuzzing for a stated time, and the tests under the address
/// sanitizer.
///
/// Closes with one table of what was explored. The exit code is 1 if anything failed.
#[derive(Args)]
pub(crate) struct Verify {
    /// Only these crates
    #[arg(value_name = "CRATE")]
    crates: Vec<String>,
    /// How long to fuzz, shared by all crates that do
    #[arg(long, value_name = "M", default_value_t = 1.0)]
    minutes: f64,
    /// How many times as many random cases as `cargo test` takes
    #[arg(long, value_name = "FACTOR", default_value_t = 10)]
    cases: u32,
    /// Only tests and models whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Only this, of what is done; may be given several times
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Write the table as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Verify {
    pub(crate) fn run(self) -> Result<()> {
        models::require_known(&self.crates)?;
        ensure!(
            self.minutes.is_finite() && self.minutes >= 0.0,
            "--minutes must be a time, and not {}",
            self.minutes
        );
        ensure!(self.cases > 0, "--cases must be 1 or more: it multiplies");
        let mut rows: Vec<Row> = Vec::new();
        for kind in Kind::ALL {
            if !kind.is_wanted(&self.only) {
                continue;
            }
            match self.every_crate(kind) {
                Ok(more) => rows.extend(more),
                Err(problem) => {
                    error(&format!("{}: {problem:#}", kind.name()));
                    rows.push(Row::failed(kind.name(), "all"));
                }
            }
        }
        if rows.is_empty() {
            bail!(
                "nothing ran: no test or model has a name that contains `{}`",
                self.filter.unwrap_or_default()
            );
        }
        print!("\n{}", row::table(&rows));
        if let Some(file) = &self.json {
            row::write_json(file, &rows)?;
            note(format_args!("written to {}", file.display()));
        }
        let failed = rows.iter().filter(|row| row.verdict == Verdict::Failed).count();
        let passed = rows.iter().filter(|row| row.verdict == Verdict::Passed).count();
        println!("{passed} passed, {failed} failed");
        if failed > 0 { Err(Exit::silent(1)) } else { Ok(()) }
    }

    /// Does this for all crates that were asked for, and says after each how it went.
    fn every_crate(&self, kind: Kind) -> Result<Vec<Row>> {
        let asked: Vec<&str> = CRATES
            .into_iter()
            .filter(|name| self.crates.is_empty() || self.crates.iter().any(|c| c == name))
            .collect();
        let filter = self.filter.as_deref();
        let mut rows = Vec::new();
        if let Some(missing) = suites::missing(kind)? {
            note(format_args!("{} skipped: {missing}", kind.name()));
            return Ok(vec![Row::skipped(kind.name(), missing)]);
        }
        // Who fuzzes is known before anybody does, because the time is shared.
        let fuzzers = if kind == Kind::Fuzz { suites::fuzzers(&asked)? } else { Vec::new() };
        let time = Duration::from_secs_f64(self.minutes * 60.0 / fuzzers.len().max(1) as f64);
        for name in asked {
            let row = match kind {
                Kind::Loom => {
                    Row::of_models(name, Checker::Loom, models::explore(name, Checker::Loom, filter)?)
                }
                Kind::Shuttle => {
                    Row::of_models(name, Checker::Shuttle, models::explore(name, Checker::Shuttle, filter)?)
                }
                Kind::Properties => suites::properties(name, self.cases, filter)?,
                Kind::Fuzz if fuzzers.contains(&name) => suites::fuzz(name, time, filter)?,
                Kind::Fuzz => None,
                Kind::Address => suites::address(name, filter)?,
                // The crates that others take; the kernel's own tests take too long.
                Kind::Miri if name == "kernel" => None,
                Kind::Miri => suites::interpreted(name, filter)?,
            };
            if let Some(row) = row {
                println!("  {row}");
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_hours_is_asked_for() {
        let wanted = |only: &[Kind]| Kind::ALL.into_iter().filter(|kind| kind.is_wanted(only)).count();
        assert_eq!((wanted(&[]), Kind::Miri.is_wanted(&[])), (5, false));
        assert_eq!((wanted(&[Kind::Miri]), Kind::Miri.is_wanted(&[Kind::Miri])), (1, true));
    }
}
