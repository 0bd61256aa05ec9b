//! `cargo xtask test-smp`: the kernel's own tests, booted on several CPU counts and machines.
//!
//! [`cases`] is the table of guests, [`protocol`] reads what a guest says about its tests, [`runner`] boots one case and
//! judges it, [`acpi`] makes the firmware that lies, [`report`] prints. This file picks the cases, runs as many at a time as the host has
//! cores for, and prints them in the order of the table.

mod acpi;
mod cases;
mod hot_paths;
pub(crate) mod protocol;
mod report;
mod runner;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build::{BuildOptions, Chaos, Kernel};
use crate::cmdline::Cmdline;
use crate::qemu::{self, Accelerator, Guest, GuestOptions, Machine, Time, parse_cpus};
use crate::schedule;
use crate::ui;
use crate::workspace;

use cases::{Case, Firmware};
use report::{Progress, Total};
use runner::Runner;

/// Boot the kernel's own tests on several CPU counts and machines.
///
/// Without options: 1, 2, 4 and 8 CPUs on q35, 2 on pc and on microvm, and the cases that only a host can judge (crashes,
/// broken firmware, many CPUs, little memory, repeatability). The last line counts; the exit code is 0 if nothing failed.
#[derive(Args)]
pub(crate) struct TestSmp {
    /// Numbers of CPUs, separated by commas
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = parse_cpus, help_heading = "Guest")]
    cpus: Vec<u32>,
    /// Machine models, separated by commas
    #[arg(long, value_enum, value_name = "MODEL,..", value_delimiter = ',', help_heading = "Guest")]
    machine: Vec<Machine>,
    #[command(flatten)]
    guest: GuestOptions,
    #[command(flatten)]
    build: BuildOptions,
    /// List what would be booted, and boot nothing
    #[arg(long)]
    list: bool,
    /// Build what would be booted, and boot nothing
    #[arg(long, conflicts_with = "list")]
    no_run: bool,
    /// Only tests and cases whose name contains this
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

/// What the guests of one run share.
struct Kernels {
    plain: Kernel,
    seeded: Option<Kernel>,
    other: Option<Kernel>,
}

impl TestSmp {
    pub(crate) fn run(self) -> Result<()> {
        let cases = self.cases()?;
        if self.list {
            if self.looks_at_code() {
                println!("{}", hot_paths::NAME);
            }
            cases.iter().for_each(|case| println!("{}", case.name));
            return Ok(());
        }
        if self.no_run {
            return self.build_kernels(&cases).map(drop);
        }
        qemu::require(self.build.installing())?;
        let kernels = self.build_kernels(&cases)?;
        let accelerator = Accelerator::choose(self.guest.accel)?;
        let version = qemu::installed().map_or(String::new(), |(_, version)| version);
        ui::note(format_args!("{} guests, QEMU {version} ({})", cases.len(), accelerator.name()));

        let started = Instant::now();
        let mut total = Total::new(self.build.words() + &self.guest.words());
        if self.looks_at_code() {
            total.code(hot_paths::check(&fs::read(&kernels.plain.symbols)?));
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        schedule::run(
            &cases,
            cores,
            |case| case.cores().min(cores),
            |case| case.time != Time::Real,
            |case, events| self.run_case(case, &kernels, accelerator, events),
            |case, event| total.take(case, event),
        );
        self.check_filter(&total)?;
        ui::note(format_args!("{} guests in {}", cases.len(), ui::time(started.elapsed())));
        total.close()
    }

    /// Whether the look at the machine code is selected.
    fn looks_at_code(&self) -> bool {
        let everything = self.cpus.is_empty() && self.machine.is_empty();
        let selected = self.filter.as_deref().map_or(everything, |filter| hot_paths::NAME.contains(filter));
        selected && self.build.sanitizer().is_none()
    }

    /// The guests to boot.
    fn cases(&self) -> Result<Vec<Case>> {
        let filter = self.filter.as_deref().unwrap_or("");
        if filter.contains(|c: char| c.is_whitespace() || c == '"' || c == '\\') {
            bail!("a filter is part of a test's name, without spaces, quotes or backslashes: {filter:?}");
        }
        if filter.contains('-') {
            return self.by_name(filter);
        }
        let mut cases: Vec<Case> =
            self.grid().map(|(machine, cpus)| cases::tests_on(machine, cpus, filter)).collect();
        let everything = self.cpus.is_empty() && self.machine.is_empty();
        if everything || !filter.is_empty() {
            cases.extend(cases::host_driven().into_iter().filter(|case| case.name.contains(filter)));
        }
        Ok(cases)
    }

    /// The cases that `filter` names. The names of kernel tests are Rust paths and have no `-`; those of cases do.
    fn by_name(&self, filter: &str) -> Result<Vec<Case>> {
        let grid = self.grid().map(|(machine, cpus)| cases::tests_on(machine, cpus, ""));
        let all: Vec<Case> = grid.chain(cases::host_driven()).collect();
        let names = all.iter().map(|case| case.name.as_str()).chain([hot_paths::NAME]);
        let near = nearest(filter, names).join(", ");
        let found: Vec<Case> = all.into_iter().filter(|case| case.name.contains(filter)).collect();
        if found.is_empty() && !self.looks_at_code() {
            let hint = if near.is_empty() {
                "`test-smp --list` names them".to_owned()
            } else {
                format!("near it: {near}")
            };
            bail!("no case has `{filter}` in its name; {hint}");
        }
        Ok(found)
    }

    /// Machines and CPU counts for the kernel's own tests.
    fn grid(&self) -> impl Iterator<Item = (Machine, u32)> {
        let machines = if self.machine.is_empty() { vec![Machine::Q35] } else { self.machine.clone() };
        let cpus = match (self.cpus.is_empty(), self.machine.is_empty()) {
            (false, _) => self.cpus.clone(),
            (true, true) => vec![1, 2, 4, 8],
            (true, false) => vec![1, 2, 4],
        };
        let mut grid: Vec<_> =
            machines.iter().flat_map(|&machine| cpus.iter().map(move |&cpus| (machine, cpus))).collect();
        if self.cpus.is_empty() && self.machine.is_empty() {
            grid.extend([(Machine::Pc, 2), (Machine::Microvm, 2)]);
        }
        let mut seen = BTreeSet::new();
        grid.retain(|&(machine, cpus)| seen.insert((machine.to_string(), cpus)));
        grid.into_iter()
    }

    fn build_kernels(&self, cases: &[Case]) -> Result<Kernels> {
        let counted = cases.iter().any(|case| case.time != Time::Real);
        let plain = self.build.build(Chaos::Off)?;
        let seeded = if counted { Some(self.build.build(Chaos::Seeded)?) } else { None };
        let other = cases.iter().any(Case::is_other_kernel).then(|| self.build.build_other()).transpose()?;
        Ok(Kernels { plain, seeded, other })
    }

    fn run_case(&self, case: &Case, kernels: &Kernels, accelerator: Accelerator, events: &Sender<Progress>) {
        let kernel = match (&kernels.other, &kernels.seeded, case.time) {
            (Some(other), ..) if case.is_other_kernel() => other,
            (_, Some(seeded), Time::Counted { .. }) => seeded,
            _ => &kernels.plain,
        };
        let logs = workspace::target().join("test-smp");
        let runner = Runner {
            case,
            command: &|words| self.command(case, kernel, accelerator, words),
            symbols: &kernel.symbols,
            logs: &logs,
            patience: self.build.patience(),
            on_test: &|finished| drop(events.send(Progress::Test(finished.clone()))),
        };
        // The receiver is gone only when the whole run is being given up.
        let _ = events.send(Progress::End(runner.run()));
    }

    fn command(
        &self,
        case: &Case,
        kernel: &Kernel,
        accelerator: Accelerator,
        words: &str,
    ) -> Result<Command> {
        let mut cmdline = Cmdline::default();
        cmdline.words(&case.words).words(words);
        let extra = match case.firmware {
            Firmware::Lying(lie) => {
                let folder = workspace::target().join("test-smp").join(format!("{}.tables", case.name));
                acpi::arguments(lie, case.cpus, &folder)?
            }
            _ => Vec::new(),
        };
        let guest = Guest {
            machine: case.machine,
            accelerator: if case.time == Time::Real { accelerator } else { Accelerator::Tcg },
            cpu_model: self.guest.cpu.clone(),
            cpus: case.cpus,
            memory: case.memory.unwrap_or(self.guest.memory),
            acpi: case.firmware == Firmware::Acpi,
            time: case.time,
            gdb: false,
            kernel: kernel.elf.clone(),
            cmdline,
            extra,
        };
        guest.command()
    }

    /// A filter that selected nothing anywhere is a mistake.
    fn check_filter(&self, total: &Total) -> Result<()> {
        let names = workspace::target().join("test-smp").join("names");
        match &self.filter {
            None => {
                let list: Vec<&str> = total.names.iter().map(String::as_str).collect();
                fs::write(&names, list.join("\n")).with_context(|| format!("writing {}", names.display()))
            }
            Some(filter) if total.ran == 0 && total.failed == 0 => {
                let known = fs::read_to_string(&names).unwrap_or_default();
                let host: Vec<String> = cases::host_driven().into_iter().map(|case| case.name).collect();
                let all = known.lines().chain(host.iter().map(String::as_str));
                let near = nearest(filter, all);
                let hint =
                    if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) };
                bail!("no test or case has `{filter}` in its name{hint}")
            }
            Some(_) => Ok(()),
        }
    }
}

/// The names most like `text`, the best first.
pub(crate) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let score = |name: &str| {
        // A name is a path: the part that is like the text counts.
        name.split("::").chain([name]).map(|part| strsim::jaro_winkler(text, part)).fold(0.0, f64::max)
    };
    let mut scored: Vec<_> =
        names.map(|name| (score(name), name)).filter(|(score, _)| *score > 0.75).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup();
    scored.into_iter().take(5).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        test: TestSmp,
    }

    fn names(arguments: &[&str]) -> Vec<String> {
        let cli = Cli::parse_from([&["x"], arguments].concat());
        cli.test.cases().unwrap().into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn the_default_is_everything() {
        let names = names(&[]);
        for name in
            ["q35-1cpu", "q35-8cpu", "pc-2cpu", "microvm-2cpu", "crash-panic", "boot-64-cpus", "determinism"]
        {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
    }

    #[test]
    fn options_narrow_it_down() {
        assert_eq!(names(&["--cpus", "2,4"]), ["q35-2cpu", "q35-4cpu"]);
        assert_eq!(names(&["--machine", "pc,microvm", "--cpus", "3"]), ["pc-3cpu", "microvm-3cpu"]);
        assert_eq!(names(&["crash-divide"]), ["crash-divide"]);
        assert_eq!(names(&["--cpus", "1", "acpi-ch"]), ["acpi-checksum"]);
        assert_eq!(names(&["--cpus", "1", "determ"]), ["q35-1cpu", "determinism"]);
    }

    #[test]
    fn a_case_is_asked_for_by_its_name() {
        assert_eq!(names(&["q35-8cpu"]), ["q35-8cpu"]);
        assert!(names(&["hot-paths"]).is_empty(), "no guest is needed for it");
        assert_eq!(names(&["q35-3cpu", "--cpus", "3"]), ["q35-3cpu"]);
        let error = Cli::parse_from(["x", "crash-pannic"]).test.cases().unwrap_err().to_string();
        assert!(error.contains("near it: crash-panic"), "{error}");
    }

    #[test]
    fn near_names_are_offered() {
        let names = ["percpu::areas_differ", "paging::walk", "crash-null-read"];
        assert_eq!(nearest("crash-nul-read", names.into_iter()), ["crash-null-read"]);
        assert_eq!(nearest("area_differ", names.into_iter()), ["percpu::areas_differ"]);
        assert!(nearest("zzz", names.into_iter()).is_empty());
    }

    #[test]
    fn a_filter_with_a_space_is_refused() {
        assert!(Cli::parse_from(["x", "a b"]).test.cases().is_err());
    }
}
