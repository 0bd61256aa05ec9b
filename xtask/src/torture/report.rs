//! What is told about a campaign: a line for each scenario, what went wrong and how to see it again, the closing table, and
//! the same for programs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use super::faults::Made;
use crate::ui;
use crate::workspace;

/// What came of a scenario, or of a twin.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) cpus: u32,
    pub(super) seed: u64,
    /// Time that guests ran.
    pub(super) took: Duration,
    pub(super) guests: u64,
    /// Tests or loads that ended well, and the least that counts.
    pub(super) exercised: u64,
    pub(super) least: u64,
    /// What loads say they did.
    pub(super) counts: Vec<Count>,
    pub(super) made: Made,
    pub(super) failures: Vec<Failure>,
}

/// What a load did, and the least that counts as a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) scenario: String,
    pub(super) what: String,
    pub(super) times: u64,
    pub(super) least: u64,
}

impl Count {
    fn json(&self) -> Value {
        json!({ "load": self.scenario, "what": self.what, "times": self.times, "least": self.least })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.times, self.what)
    }
}

/// A guest that failed.
#[derive(Debug, Default)]
pub(super) struct Failure {
    pub(super) problems: Vec<String>,
    /// What it said before.
    pub(super) context: Vec<String>,
    pub(super) log: Option<PathBuf>,
    /// What repeats it.
    pub(super) again: String,
}

impl Outcome {
    /// The rate of failures, an hour, that a run of this length without any excludes with 99 % confidence. Failures that
    /// come independently, `r` an hour, leave `t` hours free of them with probability e^(-rt), and e^-4.6 is 1 %.
    fn excluded_rate(&self) -> Option<f64> {
        let hours = self.took.as_secs_f64() / 3600.0;
        (self.failures.is_empty() && hours > 0.0).then(|| 4.6 / hours)
    }

    pub(super) fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// The line about it, and everything about its failures.
    pub(super) fn print(&self) {
        let (colour, verdict) = if self.is_good() { ("32", "ok  ") } else { ("31", "FAIL") };
        println!(
            "  {}  {:<24} {:>3} CPUs  {:>3} guests, {:>3} ended well, {}{}",
            ui::paint(colour, verdict),
            self.name,
            self.cpus,
            self.guests,
            self.exercised,
            ui::time(self.took),
            self.made_words("; ")
        );
        let counts = self.counts_words();
        if !counts.is_empty() {
            println!("        {counts}");
        }
        for failure in &self.failures {
            failure.problems.iter().for_each(|problem| println!("        {problem}"));
            if let Some(log) = &failure.log {
                println!("        from {}:", workspace::shown(log));
                failure.context.iter().for_each(|line| println!("        | {line}"));
            }
            println!("        again: {}", failure.again);
        }
    }

    /// What was exercised, as far as loads count it.
    fn counts_words(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(ToString::to_string).collect();
        counts.join(", ")
    }

    fn made_words(&self, before: &str) -> String {
        if self.made.0.is_empty() { String::new() } else { format!("{before}{}", self.made) }
    }

    fn json(&self) -> Value {
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|failure| {
                let log = failure.log.as_ref().map(|log| log.display().to_string());
                json!({ "problems": failure.problems, "log": log, "again": failure.again })
            })
            .collect();
        let faults: serde_json::Map<String, Value> =
            self.made.0.iter().map(|(kind, times)| (kind.to_string(), json!(times))).collect();
        json!({
            "scenario": self.name,
            "cpus": self.cpus,
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "guests": self.guests,
            "well": self.exercised,
            "counts": self.counts.iter().map(Count::json).collect::<Vec<Value>>(),
            "least": self.least,
            "faults": faults,
            "failures": failures,
            "excluded_per_hour": self.excluded_rate(),
        })
    }

    fn junit(&self) -> TestCase {
        let mut status = TestCaseStatus::success();
        if !self.is_good() {
            status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let text: Vec<String> = self
                .failures
                .iter()
                .map(|failure| format!("{}\nagain: {}", failure.problems.join("\n"), failure.again))
                .collect();
            status.set_message(text.first().map_or("", |text| text.lines().next().unwrap_or("")));
            status.set_description(text.join("\n\n"));
        }
        let mut case = TestCase::new(self.name.as_str(), status);
        case.set_classname("torture").set_time(self.took);
        case.set_system_out(format!("{}{}\n", self.counts_words(), self.made_words("; ")));
        case
    }
}

/// The closing table: a row for each scenario, and below it what its loads did.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<24} {:>4} {:>8} {:>7} {:>12} {:>7}  {:<22} faults\n",
        "scenario", "CPUs", "minutes", "guests", "well/least", "errors", "99 %: fails an hour"
    );
    for outcome in outcomes {
        let rate = outcome.excluded_rate().map_or("-".to_owned(), |rate| format!("less than {rate:.1}"));
        text.push_str(&format!(
            "{:<24} {:>4} {:>8.2} {:>7} {:>12} {:>7}  {rate:<22} {}\n",
            outcome.name,
            outcome.cpus,
            outcome.took.as_secs_f64() / 60.0,
            outcome.guests,
            format!("{}/{}", outcome.exercised, outcome.least),
            outcome.failures.len(),
            outcome.made
        ));
        let counts = outcome.counts_words();
        if !counts.is_empty() {
            text.push_str(&format!("    {counts}\n"));
        }
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Writes JUnit's XML.
pub(super) fn write_junit(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut suite = TestSuite::new("torture");
    suite.add_test_cases(outcomes.iter().map(Outcome::junit));
    let mut report = Report::new("cargo xtask torture");
    report.add_test_suite(suite);
    fs::write(path, report.to_string()?).with_context(|| format!("writing {}", path.display()))
}

/// Writes JSON.
pub(super) fn write_json(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let all: Vec<Value> = outcomes.iter().map(Outcome::json).collect();
    let text = serde_json::to_string_pretty(&json!({ "torture": all }))?;
    fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::torture::scenario::Fault;

    fn outcomes() -> [Outcome; 2] {
        let good = Outcome {
            name: "rcu-4".to_owned(),
            cpus: 4,
            seed: 7,
            took: Duration::from_secs(1800),
            guests: 3,
            exercised: 30,
            least: 4,
            counts: vec![Count { scenario: "rcu".into(), what: "grace_periods".into(), times: 12, least: 3 }],
            made: Made(BTreeMap::from([(Fault::Nmi, 12)])),
            failures: Vec::new(),
        };
        let failure = Failure {
            problems: vec!["BUG: <1> & 2".to_owned()],
            context: vec!["before".to_owned()],
            log: Some(PathBuf::from("/x/rcu-8.log")),
            again: "cargo xtask torture rcu-8 --seed 9".to_owned(),
        };
        [good, Outcome { name: "rcu-8".to_owned(), cpus: 8, failures: vec![failure], ..Outcome::default() }]
    }

    #[test]
    fn a_table_has_a_line_for_each() {
        let text = table(&outcomes());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["rcu-4", "4", "30.00", "3", "30/4", "0", "less", "than", "9.2", "12", "nmi"]);
        assert_eq!(lines[2], ["12", "grace_periods"], "what was exercised");
        assert_eq!(lines[3], ["rcu-8", "8", "0.00", "0", "0/0", "1", "-"]);
    }

    #[test]
    fn programs_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let (xml, json) = (folder.path().join("a.xml"), folder.path().join("a.json"));
        write_junit(&xml, &outcomes()).unwrap();
        write_json(&json, &outcomes()).unwrap();
        let xml = fs::read_to_string(xml).unwrap();
        assert!(xml.contains("tests=\"2\"") && xml.contains("failures=\"1\""), "{xml}");
        assert!(xml.contains("<system-out>12 grace_periods; 12 nmi"), "{xml}");
        assert!(xml.contains("BUG: &lt;1&gt; &amp; 2"), "{xml}");
        let json: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!(json["torture"][0]["faults"]["nmi"], 12);
        assert_eq!(json["torture"][0]["counts"][0]["times"], 12);
        assert_eq!(json["torture"][0]["excluded_per_hour"], 9.2);
        assert_eq!(json["torture"][1]["excluded_per_hour"], Value::Null);
        assert_eq!(json["torture"][1]["failures"][0]["again"], "cargo xtask torture rcu-8 --seed 9");
    }
}
