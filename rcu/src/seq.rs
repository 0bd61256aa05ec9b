//! Numbers for rounds, shared by all who wait for one.
//!
//! 1. One number counts the beginnings and ends of rounds. It is odd while a round runs: `start` adds one, `end` adds
//!    one.
//! 2. Who has changed something and wants a *full* round after it takes a [`Cookie`], the number at whose reaching such
//!    a round has ended. If no round runs that is the end of the next one. If one runs it is the end of the one after
//!    it: the running one may have asked a CPU before the change.
//! 3. The round has passed when the number has reached the cookie. Numbers wrap; the comparison is by signed
//!    difference, and right as long as nobody is asked about a cookie that is half the number range old.
//!
//! # What is ordered
//!
//! Call the waiter's change *W*, and what the round does to the CPUs (sending interrupts, reading their states) and
//! what they do in answer *R*; whoever ends the round has collected the answers by acquiring operations.
//!
//! * *W* before [`snapshot`](Sequence::snapshot) is visible to every *R* of the round that the cookie names: a full
//!   fence stands between *W* and the load of the number, and another between the store of the number that starts the
//!   round and *R*. Of two such fences one comes first. If the waiter's did, *R* sees *W*. If the round's did, the
//!   load sees the round running, and the cookie names a later one.
//! * *R* happens before whatever follows [`done`](Sequence::done)` == true`: the end of the round releases, `done`
//!   acquires, and a full fence follows it.
//!
//! # Use
//!
//! Waiters that run the rounds themselves, one of them at a time, the others profiting:
//!
//! ```
//! use rcu::Sequence;
//!
//! static FLUSHES: Sequence = Sequence::new();
//!
//! /// Returns when every CPU has flushed since the call began.
//! fn flush_everywhere(ask_all_cpus_and_wait: impl Fn(), relax: impl Fn()) {
//!     let cookie = FLUSHES.snapshot();
//!     while !FLUSHES.done(cookie) {
//!         if FLUSHES.try_start() {
//!             ask_all_cpus_and_wait();
//!             FLUSHES.end();
//!         } else {
//!             relax(); // somebody else's round is running, which may be the one that counts
//!         }
//!     }
//! }
//!
//! let rounds = std::cell::Cell::new(0);
//! flush_everywhere(|| rounds.set(rounds.get() + 1), std::hint::spin_loop);
//! assert_eq!(rounds.get(), 1);
//! ```

use core::fmt;
use core::marker::PhantomData;

use crate::primitives::{AtomicUsize, Ordering, const_fn, fence};

/// The state bit: a round is running.
const RUNNING: usize = 1;
/// The distance from one round's start to the next one's.
pub(crate) const ROUND: usize = 2;

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
trait Rules {
    /// Added to the number before the state bit is cut off, to get the cookie: at a running round it must carry past
    /// that round's end.
    const AHEAD: usize = ROUND + RUNNING;
    /// Whether the full fences of `snapshot` and `try_start` are executed.
    const FENCES: bool = true;
    /// How `end` stores.
    const END: Ordering = Ordering::Release;
}

/// The protocol as described.
#[derive(Debug)]
enum Sound {}

impl Rules for Sound {}

/// Numbers the rounds of one kind. See the [module](self) for what it orders.
///
/// Linux: `rcu_seq_start`, `rcu_seq_end`, `rcu_seq_snap` and `rcu_seq_done` on a word; here the number has one state
/// bit instead of two.
///
/// All functions may be called in any context. Cost: a load and a full fence; `try_start` one atomic read-modify-write
/// and a full fence.
pub struct Sequence {
    count: Count<Sound>,
}

/// The number at whose reaching a full round has passed since the cookie was taken.
///
/// It belongs to the [`Sequence`] that gave it. Equal cookies wait for the same round.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie(usize);

impl Sequence {
    const_fn! {
        /// A sequence with no round running. It begins 256 rounds before its number wraps, so that the wrap is an
        /// everyday event in every system, and not one that comes after years.
        ///
        /// ```
        /// use rcu::Sequence;
        /// let rounds = Sequence::new();
        /// assert!(!rounds.is_running());
        /// assert_eq!(rounds.completed(), 0);
        /// ```
        pub fn new() -> Sequence {
            Sequence { count: Count::starting_at(0_usize.wrapping_sub(256 * ROUND)) }
        }
    }

    /// Starts a round, if none is running. After `true` the caller asks every CPU, collects the answers, and calls
    /// [`end`](Sequence::end).
    ///
    /// A full memory barrier lies between the start and what follows.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// assert!(rounds.try_start());
    /// assert!(!rounds.try_start(), "somebody drives this round");
    /// rounds.end();
    /// ```
    #[must_use = "who has started a round must end it"]
    #[inline]
    pub fn try_start(&self) -> bool {
        self.count.try_start()
    }

    /// Starts a round, for a sequence whose rounds have one driver.
    ///
    /// # Panics
    /// If a round is running.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// rounds.start();
    /// // Everybody is asked here.
    /// rounds.end();
    /// assert_eq!(rounds.completed(), 1);
    /// ```
    #[track_caller]
    pub fn start(&self) {
        assert!(self.try_start(), "a round was started while one is running; end it first, or use try_start");
    }

    /// Ends the running round. What its participants did, as far as the caller knows of it, is visible to those who
    /// see the round [`done`](Sequence::done).
    ///
    /// # Panics
    /// If no round is running.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// let wanted = rounds.snapshot();
    /// rounds.start();
    /// assert!(!rounds.done(wanted));
    /// rounds.end();
    /// assert!(rounds.done(wanted));
    /// ```
    #[track_caller]
    #[inline]
    pub fn end(&self) {
        assert!(self.is_running(), "a round was ended while none is running");
        self.count.end();
    }

    /// Names the first end of a round that began after this call.
    ///
    /// A full memory barrier: what the caller did before is visible to the participants of that round.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// rounds.start();
    /// let wanted = rounds.snapshot();
    /// rounds.end();
    /// assert!(!rounds.done(wanted), "that one had begun before");
    /// rounds.start();
    /// rounds.end();
    /// assert!(rounds.done(wanted));
    /// ```
    #[inline]
    pub fn snapshot(&self) -> Cookie {
        self.count.snapshot()
    }

    /// Whether the round that `cookie` names has ended.
    ///
    /// If it has, the call is a full memory barrier, and what the round's participants did is visible to what follows.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// let wanted = rounds.snapshot();
    /// assert!(!rounds.done(wanted));
    /// rounds.start();
    /// rounds.end();
    /// assert!(rounds.done(wanted));
    /// ```
    #[inline]
    pub fn done(&self, cookie: Cookie) -> bool {
        self.count.done(cookie)
    }

    /// Whether a round is running, at this moment.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// rounds.start();
    /// assert!(rounds.is_running());
    /// rounds.end();
    /// assert!(!rounds.is_running());
    /// ```
    #[inline]
    pub fn is_running(&self) -> bool {
        self.count.number.load(Ordering::Relaxed) & RUNNING != 0
    }

    /// The number as it stands: see [`running`] and [`has_reached`] for what can be read off it.
    #[inline]
    pub(crate) fn number(&self) -> usize {
        self.count.number.load(Ordering::Relaxed)
    }

    /// How many rounds have ended, modulo half the range of `usize`. For statistics.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// for _ in 0..3 {
    ///     rounds.start();
    ///     rounds.end();
    /// }
    /// assert_eq!(rounds.completed(), 3);
    /// ```
    pub fn completed(&self) -> usize {
        self.count.number.load(Ordering::Relaxed).wrapping_add(256 * ROUND) / ROUND
    }
}

impl Default for Sequence {
    fn default() -> Sequence {
        Sequence::new()
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("completed", &self.completed())
            .field("running", &self.is_running())
            .finish()
    }
}

impl Cookie {
    /// Whether the round that this cookie names comes after the one that `other` names. Both are of one sequence, and
    /// less than a quarter of the range of `usize` rounds apart.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// let before = rounds.snapshot();
    /// rounds.start();
    /// let within = rounds.snapshot(); // the running round is too early for this one
    /// rounds.end();
    /// assert!(within.is_after(before));
    /// assert!(rounds.done(before) && !rounds.done(within));
    /// ```
    pub const fn is_after(self, other: Cookie) -> bool {
        !has_reached(other.0, self.0)
    }

    /// A number that goes up by one from each round's cookies to the next one's, modulo half the range of `usize`: to
    /// spread those who wait over several queues.
    ///
    /// ```
    /// use rcu::Sequence;
    /// let rounds = Sequence::new();
    /// let first = rounds.snapshot();
    /// rounds.start();
    /// let second = rounds.snapshot();
    /// # rounds.end();
    /// assert_eq!(second.index(), first.index().wrapping_add(1));
    /// ```
    #[inline]
    pub const fn index(self) -> usize {
        self.0 / ROUND
    }

    /// What the sequence's number has reached when the round has ended. Even.
    #[inline]
    pub(crate) const fn number(self) -> usize {
        self.0
    }

    /// The cookie of that number.
    #[inline]
    pub(crate) const fn from_number(number: usize) -> Cookie {
        Cookie(number)
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({:#x})", self.0)
    }
}

/// Whether a sequence whose number this is, or was, has a round running.
#[inline]
pub(crate) const fn running(number: usize) -> bool {
    number & RUNNING != 0
}

/// Whether a sequence whose number was one and is the other has ended a round meanwhile.
#[inline]
pub(crate) const fn ended_between(earlier: usize, later: usize) -> bool {
    earlier / ROUND != later / ROUND
}

/// Whether a counter that stands at `number` has reached `target`, by signed difference: right across the wrap.
#[inline]
pub(crate) const fn has_reached(number: usize, target: usize) -> bool {
    number.wrapping_sub(target) as isize >= 0
}

/// The protocol, with rules that models can break.
struct Count<R> {
    /// Twice the number of rounds that ended, plus one while one is running; it wraps.
    number: AtomicUsize,
    rules: PhantomData<fn() -> R>,
}

impl<R: Rules> Count<R> {
    const_fn! {
        fn starting_at(number: usize) -> Count<R> {
            Count { number: AtomicUsize::new(number), rules: PhantomData }
        }
    }

    #[inline]
    fn try_start(&self) -> bool {
        let number = self.number.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `end`; one round's work happens after that of the round before.
        let started = number & RUNNING == 0
            && self
                .number
                .compare_exchange(number, number.wrapping_add(RUNNING), Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if started && R::FENCES {
            // Pairs with the fence in `snapshot`: see "What is ordered".
            fence(Ordering::SeqCst);
        }
        started
    }

    #[inline]
    fn end(&self) {
        // Only the driver changes the number while a round runs, so that a load and a store do.
        let number = self.number.load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `done` and in `try_start`.
        self.number.store(number.wrapping_add(RUNNING), R::END);
    }

    #[inline]
    fn snapshot(&self) -> Cookie {
        if R::FENCES {
            // Pairs with the fence in `try_start`: see "What is ordered".
            fence(Ordering::SeqCst);
        }
        let number = self.number.load(Ordering::Relaxed);
        Cookie(number.wrapping_add(R::AHEAD) & !RUNNING)
    }

    #[inline]
    fn done(&self, cookie: Cookie) -> bool {
        // Acquire: pairs with the Release in `end`.
        if !has_reached(self.number.load(Ordering::Acquire), cookie.0) {
            return false;
        }
        // For callers that order something else against the round, as after `synchronize`.
        fence(Ordering::SeqCst);
        true
    }
}

#[cfg(all(test, not(loom)))]
#[path = "seq_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "seq_models.rs"]
mod models;
