//! `cargo xtask torture`: guests under load and faults, for as long as you like.
//!
//! 1. [`scenario`] is what runs, and [`files`] reads it from files: tests of the kernel's own that put it under load, on a machine, with
//!    faults. [`plan`] picks from them by the command line.
//! 2. [`campaign`] runs the plan: [`guest`] boots, watches and judges one guest, reading its [`protocol`], while [`faults`] makes NMIs rain, virtual CPUs
//!    stop and clocks jump, by way of [`qmp`] and the tracing of threads. If one fails, [`look`] sees from outside what its CPUs do.
//! 3. [`explore`] runs many seeds where instructions are counted, so that a failure comes again; [`twins`] runs what is
//!    broken on purpose, which must be noticed.
//! 4. [`report`] tells it all, to people and to programs.

mod backports;
mod campaign;
mod explore;
mod faults;
mod files;
mod guest;
mod look;
mod plan;
mod protocol;
mod qmp;
mod report;
mod scenario;
mod sockets;
mod twins;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Args;

use crate::build::{BuildOptions, word};
use crate::packages::Installing;
use crate::qemu::{self, AccelChoice, Machine, parse_cpus};
use crate::ui::{self, Exit};

use plan::Part;
use report::Outcome;
use scenario::{Fault, Matrix, Which};

/// Run the kernel under load and faults: scenarios of `xtask/torture/*.toml`.
///
/// Guests run tests that put the kernel under load, one guest after the other until a scenario's time is over, while NMIs
/// arrive, virtual CPUs stop and clocks jump. The seed is printed; a failure prints the command that repeats it.
#[derive(Args)]
pub(crate) struct Torture {
    /// How much: `quick` takes a few minutes, `full` about an hour of two cores
    #[arg(long, value_enum, default_value = "quick")]
    matrix: Matrix,
    /// How long each scenario takes, in place of what its file says; fractions will do
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// What all that is random comes from; by default a new one
    #[arg(long, value_name = "N", value_parser = parse_seed)]
    seed: Option<u64>,
    /// At most so many guests at a time; by default as many as keep the host's cores busy
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Only the I-th of N parts, for several hosts
    #[arg(long, value_name = "I/N")]
    part: Option<Part>,
    /// Run N seeds with counted instructions and pauses by the seed; what fails, fails again
    #[arg(long, value_name = "N", conflicts_with_all = ["minutes", "broken", "gdb"])]
    explore: Option<u64>,
    /// Run what is broken on purpose, and its sound counterpart, with ten seeds each: a name or `all` (most of an hour)
    #[arg(
        long,
        value_name = "TWIN",
        conflicts_with_all = ["minutes", "gdb", "matrix", "machine", "faults", "icount", "qemu", "what"]
    )]
    broken: Option<String>,
    /// With `--broken`: so many seeds in place of ten; of fewer than ten none may miss
    #[arg(long, value_name = "N", requires = "broken")]
    seeds: Option<u64>,
    /// List scenarios and twins, and boot nothing
    #[arg(long)]
    list: bool,
    /// Write results as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Numbers of CPUs, in place of the files'
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = parse_cpus, help_heading = "Guest")]
    cpus: Vec<u32>,
    /// Machine models, in place of the files'
    #[arg(long, value_enum, value_name = "MODEL,..", value_delimiter = ',', help_heading = "Guest")]
    machine: Vec<Machine>,
    /// Faults from outside, in place of the files'
    #[arg(long, value_enum, value_name = "FAULT,..", value_delimiter = ',', help_heading = "Guest")]
    faults: Vec<Fault>,
    /// Count instructions of 2^SHIFT ns each, with pauses by the seed and no faults: the same run every time
    #[arg(long, value_name = "SHIFT", value_parser = clap::value_parser!(u8).range(0..=10), help_heading = "Guest")]
    icount: Option<u8>,
    /// Which QEMU
    #[arg(long, value_enum, help_heading = "Guest")]
    qemu: Option<Which>,
    /// How to run the guest's instructions
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto", help_heading = "Guest")]
    accel: AccelChoice,
    /// Wait for a debugger at port 1234; for one scenario
    #[arg(long, help_heading = "Guest")]
    gdb: bool,
    #[command(flatten)]
    build: BuildOptions,
    /// Scenarios by name, or all that begin so: rcu, locks, timers, calls, hotplug, sched, references
    #[arg(value_name = "WHAT", value_delimiter = ',')]
    what: Vec<String>,
}

impl Torture {
    pub(crate) fn run(self) -> Result<()> {
        let files = files::load()?;
        if self.list {
            files.scenarios.iter().for_each(|scenario| println!("{}", plan::line(scenario)));
            for twin in &files.twins {
                println!("--broken {:<22} {}", twin.name, twin.about);
            }
            return Ok(());
        }
        if let Some(minutes) = self.minutes {
            ensure!(minutes > 0.0 && minutes < 1e5, "--minutes is more than 0");
        }
        ensure!(self.jobs != Some(0), "--jobs is at least 1");
        qemu::require(self.installing())?;
        let seed = self.seed.unwrap_or_else(seed_of_now);
        let version = qemu::installed().map_or(String::new(), |(_, version)| format!("QEMU {version}; "));
        ui::note(format_args!("{version}the seed is {seed:#x} (again: --seed {seed:#x})"));
        let outcomes = match (&self.broken, self.explore) {
            (Some(name), _) => twins::run(&self, &files, name, seed)?,
            (None, Some(seeds)) => explore::run(&self, plan::make(&self, files.scenarios)?, seeds, seed)?,
            (None, None) => {
                let scenarios = plan::make(&self, files.scenarios)?;
                ensure!(!self.gdb || scenarios.len() == 1, "--gdb is for one scenario; name it");
                campaign::run(&self, &scenarios, seed)?
            }
        };
        self.close(&outcomes)
    }

    /// The words of a command for the same kernel in the same kind of guest, each after a space.
    fn kernel_words(&self) -> String {
        word("accel", self.accel, AccelChoice::Auto) + &self.build.words()
    }

    fn installing(&self) -> Installing {
        self.build.installing()
    }

    fn close(&self, outcomes: &[Outcome]) -> Result<()> {
        println!("\n{}", report::table(outcomes));
        if let Some(path) = &self.junit {
            report::write_junit(path, outcomes)?;
        }
        if let Some(path) = &self.json {
            report::write_json(path, outcomes)?;
        }
        let failed = outcomes.iter().filter(|outcome| !outcome.is_good()).count();
        println!("{} passed, {failed} failed", outcomes.len() - failed);
        if failed > 0 { Err(Exit::silent(1)) } else { Ok(()) }
    }
}

/// A seed that nobody had before.
fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs())
}

/// A number, decimal or with `0x`.
fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "a number such as 42 or 0x2a".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds() {
        assert_eq!(parse_seed("42"), Ok(42));
        assert_eq!(parse_seed("0x2a"), Ok(42));
        assert!(parse_seed("-1").is_err() && parse_seed("0x").is_err() && parse_seed("2a").is_err());
    }
}
