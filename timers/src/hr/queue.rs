//! The queue: a leftist heap whose entries are fields of the timers.
//!
//! 1. **The earliest is the root.** What hangs below an entry is not due before it. Each entry has at most two others
//!    below, and knows the one above, so that any entry can be taken out without a search.
//! 2. **Everything is melding.** Two heaps are melded by walking down both along their right sides, the earlier entry first.
//!    An entry that is added is a heap of one; one that is taken out leaves two heaps behind, which are melded in its
//!    place.
//! 3. **The right side is short.** The *rank* of a heap is the number of entries on the shortest way down to a free place.
//!    Where the right one of two has the greater rank they change places. So the way down along the right is a shortest one,
//!    and since a heap of rank r has at least 2^r - 1 entries, it is no longer than log2(n + 1): 16 steps for 100,000
//!    timers. That is a bound for each single operation: no long one pays for many short ones, which matters with
//!    interrupts off.
//! 4. **Ranks are kept in the links**, beside the address of what they describe, so that putting them right on the way up
//!    touches no entry but those on the way. Four bits are enough: a rank of 15 means "at least 15", which adds a step for
//!    each 16,384 timers.
//!
//! A timer that is added later than the others, which is the usual timeout, is put in place in two or three steps whatever
//! the number of timers. Entries of equal time come out in any order.
//!
//! The order is that of `expires`. So whatever has expired is at the top, and all of it is given back together. Slack
//! matters for [`next`](Queue::next) alone: the moment by which the first one has to be given back.

use core::hint::select_unpredictable as select;
use core::ptr::NonNull;

use super::entry::{At, HrEntry, LEFT, Link, MOST_RANK, RIGHT};
use crate::queue::{DueNow, Entry, Queue};

/// How many entries [`Queue::next`] looks at, to put as many as possible into one interrupt. With more whose slack begins
/// before any other's ends it settles for the moment at which the next one of them may run.
const LOOKS: u32 = 16;

/// High-resolution timers of one CPU, by time in nanoseconds.
///
/// A plain value under its owner's lock. Linux: `timerqueue_head`, an rbtree.
///
/// Cost: [`insert`](Queue::insert) and [`remove`](Queue::remove) O(log n), the bound is in the worst case;
/// [`next`](Queue::next) O(1), [`pop_due`](Queue::pop_due) O(1) if nothing is due, else as `remove`.
///
/// ```
/// use core::ptr::NonNull;
/// use timers::hr::{HrEntry, HrQueue};
/// use timers::queue::{Entry, Queue};
///
/// let (soon, late) = (HrEntry::new(1_000), HrEntry::new(1_000_000));
/// let mut queue = HrQueue::new();
/// // SAFETY: both stay in place until they are out of the queue.
/// unsafe {
///     assert!(queue.insert(NonNull::from(&late), 0));
///     assert!(queue.insert(NonNull::from(&soon), 0));
/// }
/// assert_eq!(queue.next(), 1_000);
/// assert!(queue.pop_due(999).is_none());
/// assert_eq!(queue.pop_due(1_000), Some(NonNull::from(&soon)));
/// // SAFETY: it is in the queue.
/// unsafe { queue.remove(NonNull::from(&late)) };
/// assert_eq!(queue.next(), u64::MAX);
/// ```
///
/// # Invariants
/// * **H1, order**: no entry expires before the one above it.
/// * **H2, ranks**: a link's rank is 0 if it leads nowhere, else one more than the lesser rank of the two links below,
///   but at most 15. The right one's is not the greater.
/// * **H3, next**: `next` is not later than any entry's `expires + slack`, and unless `stale`, it is what `search` says.
#[derive(Debug)]
pub struct HrQueue {
    root: Link,
    next: u64,
    /// Something was taken out that may have been the reason for `next`.
    stale: bool,
}

impl HrQueue {
    /// An empty queue.
    ///
    /// ```
    /// use timers::hr::HrQueue;
    /// use timers::queue::Queue;
    /// let mut queue = HrQueue::new();
    /// assert_eq!((queue.next(), queue.first_expiry()), (u64::MAX, u64::MAX));
    /// ```
    pub const fn new() -> HrQueue {
        HrQueue { root: Link::NONE, next: u64::MAX, stale: false }
    }

    /// Whether nothing is in it.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use timers::hr::{HrEntry, HrQueue};
    /// use timers::queue::Queue;
    ///
    /// let (mut queue, entry) = (HrQueue::new(), HrEntry::new(1_000));
    /// assert!(queue.is_empty());
    /// // SAFETY: the entry outlives its stay in the queue, and does not move.
    /// unsafe { queue.insert(NonNull::from(&entry), 0) };
    /// assert!(!queue.is_empty());
    /// queue.pop_any();
    /// ```
    pub fn is_empty(&self) -> bool {
        self.root.at().is_none()
    }

    /// How many entries are in it. For those who look at a machine: a step for each.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use timers::hr::{HrEntry, HrQueue};
    /// use timers::queue::Queue;
    ///
    /// let (mut queue, entries) = (HrQueue::new(), [3, 1, 2, 2, 9].map(HrEntry::new));
    /// for entry in &entries {
    ///     // SAFETY: the entries outlive the queue, and do not move.
    ///     unsafe { queue.insert(NonNull::from(entry), 0) };
    /// }
    /// assert_eq!(queue.len(), 5);
    /// ```
    pub fn len(&self) -> usize {
        let Some(root) = self.root.at() else { return 0 };
        // Along the links, without recursion: the left side may be as long as there are entries.
        let (mut count, mut at, mut from) = (1, root, None);
        loop {
            let (left, right) = (at.below(LEFT).at(), at.below(RIGHT).at());
            let down = match from {
                None => left.or(right),
                Some(child) if Some(child) == left => right,
                Some(_) => None,
            };
            if let Some(below) = down {
                count += 1;
                (at, from) = (below, None);
            } else {
                let Some(up) = at.up() else { return count };
                (at, from) = (up, Some(at));
            }
        }
    }

    /// The time of the entry that expires first, `u64::MAX` if there is none: what is due at all is due from then on.
    /// At or before [`next`](Queue::next). O(1).
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use timers::hr::{HrEntry, HrQueue};
    /// use timers::queue::{Entry, Queue};
    ///
    /// let (mut queue, entry) = (HrQueue::new(), HrEntry::new(1_000));
    /// entry.set_slack(10_000);
    /// // SAFETY: the entry outlives its stay in the queue, and does not move.
    /// unsafe { queue.insert(NonNull::from(&entry), 0) };
    /// assert_eq!((queue.first_expiry(), queue.next()), (1_000, 9_192));
    /// queue.pop_any();
    /// ```
    #[inline]
    pub fn first_expiry(&self) -> u64 {
        self.root.at().map_or(u64::MAX, At::expires)
    }

    /// Puts `link` in the place of `old`, below `up`.
    #[inline(always)]
    fn hang(&mut self, up: Option<At>, old: At, link: Link) {
        let Some(up) = up else {
            self.root = link;
            return;
        };
        if self.replace(up, old, link) && !broken(Twin::RanksKept) {
            self.climb(up);
        }
    }

    /// Makes `link` the one below `up` that leads or led to `old`. Returns whether that may change the rank of `up`: on the
    /// left it does not unless it becomes the lesser one.
    #[inline(always)]
    fn replace(&self, up: At, old: At, link: Link) -> bool {
        let right = up.below(RIGHT);
        if right.at() == Some(old) {
            up.set_below(RIGHT, link);
            right.rank() != link.rank()
        } else {
            up.set_below(LEFT, link);
            link.rank() < right.rank()
        }
    }

    /// Makes H2 true again from `at` upwards, below which it is true. At most log2(n + 1) steps: each goes to an entry of
    /// another rank.
    #[inline(never)]
    fn climb(&mut self, mut at: At) {
        loop {
            let link = settle(at);
            let Some(up) = at.up() else {
                self.root = link;
                return;
            };
            if !self.replace(up, at, link) {
                return;
            }
            at = up;
        }
    }

    /// An entry has come: returns whether `next` is earlier for it.
    #[inline(always)]
    fn note(&mut self, at: At) -> bool {
        // Most are not, whatever their slack.
        if at.expires() >= self.next {
            return false;
        }
        let latest = at.entry().latest();
        let earlier = latest < self.next && !broken(Twin::NextNotLowered);
        if earlier {
            self.next = latest;
        }
        earlier
    }

    /// Takes out an entry that is in it.
    #[inline(always)]
    fn take(&mut self, at: At) {
        debug_assert!(at.entry().is_linked(), "hr: an entry was removed that is in no queue");
        // Only one that expires until then can be the reason.
        self.stale |= at.expires() <= self.next && !broken(Twin::NextKept);
        let up = at.up();
        let (left, right) = (at.below(LEFT), at.below(RIGHT));
        at.unlink();
        let rest = match (left.at(), right.at()) {
            (Some(_), Some(_)) => meld(left, right, up),
            (only, _) => {
                // With nothing on the left there is nothing on the right (H2).
                if let Some(only) = only {
                    only.set_up(up);
                }
                left
            }
        };
        self.hang(up, at, rest);
    }

    /// The least `expires + slack`, or something before it that is the `expires` of an entry.
    fn search(&self) -> u64 {
        let Some(root) = self.root.at() else { return u64::MAX };
        let (mut least, mut looks) = (root.entry().latest(), LOOKS);
        // All entries, the upper ones first, without those below one that expires too late to matter.
        let (mut at, mut from) = (root, None);
        loop {
            let (left, right) = (at.below(LEFT).at(), at.below(RIGHT).at());
            let candidates = match from {
                None => [left, right],
                Some(child) if Some(child) == left => [right, None],
                Some(_) => [None, None],
            };
            let down = candidates.into_iter().flatten().find(|below| below.expires() < least);
            if let Some(below) = down {
                if looks == 0 {
                    least = below.expires();
                } else {
                    looks -= 1;
                    least = least.min(below.entry().latest());
                }
                (at, from) = (below, None);
            } else {
                let Some(up) = at.up() else { return least };
                (at, from) = (up, Some(at));
            }
        }
    }
}

impl Default for HrQueue {
    fn default() -> HrQueue {
        HrQueue::new()
    }
}

/// Makes H2 true for the links of `at`, and returns the link to it. Which side is the greater one is anybody's guess, so
/// both are stored without asking.
#[inline(always)]
fn settle(at: At) -> Link {
    let (left, right) = (at.below(LEFT), at.below(RIGHT));
    let swap = left.rank() < right.rank();
    let greater = select(swap, right, left);
    let lesser = select(swap, left, right);
    at.set_below(LEFT, greater);
    at.set_below(RIGHT, lesser);
    Link::new(at, (lesser.rank() + 1).min(MOST_RANK))
}

/// Melds two heaps, neither of which is empty, into one below `up`, and returns the link to it.
///
/// Each step of the way down takes the earlier of two entries, which nobody can predict. So it is done by selection, and
/// both links are stored whether they change or not: their cache lines are at hand.
#[inline(never)]
fn meld(a: Link, b: Link, up: Option<At>) -> Link {
    let (Some(first), Some(second)) = (a.at(), b.at()) else { unreachable!("both have entries") };
    let swap = second.expires() < first.expires();
    let root = select(swap, second, first);
    let mut rest = (select(swap, a, b), select(swap, first, second));
    root.set_up(up);
    let mut at = root;
    // Down: `rest` belongs somewhere below `at`, on the right.
    loop {
        let link = at.below(RIGHT);
        let Some(next) = link.at() else { break };
        let swap = rest.1.expires() < next.expires() && !broken(Twin::MeldedBlindly);
        let earlier = select(swap, rest.1, next);
        at.set_below(RIGHT, select(swap, rest.0, link));
        rest = (select(swap, link, rest.0), select(swap, next, rest.1));
        earlier.set_up(Some(at));
        at = earlier;
    }
    at.set_below(RIGHT, rest.0);
    rest.1.set_up(Some(at));
    // Up: each of them was reached by its parent's right link.
    loop {
        let link = settle(at);
        if at == root {
            return link;
        }
        let Some(above) = at.up() else { unreachable!("the root is above") };
        above.set_below(RIGHT, link);
        at = above;
    }
}

// SAFETY: it keeps addresses in its links only, from `insert` on; `take` removes the entry from its neighbours' links, and
// `pop_due`, `pop_single` and `pop_any` call it for what they return. The former two compare.
unsafe impl Queue for HrQueue {
    type Entry = HrEntry;

    unsafe fn insert(&mut self, entry: NonNull<HrEntry>, now: u64) -> bool {
        // SAFETY: the same contract.
        matches!(unsafe { self.insert_at_once(entry, now) }, Some(true))
    }

    /// No entry takes long.
    #[inline(always)]
    unsafe fn insert_at_once(&mut self, entry: NonNull<HrEntry>, _now: u64) -> Option<bool> {
        // SAFETY: the contract is `At`'s invariant.
        let at = unsafe { At::new(entry) };
        debug_assert!(!at.entry().is_linked(), "hr: an entry was added that is in a queue");
        let expires = at.expires();
        at.set_below(RIGHT, Link::NONE);
        match self.root.at() {
            Some(root) if root.expires() <= expires => {
                let mut above = root;
                let below = loop {
                    let right = above.below(RIGHT);
                    match right.at() {
                        Some(next) if next.expires() <= expires => above = next,
                        _ => break right,
                    }
                };
                at.set_below(LEFT, below);
                at.set_up(Some(above));
                if let Some(below) = below.at() {
                    below.set_up(Some(at));
                } else if above.below(LEFT).at().is_none() {
                    // Nothing below it yet: on the left no rank changes.
                    above.set_below(LEFT, Link::new(at, 1));
                    return Some(self.note(at));
                }
                above.set_below(RIGHT, Link::new(at, 1));
                if below.rank() != 1 {
                    self.climb(above);
                }
            }
            earliest => {
                at.set_below(LEFT, self.root);
                at.set_up(None);
                if let Some(below) = earliest {
                    below.set_up(Some(at));
                }
                self.root = Link::new(at, 1);
            }
        }
        Some(self.note(at))
    }

    #[inline]
    unsafe fn remove(&mut self, entry: NonNull<HrEntry>) {
        // SAFETY: it is in this queue.
        self.take(unsafe { At::new(entry) });
    }

    /// As the trait says. What was taken out since the last call may have left it too early; that is mended here, and
    /// until then an `insert` that is not before it says so.
    #[inline]
    fn next(&mut self) -> u64 {
        if self.stale {
            self.next = self.search();
            self.stale = false;
        }
        self.next
    }

    #[inline]
    fn pop_due(&mut self, now: u64) -> Option<NonNull<HrEntry>> {
        let first = self.root.at().filter(|first| first.expires() <= now)?;
        self.take(first);
        Some(first.pointer())
    }

    #[inline(always)]
    fn pop_single(&mut self, now: u64) -> DueNow<HrEntry> {
        let Some(first) = self.root.at().filter(|first| first.expires() <= now) else {
            return DueNow::Nothing;
        };
        // Those below are due before all others (H1).
        let is_due = |side| first.below(side).at().is_some_and(|below| below.expires() <= now);
        if is_due(LEFT) || is_due(RIGHT) && !broken(Twin::LeftOnly) {
            return DueNow::Perhaps;
        }
        self.take(first);
        DueNow::Single(first.pointer())
    }

    fn pop_any(&mut self) -> Option<NonNull<HrEntry>> {
        let first = self.root.at()?;
        self.take(first);
        Some(first.pointer())
    }
}

/// Ways to get it wrong, one of which a test may choose for its thread, to see that the properties notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Twin {
    RanksKept,
    MeldedBlindly,
    LeftOnly,
    NextKept,
    NextNotLowered,
}

#[cfg(not(test))]
#[inline(always)]
const fn broken(_: Twin) -> bool {
    false
}

#[cfg(test)]
use tests::broken;

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
