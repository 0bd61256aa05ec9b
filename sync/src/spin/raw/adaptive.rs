//! The default lock word: whoever runs may grab the lock, and who was out of luck gets the right of way, while it runs.
//!
//! In a guest, a virtual CPU that waits may not be running. A lock that is handed to waiters strictly in the order of
//! their arrival is then handed, sooner or later, to one that is not, and everybody waits until the host runs it again.
//! A lock that anybody may grab has no such trouble, but can pass over one waiter without end. So:
//!
//! 1. The flag `locked` is grabbed with one compare-and-swap and released with one store. Waiters watch it and try to
//!    grab it when it is free; who runs, wins.
//! 2. Between two looks a waiter pauses, each time twice as long, up to [`LONGEST_PAUSE`]. Each look takes the cache line
//!    away from who works with it, so that few looks are most of the throughput: the lock then stays in one cache for
//!    some acquisitions.
//! 3. A waiter that has looked [`PATIENCE`] times in vain joins a **line**: it draws a ticket, and looks after every
//!    pause from then on. While there is a line, nobody grabs the flag but the waiter whose ticket is at the front. Looks
//!    and not nanoseconds are counted, so that a wait that the host imposed by not running the waiter is no reason to
//!    stop the CPUs that do run.
//! 4. Who finds the lock free and another at the front of the line, [`ABSENT_AFTER`] times in a row, concludes that
//!    the one at the front is not running, and **skips** its ticket. Who was skipped notices as soon as it runs
//!    again, and joins the line anew, at the end.
//!
//! So a waiter that is not running costs the others `ABSENT_AFTER` looks, once for each time that it was taken off its
//! CPU while in line, instead of the host's time slice for each acquisition.
//!
//! **Fairness.** From the moment a waiter has its ticket, each other CPU gets the lock at most once before it: those who
//! are ahead in line, and those who had looked at the line before and were about to grab. It joins the line at its
//! `PATIENCE`-th look, if fewer than 255 are in line. It can lose its place, and take another at the end, if during
//! `ABSENT_AFTER` looks of another waiter, all of which found the lock free, it did not grab it.
//!
//! Tickets are numbered modulo 256. Who is away while 256 others draw theirs may find its number in line again, and so
//! take part in somebody else's turn. That costs one of the two its place, and nothing else: exclusion is the flag's.

use core::marker::PhantomData;

use hal::Platform;

use super::{RawSpin, declare_unlocked};
use crate::primitives::{AtomicBool, AtomicU16, Ordering};

/// How many looks a waiter takes before it joins the line.
///
/// Large enough that the line is the exception under load, because a lock that goes along a line travels from cache to
/// cache each time; small enough that the wait is some microseconds. Pauses of 1, 2, 4, 8, 16 and then 32 turns come to
/// 383 turns, about ten microseconds where `pause` takes 30 ns.
const PATIENCE: u32 = 16;

/// The most turns of [`Platform::relax`] between two looks of a waiter that is not in line. A power of two.
const LONGEST_PAUSE: u32 = 32;

/// How many times in a row a waiter finds the lock free, and not its turn, before it skips who is at the front.
///
/// One who runs grabs a free lock within a look or two of its own.
const ABSENT_AFTER: u32 = 16;

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(super) trait Rules: Send + Sync + 'static {
    /// How `locked` is cleared.
    const UNLOCK: Ordering = Ordering::Release;
    /// Whether the line is looked at before the flag is grabbed.
    const HONOUR_LINE: bool = true;
    /// Whether who was skipped notices, and joins the line anew.
    const NOTICE_SKIP: bool = true;
    /// See [`PATIENCE`].
    const PATIENCE: u32 = PATIENCE;
    /// See [`LONGEST_PAUSE`].
    const LONGEST_PAUSE: u32 = LONGEST_PAUSE;
    /// See [`ABSENT_AFTER`].
    const ABSENT_AFTER: u32 = ABSENT_AFTER;
}

/// The protocol as described.
#[derive(Debug)]
pub enum Sound {}

impl Rules for Sound {}

/// The lock word of the flavours [`Task`](crate::Task), [`BottomHalf`](crate::BottomHalf) and [`Irq`](crate::Irq): does
/// not wait for virtual CPUs that are not running, and is fair to those that are. [The module](super) compares it.
///
/// **Fairness**: a waiter that has looked at the lock 16 times in vain, which takes about ten microseconds, has the right
/// of way from then on: each other CPU gets the lock at most once before it. It loses its place, and takes another at
/// the end, if it does not grab the free lock during 16 looks of another waiter, because then it is not running.
/// Beyond 255 waiters with the right of way at one time, the others compete.
///
/// Linux: none of its locks; the queued one has strict order, and variants of it for hypervisors that can halt a waiter.
/// Cost: uncontended one compare-and-swap, and one store to give up.
///
/// ```
/// use sync::spin::raw::{AdaptiveLock, RawSpin};
/// let raw = AdaptiveLock::UNLOCKED;
/// assert!(raw.try_lock() && !raw.try_lock());
/// // SAFETY: taken just now.
/// unsafe { raw.unlock() };
/// assert!(raw.try_lock());
/// ```
pub type AdaptiveLock = Word<Sound>;

/// The word itself; its rules are a parameter for the sake of models.
///
/// # Invariants
/// * `locked` is set by whoever finds it clear, who then holds the lock, and is cleared by the holder only.
/// * Exclusion depends on `locked` alone. `line` decides who tries to set it, and any value in it would be safe.
#[derive(Debug)]
#[expect(private_bounds, reason = "models break the rules, users cannot")]
pub struct Word<R: Rules> {
    locked: AtomicBool,
    line: AtomicU16,
    rules: PhantomData<fn() -> R>,
}

// SAFETY: by the invariant the lock is held by who set `locked` with a compare-and-swap, which one can at a time, and
// which is an Acquire operation; it is cleared by a Release store.
unsafe impl<R: Rules> RawSpin for Word<R> {
    declare_unlocked!(Word {
        locked: AtomicBool::new(false),
        line: AtomicU16::new(Line::EMPTY.0),
        rules: PhantomData,
    });

    #[inline]
    fn lock<P: Platform>(&self, mut pause: impl FnMut(u32)) {
        if !self.try_lock() {
            self.wait::<P>(R::PATIENCE, |looks| {
                pause(looks);
                true
            });
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        (!R::HONOUR_LINE || self.line().is_empty()) && self.grab()
    }

    #[inline]
    fn lock_while<P: Platform>(&self, pause: impl FnMut(u32) -> bool) -> bool {
        // Who may give up does not join the line: its ticket would have to be skipped. But it skips others', so that
        // it does not wait for one that is not running.
        self.try_lock() || self.wait::<P>(u32::MAX, pause)
    }

    #[inline]
    unsafe fn unlock(&self) {
        // Release: pairs with the Acquire in `grab`; what this holder did happens before what later ones do.
        self.locked.store(false, R::UNLOCK);
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
}

#[expect(private_bounds, reason = "models break the rules, users cannot")]
impl<R: Rules> Word<R> {
    #[inline]
    fn line(&self) -> Line {
        // Relaxed: fairness depends on this value, exclusion does not.
        Line(self.line.load(Ordering::Relaxed))
    }

    /// Replaces the line if it still is as it was read.
    fn change_line(&self, from: Line, to: Line) -> bool {
        self.line.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Grabs the lock if it is free.
    #[inline]
    fn grab(&self) -> bool {
        // Acquire: pairs with the Release in `unlock`; what earlier holders did happened before what this one does.
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Waits, as long as `pause` says so; returns whether the lock was taken.
    #[cold]
    fn wait<P: Platform>(&self, patience: u32, mut pause: impl FnMut(u32) -> bool) -> bool {
        let mut waiter = Waiter::<R>::new(patience);
        let mut turns = 0_u32;
        loop {
            P::chaos_point();
            // Look before grabbing: a failed grab takes the cache line away from the holder, a look shares it.
            let line = self.line();
            match waiter.look(line, self.is_locked()) {
                Step::Grab => {
                    if self.grab() {
                        P::chaos_point();
                        self.leave_line(&waiter);
                        return true;
                    }
                }
                Step::ChangeLine(to, ticket) => {
                    if self.change_line(line, to) {
                        waiter.line_changed(ticket);
                    }
                    P::chaos_point();
                    continue;
                }
                Step::Wait => (),
            }
            for _ in 0..waiter.pause() {
                if !pause(turns) {
                    return false;
                }
                turns = turns.wrapping_add(1);
            }
        }
    }

    /// As the holder. The next in line now watches the flag, which is still set.
    fn leave_line(&self, waiter: &Waiter<R>) {
        let Some(ticket) = waiter.ticket else { return };
        loop {
            let line = self.line();
            // Somebody may skip the ticket just now: then there is nothing to do.
            if !line.is_in_front(ticket) || self.change_line(line, line.advanced()) {
                return;
            }
        }
    }
}

/// The line, as one value: how many are in line in the low byte, the number at its front in the high byte. Tickets are
/// numbered modulo 256.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Line(u16);

impl Line {
    const EMPTY: Line = Line(0);

    /// The number at the front, if there is a line.
    const fn front(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// How many are in line.
    const fn len(self) -> u8 {
        self.0 as u8
    }

    /// The number that the next to join draws.
    const fn next(self) -> u8 {
        self.front().wrapping_add(self.len())
    }

    const fn of(front: u8, len: u8) -> Line {
        Line((front as u16) << 8 | len as u16)
    }

    /// One test of a byte, because everybody who wants the lock looks here first.
    #[inline]
    const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `ticket` is in line.
    const fn contains(self, ticket: u8) -> bool {
        ticket.wrapping_sub(self.front()) < self.len()
    }

    const fn is_in_front(self, ticket: u8) -> bool {
        ticket == self.front() && !self.is_empty()
    }

    /// The line, which is not empty, without its front.
    const fn advanced(self) -> Line {
        Line::of(self.front().wrapping_add(1), self.len() - 1)
    }

    /// The line, which is not full, with one more at its end.
    const fn joined(self) -> Line {
        Line::of(self.front(), self.len() + 1)
    }
}

/// What a waiter does after a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Tries to grab the lock.
    Grab,
    /// Tries to change the line into this one, in which its ticket is that one.
    ChangeLine(Line, Option<u8>),
    /// Pauses.
    Wait,
}

/// One waiter's side of the protocol: a plain value that is told what was seen and says what to do.
#[derive(Debug)]
struct Waiter<R> {
    /// Looks so far, after which it paused.
    looks: u32,
    /// How many turns the next pause takes, out of line.
    turns: u32,
    /// After how many of them it joins the line.
    patience: u32,
    /// Its place, while it is in line or does not know yet that it was skipped.
    ticket: Option<u8>,
    /// Whose turn it was when the lock was last found free, and how many times in a row.
    seen_free: (u8, u32),
    rules: PhantomData<fn() -> R>,
}

impl<R: Rules> Waiter<R> {
    fn new(patience: u32) -> Waiter<R> {
        Waiter { looks: 0, turns: 1, patience, ticket: None, seen_free: (0, 0), rules: PhantomData }
    }

    /// One look at the lock.
    fn look(&mut self, line: Line, locked: bool) -> Step {
        if R::NOTICE_SKIP && self.ticket.is_some_and(|ticket| !line.contains(ticket)) {
            self.ticket = None;
        }
        if locked {
            self.seen_free.1 = 0;
        } else {
            let is_my_turn = self.ticket.is_some_and(|ticket| line.is_in_front(ticket));
            if is_my_turn || line.is_empty() || !R::HONOUR_LINE {
                return Step::Grab;
            }
            let (front, times) = self.seen_free;
            self.seen_free = if front == line.front() { (front, times + 1) } else { (line.front(), 1) };
            if self.seen_free.1 >= R::ABSENT_AFTER {
                return Step::ChangeLine(line.advanced(), self.ticket);
            }
        }
        if self.ticket.is_none() && self.looks >= self.patience && line.len() < u8::MAX {
            return Step::ChangeLine(line.joined(), Some(line.next()));
        }
        Step::Wait
    }

    /// How many turns to pause before the next look.
    fn pause(&mut self) -> u32 {
        self.looks = self.looks.saturating_add(1);
        if self.ticket.is_some() {
            return 1;
        }
        let turns = self.turns;
        self.turns = (2 * turns).min(R::LONGEST_PAUSE);
        turns
    }

    /// The line was changed as the last look said.
    fn line_changed(&mut self, ticket: Option<u8>) {
        self.ticket = ticket;
        self.seen_free.1 = 0;
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "adaptive_tests.rs"]
mod tests;

#[cfg(all(test, any(loom, shuttle)))]
#[path = "adaptive_models.rs"]
mod models;
