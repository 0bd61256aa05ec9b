//! The place of a timer in a [`HrQueue`](super::HrQueue), and how it fits into 32 bytes.

use core::marker::PhantomPinned;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::queue::Entry;

/// The links of one high-resolution timer: when it is due, in nanoseconds, and its neighbours.
///
/// 32 bytes. An entry lies on a multiple of 16, so the low four bits of its address are free: the links to the two
/// entries below carry the *rank* of what hangs there, and the link upwards carries the slack.
///
/// Slack is kept as a power of two, rounded down: 8,192 ns is the least that is not none, 134,217,728 ns (0.13 s) the most.
/// So the timer may get less than it offers, and is never later than it says. It counts from the next time that the entry
/// is added to a queue.
///
/// ```
/// use timers::hr::HrEntry;
/// use timers::queue::Entry;
///
/// let entry = HrEntry::new(1_000_000);
/// entry.set_slack(50_000);
/// assert_eq!((entry.expires(), entry.slack(), entry.is_linked()), (1_000_000, 32_768, false));
/// assert_eq!(size_of::<HrEntry>(), 32);
/// ```
#[repr(C, align(16))]
#[derive(Debug)]
pub struct HrEntry {
    expires: AtomicU64,
    /// The entry above, with the slack; none for the root; `UNLINKED` in no queue.
    up: AtomicPtr<HrEntry>,
    /// What hangs below on the left and on the right, each with its rank.
    below: [AtomicPtr<HrEntry>; 2],
    // Neighbours have its address.
    _pinned: PhantomPinned,
}

/// The bits of an address that are free for something else.
const TAG: usize = align_of::<HrEntry>() - 1;
/// What "above" is for an entry in no queue: no entry has this address.
const UNLINKED: usize = align_of::<HrEntry>();
/// A slack with tag `n > 0` is `2^(n + this)`.
const SLACK_SHIFT: u32 = 12;
/// The greatest rank that is written down.
pub(super) const MOST_RANK: usize = TAG;

impl HrEntry {
    /// An entry in no queue, without slack.
    ///
    /// ```
    /// use timers::hr::HrEntry;
    /// use timers::queue::Entry;
    /// let entry = HrEntry::new(1_000);
    /// assert_eq!((entry.expires(), entry.slack(), entry.is_linked()), (1_000, 0, false));
    /// ```
    pub const fn new(expires: u64) -> HrEntry {
        HrEntry {
            expires: AtomicU64::new(expires),
            up: AtomicPtr::new(ptr::without_provenance_mut(UNLINKED)),
            below: [const { AtomicPtr::new(ptr::null_mut()) }; 2],
            _pinned: PhantomPinned,
        }
    }

    /// How much later than [`expires`](Entry::expires) it may be given back, in nanoseconds: a power of two from 8,192 on, not
    /// more than what was asked for, or 0.
    ///
    /// ```
    /// use timers::hr::HrEntry;
    /// use timers::queue::Entry;
    /// let entry = HrEntry::new(1_000);
    /// entry.set_slack(50_000);
    /// assert_eq!(entry.slack(), 32_768);
    /// ```
    pub fn slack(&self) -> u64 {
        match self.up.load(Ordering::Relaxed).addr() & TAG {
            0 => 0,
            tag => 1 << (tag as u32 + SLACK_SHIFT),
        }
    }

    /// When it is to be given back at the latest.
    pub(super) fn latest(&self) -> u64 {
        self.expires().saturating_add(self.slack())
    }
}

// What other CPUs may look at without the queue's lock is out of date as soon as it has been read, and nothing else hangs
// on it; everything else is under the lock. So all accesses in this file are relaxed.
impl Entry for HrEntry {
    #[inline(always)]
    fn expires(&self) -> u64 {
        self.expires.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_expires(&self, expires: u64) {
        self.expires.store(expires, Ordering::Relaxed);
    }

    fn set_slack(&self, slack: u64) {
        let tag = (slack >> SLACK_SHIFT).checked_ilog2().unwrap_or(0).min(TAG as u32);
        let up = self.up.load(Ordering::Relaxed).map_addr(|address| address & !TAG | tag as usize);
        self.up.store(up, Ordering::Relaxed);
    }

    #[inline(always)]
    fn is_linked(&self) -> bool {
        self.up.load(Ordering::Relaxed).addr() & !TAG != UNLINKED
    }

    /// In the place of a link downwards, which the queue writes when the entry comes to it.
    #[inline(always)]
    fn set_slot(&self, slot: usize) {
        self.below[LEFT].store(ptr::without_provenance_mut(slot), Ordering::Relaxed);
    }

    #[inline(always)]
    fn slot(&self) -> usize {
        self.below[LEFT].load(Ordering::Relaxed).addr()
    }
}

/// Which of the two below.
pub(super) type Side = usize;
pub(super) const LEFT: Side = 0;
pub(super) const RIGHT: Side = 1;

/// An entry of the queue at hand.
///
/// # Invariants
/// It lives and stays where it is for as long as it is in the queue, and its links are touched by the queue's user only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At(NonNull<HrEntry>);

impl At {
    /// # Safety
    /// The entry is in the queue at hand, or about to be, and [`At`]'s invariant holds for it.
    #[inline(always)]
    pub(super) unsafe fn new(entry: NonNull<HrEntry>) -> At {
        At(entry)
    }

    #[inline(always)]
    pub(super) fn pointer(self) -> NonNull<HrEntry> {
        self.0
    }

    #[inline(always)]
    pub(super) fn entry(&self) -> &HrEntry {
        // SAFETY: it lives, by the invariant. All fields are atomics, and nobody has a unique reference.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(super) fn expires(self) -> u64 {
        self.entry().expires()
    }

    #[inline(always)]
    pub(super) fn below(self, side: Side) -> Link {
        // INVARIANT: what is stored there was a `Link`.
        Link(self.entry().below[side].load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn set_below(self, side: Side, link: Link) {
        self.entry().below[side].store(link.0, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn up(self) -> Option<At> {
        // INVARIANT: what is stored there, without the slack, is null or the address of an entry of this queue.
        Link(self.entry().up.load(Ordering::Relaxed)).at()
    }

    #[inline(always)]
    pub(super) fn set_up(self, up: Option<At>) {
        self.replace_up(up.map_or(ptr::null_mut(), |up| up.0.as_ptr()));
    }

    /// Notes that it is in no queue any more.
    #[inline(always)]
    pub(super) fn unlink(self) {
        self.replace_up(ptr::without_provenance_mut(UNLINKED));
    }

    #[inline(always)]
    fn replace_up(self, up: *mut HrEntry) {
        let word = &self.entry().up;
        let slack = word.load(Ordering::Relaxed).addr() & TAG;
        word.store(up.map_addr(|address| address | slack), Ordering::Relaxed);
    }
}

/// A way down: nothing, or an entry and the rank of what hangs there.
///
/// # Invariants
/// Without its low bits it is null, with rank 0, or fit for an [`At`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Link(*mut HrEntry);

impl Link {
    pub(super) const NONE: Link = Link(ptr::null_mut());

    #[inline(always)]
    pub(super) fn new(at: At, rank: usize) -> Link {
        // The bits are 0 in an address: an addition is one instruction with others.
        Link(at.0.as_ptr().wrapping_byte_add(rank))
    }

    #[inline(always)]
    pub(super) fn at(self) -> Option<At> {
        NonNull::new(self.0.map_addr(|address| address & !TAG)).map(At)
    }

    #[inline(always)]
    pub(super) fn rank(self) -> usize {
        self.0.addr() & TAG
    }
}

// SAFETY: an address of something that is itself `Sync`; what may be done with it is said where it is kept.
unsafe impl Send for Link {}
