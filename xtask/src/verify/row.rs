//! One row of the closing table, and the table.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::models::{self, Checker};
use crate::tally::{Tally, grouped};
use crate::ui;

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        }
    }
}

/// What was done with a crate, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) kind: &'static str,
    pub(super) krate: String,
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
    pub(super) verdict: Verdict,
    /// Why it was skipped.
    pub(super) note: String,
}

impl Row {
    pub(super) fn new(kind: &'static str, krate: &str, tally: Tally, elapsed: Duration, good: bool) -> Self {
        let verdict = if good { Verdict::Passed } else { Verdict::Failed };
        Self { kind, krate: krate.to_owned(), tally, elapsed, verdict, note: String::new() }
    }

    /// A row for what did not get as far as running tests.
    pub(super) fn failed(kind: &'static str, krate: &str) -> Self {
        Self::new(kind, krate, Tally::default(), Duration::ZERO, false)
    }

    /// A row that says what this machine lacks.
    pub(super) fn skipped(kind: &'static str, why: String) -> Self {
        Self { verdict: Verdict::Skipped, note: why, ..Self::failed(kind, "all") }
    }

    /// `None` where the crate has no such models.
    pub(super) fn of_models(krate: &str, checker: Checker, outcome: Option<models::Outcome>) -> Option<Self> {
        let models::Outcome { tally, elapsed, problem } = outcome?;
        Some(Self::new(checker.name(), krate, tally, elapsed, problem.is_none()))
    }

    /// How much was explored, or why nothing was.
    fn explored(&self) -> String {
        if self.note.is_empty() { self.tally.explored_in_words() } else { self.note.clone() }
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind,
            "crate": self.krate,
            "tests": self.tally.passed + self.tally.failed,
            "failed": self.tally.failed,
            "explored": self.tally.explored,
            "seconds": self.elapsed.as_secs_f64(),
            "result": self.verdict.name().to_lowercase(),
            "note": self.note,
        })
    }
}

/// The line that is printed as soon as it is known.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { kind, krate, tally, .. } = self;
        write!(f, "{krate}, {kind}: {} of {} passed", tally.passed, tally.passed + tally.failed)?;
        let explored = self.explored();
        if !explored.is_empty() {
            write!(f, ", {explored}")?;
        }
        write!(f, ", {}", ui::time(self.elapsed))?;
        if self.verdict == Verdict::Passed { Ok(()) } else { write!(f, ": {}", self.verdict.name()) }
    }
}

/// The closing table.
pub(super) fn table(rows: &[Row]) -> String {
    const HEAD: [&str; 6] = ["KIND", "CRATE", "TESTS", "EXPLORED", "TIME", "RESULT"];
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            [
                row.kind.to_owned(),
                row.krate.clone(),
                grouped(row.tally.passed + row.tally.failed),
                row.explored(),
                ui::time(row.elapsed),
                row.verdict.name().to_owned(),
            ]
        })
        .collect();
    let width = |column: usize| {
        let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        widest.max(HEAD[column].len())
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in [HEAD.map(str::to_owned)].iter().chain(&cells) {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            // Numbers stand at the right of their column.
            .map(
                |(at, (cell, &width))| {
                    if at == 2 || at == 4 { format!("{cell:>width$}") } else { format!("{cell:width$}") }
                },
            )
            .collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

pub(super) fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    let all: Vec<Value> = rows.iter().map(Row::json).collect();
    let text = serde_json::to_string_pretty(&json!({ "verify": all }))?;
    fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let tally = Tally::of("explored: 51200 executions\ntest result: ok. 12 passed; 0 failed;\n");
        vec![
            Row::new("loom", "sync", tally, Duration::from_millis(61_500), true),
            Row::failed("fuzz", "rcu"),
            Row::skipped("address", "no run-time library".to_owned()),
        ]
    }

    #[test]
    fn the_table_says_what_was_explored() {
        let expected = "\
KIND     CRATE  TESTS  EXPLORED               TIME  RESULT
loom     sync      12  51,200 executions    61.5 s  passed
fuzz     rcu        0                         0 us  FAILED
address  all        0  no run-time library    0 us  skipped
";
        assert_eq!(table(&rows()), expected);
        assert_eq!(rows()[0].to_string(), "sync, loom: 12 of 12 passed, 51,200 executions, 61.5 s");
        assert_eq!(rows()[1].to_string(), "rcu, fuzz: 0 of 0 passed, 0 us: FAILED");
    }

    #[test]
    fn the_same_is_there_for_programs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("verify.json");
        write_json(&file, &rows()).unwrap();
        let json: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(json["verify"][0]["explored"]["executions"], 51_200);
        assert_eq!(json["verify"][0]["result"], "passed");
        assert_eq!(json["verify"][1]["result"], "failed");
        assert_eq!(json["verify"][2]["note"], "no run-time library");
    }
}
