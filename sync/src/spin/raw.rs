//! The lock word: one flag that anybody may grab, and a line for those whom that treats unfairly.
//!
//! In a guest, a virtual CPU that waits may not be running. A lock that is handed to waiters strictly in the order of
//! their arrival is then handed, sooner or later, to one that is not, and everybody else waits until the host runs
//! it again. A lock that whoever runs may grab has no such trouble, but can pass over one waiter without end. So:
//!
//! 1. The flag `locked` is grabbed with one compare-and-swap and released with one store. Waiters watch it and try to
//!    grab it when it is free; who runs, wins.
//! 2. A waiter counts how often it was passed over while it watched. After [`PATIENCE`] times it draws a ticket. While
//!    tickets are out nobody grabs the flag but the waiter whose ticket is served, and tickets are served in order.
//!    The line is empty again within a few critical sections, so that it rarely meets a virtual CPU that does not run.
//!
//! **Fairness**: from the moment its ticket is visible a waiter is passed by those with earlier tickets, and by at most
//! one acquisition of each CPU that had looked at the line before. It draws the ticket at the first look after it was
//! passed over `PATIENCE` times, of which between two looks it counts at most [`MOST_PER_LOOK`]: if there were more
//! then it was not running, and a wait that the host imposed is no reason to stop the CPUs that do run.

use core::marker::PhantomData;

use hal::Platform;

use crate::primitives::{AtomicBool, AtomicU16, Ordering, const_fn};

/// How often a waiter is passed over before it joins the line.
///
/// Large enough that the line is the exception under load (it costs what strict order costs), small enough that the
/// wait it allows, this many critical sections, is far below a millisecond.
const PATIENCE: u32 = 128;

/// How many acquisitions by others a waiter counts between two looks. A waiter that runs looks every few tens of
/// nanoseconds, in which a lock changes hands at most this often.
const MOST_PER_LOOK: u32 = 8;

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(crate) trait Rules {
    /// How `locked` is cleared.
    const UNLOCK: Ordering = Ordering::Release;
    /// Whether the line is looked at before the flag is grabbed.
    const HONOUR_LINE: bool = true;
    /// See [`PATIENCE`].
    const PATIENCE: u32 = PATIENCE;
}

/// The protocol as described.
pub(crate) enum Sound {}

impl Rules for Sound {}

/// A lock without data. The caller sees to it that its CPU is not taken away and that no interrupt wants the lock.
///
/// # Invariants
/// * `locked` is set by whoever finds it clear, who then holds the lock, and is cleared by the holder only.
/// * `served` and `turn` are written by the holder only.
/// * Tickets `served..next` (they wrap) are out. At most 65,535 are, because each waits on a CPU of its own or below
///   an interrupt on one.
pub(crate) struct RawLock<R: Rules = Sound> {
    locked: AtomicBool,
    /// The ticket that the next to join the line will draw.
    next: AtomicU16,
    /// The ticket at the front of the line; equal to `next` when nobody is in line.
    served: AtomicU16,
    /// Counts acquisitions, so that waiters see how many they missed.
    turn: AtomicU16,
    rules: PhantomData<fn() -> R>,
}

impl<R: Rules> RawLock<R> {
    const_fn! {
        /// A lock that nobody holds.
        pub(crate) fn new() -> RawLock<R> {
            RawLock {
                locked: AtomicBool::new(false),
                next: AtomicU16::new(0),
                served: AtomicU16::new(0),
                turn: AtomicU16::new(0),
                rules: PhantomData,
            }
        }
    }

    /// Whether somebody holds the lock, at this moment.
    #[inline]
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Whether somebody waits in line. Two loads, between which the line can move: wrong answers are possible while it
    /// does, and cost one acquisition out of order or one more look.
    #[inline]
    fn has_line(&self) -> bool {
        // Relaxed: fairness depends on these values, exclusion does not.
        self.next.load(Ordering::Relaxed) != self.served.load(Ordering::Relaxed)
    }

    /// Grabs the lock if it is free and nobody waits in line.
    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        (!R::HONOUR_LINE || !self.has_line()) && self.grab()
    }

    /// Grabs the lock if it is free.
    #[inline]
    fn grab(&self) -> bool {
        // Acquire: pairs with the Release in `unlock`; what earlier holders did happened before what this one does.
        if self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        // The holder alone writes `turn`, so a load and a store do. Relaxed: a statistic for waiters.
        self.turn.store(self.turn.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        true
    }

    /// Takes the lock. If it has to be waited for, `before_waiting` runs first, once.
    #[inline]
    pub(crate) fn lock<P: Platform>(&self, before_waiting: impl FnOnce()) {
        if !self.try_lock() {
            before_waiting();
            self.wait::<P>();
        }
    }

    #[cold]
    fn wait<P: Platform>(&self) {
        let mut patience = Patience::new(R::PATIENCE, self.turn.load(Ordering::Relaxed));
        loop {
            P::chaos_point();
            // Look before grabbing: a failed grab takes the cache line away from the holder, a look shares it.
            if !self.is_locked() && self.try_lock() {
                return;
            }
            if patience.is_exhausted(self.turn.load(Ordering::Relaxed)) {
                return self.wait_in_line::<P>();
            }
            P::relax();
        }
    }

    #[cold]
    fn wait_in_line<P: Platform>(&self) {
        // Relaxed: a read-modify-write gives every waiter a ticket of its own whatever its ordering.
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        P::chaos_point();
        // Relaxed: being served is permission to compete with the CPUs that looked before the line formed, no more.
        while self.served.load(Ordering::Relaxed) != ticket {
            P::relax();
        }
        P::chaos_point();
        while self.is_locked() || !self.grab() {
            P::relax();
        }
        P::chaos_point();
        // As the holder. The next in line now watches the flag, which is still set.
        self.served.store(ticket.wrapping_add(1), Ordering::Relaxed);
    }

    /// Gives the lock up.
    ///
    /// # Safety
    /// The caller holds the lock.
    #[inline]
    pub(crate) unsafe fn unlock(&self) {
        // Release: pairs with the Acquire in `grab`; what this holder did happens before what later ones do.
        self.locked.store(false, R::UNLOCK);
    }
}

/// A waiter's count of how often it was passed over.
struct Patience {
    left: u32,
    turn: u16,
}

impl Patience {
    fn new(patience: u32, turn: u16) -> Patience {
        Patience { left: patience, turn }
    }

    /// Takes note of the lock's present turn; whether it is time to join the line.
    fn is_exhausted(&mut self, turn: u16) -> bool {
        let missed = u32::from(turn.wrapping_sub(self.turn));
        self.turn = turn;
        self.left = self.left.saturating_sub(missed.min(MOST_PER_LOOK));
        self.left == 0
    }
}

#[cfg(all(test, not(loom)))]
#[path = "raw_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "raw_models.rs"]
mod models;
