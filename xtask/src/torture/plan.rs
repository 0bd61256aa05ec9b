//! Which scenarios run: those of the files, picked and changed by the command line.

use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::Torture;
use super::scenario::{Build, Clock, Matrix, Scenario};
use crate::test_smp::nearest;

/// The I-th of N parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    index: usize,
    of: usize,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => Err("a part is I/N, from 1/N to N/N".to_owned()),
        }
    }
}

impl Part {
    /// Takes turns, so that what is alike in the files is spread over the parts.
    pub(super) fn pick<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.index - 1).step_by(self.of).collect()
    }
}

/// A line for `--list`.
pub(super) fn line(scenario: &Scenario) -> String {
    let matrix = match scenario.matrix {
        Matrix::Quick => "quick",
        Matrix::Full => "full",
    };
    format!(
        "{:<24} {matrix:<5} {:>3} CPUs {:>4} s  {}",
        scenario.name, scenario.cpus, scenario.seconds, scenario.about
    )
}

/// The scenarios to run.
pub(super) fn make(options: &Torture, files: Vec<Scenario>) -> Result<Vec<Scenario>> {
    let picked = pick(&options.what, options.matrix, files)?;
    let mut planned = Vec::new();
    for scenario in picked {
        let cpus = if options.cpus.is_empty() { vec![scenario.cpus] } else { options.cpus.clone() };
        let machines = match options.machine.as_slice() {
            [] => vec![scenario.machine],
            some => some.iter().map(|&machine| machine.into()).collect(),
        };
        for &cpus in &cpus {
            for &machine in &machines {
                planned.push(Scenario { cpus, machine, ..adjusted(options, scenario.clone()) });
            }
        }
    }
    let planned = options.part.map_or_else(|| planned.clone(), |part| part.pick(planned.clone()));
    ensure!(!planned.is_empty(), "nothing is left to run in this part");
    Ok(planned)
}

/// A scenario with what the command line says in place of its own words.
fn adjusted(options: &Torture, mut scenario: Scenario) -> Scenario {
    if let Some(minutes) = options.minutes {
        scenario.seconds = (minutes * 60.0).ceil() as u64;
    }
    if let Some(qemu) = options.qemu {
        scenario.qemu = qemu;
    }
    if !options.faults.is_empty() {
        scenario.faults.clone_from(&options.faults);
    }
    if let Some(shift) = options.icount {
        scenario = counted(scenario, shift);
    }
    scenario
}

/// The same with counted instructions, and pauses by the seed instead of faults. It is short: a second of the guest's is a
/// thousand million instructions with shift 0.
pub(super) fn counted(scenario: Scenario, shift: u8) -> Scenario {
    Scenario {
        time: Clock::Counted(shift),
        faults: Vec::new(),
        build: Build::seeded(),
        seconds: if shift < 2 { 1 } else { 2 },
        ..scenario
    }
}

/// Those of the matrix, or those that `what` names: all of the matrix that begin with the word, up to a `-`; or a scenario
/// by its whole name, from whichever matrix.
fn pick(what: &[String], matrix: Matrix, files: Vec<Scenario>) -> Result<Vec<Scenario>> {
    if what.is_empty() || what == ["all"] {
        return Ok(files.into_iter().filter(|scenario| scenario.matrix <= matrix).collect());
    }
    let is_load = |scenario: &Scenario, word: &str| {
        scenario.name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for word in what {
        if files
            .iter()
            .any(|scenario| scenario.name == *word || is_load(scenario, word) && scenario.matrix <= matrix)
        {
            continue;
        }
        let near = nearest(word, files.iter().map(|scenario| scenario.name.as_str())).join(", ");
        let only = files.iter().filter(|scenario| is_load(scenario, word)).count();
        match (only, near.is_empty()) {
            (0, true) => bail!("no scenario is called `{word}`; `torture --list` names them"),
            (0, false) => bail!("no scenario is called `{word}`; near it: {near}"),
            _ => bail!("`{word}` is in the full matrix only: add --matrix full"),
        }
    }
    let is_wanted = |scenario: &Scenario| {
        what.iter().any(|word| scenario.name == *word || is_load(scenario, word) && scenario.matrix <= matrix)
    };
    Ok(files.iter().filter(|scenario| is_wanted(scenario)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::files::load;
    use super::super::scenario::{Model, Which};
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        torture: Torture,
    }

    fn plan(arguments: &[&str]) -> Result<Vec<Scenario>> {
        let cli = Cli::try_parse_from([&["x"], arguments].concat())?;
        make(&cli.torture, load()?.scenarios)
    }

    #[test]
    fn matrices_and_names() {
        let (quick, full) = (plan(&[]).unwrap(), plan(&["--matrix", "full"]).unwrap());
        assert!(full.len() > quick.len() && quick.iter().all(|scenario| full.contains(scenario)));
        let last = full.last().unwrap().name.clone();
        let one = plan(&[&last]).unwrap();
        assert_eq!((one.len(), &one[0].name), (1, &last), "by its name from whichever matrix");
        let some = plan(&["rcu", "--matrix", "full"]).unwrap();
        assert!(some.len() > 1 && some.len() < full.len());
        let error = plan(&["rcu-preemt"]).unwrap_err().to_string();
        assert!(error.contains("no scenario") && error.contains("near it: rcu"), "{error}");
    }

    #[test]
    fn options_take_the_place_of_what_files_say() {
        let some =
            plan(&["rcu", "--cpus", "3,5", "--machine", "pc", "--minutes", "0.5", "--qemu", "backports"])
                .unwrap();
        assert!(some.iter().all(|s| s.machine == Model::Pc && s.seconds == 30 && s.qemu == Which::Backports));
        assert_eq!(some.iter().filter(|s| s.cpus == 3).count() * 2, some.len());
        let counted = plan(&["rcu", "--icount", "3"]).unwrap();
        assert!(counted.iter().all(|s| s.time == Clock::Counted(3) && s.faults.is_empty()));
    }

    #[test]
    fn parts_are_the_whole() {
        let whole = plan(&["--matrix", "full"]).unwrap();
        let mut parts = Vec::new();
        for part in ["1/3", "2/3", "3/3"] {
            parts.extend(plan(&["--matrix", "full", "--part", part]).unwrap());
        }
        assert_eq!(parts.len(), whole.len());
        assert!(whole.iter().all(|scenario| parts.contains(scenario)));
        for bad in ["0/3", "4/3", "3", "a/b", "1/0"] {
            assert!(bad.parse::<Part>().is_err(), "{bad}");
        }
    }
}
