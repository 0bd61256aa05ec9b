//! Two ranks of counters, and when they show that the readers of before are gone.
//!
//! 1. A reader looks which rank is *current*, counts itself as *begun* there, and at its end counts itself as *ended* in
//!    the **same** rank, wherever it is by then. Each CPU has its own counters. Only the sums over all CPUs mean something:
//!    a reader may begin on one CPU and end on another.
//! 2. A rank is *drained* if all that have begun in it have ended. The sums are not taken in one moment, so the order
//!    matters: first how many have ended, then how many have begun. Each end that was counted belongs to a beginning that
//!    is counted too, because that came before it. If the sums are equal then, each beginning that was counted has ended.
//! 3. A grace period has seen both ranks drained, each at some moment after it began. If both are at its first look, that
//!    was all. Otherwise it waits for the rank that is not current, in which nobody begins; makes that one current; and
//!    waits for the other. Without the change new readers could keep a rank from being drained for ever.
//!
//! # Why a grace period waits for those that it must
//!
//! Let U be the update before the grace period, B the reader's counting of its beginning, and L its load of what U
//! changes. Between U and the sum of beginnings stands the platform's heavy fence, between B and L the light one. Either
//! the sum includes B, and the rank is not drained before the reader's end is counted; or the light fence comes after the
//! heavy one, and L sees U. It does not matter in which rank that is, nor how old the reader's look at the current rank
//! was: both are waited for.
//!
//! The end is counted behind a light fence. Whoever has counted it executes the heavy one next, so that the section's
//! accesses come before everything that follows the grace period.
//!
//! The counters may wrap.

use core::marker::PhantomData;

use hal::Platform;

use crate::primitives::{AtomicUsize, Ordering, const_fn};
use crate::seq::{Cookie, Sequence};

/// How many counters each CPU has: the beginnings in either rank, then the ends.
pub(super) const COUNTERS: usize = 4;

/// The counter of beginnings in a rank. Of ends: two further on.
const ENDED: usize = 2;

/// Which of the two ranks a section is counted in.
///
/// # Invariants
/// 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rank(usize);

impl Rank {
    fn other(self) -> Rank {
        Rank(1 - self.0)
    }

    /// The counter of the sections that begin in it.
    pub(super) fn begun(self) -> usize {
        self.0
    }

    /// The counter of those that end.
    pub(super) fn ended(self) -> usize {
        self.0 + ENDED
    }
}

/// The parts of the protocol that must hold, as constants, so that models can break one and show that it matters.
pub(super) trait Rules: 'static {
    /// Whether the beginning is followed by the light fence.
    const ENTER_FENCE: bool = true;
    /// Whether the end follows one.
    const LEAVE_FENCE: bool = true;
    /// Whether the end is counted where the beginning was, and not in what is current then.
    const SAME_RANK: bool = true;
    /// Whether the rank is looked at before the beginning is counted, and not after.
    const LOOK_FIRST: bool = true;
    /// Whether ends are summed before beginnings.
    const ENDS_FIRST: bool = true;
    /// Whether both ranks are waited for, and not only the one that was current.
    const BOTH_RANKS: bool = true;
    /// Whether a callback counts as called when it has been, and not when it is about to be.
    const CALLED_AFTER: bool = true;
}

/// The protocol as described.
#[derive(Debug)]
pub(super) enum Sound {}

impl Rules for Sound {}

/// The sum over all CPUs of the counter with this number.
pub(super) trait Sum: Fn(usize) -> usize {}
impl<F: Fn(usize) -> usize> Sum for F {}

/// The readers' side, and the grace periods of one domain. The counters are somewhere else.
pub(super) struct Machine<P, R = Sound> {
    /// The rank in which readers begin.
    current: AtomicUsize,
    pub(super) rounds: Sequence,
    marker: PhantomData<fn() -> (P, R)>,
}

/// Where a grace period that has begun stands. Its driver keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Neither rank has been seen drained, or only the current one.
    First,
    /// The rank that was not current was, and is current now.
    Second,
}

impl<P: Platform, R: Rules> Machine<P, R> {
    const_fn! {
        pub(super) fn new() -> Machine<P, R> {
            Machine { current: AtomicUsize::new(0), rounds: Sequence::new(), marker: PhantomData }
        }
    }

    /// Begins a section. `count` adds one to a counter of the executing CPU.
    #[inline(always)]
    pub(super) fn enter(&self, count: impl FnOnce(usize)) -> Rank {
        let mut rank = self.current();
        count(rank.begun());
        if !R::LOOK_FIRST {
            rank = self.current();
        }
        if R::ENTER_FENCE {
            // Pairs with the heavy fence in `is_drained`.
            P::fence_light();
        }
        rank
    }

    /// Ends it.
    #[inline(always)]
    pub(super) fn leave(&self, rank: Rank, count: impl FnOnce(usize)) {
        if R::LEAVE_FENCE {
            // Pairs with the heavy fence in `is_drained`.
            P::fence_light();
        }
        let rank = if R::SAME_RANK { rank } else { self.current() };
        count(rank.ended());
    }

    /// The rank in which sections begin at this moment.
    #[inline(always)]
    pub(super) fn current(&self) -> Rank {
        // Relaxed: a reader may use either rank. INVARIANT: only `turn` stores here, a rank's number.
        Rank(self.current.load(Ordering::Relaxed))
    }

    /// The rank that the grace period waits for.
    pub(super) fn awaited(&self) -> Rank {
        self.current().other()
    }

    /// Whether all sections that began in `rank` are over.
    fn is_drained(&self, rank: Rank, sum: &impl Sum) -> bool {
        // What the sums would say without a fence, which interrupts all CPUs: as long as it is no, no more is needed.
        if sum(rank.ended()) != sum(rank.begun()) {
            return false;
        }
        P::chaos_point();
        let ended = if R::ENDS_FIRST { sum(rank.ended()) } else { sum(rank.begun()) };
        // Pairs with the light fences in `enter` and `leave`.
        P::fence_heavy();
        P::chaos_point();
        let begun = if R::ENDS_FIRST { sum(rank.begun()) } else { sum(rank.ended()) };
        ended == begun
    }

    /// Whether both are empty, for the price of one fence.
    fn are_both_drained(&self, sum: &impl Sum) -> bool {
        let ranks = [self.current(), self.awaited()];
        if ranks.iter().any(|rank| sum(rank.ended()) != sum(rank.begun())) {
            return false;
        }
        let ended = ranks.map(|rank| sum(rank.ended()));
        // Pairs with the light fences in `enter` and `leave`.
        P::fence_heavy();
        P::chaos_point();
        ended == ranks.map(|rank| sum(rank.begun()))
    }

    /// Begins a grace period if none runs, and takes it as far as it goes without waiting. Returns whether it has ended.
    ///
    /// One caller at a time, who keeps `phase`.
    pub(super) fn turn(&self, phase: &mut Phase, sum: impl Sum) -> bool {
        if !self.rounds.is_running() {
            self.rounds.start();
            *phase = Phase::First;
            if R::ENDS_FIRST && R::BOTH_RANKS && self.are_both_drained(&sum) {
                self.rounds.end();
                return true;
            }
        }
        if *phase == Phase::First {
            if R::BOTH_RANKS && !self.is_drained(self.awaited(), &sum) {
                return false;
            }
            // Relaxed: see `current`.
            self.current.store(self.awaited().0, Ordering::Relaxed);
            *phase = Phase::Second;
        }
        if !self.is_drained(self.awaited(), &sum) {
            return false;
        }
        self.rounds.end();
        true
    }

    pub(super) fn snapshot(&self) -> Cookie {
        self.rounds.snapshot()
    }

    pub(super) fn done(&self, cookie: Cookie) -> bool {
        self.rounds.done(cookie)
    }
}
