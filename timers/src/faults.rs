//! Faults that models plant into the algorithms themselves, to see that they would be found.
//!
//! The code asks [`is_planted`] where it could be wrong, which is the constant `false` in every build but the models'.

/// A way to break the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Who waited for a base's lock does not look whether the timer is still there.
    LookOnce,
    /// A timer that is running goes to another base when it is armed.
    MoveRunning,
    /// The time of what is detached is read as if nobody changed times without the lock.
    ReadPlainly,
    /// After the call the timer is looked at again.
    TouchAfterCall,
    /// Who deletes synchronously does not wait.
    DeleteAndGo,
    /// The call's reference goes with a delete of the running timer that had been armed again.
    ReleaseRunning,
    /// A base is run by whoever finds something due.
    RunTwice,
    /// Who stops its tick does not order what it published before its looks.
    StopWithoutFence,
    /// Who pulls notes what is left before it has looked at the bases.
    PullBackwards,
}

#[cfg(all(test, loom))]
mod planted {
    use std::process::Command;
    use std::sync::OnceLock;

    use super::Fault;

    /// Names the fault to the process that is to have it.
    const VARIABLE: &str = "QUIESCE_FAULT";

    pub(crate) fn is_planted(fault: Fault) -> bool {
        static PLANTED: OnceLock<Option<String>> = OnceLock::new();
        PLANTED
            .get_or_init(|| std::env::var(VARIABLE).ok())
            .as_ref()
            .is_some_and(|name| *name == format!("{fault:?}"))
    }

    /// Asserts that the test `model` of this program fails with the fault in place, and says `complaint`.
    ///
    /// In a process of its own, because a model that deadlocks takes its process with it.
    pub(crate) fn is_caught(fault: Fault, model: &str, complaint: &str) {
        let program = std::env::current_exe().expect("tests are programs");
        let run = Command::new(program).args([model, "--exact"]).env(VARIABLE, format!("{fault:?}")).output();
        let run = run.expect("the test program starts");
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("running 1 test"), "there is no model {model}");
        assert!(!run.status.success(), "{model} passes in spite of {fault:?}");
        assert!(said.contains(complaint), "{model} fails, but not with {complaint:?}:\n{said}");
    }
}

#[cfg(all(test, loom))]
pub(crate) use planted::{is_caught, is_planted};

/// Whether the fault is in place: no.
#[cfg(not(all(test, loom)))]
#[inline(always)]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}
