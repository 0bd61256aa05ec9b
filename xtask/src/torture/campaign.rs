//! Runs scenarios: builds the kernels, boots guests, keeps the host's cores busy.

use std::collections::HashSet;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Torture;
use super::backports::Backport;
use super::guest::{Round, Subject};
use super::report::{Count, Failure, Outcome};
use super::scenario::{Clock, Scenario, Which};
use crate::build::{Kernel, Variant, said};
use crate::cmdline::Cmdline;
use crate::qemu::{Accelerator, Guest};
use crate::schedule;
use crate::ui;
use crate::workspace;

/// After so many guests that failed a scenario is given up: what fails always would fill the disk.
const ENOUGH: usize = 3;

/// Runs every scenario for its time.
pub(super) fn run(options: &Torture, scenarios: &[Scenario], seed: u64) -> Result<Vec<Outcome>> {
    let bench = Bench::new(options, scenarios)?;
    let mut outcomes = Vec::new();
    let mut broken = None;
    let cores = options.jobs.unwrap_or_else(cores);
    schedule::run(
        scenarios,
        cores,
        // By jobs, each is one; by cores, each is as many as it keeps busy.
        |scenario| if options.jobs.is_some() { 1 } else { scenario.cores().min(cores) },
        |scenario| scenario.time != Clock::Real,
        |scenario, events| drop(events.send(one(&bench, scenario, seed))),
        |_, outcome| match outcome {
            Ok(outcome) => {
                outcome.print();
                outcomes.push(outcome);
            }
            Err(error) => broken = Some(error),
        },
    );
    broken.map_or(Ok(outcomes), Err)
}

/// The host's cores.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// One scenario: guests, one after the other, until the time is over.
fn one(bench: &Bench<'_>, scenario: &Scenario, seed: u64) -> Result<Outcome> {
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(scenario.seconds);
    let mut outcome = Outcome {
        name: scenario.name.clone(),
        cpus: scenario.cpus,
        seed,
        // Of loads that run together all must end well.
        least: scenario.least.max(scenario.run.len() as u64),
        ..Outcome::default()
    };
    for seed in (0..).map(|round| seed.wrapping_add(round)) {
        // Loads end by themselves, and where a run is the same every time it is one that does.
        let cut = scenario.run.is_empty() && scenario.time == Clock::Real && !bench.options.gdb;
        let limit = cut.then_some(deadline);
        let round = bench.boot(scenario, seed, limit, "")?;
        add(&mut outcome, round, bench.again(scenario, seed));
        let done = !scenario.run.is_empty() || Instant::now() >= deadline;
        if done || outcome.failures.len() >= ENOUGH || bench.options.gdb {
            break;
        }
    }
    outcome.took = begun.elapsed();
    if outcome.is_good() && outcome.exercised < outcome.least {
        outcome.failures.push(Failure {
            problems: vec![format!(
                "too little was exercised: {} ended well in {}, and {} are the least (is the host busy?)",
                outcome.exercised,
                ui::time(outcome.took),
                outcome.least
            )],
            again: bench.again(scenario, seed),
            ..Failure::default()
        });
    }
    Ok(outcome)
}

/// Counts a guest.
pub(super) fn add(outcome: &mut Outcome, round: Round, again: String) {
    outcome.guests += 1;
    outcome.exercised += round.passed;
    for count in round.counts {
        let same = |other: &&mut Count| other.scenario == count.scenario && other.what == count.what;
        match outcome.counts.iter_mut().find(same) {
            Some(sum) => (sum.times, sum.least) = (sum.times + count.times, sum.least + count.least),
            None => outcome.counts.push(count),
        }
    }
    outcome.took += round.took;
    for (kind, times) in &round.made.0 {
        *outcome.made.0.entry(*kind).or_default() += times;
    }
    if !round.problems.is_empty() {
        outcome.failures.push(Failure {
            problems: round.problems,
            context: round.context,
            log: Some(round.log),
            again,
        });
    }
}

/// What guests are booted with.
pub(super) struct Bench<'a> {
    pub(super) options: &'a Torture,
    kernels: Vec<(Variant, Kernel)>,
    backport: Option<Backport>,
    accelerator: Accelerator,
}

impl<'a> Bench<'a> {
    /// Builds every kernel and unpacks every QEMU that the scenarios need.
    pub(super) fn new(options: &'a Torture, scenarios: &[Scenario]) -> Result<Self> {
        let mut kernels: Vec<(Variant, Kernel)> = Vec::new();
        for scenario in scenarios {
            let variant = scenario.build.variant();
            if !kernels.iter().any(|(other, _)| *other == variant) {
                kernels.push((variant, options.build.build(variant)?));
            }
        }
        let needs_backport = scenarios.iter().any(|scenario| scenario.qemu == Which::Backports);
        let backport = needs_backport.then(Backport::require).transpose()?;
        let guests: HashSet<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        let accelerator = Accelerator::choose(options.accel)?;
        ui::note(format_args!("{} scenarios ({})", guests.len(), accelerator.name()));
        Ok(Self { options, kernels, backport, accelerator })
    }

    /// Boots a guest, and comes back when it has ended. `label` is for the name of its log.
    pub(super) fn boot(
        &self,
        scenario: &Scenario,
        seed: u64,
        deadline: Option<Instant>,
        label: &str,
    ) -> Result<Round> {
        let variant = scenario.build.variant();
        let (_, kernel) = self
            .kernels
            .iter()
            .find(|(other, _)| *other == variant)
            .with_context(|| format!("no kernel was built for `{}`", scenario.name))?;
        let name =
            format!("{}-{}-{}cpu{label}-{seed:x}.log", scenario.name, machine(scenario), scenario.cpus);
        let subject = Subject {
            command: &|extra| self.command(scenario, kernel, seed, extra),
            symbols: &kernel.symbols,
            log: workspace::target().join("torture").join(name),
            cpus: scenario.cpus,
            seed,
            faults: &scenario.faults,
            deadline,
            // Where instructions are counted, guests are as slow as they are asked to be.
            must_do_much: scenario.time == Clock::Real,
            must_speak: !self.options.gdb,
            patience: self.options.build.patience(),
        };
        subject.run()
    }

    fn command(
        &self,
        scenario: &Scenario,
        kernel: &Kernel,
        seed: u64,
        mut extra: Vec<String>,
    ) -> Result<Command> {
        if scenario.spare > 0 {
            // Adds to what the guest's own options say.
            extra.extend(["-smp".to_owned(), format!("maxcpus={}", scenario.cpus + scenario.spare)]);
        }
        let mut cmdline = Cmdline::default();
        match load(scenario, seed) {
            Load::Test(filter) => cmdline.set("test", filter),
            Load::Run(command) => cmdline.set("exec", &command),
        };
        cmdline.set("seed", &format!("{seed:#x}")).words(&scenario.boot);
        let counted = scenario.time != Clock::Real;
        if counted && !scenario.boot.contains("tick=") {
            // Busy CPUs tick: QEMU goes from one CPU to the next when a timer is due.
            cmdline.words("tick=idle");
        }
        let guest = Guest {
            machine: scenario.machine.into(),
            accelerator: if counted { Accelerator::Tcg } else { self.accelerator },
            cpu_model: scenario.cpu.clone(),
            cpus: scenario.cpus,
            memory: scenario.memory,
            acpi: true,
            time: scenario.time.into(),
            gdb: self.options.gdb,
            kernel: kernel.elf.clone(),
            cmdline,
            extra,
        };
        match (scenario.qemu, &self.backport) {
            (Which::Backports, Some(backport)) => Ok(backport.command(guest.arguments()?)),
            _ => guest.command(),
        }
    }

    /// The command that boots this guest again.
    pub(super) fn again(&self, scenario: &Scenario, seed: u64) -> String {
        again(self.options, scenario, seed)
    }
}

/// The command that boots a guest of this scenario again, as these options had it.
fn again(options: &Torture, scenario: &Scenario, seed: u64) -> String {
    let mut words = format!("cargo xtask torture {} --seed {seed:#x}", scenario.name);
    if !options.cpus.is_empty() {
        words += &format!(" --cpus {}", scenario.cpus);
    }
    if !options.machine.is_empty() {
        words += &format!(" --machine {}", machine(scenario));
    }
    // Where instructions are counted there are none.
    if !options.faults.is_empty() && !scenario.faults.is_empty() {
        let faults: Vec<String> = scenario.faults.iter().map(ToString::to_string).collect();
        words += &format!(" --faults {}", faults.join(","));
    }
    if let (Some(shift), _) | (None, Clock::Counted(shift)) = (options.icount, scenario.time) {
        words += &format!(" --icount {shift}");
    }
    if let Some(qemu) = &options.qemu {
        words += &said("qemu", qemu);
    }
    if let Some(minutes) = options.minutes {
        words += &format!(" --minutes {minutes}");
    }
    words + &options.kernel_words()
}

fn machine(scenario: &Scenario) -> crate::qemu::Machine {
    scenario.machine.into()
}

/// What a guest is to do.
#[derive(Debug, PartialEq, Eq)]
enum Load<'a> {
    /// This test.
    Test(&'a str),
    /// This command of the console.
    Run(String),
}

/// What a guest with this seed does: the seed says everything.
fn load(scenario: &Scenario, seed: u64) -> Load<'_> {
    if scenario.run.is_empty() {
        let count = scenario.tests.len() as u64;
        return Load::Test(&scenario.tests[usize::try_from(seed % count).unwrap_or(0)]);
    }
    let mut command = format!("torture {} --seconds {}", scenario.run.join(","), scenario.seconds);
    if !scenario.inside.is_empty() {
        command += &format!(" --faults {}", scenario.inside.join(","));
    }
    if let Some(twin) = &scenario.broken {
        command += &format!(" --broken {twin}");
    }
    Load::Run(command)
}

#[cfg(test)]
mod tests {
    use super::super::files::load as files;
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        torture: Torture,
    }

    fn parse(command: &str) -> Torture {
        let words = command.strip_prefix("cargo xtask torture ").expect("a command of this tool");
        <Cli as clap::Parser>::parse_from(["torture"].into_iter().chain(words.split_whitespace())).torture
    }

    /// With everything that can be said about a run, and with nothing, the command that repeats it means that run.
    #[test]
    fn the_command_that_repeats_a_run_means_that_run() {
        for command in [
            "cargo xtask torture rcu-2",
            "cargo xtask torture rcu-2 --cpus 3 --machine pc --icount 2 --qemu system --minutes 0.25 \
             --accel tcg --sanitize thread --toolchain debian --rcu nonpreemptible",
            "cargo xtask torture rcu-2 --debug --qemu backports --faults nmi,pause",
        ] {
            let options = parse(command);
            let plan =
                |options: &Torture| super::super::plan::make(options, files().unwrap().scenarios).unwrap();
            let [scenario] = &plan(&options)[..] else { panic!("{command} is one scenario") };
            let repeated = again(&options, scenario, 7);
            let repeats = parse(&repeated);
            assert_eq!(plan(&repeats), std::slice::from_ref(scenario), "{repeated}");
            assert_eq!((repeats.seed, repeats.minutes), (Some(7), options.minutes), "{repeated}");
            assert_eq!((repeats.qemu, repeats.icount), (options.qemu, options.icount), "{repeated}");
            assert_eq!(repeats.kernel_words(), options.kernel_words(), "{repeated}");
            assert!(command.split_whitespace().all(|word| repeated.contains(word)), "{repeated}");
        }
    }

    #[test]
    fn what_guests_did_is_summed() {
        let mut outcome = Outcome::default();
        for times in [3, 4] {
            let counts =
                vec![Count { scenario: "rcu".to_owned(), what: "polls".to_owned(), times, least: 1 }];
            add(&mut outcome, Round { counts, passed: 1, ..Round::default() }, String::new());
        }
        assert_eq!((outcome.counts.len(), outcome.counts[0].times, outcome.counts[0].least), (1, 7, 2));
        assert_eq!((outcome.guests, outcome.exercised), (2, 2));
    }

    #[test]
    fn a_seed_says_which_test_runs() {
        let scenario = Scenario {
            tests: vec!["a".to_owned(), "b".to_owned()],
            run: Vec::new(),
            ..files().unwrap().twins[0].scenario(false)
        };
        assert_eq!(load(&scenario, 6), Load::Test("a"));
        assert_eq!(load(&scenario, 7), Load::Test("b"));
        let words = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let scenario =
            Scenario { run: words(&["rcu", "timers"]), inside: words(&["hotplug"]), seconds: 9, ..scenario };
        assert_eq!(
            load(&scenario, 7),
            Load::Run("torture rcu,timers --seconds 9 --faults hotplug".to_owned())
        );
    }
}
