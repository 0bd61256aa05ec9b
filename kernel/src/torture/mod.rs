//! Loads that try to break a subsystem, all CPUs at once, and say so when they do.
//!
//! 1. A *scenario* is a load: tasks that use one subsystem in every way there is, check what they get, and count what they
//!    did. Several can run at the same time.
//! 2. A *twin* is a scenario with one thing broken on purpose. A load whose twin nobody notices proves nothing.
//! 3. *Faults* come on top, whatever runs: CPUs go and come, everything pauses at once, tasks are moved, every CPU ticks,
//!    NMIs strike, memory is refused. All that is drawn comes from the seed.
//! 4. What went wrong is printed at once; what was exercised is printed at the end, with the least that counts as a test.
//!    A run that exercised less shows nothing.
//!
//! The lines are for programs as well as for people:
//! ```text
//! TORTURE begin rcu,timers seed=0x2a seconds=10 cpus=4 faults=hotplug,stutter broken=none
//! TORTURE alive 5 s
//! TORTURE error rcu: a reader saw an object 2 grace periods after it was retired
//! TORTURE count rcu grace_periods 1234 10
//! TORTURE end rcu errors=1
//! TORTURE done errors=1
//! ```

mod calls;
mod control;
mod faults;
mod hotplug;
mod line;
mod lists;
mod locks;
mod rcu;
mod sched;
mod timers;

use alloc::string::String;
use alloc::vec::Vec;

use hal::chaos::mix;
use hal::{Native, Platform};
use sync::TaskCx;

use crate::console::torture::{Request, Told};
use crate::task::JoinHandle;
use crate::{boot, cpus, log, trace};

pub(crate) use control::{Report, Tally};
use control::{begin, end, errors_of};
pub(crate) use faults::FAULTS;
use faults::{Accounts, Faults};

const MS: u64 = 1_000_000;
/// How often the run looks at its load.
const STEP_NS: u64 = 10 * MS;
/// How often it says that it is alive.
const ALIVE_NS: u64 = 5_000 * MS;

/// A load.
pub(crate) struct Scenario {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it does, in half a line.
    pub(crate) what: &'static str,
    /// Its names when it is broken, and what is broken then.
    pub(crate) twins: &'static [(&'static str, &'static str)],
    /// Starts the tasks of the load.
    start: fn(&Plan, &mut TaskCx) -> Vec<JoinHandle<()>>,
    /// After all tasks have ended: waits for what they left under way, and judges it.
    settle: fn(&mut TaskCx),
    /// What was done, and the least of it that makes a minute a test, also with all loads on many CPUs of a slow machine.
    counts: fn(&mut Vec<Tally>),
}

/// All of them.
pub(crate) static SCENARIOS: [&Scenario; 7] = [
    &rcu::SCENARIO,
    &locks::SCENARIO,
    &timers::SCENARIO,
    &calls::SCENARIO,
    &hotplug::SCENARIO,
    &sched::SCENARIO,
    &lists::SCENARIO,
];

/// What a load is told when it starts.
pub(crate) struct Plan {
    /// Where everything that is drawn comes from.
    pub(crate) seed: u64,
    /// The twin that runs.
    pub(crate) broken: Option<String>,
}

impl Plan {
    /// Whether that twin runs.
    fn is(&self, twin: &str) -> bool {
        self.broken.as_deref() == Some(twin)
    }
}

/// Runs what is asked for and returns what came of it. Prints all lines, if somebody is to read them.
///
/// The names in `request` are those of scenarios, of one of their twins, and of faults. Contexts: task.
pub(crate) fn run(request: &Request, milliseconds: u64, said: Said, cx: &mut TaskCx) -> Report {
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .copied()
        .filter(|scenario| request.scenarios.iter().any(|name| name == scenario.name))
        .collect();
    let seed = boot::options().seed.unwrap_or_else(Native::now_ns);
    let broken = request.broken.as_deref().unwrap_or("none");
    said.line(format_args!(
        "TORTURE begin {} seed={seed:#x} seconds={} cpus={} faults={} broken={broken}",
        request.scenarios.join(","),
        milliseconds / 1_000,
        cpus::online_count(),
        if request.faults.is_empty() { "none".into() } else { request.faults.join(",") },
    ));
    let was_traced = trace::is_on();
    trace::start();
    begin(said);
    let accounts = request.faults.iter().any(|fault| fault == "alloc").then(Accounts::begin);
    let plan = Plan { seed, broken: request.broken.clone() };
    let mut tasks = Vec::new();
    for scenario in &chosen {
        tasks.extend((scenario.start)(&plan, cx));
    }
    let mut faults = Faults::begin(&request.faults, mix(seed), chosen.iter().any(|it| it.name == "rcu"));
    let begun = Native::now_ns();
    let mut alive = begun + ALIVE_NS;
    while Native::now_ns() - begun < milliseconds * MS {
        cx.block(Some(Native::now_ns() + STEP_NS));
        faults.step(&tasks, cx);
        if plan.broken.is_some() && control::errors() > 0 {
            break;
        }
        if Native::now_ns() >= alive {
            said.line(format_args!("TORTURE alive {} s", (Native::now_ns() - begun) / (1_000 * MS)));
            alive += ALIVE_NS;
        }
    }
    let struck = faults.end(cx);
    end();
    tasks.into_iter().for_each(|task| task.join(cx));
    chosen.iter().for_each(|scenario| (scenario.settle)(cx));
    if let Some(accounts) = accounts {
        accounts.close();
    }

    let mut report = Report { tallies: Vec::new(), errors: errors_of(faults::NAME) };
    for scenario in &chosen {
        let mut tallies = Vec::new();
        (scenario.counts)(&mut tallies);
        for tally in &mut tallies {
            let with_fault = LEAST_WITH.iter().find(|(fault, what, _)| {
                tally.what == *what && request.faults.iter().any(|asked| asked == fault)
            });
            tally.least = with_fault.map_or(tally.least, |(_, _, least)| *least);
            tally.least = tally.least * milliseconds / 60_000;
            said.line(format_args!(
                "TORTURE count {} {} {} {}",
                scenario.name, tally.what, tally.count, tally.least
            ));
        }
        let errors = errors_of(scenario.name);
        said.line(format_args!("TORTURE end {} errors={errors}", scenario.name));
        report.errors += errors;
        report.tallies.append(&mut tallies);
    }
    for tally in struck {
        said.line(format_args!("TORTURE count faults {} {} {}", tally.what, tally.count, tally.least));
    }
    // A report may have come from others than the loads.
    if report.errors > 0 || log::history().contains("WARNING: ") {
        let up_to = if report.errors > 0 { ", up to the first error" } else { "" };
        said.line(format_args!("the end of the trace{up_to}:\n{}", trace::tail(TRACED)));
    }
    if was_traced {
        trace::start();
    } else {
        trace::stop();
    }
    said.line(format_args!("TORTURE done errors={}", report.errors));
    report
}

/// What a fault has a load do: which one, what, and the least of it in a minute.
const LEAST_WITH: [(&str, &str, u64); 2] =
    [("ticks", "readers_in_ticks", 100), ("nmi", "readers_in_nmis", 20)];

/// How many records of the trace are printed after an error.
const TRACED: usize = 60;

/// Whether a run prints its lines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// For whoever looks at the console.
    Aloud,
    /// A test says what came of it in its own way.
    Silently,
}

impl Said {
    fn line(self, line: core::fmt::Arguments<'_>) {
        if self == Said::Aloud {
            log::drain();
            log::raw_line(line);
        }
    }
}

/// What there is, for the console.
pub(crate) fn told() -> Told {
    Told {
        scenarios: SCENARIOS.iter().map(|scenario| (scenario.name, scenario.what)).collect(),
        twins: SCENARIOS
            .iter()
            .flat_map(|scenario| scenario.twins.iter().map(|(twin, what)| (*twin, scenario.name, *what)))
            .collect(),
        faults: FAULTS.to_vec(),
    }
}

/// For a kernel test: runs one scenario, with a twin or without, and these faults.
pub(crate) fn try_for(
    scenario: &str,
    broken: Option<&str>,
    faults: &[&str],
    milliseconds: u64,
    cx: &mut TaskCx,
) -> Report {
    let request = Request {
        scenarios: alloc::vec![scenario.into()],
        seconds: 0,
        broken: broken.map(String::from),
        faults: faults.iter().map(|fault| String::from(*fault)).collect(),
    };
    run(&request, milliseconds, Said::Silently, cx)
}
