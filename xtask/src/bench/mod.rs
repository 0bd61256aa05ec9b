//! `cargo xtask bench`: what operations cost here, and in Linux in the same emulator.
//!
//! 1. Both kernels write lines of one form, `BENCH name median unit min=.. p99=.. max=..` ([`lines`]). [`guest`] boots ours,
//!    [`linux`] makes a Linux of Debian's packages and a module and boots that; [`boot`] is what the two have in common.
//! 2. [`compare`] takes turns between the two and puts the results side by side.
//! 3. [`check`] compares counts of instructions with those in `bench/baseline.json`.
//! 4. [`host`] runs the benchmarks of the crates, beside their peers, and [`report`] draws what all of these have written.
//!
//! `docs/benchmarks.md` defines what is measured; [`operations`] has the names.

mod boot;
mod check;
mod compare;
mod guest;
mod host;
mod lines;
mod linux;
mod operations;
mod report;
mod results;
mod table;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Measure what operations cost, here and in Linux.
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

// The help texts are the doc comments of the structs.
#[derive(Subcommand)]
enum What {
    Guest(guest::GuestBench),
    Linux(linux::LinuxBench),
    Compare(compare::Compare),
    Check(check::Check),
    Host(host::Host),
    Report(report::Report),
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        match self.what {
            What::Guest(command) => command.run(),
            What::Linux(command) => command.run(),
            What::Compare(command) => command.run(),
            What::Check(command) => command.run(),
            What::Host(command) => command.run(),
            What::Report(command) => command.run(),
        }
    }
}
