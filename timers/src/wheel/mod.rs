//! The timer wheel: armed timers by the tick at which they are due, in constant time whatever their number.
//!
//! 1. Time ahead is divided into buckets, which are lists: 64 of one tick each, then 64 of 8 ticks, 64 of 64 ticks, and so on
//!    for [`LEVELS`] levels. The further away a time is, the coarser is its bucket.
//! 2. An entry goes into the bucket that ends with its time or after it, and is given back when that comes: never early,
//!    and late by less than the bucket is long, which is less than 8/63 of the time that remained. Most timers are time-outs
//!    that are taken back before they are due, so nobody misses that precision, and **nothing is ever moved from level to
//!    level** for its sake.
//! 3. Who needs more says so: an entry with a *slack* goes into the bucket before, if its own would be too late, and from
//!    there, with less time remaining, into a finer one.
//! 4. When a bucket comes, each entry's own time is looked at. So an entry that is re-armed to a later time stays where it is,
//!    and only its time is changed; it is filed anew when its old bucket comes.
//! 5. A word for each level says which buckets have entries. The next one that does is a rotation and a count of zeros a
//!    level away, and is kept until it is gone: a tick at which nothing is due costs one comparison.
//!
//! # Late by how much
//! If `d` ticks remain when a timer is armed, it is late by less than [`granule`]`(`[`level_of`]`(d))` ticks: not at all up
//! to 63 ticks, by up to 7 from 64 to 504, by up to 63 from 505 to 4,032, and so on. A timer with a slack of `s` ticks is
//! late by at most `s`. A time that has passed is due at the next tick, or at this one if that has not been gone through.
//! What is beyond the [`HORIZON`] is looked at again when the furthest bucket comes. To all that comes what the owner
//! adds by asking late.
//!
//! # Early looks
//! [`next`](Queue::next) is the time of a bucket. If all its entries were re-armed since, there is nothing to give back
//! then. A CPU that is about to sleep for long asks [`settle`](Queue::settle) instead, which looks at those first.

mod entry;
mod geometry;
mod raw;
#[cfg(all(test, not(loom)))]
mod sequences;
#[cfg(all(test, not(loom)))]
mod tests;

use core::ptr::NonNull;

pub use entry::WheelEntry;
pub use geometry::{HORIZON, LEVELS, granule, level_of};

use crate::queue::{Popped, Queue, Taker};

/// Armed entries, in ticks from boot.
///
/// A plain value of about 4.7 KiB, which may be moved, to be kept behind a lock. Linux: `struct timer_base`, without its
/// lock.
///
/// Times that are handed in as the present stay below 2^63; times at which entries are due may be anything.
///
/// Cost: arming, taking out, changing the time, and giving back: constant, apart from what was re-armed and is filed
/// anew when its old bucket comes, once each. No operation looks at other entries than its own and its neighbours in
/// the list.
///
/// ```
/// use core::ptr::NonNull;
/// use timers::queue::{Entry, Queue};
/// use timers::wheel::{Wheel, WheelEntry};
///
/// let mut wheel = Wheel::new();
/// let entry = WheelEntry::new();
/// entry.set_expires(1_000);
///
/// // SAFETY: the entry outlives its stay in the wheel, and does not move.
/// assert!(unsafe { wheel.insert(NonNull::from(&entry), 0) });
/// assert_eq!(wheel.next(), 1_024); // a bucket of 64 ticks: late, but not early
///
/// assert!(wheel.pop_due(1_023).is_none());
/// assert_eq!(wheel.pop_due(1_024), Some(NonNull::from(&entry)));
/// assert!(!entry.is_linked());
/// assert_eq!(wheel.next(), u64::MAX);
/// ```
pub struct Wheel(raw::Raw<geometry::Sound>);

impl Wheel {
    /// An empty wheel.
    ///
    /// ```
    /// use timers::queue::Queue;
    /// use timers::wheel::Wheel;
    /// static EMPTY: std::sync::Mutex<Wheel> = std::sync::Mutex::new(Wheel::new());
    /// assert_eq!(EMPTY.lock().unwrap().next(), u64::MAX);
    /// ```
    pub const fn new() -> Wheel {
        Wheel(raw::Raw::new())
    }

    /// How many times an entry was filed anew: because of its slack, because it was re-armed to a later time, or because
    /// that time was beyond the horizon.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use timers::queue::{Entry, Queue};
    /// use timers::wheel::{Wheel, WheelEntry};
    ///
    /// let (mut wheel, entry) = (Wheel::new(), WheelEntry::new());
    /// entry.set_expires(50);
    /// let at = NonNull::from(&entry);
    /// // SAFETY: the entry outlives its stay in the wheel, and does not move.
    /// unsafe {
    ///     wheel.insert(at, 0);
    ///     wheel.modify(at, 70, 0);
    /// }
    /// assert!(wheel.pop_due(50).is_none(), "its bucket has come, and its time has not");
    /// assert_eq!(wheel.refiled(), 1);
    /// assert_eq!(wheel.pop_due(72), Some(at));
    /// ```
    pub fn refiled(&self) -> u64 {
        self.0.refiled()
    }

    /// Calls `each` with every entry and the level whose bucket it is in, or `None` if that has come and the entry is about to
    /// be given back. For those who look at a machine; takes time for each entry and each bucket.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use timers::queue::{Entry, Queue};
    /// use timers::wheel::{Wheel, WheelEntry};
    ///
    /// let (mut wheel, entry) = (Wheel::new(), WheelEntry::new());
    /// entry.set_expires(100);
    /// // SAFETY: the entry outlives its stay in the wheel, and does not move.
    /// unsafe { wheel.insert(NonNull::from(&entry), 0) };
    /// wheel.for_each(|entry, level| assert_eq!((entry.expires(), level), (100, Some(1))));
    /// ```
    pub fn for_each(&self, each: impl FnMut(&WheelEntry, Option<usize>)) {
        self.0.for_each(each);
    }
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel::new()
    }
}

// SAFETY: `Raw` keeps the addresses of what is in its lists, as its invariants say, and of nothing else. `pop` compares
// with the entry's time.
unsafe impl Queue for Wheel {
    type Entry = WheelEntry;

    #[inline]
    unsafe fn insert(&mut self, entry: NonNull<WheelEntry>, now: u64) -> bool {
        // SAFETY: the same contract.
        unsafe { self.0.insert(entry, now) }
    }

    #[inline(always)]
    unsafe fn insert_at_once(&mut self, entry: NonNull<WheelEntry>, now: u64) -> Option<bool> {
        // SAFETY: the same contract.
        unsafe { self.0.insert_at_once(entry, now) }
    }

    #[inline(always)]
    unsafe fn remove(&mut self, entry: NonNull<WheelEntry>) {
        // SAFETY: the same contract.
        unsafe { self.0.remove(entry) }
    }

    /// To a later time it takes one store to the entry, and nothing else is touched.
    #[inline]
    unsafe fn modify(&mut self, entry: NonNull<WheelEntry>, expires: u64, now: u64) -> bool {
        // SAFETY: the same contract.
        unsafe { self.0.modify(entry, expires, now) }
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn settle(&mut self, now: u64, limit: usize) -> u64 {
        self.0.settle(now, limit)
    }

    #[inline]
    fn pop_due(&mut self, now: u64) -> Option<NonNull<WheelEntry>> {
        self.0.pop_due(now)
    }

    #[inline(always)]
    fn pop_batch(&mut self, now: u64, room: usize, taker: &mut impl Taker<WheelEntry>) -> Popped {
        self.0.pop_batch(now, room, taker)
    }

    fn pop_any(&mut self) -> Option<NonNull<WheelEntry>> {
        self.0.pop_any()
    }

    /// To a later time, if the entry's bucket comes by then; and to the time that it has, which leaves it with the bound that
    /// it was armed with.
    ///
    /// It stays true if the entry is filed anew between the answer and the exchange: it is then filed for `from`, with what
    /// remained at that time, or less, and so within the bound for `to`, which is later.
    #[inline(always)]
    fn may_stay(entry: &WheelEntry, from: u64, to: u64) -> bool {
        to == from || (to > from && entry.comes_by(to))
    }
}
