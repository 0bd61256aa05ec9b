//! What a guest says about its loads, line by line.
//!
//! ```text
//! TORTURE begin rcu,timers seed=0x2a seconds=10 cpus=4 faults=hotplug broken=none
//! TORTURE alive 5 s
//! TORTURE error rcu: what was wrong
//! TORTURE count rcu grace_periods 1234 100      what was done, how often, and the least that counts as a test
//! TORTURE end rcu errors=1
//! TORTURE done errors=1
//! ```
//! A run that does not come to its end, or did less than the least, has failed, whatever it says.

use super::report::Count;
use crate::qemu::Ending;

/// Reads the lines of one guest.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Names of those that have begun and not ended.
    running: Vec<String>,
    begun: bool,
    done: Option<u64>,
    pub(super) counts: Vec<Count>,
    /// Loads that ended without an error.
    pub(super) passed: u64,
    /// Errors that were told.
    pub(super) errors: u64,
    /// Whether a load may have done less than the least.
    pub(super) lenient: bool,
    problems: Vec<String>,
}

impl Loads {
    /// Whether loads run.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes a line. Whether it was about loads.
    pub(super) fn line(&mut self, line: &str) -> bool {
        let Some(rest) = line.trim_end().strip_prefix("TORTURE ") else { return false };
        if self.understand(rest).is_none() {
            self.problems.push(format!("not understood: `{line}`"));
        }
        true
    }

    fn understand(&mut self, rest: &str) -> Option<()> {
        let (what, rest) = rest.split_once(' ')?;
        let mut words = rest.split(' ');
        match what {
            "begin" if self.begun => {
                self.problems.push("the loads began twice (did the guest reset?)".to_owned())
            }
            "begin" => {
                self.begun = true;
                self.running = words.next()?.split(',').map(str::to_owned).collect();
            }
            "alive" => {}
            "error" => {
                self.errors += 1;
                self.problems.push(rest.to_owned());
            }
            "count" => {
                let [scenario, what, times, least] = words.collect::<Vec<_>>().try_into().ok()?;
                let (times, least) = (times.parse().ok()?, least.parse().ok()?);
                self.counts.push(Count {
                    scenario: scenario.to_owned(),
                    what: what.to_owned(),
                    times,
                    least,
                });
            }
            "end" => {
                let name = words.next()?;
                self.running.retain(|other| other != name);
                self.passed += u64::from(errors(words.next()?)? == 0);
            }
            "done" => self.done = Some(errors(words.next()?)?),
            _ => return None,
        }
        Some(())
    }

    /// What is wrong so far.
    pub(super) fn problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// The guest has ended; what is wrong with the run as a whole.
    pub(super) fn finish(&mut self, ending: Ending) -> Vec<String> {
        let mut problems = self.problems();
        match self.done {
            None if !self.begun => problems.push(format!("no load ran: {ending}")),
            None => problems.push(format!("the loads did not end: {ending}")),
            Some(told) if told > 0 && self.errors == 0 => {
                problems.push(format!("{told} errors, none of which was told"))
            }
            Some(0) if ending != Ending::Success => {
                problems.push(format!("the loads are done, and then {ending}"))
            }
            Some(_) if !self.running.is_empty() => {
                problems.push(format!("{} never ended", self.running.join(", ")))
            }
            Some(_) => {}
        }
        if self.done.is_some() && !self.lenient {
            problems.extend(self.counts.iter().filter(|count| count.times < count.least).map(|count| {
                format!(
                    "too little was exercised: {} {} of {}, and {} are the least (is the host busy?)",
                    count.times, count.what, count.scenario, count.least
                )
            }));
        }
        problems
    }
}

/// The number in `errors=3`.
fn errors(word: &str) -> Option<u64> {
    word.strip_prefix("errors=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 6] = [
        "TORTURE begin rcu,timers seed=0x2a seconds=10 cpus=4 faults=hotplug,stutter broken=none",
        "TORTURE alive 5 s",
        "TORTURE count rcu grace_periods 1234 100",
        "TORTURE end rcu errors=0",
        "TORTURE end timers errors=0",
        "TORTURE done errors=0",
    ];

    fn read(lines: &[&str], ending: Ending) -> (Loads, Vec<String>) {
        let mut loads = Loads::default();
        lines.iter().for_each(|line| assert!(loads.line(line), "{line}"));
        let problems = loads.finish(ending);
        (loads, problems)
    }

    #[test]
    fn a_good_run() {
        let (loads, problems) = read(&GOOD, Ending::Success);
        assert_eq!(problems, [""; 0]);
        assert_eq!((loads.passed, loads.counts[0].times), (2, 1234));
        assert!(!Loads::default().line("[    1.2] cpu0 INFO TORTURE"));
    }

    #[test]
    fn errors_fail() {
        let lines = [
            GOOD[0],
            "TORTURE error rcu: too old",
            "TORTURE end rcu errors=1",
            GOOD[4],
            "TORTURE done errors=1",
        ];
        assert_eq!(read(&lines, Ending::Failure).1, ["rcu: too old"]);
        let lines = [GOOD[0], "TORTURE end rcu errors=1", GOOD[4], "TORTURE done errors=1"];
        assert!(read(&lines, Ending::Failure).1[0].contains("none of which was told"));
    }

    #[test]
    fn too_little_fails() {
        let lines = [GOOD[0], "TORTURE count rcu grace_periods 99 100", GOOD[3], GOOD[4], GOOD[5]];
        assert!(read(&lines, Ending::Success).1[0].starts_with("too little was exercised: 99 grace_periods"));
    }

    #[test]
    fn a_run_that_stops_short_fails() {
        for count in 0..GOOD.len() {
            let (_, problems) = read(&GOOD[..count], Ending::Success);
            assert!(!problems.is_empty(), "after {count} lines");
        }
        assert!(!read(&GOOD, Ending::Reset).1.is_empty());
        assert!(read(&[GOOD[0], GOOD[3], GOOD[5]], Ending::Success).1[0].contains("timers never ended"));
        assert!(read(&[GOOD[0], GOOD[0]], Ending::Success).1[0].contains("twice"));
    }

    #[test]
    fn what_is_not_understood_fails() {
        for line in ["TORTURE count rcu x", "TORTURE done errors=x", "TORTURE sleeps now"] {
            let lines = [&GOOD[..5], &[line], &GOOD[5..]].concat();
            assert!(
                read(&lines, Ending::Success).1.iter().any(|problem| problem.contains("not understood")),
                "{line}"
            );
        }
    }
}
