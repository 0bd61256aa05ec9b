//! Scenario files: what runs together, on which machine, with which faults.
//!
//! They are `xtask/torture/*.toml`, each a list of `[[scenario]]` tables with the fields of [`Scenario`], and of `[[twin]]`
//! tables with those of [`Twin`].

use std::fmt;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use crate::build::{Chaos, Rcu, Variant};
use crate::qemu::{Machine, Time, parse_cpus};

/// A guest to torture.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// Its name: letters, digits and `-`.
    pub(super) name: String,
    /// What is special about it, in a few words.
    #[serde(default)]
    pub(super) about: String,
    /// The kernel's loads that run together, by the names that its command `torture list` prints. One guest runs them for
    /// the whole time.
    #[serde(default)]
    pub(super) run: Vec<String>,
    /// Faults that the kernel makes itself, by the names that the same command prints.
    #[serde(default)]
    pub(super) inside: Vec<String>,
    /// Instead of `run`: the kernel's own tests that are the load, by parts of their names. A guest runs one of them until
    /// it is done, and guests follow one another until the time is over.
    #[serde(default)]
    pub(super) tests: Vec<String>,
    /// Number of CPUs.
    pub(super) cpus: u32,
    /// How many more can be plugged in while it runs.
    #[serde(default)]
    pub(super) spare: u32,
    /// Machine model.
    #[serde(default)]
    pub(super) machine: Model,
    /// Which QEMU: the system's, or the one of Debian's backports.
    #[serde(default)]
    pub(super) qemu: Which,
    /// Memory in MiB.
    #[serde(default = "usual_memory")]
    pub(super) memory: u64,
    /// CPU model and flags, for QEMU's `-cpu`.
    #[serde(default = "usual_model")]
    pub(super) cpu: String,
    /// More words for the kernel's command line.
    #[serde(default)]
    pub(super) boot: String,
    /// Faults that the host makes.
    #[serde(default)]
    pub(super) faults: Vec<Fault>,
    /// The host's time, or counted instructions.
    #[serde(default)]
    pub(super) time: Clock,
    /// How the kernel is built.
    #[serde(default)]
    pub(super) build: Build,
    /// How long, in seconds of the host's time.
    pub(super) seconds: u64,
    /// The least number of tests that must have ended well. Loads say themselves what is the least.
    #[serde(default)]
    pub(super) least: u64,
    /// `quick` is part of `full`.
    pub(super) matrix: Matrix,
    /// The twin that one of its loads is replaced by; files have twins of their own.
    #[serde(skip)]
    pub(super) broken: Option<String>,
}

fn usual_memory() -> u64 {
    256
}

fn usual_model() -> String {
    "max".to_owned()
}

/// A fault that the host makes while the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fault {
    /// An NMI to all CPUs.
    Nmi,
    /// One virtual CPU stops for up to a fifth of a second, wherever it is: in a critical section, often.
    Vcpu,
    /// The guest stops for a second or two, and so do its clocks.
    Pause,
    /// The guest stops for a second or two, and its clocks go on.
    Jump,
    /// A CPU is plugged in, or one that was is asked for again, which the guest then gives back.
    Plug,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nmi => "nmi",
            Self::Vcpu => "vcpu",
            Self::Pause => "pause",
            Self::Jump => "jump",
            Self::Plug => "plug",
        })
    }
}

/// [`Machine`], in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Model {
    #[default]
    Q35,
    Pc,
    Microvm,
}

impl From<Model> for Machine {
    fn from(model: Model) -> Self {
        match model {
            Model::Q35 => Self::Q35,
            Model::Pc => Self::Pc,
            Model::Microvm => Self::Microvm,
        }
    }
}

impl From<Machine> for Model {
    fn from(machine: Machine) -> Self {
        match machine {
            Machine::Q35 => Self::Q35,
            Machine::Pc => Self::Pc,
            Machine::Microvm => Self::Microvm,
        }
    }
}

/// Which QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Which {
    /// The one in PATH
    #[default]
    System,
    /// A newer one from Debian's backports, unpacked under `target/`; nothing is installed
    Backports,
}

/// How the guest's time runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Clock {
    #[default]
    Real,
    /// An instruction takes 2^shift ns.
    Counted(u8),
}

impl TryFrom<String> for Clock {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("time is \"real\" or \"counted SHIFT\" with a shift of 0 to 10, not \"{text}\"");
        match text.split_once(' ') {
            None if text == "real" => Ok(Self::Real),
            Some(("counted", shift)) => {
                shift.parse().ok().filter(|shift| *shift <= 10).map(Self::Counted).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl From<Clock> for Time {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Real => Self::Real,
            Clock::Counted(shift) => Self::Counted { shift },
        }
    }
}

/// How a kernel is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Build {
    /// Ticks a second.
    hz: Option<u32>,
    /// Pauses at chaos points, by the seed.
    #[serde(default)]
    chaos: bool,
    /// Read-side sections of RCU are regions without preemption.
    #[serde(default)]
    rcu_nonpreemptible: bool,
    /// The same, for a machine with one CPU.
    #[serde(default)]
    rcu_tiny: bool,
}

impl Build {
    pub(super) fn seeded() -> Self {
        Self { chaos: true, ..Self::default() }
    }

    pub(super) fn variant(&self) -> Variant {
        Variant {
            chaos: if self.chaos { Chaos::Seeded } else { Chaos::Off },
            hz: self.hz,
            rcu: match (self.rcu_tiny, self.rcu_nonpreemptible) {
                (true, _) => Rcu::Tiny,
                (false, true) => Rcu::Nonpreemptible,
                (false, false) => Rcu::Preemptible,
            },
        }
    }
}

/// Which scenarios run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Matrix {
    /// A few minutes' worth, for every change
    Quick,
    /// Everything
    Full,
}

impl Scenario {
    /// How many of the host's cores it keeps busy.
    pub(super) fn cores(&self) -> usize {
        if self.time == Clock::Real { self.cpus as usize } else { 1 }
    }

    pub(super) fn check(&self) -> Result<()> {
        let name = &self.name;
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        ensure!(!name.is_empty() && name.chars().all(good), "a name is letters, digits and `-`: `{name}`");
        ensure!(self.run.is_empty() != self.tests.is_empty(), "`{name}` wants either `run` or `tests`");
        let odd = |part: &&String| {
            part.is_empty() || part.contains(|c: char| c.is_whitespace() || "\"\\".contains(c))
        };
        if let Some(part) = self.tests.iter().chain(&self.run).chain(&self.inside).find(odd) {
            bail!(
                "`{name}`: loads, tests and faults have no spaces, quotes or backslashes in their names: {part:?}"
            );
        }
        if let Err(why) = parse_cpus(&self.cpus.to_string()) {
            bail!("`{name}`: cpus: {why}");
        }
        ensure!((8..=1 << 20).contains(&self.memory), "`{name}`: memory is in MiB, from 8: {}", self.memory);
        ensure!((1..=86_400).contains(&self.seconds), "`{name}`: seconds are 1 to 86400: {}", self.seconds);
        ensure!(
            self.tests.is_empty() == (self.least == 0),
            "`{name}`: `least` is for tests, and at least 1: a run that exercised nothing shows nothing"
        );
        ensure!(
            self.tests.is_empty() || self.inside.is_empty(),
            "`{name}`: faults from inside go with `run`"
        );
        ensure!(
            self.time == Clock::Real || self.faults.is_empty(),
            "`{name}`: with counted time a run is to be the same every time, which faults from outside are not"
        );
        ensure!(
            self.faults.contains(&Fault::Plug) == (self.spare > 0),
            "`{name}`: the fault `plug` needs `spare` CPUs, and they need it"
        );
        ensure!(
            self.spare == 0 || self.machine != Model::Microvm,
            "`{name}`: a microvm has no way to plug CPUs in"
        );
        if let Some(hz) = self.build.hz {
            ensure!([100, 250, 1000].contains(&hz), "`{name}`: hz is 100, 250 or 1000: {hz}");
        }
        Ok(())
    }
}

/// A load with something broken on purpose, which must be noticed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Twin {
    /// Its name, as the kernel's command `torture list` prints it.
    pub(super) name: String,
    /// What is broken.
    pub(super) about: String,
    /// The load that it is a twin of.
    pub(super) run: String,
    /// Faults that the kernel makes itself, where nothing would be noticed without.
    #[serde(default)]
    pub(super) inside: Vec<String>,
    /// Number of CPUs.
    pub(super) cpus: u32,
    /// How soon it must be noticed, in seconds of the guest's time. The sound load runs for as long.
    pub(super) seconds: u64,
}

impl Twin {
    /// The guest that runs it, or its sound counterpart.
    pub(super) fn scenario(&self, is_broken: bool) -> Scenario {
        let sound = || {
            let parts = [&self.run].into_iter().chain(&self.inside);
            parts.map(|part| format!("{part}-")).collect::<String>() + "sound"
        };
        Scenario {
            name: if is_broken { self.name.clone() } else { sound() },
            about: String::new(),
            run: vec![self.run.clone()],
            inside: self.inside.clone(),
            tests: Vec::new(),
            cpus: self.cpus,
            spare: 0,
            machine: Model::default(),
            qemu: Which::default(),
            memory: usual_memory(),
            cpu: usual_model(),
            boot: String::new(),
            faults: Vec::new(),
            time: Clock::Real,
            build: Build::default(),
            seconds: self.seconds,
            least: 0,
            matrix: Matrix::Full,
            broken: is_broken.then(|| self.name.clone()),
        }
    }
}
