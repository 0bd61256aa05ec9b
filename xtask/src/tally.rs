//! What a run of tests says of itself: how many passed, and how much they explored.
//!
//! 1. The test harness ends each program with `test result: ..`.
//! 2. A test that explores says how much, in a line of its own: `explored: 5120 executions`. `test_support` prints it for
//!    models (executions) and properties (cases), and whoever runs for a stated time prints its own (sequences, periods).
//!    The harness keeps what a test prints, and gives it out when asked to with `--show-output`.

use std::collections::BTreeMap;

/// Sums over all test programs of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// How many of what, by the word for it.
    pub(crate) explored: BTreeMap<String, u64>,
}

impl Tally {
    /// Reads the output of `cargo test -- --show-output`.
    pub(crate) fn of(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some(counts) = line.trim_start().strip_prefix("test result:") {
                tally.passed += number_before(counts, "passed");
                tally.failed += number_before(counts, "failed");
            } else if let Some((number, what)) = explored(line) {
                *tally.explored.entry(what.to_owned()).or_default() += number;
            }
        }
        tally
    }

    /// Whether no test ran.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed == 0
    }

    /// What was explored, in words; empty if nothing was.
    pub(crate) fn explored_in_words(&self) -> String {
        let parts: Vec<String> =
            self.explored.iter().map(|(what, number)| format!("{} {what}", grouped(*number))).collect();
        parts.join(", ")
    }
}

/// `explored: 12 executions` is `(12, "executions")`.
fn explored(line: &str) -> Option<(u64, &str)> {
    let (number, what) = line.strip_prefix("explored: ")?.split_once(' ')?;
    Some((number.parse().ok()?, what.trim_end()))
}

/// The number that stands before `what` in a line such as ` ok. 5 passed; 0 failed`.
fn number_before(line: &str, what: &str) -> u64 {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| word.trim_end_matches(';') == what);
    at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
}

/// 1234567 is "1,234,567".
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_are_added() {
        let output = "running 2 tests\ntest result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored\n";
        let tally = Tally::of(output);
        assert_eq!((tally.passed, tally.failed), (7, 1));
        assert!(Tally::of("").is_empty() && !tally.is_empty());
    }

    #[test]
    fn what_was_explored_is_added_by_its_unit() {
        let output = "---- a stdout ----\nexplored: 1200 executions\n\n---- b stdout ----\nexplored: 34 executions\n\
                      explored: 300 cases\nwe explored: 9 cases\nexplored: many cases\nexplored: 7\n";
        let tally = Tally::of(output);
        assert_eq!(tally.explored, BTreeMap::from([("cases".into(), 300), ("executions".into(), 1234)]));
        assert_eq!(tally.explored_in_words(), "300 cases, 1,234 executions");
        assert_eq!(Tally::of("").explored_in_words(), "");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1_000, 12_345_678].map(grouped).each_ref().map(|s| s.as_str())
        );
    }
}
