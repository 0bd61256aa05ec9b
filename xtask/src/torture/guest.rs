//! One guest: boot it, make faults, watch it, judge it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::faults::{Driver, Made, Shared, lock};
use super::look;
use super::protocol::Loads;
use super::qmp::{Qmp, Socket};
use super::report::Count;
use super::scenario::Fault;
use crate::qemu::{Ending, Read, Running, Stderr};
use crate::serial::{Serial, is_noise};
use crate::test_smp::protocol::{Event, Protocol, Verdict, is_report};

/// The longest silence about tests, by the host's clock, plus a share for each CPU: emulated CPUs take turns on few real
/// ones. A test that hangs in a guest that is well is reported by the guest's own watchdog before that.
const SILENCE: Duration = Duration::from_secs(120);
const SILENCE_PER_CPU: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(100);
/// How many lines of a log are shown before a problem.
const SHOWN: usize = 12;

/// What came of a guest.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Tests, or loads, that ended well.
    pub(super) passed: u64,
    pub(super) counts: Vec<Count>,
    /// How much went wrong by the guest's own account: errors of loads, and reports.
    pub(super) noticed: u64,
    pub(super) problems: Vec<String>,
    /// The last lines before the first problem.
    pub(super) context: Vec<String>,
    pub(super) made: Made,
    pub(super) took: Duration,
    pub(super) log: PathBuf,
    /// A hash of everything that the guest wrote.
    pub(super) hash: u64,
}

/// A guest to watch.
pub(super) struct Subject<'a> {
    /// Starts it, with these arguments for QEMU after all others.
    pub(super) command: &'a dyn Fn(Vec<String>) -> Result<Command>,
    pub(super) symbols: &'a Path,
    pub(super) log: PathBuf,
    pub(super) cpus: u32,
    pub(super) seed: u64,
    pub(super) faults: &'a [Fault],
    /// When it is ended if it is well until then.
    pub(super) deadline: Option<Instant>,
    /// Whether loads must have done what they say is the least.
    pub(super) must_do_much: bool,
    /// Whether silence is a hang; with a debugger it is not.
    pub(super) must_speak: bool,
    /// By how much the limit of silence is multiplied.
    pub(super) patience: u32,
}

impl Subject<'_> {
    /// Runs it to its end or to the deadline. An error means that it could not be run.
    pub(super) fn run(&self) -> Result<Round> {
        let begun = Instant::now();
        let socket = Socket::new();
        let mut serial = Serial::new(&self.log, self.symbols)?;
        let mut guest = Running::start((self.command)(socket.arguments())?, Stderr::Kept)?;
        // Kept open: what is typed at a console that is closed is an end of input.
        let _input = guest.take_input();
        // Only when it is needed: a guest whose instructions are counted is not to be disturbed.
        let mut qmp: Option<Shared> = None;
        let mut connect = || -> Result<Shared> {
            match &qmp {
                Some(qmp) => Ok(Arc::clone(qmp)),
                None => Ok(Arc::clone(qmp.insert(Arc::new(Mutex::new(Qmp::connect(socket.path())?))))),
            }
        };
        let mut driver = None;
        let mut judge = Judge::default();
        judge.loads.lenient = !self.must_do_much;
        let mut buffer = [0; 4096];
        let mut heard = Instant::now();
        let mut looked = false;
        let stopped = loop {
            match guest.read(&mut buffer, LOOK)? {
                Read::Bytes(n) => serial.push(&buffer[..n]),
                Read::Quiet => {}
                Read::End => break None,
            }
            while let Some(line) = serial.line()? {
                if judge.line(&line) {
                    heard = Instant::now();
                }
            }
            // What a machine does while it comes up is not what is tortured.
            if driver.is_none() && !self.faults.is_empty() && judge.has_begun() {
                driver = Some(Driver::start(&connect()?, guest.group(), self.seed, self.faults)?);
            }
            if !looked && !judge.problems.is_empty() {
                looked = true;
                serial.note(&look(connect()))?;
            }
            if self.must_speak && heard.elapsed() > (SILENCE + SILENCE_PER_CPU * self.cpus) * self.patience {
                break Some(Stop::Silent);
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) && judge.problems.is_empty() {
                break Some(Stop::TimeIsUp);
            }
        };
        // The guest runs again, if a fault had it stopped.
        let made = driver.map_or_else(|| Ok(Made::default()), Driver::finish);
        if stopped == Some(Stop::Silent) {
            serial.note("nothing new for long; all CPUs:")?;
            serial.note(&look(connect()))?;
        }
        let (ending, said) = match stopped {
            Some(_) => (Ending::TimedOut, guest.kill()?),
            None => guest.finish()?,
        };
        if let Some(line) = serial.rest()? {
            judge.line(&line);
        }
        serial.note(&if stopped == Some(Stop::TimeIsUp) {
            "the time is over".to_owned()
        } else {
            ending.to_string()
        })?;
        for line in said.lines().filter(|line| !is_noise(line)) {
            serial.note(&format!("QEMU: {line}"))?;
        }
        serial.flush()?;
        let mut round = judge.finish(ending, stopped, &said);
        if self.faults.contains(&Fault::Plug) && self.must_do_much && round.problems.is_empty() {
            round.problems.extend(lacking_plugs(&round.counts));
        }
        match made {
            Ok(made) => round.made = made,
            Err(error) => round.problems.push(format!("{error:#}")),
        }
        round.took = begun.elapsed();
        round.log = serial.path().to_owned();
        Ok(round)
    }
}

/// Of a guest whose CPUs were to come and go: says so if it has seen too little of that.
fn lacking_plugs(counts: &[Count]) -> Option<String> {
    const LEAST: u64 = 2;
    ["plugged", "unplugged"].into_iter().find_map(|what| {
        let seen = counts.iter().find(|count| count.what == what).map_or(0, |count| count.times);
        (seen < LEAST)
            .then(|| format!("too little was exercised: {seen} {what} CPUs, and {LEAST} are the least"))
    })
}

/// What all CPUs do; a guest that has just ended cannot be asked.
fn look(qmp: Result<Shared>) -> String {
    match qmp {
        Ok(qmp) => look::all_cpus(&mut lock(&qmp)),
        Err(error) => format!("QEMU cannot be asked what the CPUs do: {error:#}"),
    }
}

/// Why a guest was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Silent,
    TimeIsUp,
}

/// Reads what a guest says.
struct Judge {
    tests: Protocol,
    loads: Loads,
    passed: u64,
    reports: u64,
    problems: Vec<String>,
    context: Vec<String>,
    last: Vec<String>,
    hash: u64,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            tests: Protocol::default(),
            loads: Loads::default(),
            passed: 0,
            reports: 0,
            problems: Vec::new(),
            context: Vec::new(),
            last: Vec::new(),
            hash: FNV_START,
        }
    }
}

/// Constants of the FNV-1a hash with 64 bits.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

impl Judge {
    /// Takes a line. Whether the guest got on with its tests.
    fn line(&mut self, line: &str) -> bool {
        self.hash = line
            .bytes()
            .chain(*b"\n")
            .fold(self.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        self.last.push(line.to_owned());
        let surplus = self.last.len().saturating_sub(SHOWN);
        self.last.drain(..surplus);
        let event = self.tests.line(line);
        if is_report(line) && !self.tests.expects(line) {
            self.reports += 1;
            self.problem(line.to_owned());
        }
        match &event {
            Event::Other | Event::Progress => {}
            Event::Finished(finished) => match &finished.verdict {
                Verdict::Passed => self.passed += 1,
                Verdict::Skipped(_) => {}
                Verdict::Failed(why) => self.problem(format!("`{}`: {why}", finished.name)),
            },
        }
        let about_loads = self.loads.line(line);
        for problem in self.loads.problems() {
            self.problem(problem);
        }
        about_loads || event != Event::Other
    }

    fn has_begun(&self) -> bool {
        self.tests.announced().is_some() || self.loads.has_begun()
    }

    fn problem(&mut self, text: String) {
        if self.problems.is_empty() {
            self.context.clone_from(&self.last);
        }
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    fn finish(mut self, ending: Ending, stopped: Option<Stop>, said: &str) -> Round {
        let running = self.tests.running().map(str::to_owned);
        match stopped {
            Some(Stop::TimeIsUp) => {}
            Some(Stop::Silent) => {
                let place = running.map_or("outside of any test".to_owned(), |name| format!("in `{name}`"));
                self.problem(format!("hang {place}: nothing new for long, and no report"));
            }
            None => {
                if let Ending::QemuError(_) | Ending::Signal(_) = ending {
                    said.lines()
                        .filter(|line| !is_noise(line))
                        .for_each(|line| self.problem(line.trim().to_owned()));
                }
                let problems = if self.loads.has_begun() {
                    self.loads.finish(ending)
                } else {
                    std::mem::take(&mut self.tests).finish(ending)
                };
                problems.into_iter().for_each(|problem| self.problem(problem));
            }
        }
        Round {
            passed: self.passed + self.loads.passed,
            noticed: self.reports + self.loads.errors,
            counts: self.loads.counts,
            problems: self.problems,
            context: self.context,
            hash: self.hash,
            ..Round::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &[&str], ending: Ending, stopped: Option<Stop>) -> Round {
        let mut judge = Judge::default();
        for line in lines {
            judge.line(line);
        }
        judge.finish(ending, stopped, "")
    }

    const GOOD: [&str; 4] = ["TESTS run 1", "TEST start a::b", "TEST ok a::b 12us", "TESTS done 1 0 0"];

    #[test]
    fn a_good_run() {
        let round = judge(&GOOD, Ending::Success, None);
        assert_eq!((round.passed, round.problems.len()), (1, 0));
    }

    #[test]
    fn reports_fail_even_between_tests() {
        for report in ["BUG: CPU#0: panicked", "WARNING: the clock is wrong", "thread panicked at x"] {
            let round = judge(&[&["boot", report], &GOOD[..]].concat(), Ending::Success, None);
            assert!(round.problems.contains(&report.to_owned()), "{:?}", round.problems);
            assert_eq!(round.context, ["boot", report]);
        }
    }

    #[test]
    fn reports_that_a_test_announces_do_not() {
        let lines = [GOOD[0], GOOD[1], "TEST expects WARNING: x", "WARNING: x happened", GOOD[2], GOOD[3]];
        assert_eq!(judge(&lines, Ending::Success, None).problems, [""; 0]);
        let lines = [GOOD[0], GOOD[1], "TEST expects WARNING: y", "WARNING: x happened", GOOD[2], GOOD[3]];
        assert!(!judge(&lines, Ending::Success, None).problems.is_empty());
    }

    #[test]
    fn a_guest_that_stops_short_fails_and_one_that_is_stopped_does_not() {
        for ending in [Ending::Success, Ending::Failure, Ending::Reset, Ending::Signal(11)] {
            assert!(!judge(&GOOD[..2], ending, None).problems.is_empty(), "{ending}");
        }
        assert!(!judge(&[], Ending::Success, None).problems.is_empty());
        assert_eq!(judge(&GOOD[..2], Ending::TimedOut, Some(Stop::TimeIsUp)).problems, [""; 0]);
        let silent = judge(&GOOD[..2], Ending::TimedOut, Some(Stop::Silent));
        assert!(silent.problems[0].starts_with("hang in `a::b`"), "{:?}", silent.problems);
    }

    #[test]
    fn a_failed_test_is_told_once_with_its_reason() {
        let round = judge(
            &["TESTS run 1", "TEST start a", "TEST fail a: 3 are lost", "TESTS done 0 1 0"],
            Ending::Failure,
            None,
        );
        assert_eq!(round.problems, ["`a`: 3 are lost"]);
    }

    #[test]
    fn loads_are_judged_too() {
        let lines = ["TORTURE begin rcu seed=1", "TORTURE count rcu gps 7 3", "TORTURE end rcu errors=0"];
        let good = judge(&[&lines[..], &["TORTURE done errors=0"]].concat(), Ending::Success, None);
        assert_eq!((good.passed, good.problems.len(), good.counts.len()), (1, 0, 1));
        let report = [&lines[..], &["WARNING: x", "TORTURE done errors=0"]].concat();
        assert_eq!(judge(&report, Ending::Success, None).problems, ["WARNING: x"]);
        assert!(!judge(&lines, Ending::Success, None).problems.is_empty());
    }

    #[test]
    fn cpus_that_were_to_come_and_go_must_have() {
        let count =
            |what: &str, times| Count { scenario: "faults".into(), what: what.into(), times, least: 0 };
        assert_eq!(lacking_plugs(&[count("plugged", 2), count("unplugged", 2)]), None);
        assert!(
            lacking_plugs(&[count("plugged", 9), count("unplugged", 1)]).unwrap().contains("1 unplugged")
        );
        assert!(lacking_plugs(&[]).unwrap().contains("0 plugged"));
    }

    #[test]
    fn one_byte_more_is_another_hash() {
        assert_eq!(
            judge(&["a", "b"], Ending::Reset, None).hash,
            judge(&["a", "b"], Ending::Failure, None).hash
        );
        assert_ne!(
            judge(&["a", "b"], Ending::Reset, None).hash,
            judge(&["a", "b "], Ending::Reset, None).hash
        );
        assert_ne!(judge(&["ab"], Ending::Reset, None).hash, judge(&["a", "b"], Ending::Reset, None).hash);
    }
}
