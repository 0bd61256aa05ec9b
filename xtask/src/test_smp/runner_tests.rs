//! A shell script is a good enough guest to test the runner with.

use std::cell::RefCell;
use std::fs;

use super::*;
use crate::qemu::{Machine, Time};
use crate::test_smp::cases::{Firmware, tests_on};

/// Runs `script` as if it were the guest of `case`.
fn run(case: &Case, script: &str) -> (Outcome, Vec<Finished>, String) {
    let folder = tempfile::tempdir().unwrap();
    let seen = RefCell::new(Vec::new());
    let runner = Runner {
        case,
        command: &|words| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("WORDS", words);
            Ok(command)
        },
        symbols: Path::new("/nonexistent"),
        logs: folder.path(),
        patience: 1,
        on_test: &|finished| seen.borrow_mut().push(finished.clone()),
    };
    let outcome = runner.run().unwrap();
    let log = fs::read_to_string(&outcome.logs[0]).unwrap();
    (outcome, seen.into_inner(), log)
}

fn crash(says: &'static [&'static str]) -> Case {
    Case { expect: Expectation::Crash { says }, ..tests_on(Machine::Q35, 1, "") }
}

const GOOD: &str = "printf 'TESTS run 2\\r\\nTEST start a\\r\\nTEST ok a 10us\\r\\nTEST start b\\r\\n\
    TEST skip b: no\\r\\nTESTS done 1 0 1\\r\\n'; exit 33";

#[test]
fn a_good_guest() {
    let (outcome, seen, log) = run(&tests_on(Machine::Q35, 1, ""), GOOD);
    assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (1, 0, 1));
    assert_eq!(outcome.problems, Vec::<String>::new());
    assert_eq!(seen.len(), 2);
    assert!(log.starts_with("TESTS run 2\nTEST start a\n"), "{log}");
}

#[test]
fn a_guest_that_resets_is_a_problem_and_keeps_its_log() {
    let (outcome, _, log) =
        run(&tests_on(Machine::Q35, 1, ""), "printf 'TESTS run 1\\r\\nTEST start a\\r\\nlast words'; exit 0");
    assert!(
        outcome.problems.iter().any(|p| p.contains("`a` did not end") && p.contains("reset")),
        "{outcome:?}"
    );
    assert!(log.contains("last words"));
}

#[test]
fn what_qemu_says_about_its_failure_is_shown() {
    let (outcome, ..) = run(&tests_on(Machine::Q35, 1, ""), "echo 'qemu: bad option' >&2; exit 1");
    assert!(outcome.problems.iter().any(|p| p.contains("bad option")), "{outcome:?}");
}

#[test]
fn a_crash_must_be_reported_once_and_completely() {
    let says: &[&str] = &["null pointer read", "backtrace"];
    let good = "echo 'BUG: CPU#0: null pointer read'; echo backtrace; exit 35";
    assert!(run(&crash(says), good).0.problems.is_empty());
    for bad in [
        "echo 'BUG: CPU#0: null pointer read'; exit 35",
        "echo 'BUG: CPU#0: null pointer read'; echo backtrace; exit 0",
        "echo 'BUG: CPU#0: null pointer read'; echo backtrace; exit 33",
        "echo 'BUG: CPU#0: null pointer read'; echo BUG: again; echo backtrace; exit 35",
    ] {
        assert!(!run(&crash(says), bad).0.problems.is_empty(), "{bad}");
    }
}

#[test]
fn hashes_are_compared() {
    let case = Case {
        expect: Expectation::SameHash,
        time: Time::Counted { shift: 3 },
        firmware: Firmware::Acpi,
        ..tests_on(Machine::Q35, 4, "")
    };
    assert!(run(&case, "echo \"IRQHASH ${WORDS%% *}\"; exit 33").0.problems.is_empty());
    assert!(run(&case, "echo IRQHASH 1; exit 33").0.problems[0].contains("same hash"));
    assert!(run(&case, "echo IRQHASH $$; exit 33").0.problems[0].contains("differ"));
    assert!(run(&case, "exit 33").0.problems[0].contains("no `IRQHASH`"));
}

#[test]
fn the_time_to_online_is_found() {
    let line = "[    0.081234] cpu0 INFO  smp: all 4 CPUs online at 81234 us";
    assert_eq!(online(line).as_deref(), Some("all 4 CPUs online at 81234 us"));
    assert_eq!(online("all is well"), None);
}
