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
    /// What waits in a slot is claimed by a load and a store.
    ClaimPlainly,
    /// A timer that is called alone is not noted as running.
    BeginUnnoted,
    /// The end of a call is noted before the call.
    EndEarly,
    /// A base that closes gives away what is in its queue while somebody runs it.
    CloseBusy,
    /// Who stops its tick does not order what it published before its looks.
    StopWithoutFence,
    /// Who pulls notes what is left before it has looked at the bases.
    PullBackwards,
}

#[cfg(all(test, any(loom, shuttle)))]
pub(crate) use test_support::faults::{is_caught, is_planted};

/// Whether the fault is in place: no.
#[cfg(not(all(test, any(loom, shuttle))))]
#[inline(always)]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}
