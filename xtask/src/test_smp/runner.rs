//! Boots one case, watches it, and judges it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cases::{Case, Expectation};
use super::protocol::{Event, Finished, Protocol, Verdict, is_report};
use crate::qemu::{Ending, Read, Running, Stderr};
use crate::serial::{Serial, is_noise};

/// The longest silence about tests, by the host's clock.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest boot, plus a share for each CPU: emulated CPUs take turns on few real ones.
const BOOT: Duration = Duration::from_secs(45);
const BOOT_PER_CPU: Duration = Duration::from_secs(2);
/// The longest life of a guest that is to crash, on top of its boot.
const CRASH: Duration = Duration::from_secs(20);
/// How long a guest that is done may take to end.
const LEAVING: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(200);

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// Tests that the guest said it would run, if it said so.
    pub(super) announced: Option<usize>,
    pub(super) failed_tests: Vec<String>,
    /// What is wrong beyond single tests.
    pub(super) problems: Vec<String>,
    pub(super) logs: Vec<PathBuf>,
    pub(super) took: Duration,
    /// "all N CPUs online at T us", if the guest said so.
    pub(super) online: Option<String>,
}

/// One guest's output and end.
struct Transcript {
    lines: Vec<String>,
    ending: Ending,
    announced: Option<usize>,
    problems: Vec<String>,
}

/// Boots the guests of one case.
pub(super) struct Runner<'a> {
    pub(super) case: &'a Case,
    /// Gives the command for a boot; the words are added to the kernel's command line.
    pub(super) command: &'a dyn Fn(&str) -> Result<Command>,
    pub(super) symbols: &'a Path,
    /// Where serial logs go.
    pub(super) logs: &'a Path,
    /// By how much all limits are multiplied.
    pub(super) patience: u32,
    /// Told about each test as it ends.
    pub(super) on_test: &'a dyn Fn(&Finished),
}

impl Runner<'_> {
    /// Runs the case to its end. An error means that it could not be run at all.
    pub(super) fn run(&self) -> Result<Outcome> {
        let started = Instant::now();
        let mut outcome = match &self.case.expect {
            Expectation::Tests { says } => self.tests(says),
            Expectation::Crash { says } => self.crash(says),
            Expectation::OtherKernel { says } => self.other_kernel(says),
            Expectation::SameHash => self.same_hash(),
        }?;
        outcome.took = started.elapsed();
        Ok(outcome)
    }

    fn tests(&self, says: &[&str]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let transcript = self.boot("", "", &mut outcome)?;
        outcome.announced = transcript.announced;
        outcome.problems.extend(transcript.problems);
        outcome.problems.extend(missing(&transcript.lines, says));
        outcome.online = transcript.lines.iter().find_map(|line| online(line));
        Ok(outcome)
    }

    fn crash(&self, says: &[&str]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let transcript = self.boot("", "", &mut outcome)?;
        if transcript.ending != Ending::Failure {
            outcome
                .problems
                .push(format!("the guest should have reported failure, but {}", transcript.ending));
        }
        outcome.problems.extend(missing(&transcript.lines, says));
        // The report quotes CPUs that panicked while it was being made.
        let is_own = |line: &&String| is_report(line) && !line.contains("came second:");
        let reports = transcript.lines.iter().filter(is_own).count();
        if reports != 1 {
            outcome.problems.push(format!("one report was expected, {reports} came"));
        }
        Ok(outcome)
    }

    fn other_kernel(&self, says: &[&str]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let transcript = self.boot("", "", &mut outcome)?;
        if transcript.ending != Ending::Success {
            let said = transcript.lines.join("; ");
            outcome.problems.push(format!("{}; it said: {said}", transcript.ending));
        }
        outcome.problems.extend(missing(&transcript.lines, says));
        Ok(outcome)
    }

    fn same_hash(&self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut hashes = Vec::new();
        // The third seed differs from the first two in one bit. What runs has to be interrupted in the middle of
        // something for a schedule to show: idle CPUs all look alike.
        for (boot, seed) in [("a", 42), ("b", 42), ("c", 43)] {
            let transcript =
                self.boot(boot, &format!("seed={seed} exec=\"demo percpu; irq hash\""), &mut outcome)?;
            let hash = transcript.lines.iter().find_map(|line| line.trim().strip_prefix("IRQHASH "));
            if hash.is_none() || transcript.ending != Ending::Success {
                outcome.problems.push(format!("boot {boot} printed no `IRQHASH`: {}", transcript.ending));
                return Ok(outcome);
            }
            hashes.extend(hash.map(str::to_owned));
        }
        if hashes[0] != hashes[1] {
            outcome.problems.push(format!("two boots with seed 42 differ: {} and {}", hashes[0], hashes[1]));
        }
        if hashes[0] == hashes[2] {
            outcome.problems.push(format!("seeds 42 and 43 gave the same hash: {}", hashes[0]));
        }
        Ok(outcome)
    }

    /// Boots once, with everything printed going to a log.
    fn boot(&self, suffix: &str, words: &str, outcome: &mut Outcome) -> Result<Transcript> {
        let separator = if suffix.is_empty() { "" } else { "-" };
        let path = self.logs.join(format!("{}{separator}{suffix}.log", self.case.name));
        let mut serial = Serial::new(&path, self.symbols)?;
        outcome.logs.push(path);
        let guest = Running::start((self.command)(words)?, Stderr::Kept)?;
        let transcript = self.watch(guest, &mut serial, outcome)?;
        serial.flush()?;
        Ok(transcript)
    }

    fn watch(&self, mut guest: Running, serial: &mut Serial, outcome: &mut Outcome) -> Result<Transcript> {
        let runs_tests = matches!(self.case.expect, Expectation::Tests { .. });
        let mut protocol = Protocol::default();
        let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
        let started = Instant::now();
        let mut progress = started;
        let timed_out = loop {
            match guest.read(&mut buffer, LOOK)? {
                Read::Bytes(n) => serial.push(&buffer[..n]),
                Read::Quiet => {}
                Read::End => break false,
            }
            while let Some(line) = serial.line()? {
                if runs_tests {
                    match protocol.line(&line) {
                        Event::Other => {}
                        Event::Progress => progress = Instant::now(),
                        Event::Finished(finished) => {
                            progress = Instant::now();
                            count(outcome, &finished);
                            (self.on_test)(&finished);
                        }
                    }
                }
                lines.push(line);
            }
            let waited = progress.elapsed();
            if waited > self.patience(runs_tests, &protocol) {
                break true;
            }
        };
        let (ending, said) = if timed_out { (Ending::TimedOut, guest.kill()?) } else { guest.finish()? };
        lines.extend(serial.rest()?);
        serial.note(&ending.to_string())?;
        for line in said.lines().filter(|line| !is_noise(line)) {
            serial.note(&format!("QEMU: {line}"))?;
        }
        let hung_in =
            protocol.running().map(|name| format!("hang in `{name}`: nothing new for {}", secs(progress)));
        let announced = protocol.announced();
        let mut problems = if runs_tests { protocol.finish(ending) } else { Vec::new() };
        if timed_out && runs_tests {
            problems
                .insert(0, hung_in.unwrap_or_else(|| format!("hang: nothing new for {}", secs(progress))));
        }
        if let Ending::QemuError(_) | Ending::Signal(_) = ending {
            problems.extend(said.lines().filter(|line| !is_noise(line)).map(|line| line.trim().to_owned()));
        }
        Ok(Transcript { lines, ending, announced, problems })
    }

    /// How long the guest may go on without news.
    fn patience(&self, runs_tests: bool, protocol: &Protocol) -> Duration {
        let boot = BOOT + BOOT_PER_CPU * self.case.cpus;
        match (runs_tests, protocol.announced()) {
            (true, Some(_)) if protocol.is_done() => LEAVING,
            (true, Some(_)) => SILENCE.max(boot),
            (true, None) => boot,
            (false, _) => boot + CRASH,
        }
        .saturating_mul(self.patience)
    }
}

fn secs(since: Instant) -> String {
    format!("{} s", since.elapsed().as_secs())
}

fn count(outcome: &mut Outcome, finished: &Finished) {
    match finished.verdict {
        Verdict::Passed => outcome.passed += 1,
        Verdict::Failed(_) => {
            outcome.failed += 1;
            outcome.failed_tests.push(finished.name.clone());
        }
        Verdict::Skipped(_) => outcome.skipped += 1,
    }
}

fn missing<'a>(lines: &'a [String], says: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let absent = says.iter().filter(|text| !lines.iter().any(|line| line.contains(*text)));
    absent.map(|text| format!("the guest did not say `{text}`"))
}

/// "all 4 CPUs online at 81234 us" out of a log line.
fn online(line: &str) -> Option<String> {
    let at = line.find("all ").filter(|&at| line[at..].contains("online at "))?;
    Some(line[at..].trim_end().to_owned())
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
