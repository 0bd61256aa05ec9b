//! Faults that models plant into the algorithms themselves, to see that they would be found.
//!
//! A model that passes shows little unless the same model fails when the code is broken. A crate that does so has a type
//! of its own whose values are plausible ways to get its algorithms wrong, and asks [`is_planted`] at those places; in
//! every build but the models' the answer is the constant `false`.

use std::fmt::Debug;
use std::process::Command;
use std::sync::OnceLock;

/// Names the fault to the process that is to have it.
const VARIABLE: &str = "QUIESCE_FAULT";

/// Whether this process is to have the fault of that name.
pub fn is_planted(fault: impl Debug) -> bool {
    planted().is_some_and(|name| name == format!("{fault:?}"))
}

/// Whether this process is to have any fault.
#[cfg(shuttle)]
pub(crate) fn is_any_planted() -> bool {
    planted().is_some()
}

fn planted() -> Option<&'static str> {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref()
}

/// Asserts that the test `model` of this program fails with the fault in place, and says `complaint`.
///
/// In a process of its own, because a model that deadlocks takes its process with it: what unwinds from there finds the
/// model checker gone.
///
/// # Panics
/// If there is no such test, if it passes, or if it fails for another reason.
pub fn is_caught(fault: impl Debug, model: &str, complaint: &str) {
    let program = std::env::current_exe().expect("tests are programs");
    let run = Command::new(program).args([model, "--exact"]).env(VARIABLE, format!("{fault:?}")).output();
    let run = run.expect("the test program starts");
    let said = [run.stdout, run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("running 1 test"), "there is no model {model}");
    assert!(!run.status.success(), "{model} passes in spite of {fault:?}");
    assert!(said.contains(complaint), "{model} fails, but not with {complaint:?}:\n{said}");
}
