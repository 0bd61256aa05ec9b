//! What is printed about the cases: a line for each test as it ends, what went wrong, and the sums.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::cases::{Case, Expectation};
use super::hot_paths;
use super::protocol::{Finished, Verdict};
use super::runner::Outcome;
use crate::ui::{self, Exit};
use crate::workspace;

/// How much of a failed guest's log is shown.
const SHOWN: usize = 25;

/// News of a case.
pub(super) enum Progress {
    Test(Finished),
    End(Result<Outcome>),
}

/// Something that failed, and the arguments that repeat it.
struct Failure {
    what: String,
    again: String,
}

impl Failure {
    fn of_case(case: &Case) -> Self {
        Self { what: case.name.clone(), again: case.name.clone() }
    }

    fn of_test(case: &Case, test: &str) -> Self {
        let again = match case.is_grid() {
            true => format!("--machine {} --cpus {} {test}", case.machine, case.cpus),
            false => case.name.clone(),
        };
        Self { what: format!("{test} in {}", case.name), again }
    }
}

/// The sums, and what is printed on the way.
#[derive(Default)]
pub(super) struct Total {
    passed: usize,
    pub(super) failed: usize,
    skipped: usize,
    /// Tests and host-driven cases that ran.
    pub(super) ran: usize,
    pub(super) names: BTreeSet<String>,
    failures: Vec<Failure>,
    /// See [`Total::new`].
    options: String,
}

impl Total {
    /// `options` are those of the build, each after a space, for commands that repeat what failed.
    pub(super) fn new(options: String) -> Total {
        Total { options, ..Total::default() }
    }

    pub(super) fn take(&mut self, case: &Case, event: Progress) {
        match event {
            Progress::Test(finished) => self.test(case, finished),
            Progress::End(Ok(outcome)) => self.end(case, outcome),
            Progress::End(Err(error)) => {
                self.failed += 1;
                self.failures.push(Failure::of_case(case));
                print_line("FAIL", case, &case.name, &format!("{error:#}"));
            }
        }
    }

    /// The look at the machine code.
    pub(super) fn code(&mut self, found: Result<Vec<String>>) {
        self.ran += 1;
        self.names.insert(hot_paths::NAME.to_owned());
        match found {
            Ok(lines) => {
                self.passed += 1;
                println!("  {}  {}", ui::paint("32", "ok  "), hot_paths::NAME);
                lines.iter().for_each(|line| println!("        {line}"));
            }
            Err(error) => {
                self.failed += 1;
                self.failures
                    .push(Failure { what: hot_paths::NAME.to_owned(), again: hot_paths::NAME.to_owned() });
                println!("  {}  {}  {error:#}", ui::paint("31", "FAIL"), hot_paths::NAME);
            }
        }
    }

    fn test(&mut self, case: &Case, finished: Finished) {
        let took = finished.took.map_or(String::new(), ui::time);
        self.ran += 1;
        match &finished.verdict {
            Verdict::Passed => print_line("ok", case, &finished.name, &took),
            Verdict::Skipped(why) => print_line("skip", case, &finished.name, why),
            Verdict::Failed(why) => {
                print_line("FAIL", case, &finished.name, why);
                self.failures.push(Failure::of_test(case, &finished.name));
            }
        }
        self.names.insert(finished.name);
    }

    fn end(&mut self, case: &Case, mut outcome: Outcome) {
        let by_host = !matches!(case.expect, Expectation::Tests { .. });
        let nothing_selected = outcome.announced == Some(0);
        if nothing_selected {
            if case.is_grid() && case.words != "test" {
                // A filter may select nothing here and something elsewhere.
                outcome.problems.clear();
            } else {
                outcome.problems.push("no tests ran".to_owned());
            }
        }
        self.passed += outcome.passed;
        self.failed += outcome.failed;
        self.skipped += outcome.skipped;
        let note = outcome.online.take();
        if !outcome.problems.is_empty() {
            self.failed += 1;
            self.failures.push(Failure::of_case(case));
            print_line("FAIL", case, &case.name, "");
            outcome.problems.iter().for_each(|problem| println!("        {problem}"));
        } else if by_host {
            self.passed += 1;
            self.ran += 1;
            print_line("ok", case, &case.name, &ui::time(outcome.took));
        } else if !nothing_selected {
            let online = note.map_or(String::new(), |note| format!("; {note}"));
            print_line("--", case, &case.name, &format!("{} in all{online}", ui::time(outcome.took)));
        }
        if !outcome.problems.is_empty() || outcome.failed > 0 {
            for log in &outcome.logs {
                show_log(log, &outcome.failed_tests);
            }
        }
    }

    pub(super) fn close(self) -> Result<()> {
        if !self.failures.is_empty() {
            println!("\nfailed:");
            for failure in &self.failures {
                println!(
                    "  {:<50} again: cargo xtask test-smp{} {}",
                    failure.what, self.options, failure.again
                );
            }
        }
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        println!("{} passed, {} failed{skipped}", self.passed, self.failed);
        if self.failed > 0 { Err(Exit::silent(1)) } else { Ok(()) }
    }
}

fn print_line(verdict: &str, case: &Case, name: &str, rest: &str) {
    let colour = match verdict {
        "ok" => "32",
        "FAIL" => "31",
        _ => "2",
    };
    let machine = format!("{} {} cpu{}", case.machine, case.cpus, if case.cpus == 1 { "" } else { "s" });
    println!("  {}  {machine:<15}  {name:<44}  {rest}", ui::paint(colour, &format!("{verdict:<4}")));
}

/// What a serial log has to say about the tests that failed, or else how it ends; and where all of it is.
fn show_log(log: &Path, failed: &[String]) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    println!("        from {}:", workspace::shown(log));
    let show = |lines: &[&str]| lines.iter().for_each(|line| println!("        | {line}"));
    if failed.is_empty() {
        show(&lines[lines.len().saturating_sub(SHOWN)..]);
    }
    for name in failed {
        let part = part_about(&lines, name);
        show(&part[part.len().saturating_sub(SHOWN)..]);
    }
}

/// The lines from a test's start to its end.
fn part_about<'a, 'b>(lines: &'a [&'b str], name: &str) -> &'a [&'b str] {
    let start = lines.iter().position(|line| line.strip_prefix("TEST start ") == Some(name)).unwrap_or(0);
    let rest = &lines[start..];
    let is_end = |line: &&str| {
        ["ok ", "fail ", "skip "]
            .iter()
            .any(|end| line.strip_prefix("TEST ").is_some_and(|line| line.starts_with(end)))
    };
    &rest[..rest.iter().position(is_end).map_or(rest.len(), |end| end + 1)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::qemu::Machine;
    use crate::test_smp::cases;

    #[test]
    fn a_log_is_cut_to_what_a_test_printed() {
        let lines =
            ["boot", "TEST start a", "x", "TEST ok a 1us", "TEST start ab", "y", "TEST fail ab: z", "end"];
        assert_eq!(part_about(&lines, "ab"), ["TEST start ab", "y", "TEST fail ab: z"]);
        assert_eq!(part_about(&lines, "a"), ["TEST start a", "x", "TEST ok a 1us"]);
    }

    #[test]
    fn times_of_zero_tests_do_not_count_as_passed() {
        let mut total = Total::default();
        let case = cases::tests_on(Machine::Q35, 1, "");
        let outcome = Outcome { announced: Some(0), took: Duration::from_secs(1), ..Outcome::default() };
        total.take(&case, Progress::End(Ok(outcome)));
        assert_eq!((total.passed, total.failed), (0, 1));
    }
}
