//! The word that says what a descriptor is doing: claimed, run and claimed again, from several CPUs.
//!
//! One bit says *pending*; above it is the number of executions inside of the function. The step from pending to running is
//! one addition, before the function begins, so that whoever finds the bit set knows that a whole run is still to come.

use crate::primitives::{AtomicU32, Ordering, const_fn};

use super::queue::Sound;

/// It is in a queue, or about to be put into one.
const PENDING: u32 = 1;
/// What each execution that is inside of the function adds.
const RUNNING: u32 = 2;

/// How the word is accessed. A parameter only for the models.
pub(super) trait Rules {
    /// Of the claim.
    const CLAIM: Ordering = Ordering::AcqRel;
    /// Of the step from pending to running.
    const BEGIN: Ordering = Ordering::AcqRel;
    /// Of the end of a run.
    const END: Ordering = Ordering::Release;
    /// The descriptor may be claimed again as soon as its function has begun, and not only when that has ended.
    const BEGIN_FIRST: bool = true;
}

impl Rules for Sound {}

#[derive(Debug)]
pub(super) struct State<R: Rules = Sound> {
    word: AtomicU32,
    _rules: core::marker::PhantomData<fn() -> R>,
}

impl<R: Rules> State<R> {
    const_fn! {
        pub(super) fn new() -> State<R> {
            State { word: AtomicU32::new(0), _rules: core::marker::PhantomData }
        }
    }

    /// Makes it pending. `false` if it is that already: then a run is to come that sees everything done before this call.
    #[inline]
    pub(super) fn claim(&self) -> bool {
        // Acquire pairs with the release of `run`'s first step: who took the entry out of its last queue is done with it.
        // Release pairs with the acquire there, for what this caller did before, whether it is refused or not.
        self.word.fetch_or(PENDING, R::CLAIM) & PENDING == 0
    }

    /// Takes a claim back: nobody has taken the entry.
    pub(super) fn unclaim(&self) {
        // Release pairs with the acquire of the next claim, which writes to the entry after us.
        self.word.fetch_and(!PENDING, Ordering::Release);
    }

    /// Runs `function`, as whoever took the entry out of its queue.
    #[inline]
    pub(super) fn run(&self, function: impl FnOnce()) {
        if !R::BEGIN_FIRST {
            function();
            self.word.store(0, Ordering::Release);
            return;
        }
        // The bit is set, so this clears it and counts us. Release: we are done with the entry, which the next claimer
        // writes to. Acquire: see `claim`.
        self.word.fetch_add(RUNNING - PENDING, R::BEGIN);
        function();
        // Release pairs with the acquire in `is_idle`: nothing of the descriptor is touched after this.
        self.word.fetch_sub(RUNNING, R::END);
    }

    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.word.load(Ordering::Relaxed) & PENDING != 0
    }

    /// Neither pending nor running. If so, everything that the runs did is visible.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        // Acquire pairs with the release at the end of `run`. Runs that ended earlier are covered too: what came after
        // them are read-modify-writes, which continue their release sequences.
        self.word.load(Ordering::Acquire) == 0
    }
}
