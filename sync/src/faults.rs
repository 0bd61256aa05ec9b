//! Faults that models plant into the algorithms themselves, to see that they would be found.
//!
//! A model that passes shows little unless the same model fails when the code is broken. Each fault here is one plausible
//! way to get an algorithm wrong; the code asks [`is_planted`] at that place, which is the constant `false` in every
//! build but the models'.

/// A way to break the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A step of a tasklet carries nothing to the next one.
    StepRelaxed,
    /// A tasklet is queued without a look whether it runs.
    ScheduleBlindly,
    /// The end of a tasklet's run does not look whether it was scheduled meanwhile.
    ForgetReschedule,
    /// A worker takes an item without a look whether another one calls it.
    CallTwice,
    /// Who cancels an item does not wait for its call.
    CancelAndGo,
    /// A worker that arrives is still counted as on its way.
    StayCalled,
    /// A flush waits for the lane that inherits before those that it inherits from.
    FlushHeirFirst,
    /// A waiter is told after the lock was let go: it may be gone by then.
    SignalWithoutLock,
    /// A task tests its condition, then stands in line, then blocks.
    TestBeforeJoining,
    /// A mutex is let go without a look at who waits.
    UnlockBlindly,
    /// A task that found the mutex taken announces itself, and does not look again before it sleeps.
    AnnounceAndSleep,
    /// A task that gives up does not care who was woken in its place or waits behind it.
    GiveUpSilently,
    /// A writer adds up the readers of all CPUs without having made them see that it is there.
    SumWithoutFence,
    /// A reader that finds the gate closed takes its count back, and does not tell the writer who may have seen it.
    LeaveQuietly,
    /// A gate is opened without handing over what was written.
    OpenRelaxed,
    /// A task gives its priority to the owner of what it waits for, and not to whom that one waits for.
    StopAtOwner,
    /// A walk along the chain of owners ends where somebody else is at work.
    EndTheWalk,
    /// A task keeps what it inherited when it lets go.
    KeepInherited,
}

#[cfg(all(test, any(loom, shuttle)))]
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
    /// In a process of its own, because a model that deadlocks takes its process with it: what unwinds from there finds
    /// the model checker gone.
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

#[cfg(all(test, any(loom, shuttle)))]
pub(crate) use planted::{is_caught, is_planted};

/// Whether the fault is in place: no.
#[cfg(not(all(test, any(loom, shuttle))))]
#[inline(always)]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}
