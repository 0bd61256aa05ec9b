//! What keeps armed timers in order: the part that coarse and high-resolution timers do not have in common.
//!
//! 1. A queue is a plain value under its owner's lock. It is told what time it is, and reads no clock.
//! 2. Its entries are fields of the timers, so that arming allocates nothing and cannot fail.
//! 3. It gives entries back one at a time, when they are due. What that means (calling a function, with the lock let go)
//!    is its owner's business.

use core::ptr::NonNull;

use crate::Ticks;
use crate::hr::HrQueue;
use crate::primitives::AtomicU64;
use crate::wheel::Wheel;

/// Armed entries by time.
///
/// Times are in the queue's unit, counted from boot, and never go back: ticks for the
/// wheel, nanoseconds for high-resolution timers.
///
/// # Safety
/// An implementer keeps an entry's address from [`insert`](Queue::insert) until [`remove`](Queue::remove),
/// [`pop_due`](Queue::pop_due) or [`pop_any`](Queue::pop_any) has given it up, and no longer. After that it does not touch
/// the entry. `pop_due` returns no entry before its time. [`pop_batch`](Queue::pop_batch) numbers its entries as it says.
pub unsafe trait Queue: Send + Sized + 'static {
    /// The links of one timer.
    type Entry: Entry;

    /// Adds an entry that is due at `entry.expires()`, which may have passed. Returns whether [`next`](Queue::next) is
    /// earlier than before.
    ///
    /// # Safety
    /// The entry is in no queue, and neither moves nor ends before it has left this one. `now` is not behind an earlier one.
    unsafe fn insert(&mut self, entry: NonNull<Self::Entry>, now: u64) -> bool;

    /// The same, unless it takes more steps than for most entries: then `None`, and nothing has happened.
    ///
    /// # Safety
    /// As for [`insert`](Queue::insert).
    #[inline(always)]
    unsafe fn insert_at_once(&mut self, entry: NonNull<Self::Entry>, now: u64) -> Option<bool> {
        // SAFETY: by the contract.
        Some(unsafe { self.insert(entry, now) })
    }

    /// Takes an entry out.
    ///
    /// # Safety
    /// The entry is in this queue.
    unsafe fn remove(&mut self, entry: NonNull<Self::Entry>);

    /// Changes when an entry is due. Returns whether [`next`](Queue::next) is earlier than before.
    ///
    /// # Safety
    /// The entry is in this queue. `now` is not behind an earlier one.
    unsafe fn modify(&mut self, entry: NonNull<Self::Entry>, expires: u64, now: u64) -> bool {
        // SAFETY: by the contract.
        unsafe {
            self.remove(entry);
            entry.as_ref().set_expires(expires);
            self.insert(entry, now)
        }
    }

    /// The earliest time at which [`pop_due`](Queue::pop_due) has something to do; `u64::MAX` if the queue is empty. It may
    /// then find nothing that is due, but never finds anything before.
    fn next(&mut self) -> u64;

    /// As [`next`](Queue::next), but does up to `limit` entries' worth of work to find out whether it really is so: what a
    /// CPU asks that is about to sleep until then, and would wake up for nothing. `now` is not behind an earlier one.
    fn settle(&mut self, _now: u64, _limit: usize) -> u64 {
        self.next()
    }

    /// Takes an entry out that is due at `now`, if there is one. The caller asks again until there is none.
    fn pop_due(&mut self, now: u64) -> Option<NonNull<Self::Entry>>;

    /// Takes out up to `room` entries that are due at `now`, as [`pop_due`](Queue::pop_due) would, and hands each to `taker`,
    /// which says whether the time that it reads then is still due: one whose time was changed without the lock meanwhile
    /// goes where it belongs. The bound holds for both together, so that the lock is held for a bounded time.
    ///
    /// With each comes a number, which is noted in it ([`Entry::set_slot`]): how much room there is for it and those behind it,
    /// from `room` down to 1.
    fn pop_batch(&mut self, now: u64, room: usize, taker: &mut impl Taker<Self::Entry>) -> Popped {
        for slot in (1..=room).rev() {
            let Some(entry) = self.pop_due(now) else { return Popped { all: true, room: slot } };
            // SAFETY: it was in this queue until now.
            unsafe { entry.as_ref() }.set_slot(slot);
            if !taker.take_alike(entry, slot) && !taker.take_other(entry, slot) {
                // SAFETY: as above.
                unsafe { self.insert(entry, now) };
            }
        }
        Popped { all: false, room: 0 }
    }

    /// Whether entries are due at `now`, for who has a shorter way for a single one: that is taken out, as
    /// [`pop_due`](Queue::pop_due) would do it. A queue says [`Perhaps`](DueNow::Perhaps) without a look if its entries are
    /// usually due together, or have times that change without its lock.
    #[inline(always)]
    fn pop_single(&mut self, _now: u64) -> DueNow<Self::Entry> {
        DueNow::Perhaps
    }

    /// Takes any entry out, with its time unchanged: to move all of them elsewhere.
    fn pop_any(&mut self) -> Option<NonNull<Self::Entry>>;

    /// Whether an entry of this kind that is linked and due at `from` may stay where it is when that changes to `to`: the
    /// queue then gives it back no later than if it were taken out and put in again, as far as it promises, and not before
    /// `to`. If so, and the entry has an [`expires_word`](Entry::expires_word), the change may be made without the lock,
    /// at any moment, by an exchange of that word. Only for queues that look at the time of each entry before they give
    /// it back.
    #[inline(always)]
    fn may_stay(_entry: &Self::Entry, from: u64, to: u64) -> bool {
        from == to
    }
}

/// Who gets what [`Queue::pop_batch`] takes out, with its number.
pub trait Taker<E> {
    /// Takes an entry if it is like those before it, and else leaves it to [`take_other`](Taker::take_other). The queue's loop has
    /// this in it, so nothing should be called here: then all that the loop needs is in registers.
    fn take_alike(&mut self, entry: NonNull<E>, number: usize) -> bool;

    /// Takes an entry that is different; returns `false` if it is not due, and was not taken.
    fn take_other(&mut self, entry: NonNull<E>, number: usize) -> bool;
}

/// How far [`Queue::pop_batch`] got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Popped {
    /// Nothing that is due is left.
    pub all: bool,
    /// How much room is left.
    pub room: usize,
}

/// What [`Queue::pop_single`] has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DueNow<E> {
    /// Nothing is due.
    Nothing,
    /// This one was, and was taken out. Nothing else is.
    Single(NonNull<E>),
    /// Nothing was taken out. [`Queue::pop_batch`] knows what is due.
    Perhaps,
}

/// What a queue's times are to those who write them down.
pub trait Unit: Queue {
    /// [`Ticks`], or nanoseconds.
    type Time: Copy + From<u64> + Into<u64>;
}

impl Unit for Wheel {
    type Time = Ticks;
}

impl Unit for HrQueue {
    type Time = u64;
}

impl From<u64> for Ticks {
    fn from(count: u64) -> Ticks {
        Ticks(count)
    }
}

impl From<Ticks> for u64 {
    fn from(ticks: Ticks) -> u64 {
        ticks.0
    }
}

/// What a queue asks of its entries. All of it may be read at any time without the queue's lock, and is then out of date
/// at once; it is written under the lock of the queue that the entry is in.
pub trait Entry: Sized {
    /// When it is due.
    fn expires(&self) -> u64;

    /// Changes that, for an entry that is in no queue.
    fn set_expires(&self, expires: u64);

    /// How much later than `expires` it may be given back, at most, if that is less than what the queue does by itself.
    fn set_slack(&self, slack: u64);

    /// Whether it is in a queue.
    fn is_linked(&self) -> bool;

    /// Notes a number, of a few bits, in an entry that is in no queue. The next queue that it comes to may overwrite it.
    fn set_slot(&self, slot: usize);

    /// The number that was noted last, if the entry has been in no queue since; otherwise any number.
    fn slot(&self) -> usize;

    /// The word in which it keeps `expires`, for changes without the lock; `None` if there are none. While the entry is
    /// linked, whoever changes it without the lock does so by an exchange that [`Queue::may_stay`] allows; whoever holds
    /// the lock stores.
    #[inline(always)]
    fn expires_word(&self) -> Option<&AtomicU64> {
        None
    }
}
