//! What the guest says about its tests, line by line, and whether to believe it.
//!
//! ```text
//! TESTS run N                    tests that will run
//! TEST start NAME
//! TEST expects TEXT              a report that contains TEXT will come before this test ends
//! TEST ok NAME 1234us | TEST fail NAME: message | TEST skip NAME: reason
//! TESTS done PASSED FAILED SKIPPED
//! ```
//! Other lines may stand between them. A line with `BUG:`, `WARNING:` or `panicked at` is a report; one that no test
//! expects makes the test fail that runs at that time, or the guest if none does. A guest that stops short, or whose
//! sums are wrong, has failed as well, whatever its exit status says.

use std::time::Duration;

use crate::qemu::Ending;

/// What makes a line a report.
const REPORTS: [&str; 3] = ["BUG:", "WARNING:", "panicked at"];

/// Whether `line` is a report of something gone wrong.
pub(crate) fn is_report(line: &str) -> bool {
    REPORTS.iter().any(|mark| line.contains(mark))
}

/// How one test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A test that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// By the guest's clock; unknown for tests that did not pass.
    pub(crate) took: Option<Duration>,
}

/// What a line meant for the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing.
    Other,
    /// The guest got on with its tests.
    Progress,
    /// A test ended.
    Finished(Finished),
}

/// A test that runs.
#[derive(Debug)]
struct Current {
    name: String,
    /// The reports that it announced, and whether they came.
    expected: Vec<(String, bool)>,
    /// The first report that it did not announce.
    unexpected: Option<String>,
}

/// Reads the lines of one guest.
#[derive(Debug, Default)]
pub(crate) struct Protocol {
    announced: Option<usize>,
    current: Option<Current>,
    passed: usize,
    failed: usize,
    skipped: usize,
    done: Option<[usize; 3]>,
    /// Failures that the guest itself did not count.
    found_here: usize,
    problems: Vec<String>,
}

impl Protocol {
    /// How many tests the guest said it would run.
    pub(crate) fn announced(&self) -> Option<usize> {
        self.announced
    }

    /// The test that runs at the moment.
    pub(crate) fn running(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.name.as_str())
    }

    /// Whether the guest has said that it is done.
    pub(crate) fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// Whether the test that runs has announced this report.
    pub(crate) fn expects(&self, report: &str) -> bool {
        let mut expected = self.current.iter().flat_map(|current| &current.expected);
        expected.any(|(text, _)| report.contains(text.as_str()))
    }

    /// Takes a line without its end.
    pub(crate) fn line(&mut self, line: &str) -> Event {
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("TESTS ") {
            self.tests(rest);
            return Event::Progress;
        }
        if let Some(rest) = line.strip_prefix("TEST ") {
            return self.test(rest);
        }
        if is_report(line) {
            self.report(line);
        }
        Event::Other
    }

    /// The guest has ended; what is wrong with the run as a whole.
    pub(crate) fn finish(mut self, ending: Ending) -> Vec<String> {
        if let Some(current) = &self.current {
            self.problems.push(format!("`{}` did not end: {ending}", current.name));
        } else if self.done.is_none() {
            self.problems.push(match self.announced {
                Some(n) => {
                    format!("only {} of {n} tests ran: {ending}", self.passed + self.failed + self.skipped)
                }
                None => format!("no tests ran: {ending}"),
            });
        }
        if let Some(told) = self.done {
            let counted = [self.passed, self.failed, self.skipped];
            let believed = [self.passed + self.found_here, self.failed - self.found_here, self.skipped];
            if told != believed {
                self.problems
                    .push(format!("the guest counted {told:?} passed, failed, skipped; it was {counted:?}"));
            }
            if self.announced.is_none_or(|n| n != counted.iter().sum::<usize>()) {
                self.problems
                    .push(format!("{:?} tests were announced and {counted:?} ended", self.announced));
            }
            let expected = if told[1] == 0 { Ending::Success } else { Ending::Failure };
            if ending != expected {
                self.problems.push(format!("the tests are done, and then {ending}"));
            }
        }
        self.problems
    }

    fn tests(&mut self, rest: &str) {
        let mut words = rest.split_whitespace();
        match words.next() {
            Some("run") if self.announced.is_none() => {
                match words.next().and_then(|word| word.parse().ok()) {
                    Some(n) => self.announced = Some(n),
                    None => self.problems.push(format!("not understood: `TESTS {rest}`")),
                }
            }
            Some("run") => {
                self.problems.push("the tests were started twice (did the guest reset?)".to_owned())
            }
            Some("done") => {
                let counts: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
                match <[usize; 3]>::try_from(counts) {
                    Ok(counts) => self.done = Some(counts),
                    Err(_) => self.problems.push(format!("not understood: `TESTS {rest}`")),
                }
            }
            _ => self.problems.push(format!("not understood: `TESTS {rest}`")),
        }
    }

    fn test(&mut self, rest: &str) -> Event {
        let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "start" => {
                if let Some(previous) = self.current.take() {
                    self.problems.push(format!("`{}` was never ended", previous.name));
                }
                self.current =
                    Some(Current { name: rest.to_owned(), expected: Vec::new(), unexpected: None });
                Event::Progress
            }
            "expects" => {
                match &mut self.current {
                    Some(current) => current.expected.push((rest.to_owned(), false)),
                    None => self.problems.push(format!("`{rest}` is expected outside of any test")),
                }
                Event::Progress
            }
            "ok" => {
                let (name, time) = rest.rsplit_once(' ').unwrap_or((rest, ""));
                let took = time.strip_suffix("us").and_then(|us| us.parse().ok()).map(Duration::from_micros);
                self.end(name, Verdict::Passed, took)
            }
            "fail" | "skip" => {
                let (name, why) = rest.split_once(": ").unwrap_or((rest, "no reason given"));
                let why = why.to_owned();
                let verdict = if what == "fail" { Verdict::Failed(why) } else { Verdict::Skipped(why) };
                self.end(name, verdict, None)
            }
            _ => {
                self.problems.push(format!("not understood: `TEST {what} {rest}`"));
                Event::Progress
            }
        }
    }

    fn end(&mut self, name: &str, mut verdict: Verdict, took: Option<Duration>) -> Event {
        match self.current.take() {
            Some(current) if current.name == name => {
                if verdict == Verdict::Passed
                    && let Some(why) = current.objection()
                {
                    verdict = Verdict::Failed(why);
                    self.found_here += 1;
                }
            }
            _ => self.problems.push(format!("`{name}` ended without having been started")),
        }
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Skipped(_) => self.skipped += 1,
        }
        Event::Finished(Finished { name: name.to_owned(), verdict, took })
    }

    fn report(&mut self, line: &str) {
        match &mut self.current {
            Some(current) => {
                let mut announced = false;
                for (text, came) in &mut current.expected {
                    if line.contains(text.as_str()) {
                        (*came, announced) = (true, true);
                    }
                }
                if !announced {
                    current.unexpected.get_or_insert_with(|| line.to_owned());
                }
            }
            None => self.problems.push(format!("unexpected report: {line}")),
        }
    }
}

impl Current {
    /// Why a test that says it passed did not.
    fn objection(&self) -> Option<String> {
        if let Some(line) = &self.unexpected {
            return Some(format!("unexpected report: {line}"));
        }
        let missing = self.expected.iter().find(|(_, came)| !came)?;
        Some(format!("the expected report `{}` did not come", missing.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a guest that prints `text` and ends with `ending` comes to: its tests, and what else is wrong.
    fn judge(text: &str, ending: Ending) -> (Vec<Finished>, Vec<String>) {
        let mut protocol = Protocol::default();
        let events: Vec<_> = text.lines().map(|line| protocol.line(line)).collect();
        let finished = events.into_iter().filter_map(|event| match event {
            Event::Finished(finished) => Some(finished),
            _ => None,
        });
        (finished.collect(), protocol.finish(ending))
    }

    const GOOD: &str = "hello\nTESTS run 3\nTEST start a\n[ 0.1] cpu0 INFO a log line\nTEST ok a 1234us\n\
        TEST start b: odd name\nTEST skip b: needs 2 CPUs\nTEST start c\nTEST expects WARNING: slow\n\
        WARNING: slow by 3\nTEST ok c 5us\nTESTS done 2 0 1\n";

    #[test]
    fn a_good_run() {
        let text = GOOD.replace(": odd name", "");
        let (finished, problems) = judge(&text, Ending::Success);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(finished.len(), 3);
        assert_eq!(finished[0].took, Some(Duration::from_micros(1234)));
        assert_eq!(finished[1].verdict, Verdict::Skipped("needs 2 CPUs".to_owned()));
        assert_eq!(finished[2].verdict, Verdict::Passed);
    }

    #[test]
    fn every_way_to_stop_short_is_a_problem() {
        let text = GOOD.replace(": odd name", "");
        let lines: Vec<&str> = text.lines().collect();
        for cut in 0..lines.len() {
            for ending in
                [Ending::Success, Ending::Failure, Ending::Reset, Ending::TimedOut, Ending::Signal(11)]
            {
                let (_, problems) = judge(&lines[..cut].join("\n"), ending);
                assert!(!problems.is_empty(), "cut after {cut} lines, {ending:?}");
            }
        }
        for ending in [Ending::Failure, Ending::Reset, Ending::TimedOut, Ending::QemuError(1)] {
            assert!(!judge(&text, ending).1.is_empty(), "{ending:?}");
        }
    }

    #[test]
    fn a_failed_test_is_no_problem_of_the_run() {
        let text = "TESTS run 1\nTEST start a\nTEST fail a: x.rs:1: 1 is not 2\nTESTS done 0 1 0\n";
        let (finished, problems) = judge(text, Ending::Failure);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(finished[0].verdict, Verdict::Failed("x.rs:1: 1 is not 2".to_owned()));
        // ... but then the guest must say so.
        assert!(!judge(text, Ending::Success).1.is_empty());
    }

    #[test]
    fn an_unexpected_report_fails_the_test_that_runs() {
        for report in ["BUG: bad", "WARNING: odd", "CPU 1 panicked at x.rs"] {
            let text = format!("TESTS run 1\nTEST start a\n{report}\nTEST ok a 1us\nTESTS done 1 0 0\n");
            let (finished, problems) = judge(&text, Ending::Success);
            assert_eq!(finished[0].verdict, Verdict::Failed(format!("unexpected report: {report}")));
            assert_eq!(problems, Vec::<String>::new());
            let outside = format!("{report}\nTESTS run 1\nTEST start a\nTEST ok a 1us\nTESTS done 1 0 0\n");
            assert_eq!(judge(&outside, Ending::Success).1, [format!("unexpected report: {report}")]);
        }
    }

    #[test]
    fn an_expected_report_must_come() {
        let text =
            "TESTS run 1\nTEST start a\nTEST expects BUG: x\nWARNING: x\nTEST ok a 1us\nTESTS done 1 0 0\n";
        assert!(
            matches!(&judge(text, Ending::Success).0[0].verdict, Verdict::Failed(why) if why.contains("WARNING"))
        );
        let text = text.replace("WARNING: x\n", "");
        assert!(
            matches!(&judge(&text, Ending::Success).0[0].verdict, Verdict::Failed(why) if why.contains("did not come"))
        );
    }

    #[test]
    fn sums_are_checked() {
        let text = "TESTS run 2\nTEST start a\nTEST ok a 1us\nTESTS done 1 0 0\n";
        assert!(!judge(text, Ending::Success).1.is_empty());
        let text = "TESTS run 1\nTEST start a\nTEST ok a 1us\nTESTS done 2 0 0\n";
        assert!(!judge(text, Ending::Success).1.is_empty());
        let text = "TESTS run 1\nTESTS run 1\nTEST start a\nTEST ok a 1us\nTESTS done 1 0 0\n";
        assert!(!judge(text, Ending::Success).1.is_empty());
    }
}
