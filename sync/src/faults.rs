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
    /// A mutex is left to a task that watches, without a look whether that one is still there.
    TrustTheWatcher,
    /// The first in line was woken and looks, and is taken for one that has yet to look; or the next one is.
    StayWoken,
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
pub(crate) use test_support::faults::{is_caught, is_planted};

/// Whether the fault is in place: no.
#[cfg(not(all(test, any(loom, shuttle))))]
#[inline(always)]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}
