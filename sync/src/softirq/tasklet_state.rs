//! What a tasklet is doing, in one word: who may queue it, who may run it, and who lets go of it.
//!
//! ```text
//!              schedule                begin                  finish
//!   idle ------------------> QUEUED -------------> RUNNING ------------> idle
//!                              ^ |                    | schedule
//!                       enable | | begin, disabled    v
//!                              | v                 RUNNING|QUEUED ----> QUEUED (the runner queues it again)
//!                         QUEUED|PARKED                        finish
//! ```
//!
//! # Invariants
//! * **T1**: from the step that sets `QUEUED` to the one that clears it there is one reference to the tasklet in a queue,
//!   with whoever is about to queue it, or, while `PARKED` or `RUNNING` is set, kept for whoever clears that bit.
//! * **T2**: `RUNNING` is set by the execution that runs the function, and by one at a time.

use crate::faults::{Fault, is_planted};
use crate::primitives::{AtomicU32, Ordering, const_fn};

/// It is to run.
const QUEUED: u32 = 1;
/// Its function runs.
const RUNNING: u32 = 2;
/// It was to run, and is disabled: it is in no queue.
const PARKED: u32 = 4;
/// It is not to run any more.
const KILLED: u32 = 8;
/// Somebody waits for a change.
const WAITED: u32 = 16;
/// Somebody has disabled it; counted in the bits from here on.
const DISABLED: u32 = 1 << 8;

/// What [`State::schedule`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scheduled {
    /// The caller puts it into a queue.
    Queue,
    /// It runs, and its runner will queue it again. The caller's reference is not needed.
    Again,
    /// It was to run already.
    Already,
    /// It is killed.
    Refused,
}

/// What the runner is to do with a tasklet that it took out of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// Call the function, then [`State::finish`].
    Run,
    /// Keep the reference for whoever enables it, and do nothing.
    Park,
    /// Let go of it; `wake` whoever waits.
    LetGo { wake: bool },
}

/// What the runner does when the function has returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Finish {
    /// Queue it again. Otherwise let go of it.
    pub(super) again: bool,
    /// Wake whoever waits.
    pub(super) wake: bool,
}

pub(super) struct State(AtomicU32);

impl State {
    const_fn! {
        pub(super) fn new() -> State {
            State(AtomicU32::new(0))
        }
    }

    /// Replaces the word by what `next` makes of it, in one step, unless that is `None`.
    ///
    /// AcqRel: each step sees what was done before the former ones. A run sees what whoever scheduled it had done, also
    /// where it was scheduled already; the next runner sees what the last one did; whoever waits for an end sees all.
    #[inline]
    fn step<R>(&self, mut next: impl FnMut(u32) -> (Option<u32>, R)) -> R {
        let mut found = self.0.load(Ordering::Relaxed);
        loop {
            let (new, result) = next(found);
            let Some(new) = new else { return result };
            let order = if is_planted(Fault::StepRelaxed) { Ordering::Relaxed } else { Ordering::AcqRel };
            match self.0.compare_exchange_weak(found, new, order, Ordering::Relaxed) {
                Ok(_) => return result,
                Err(now) => found = now,
            }
        }
    }

    /// The step that is taken nearly always, from one known word to another. Ordered as [`step`](State::step) is.
    #[inline(always)]
    fn usual(&self, from: u32, to: u32) -> bool {
        let order = if is_planted(Fault::StepRelaxed) { Ordering::Relaxed } else { Ordering::AcqRel };
        self.0.compare_exchange(from, to, order, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    pub(super) fn schedule(&self) -> Scheduled {
        if self.usual(0, QUEUED) { Scheduled::Queue } else { self.schedule_unusually() }
    }

    fn schedule_unusually(&self) -> Scheduled {
        self.step(|word| {
            if word & KILLED != 0 {
                return (None, Scheduled::Refused);
            }
            // Written also if the bit is set already, so that the run to come sees what the caller did.
            let outcome = if word & QUEUED != 0 {
                Scheduled::Already
            } else if word & RUNNING != 0 && !is_planted(Fault::ScheduleBlindly) {
                Scheduled::Again
            } else {
                Scheduled::Queue
            };
            (Some(word | QUEUED), outcome)
        })
    }

    /// For whoever took it out of a queue.
    #[inline(always)]
    pub(super) fn begin(&self) -> Begin {
        if self.usual(QUEUED, RUNNING) { Begin::Run } else { self.begin_unusually() }
    }

    fn begin_unusually(&self) -> Begin {
        self.step(|word| {
            if word & KILLED != 0 {
                (Some(word & !(QUEUED | WAITED)), Begin::LetGo { wake: word & WAITED != 0 })
            } else if word >= DISABLED {
                (Some(word | PARKED), Begin::Park)
            } else {
                (Some(word & !QUEUED | RUNNING), Begin::Run)
            }
        })
    }

    /// For the runner, when the function has returned. `false`: [`finish_unusually`](State::finish_unusually) is called for.
    #[inline(always)]
    pub(super) fn finish(&self) -> bool {
        self.usual(RUNNING, 0)
    }

    /// The same whatever happened during the run.
    pub(super) fn finish_unusually(&self) -> Finish {
        self.step(|word| {
            let again = word & QUEUED != 0 && word & KILLED == 0 && !is_planted(Fault::ForgetReschedule);
            let gone = if again { RUNNING | WAITED } else { RUNNING | WAITED | QUEUED };
            (Some(word & !gone), Finish { again, wake: word & WAITED != 0 })
        })
    }

    /// It is not begun from here on, until as many [`State::enable`]s have come.
    pub(super) fn disable(&self) {
        let word = self.0.fetch_add(DISABLED, Ordering::AcqRel);
        assert!(word < u32::MAX - DISABLED, "a tasklet was disabled 16 million times and not enabled");
    }

    /// Undoes one [`State::disable`]. Returns whether it was parked, and is the caller's to queue.
    pub(super) fn enable(&self) -> bool {
        self.step(|word| {
            debug_assert!(word >= DISABLED);
            let word = word - DISABLED;
            let parked = word < DISABLED && word & PARKED != 0;
            (Some(if parked { word & !PARKED } else { word }), parked)
        })
    }

    /// It is not begun from here on. Returns whether it was parked, and is the caller's to let go of.
    pub(super) fn kill(&self) -> bool {
        self.step(|word| {
            let parked = word & PARKED != 0;
            let gone = if parked { PARKED | QUEUED } else { 0 };
            (Some((word | KILLED) & !gone), parked)
        })
    }

    /// Whether the function does not run. Otherwise whoever ends the run will wake. Acquire, by `step`.
    pub(super) fn is_still(&self) -> bool {
        self.has_none_of(RUNNING)
    }

    /// Whether it neither runs nor is to run. Otherwise whoever changes that will wake.
    pub(super) fn is_over(&self) -> bool {
        self.has_none_of(RUNNING | QUEUED)
    }

    fn has_none_of(&self, bits: u32) -> bool {
        self.step(|word| (Some(if word & bits == 0 { word } else { word | WAITED }), word & bits == 0))
    }

    pub(super) fn is_queued(&self) -> bool {
        self.0.load(Ordering::Relaxed) & QUEUED != 0
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.load(Ordering::Relaxed) & RUNNING != 0
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= DISABLED
    }

    pub(super) fn is_killed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & KILLED != 0
    }
}
