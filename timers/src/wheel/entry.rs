//! What a timer has of the wheel: 32 bytes, so that an operation on one that is cold in the cache misses once for it.

use core::cell::Cell;
use core::ptr;

use super::geometry::NO_SLACK;
use crate::primitives::{AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed, const_fn};
use crate::queue::Entry;

/// A timer's place in a [`Wheel`](super::Wheel): a field of the timer.
///
/// All of it may be read without the wheel's lock. Only who holds the lock changes anything, but for
/// [`expires_word`](Entry::expires_word).
///
/// # Invariants
/// 1. `prev` is null while the entry is in no wheel. Else it is the entry before this one, or, for the first one of a
///    bucket, that bucket's number (see `first_of`): so a bucket needs no address, and a wheel may be moved.
/// 2. While the entry is in a wheel, `next` is the entry after this one, or null.
/// 3. While the entry is in a wheel, `filed` is the time of its bucket, the lower half.
#[repr(C)]
pub struct WheelEntry {
    /// First, so that "the word that points to the next one" of an entry is where the entry is.
    pub(super) next: Cell<*mut WheelEntry>,
    pub(super) prev: AtomicPtr<WheelEntry>,
    pub(super) expires: AtomicU64,
    pub(super) filed: AtomicU32,
    pub(super) slack: AtomicU32,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<WheelEntry>() == 32);

// SAFETY: `next` is only accessed by who has the lock of the wheel that the entry is in, or else nobody has heard of the
// entry but its owner. The rest is atomic.
unsafe impl Sync for WheelEntry {}
// SAFETY: the pointers are the wheel's, which may be sent; see there.
unsafe impl Send for WheelEntry {}

impl WheelEntry {
    const_fn! {
        /// In no wheel, due at tick 0, without a slack of its own.
        ///
        /// ```
        /// use timers::queue::Entry;
        /// let entry = timers::wheel::WheelEntry::new();
        /// assert!(!entry.is_linked());
        /// assert_eq!(entry.expires(), 0);
        /// ```
        pub fn new() -> WheelEntry {
            WheelEntry {
                next: Cell::new(ptr::null_mut()),
                prev: AtomicPtr::new(ptr::null_mut()),
                expires: AtomicU64::new(0),
                filed: AtomicU32::new(0),
                slack: AtomicU32::new(NO_SLACK),
            }
        }
    }

    /// Whether the bucket has come by the time `at`, if it is less than 2^31 ticks away from it. The signed difference of
    /// lower halves says so, whether or not they wrapped in between.
    #[inline(always)]
    pub(super) fn comes_by(&self, at: u64) -> bool {
        (at as u32).wrapping_sub(self.filed.load(Relaxed)) as i32 >= 0
    }
}

impl Default for WheelEntry {
    fn default() -> WheelEntry {
        WheelEntry::new()
    }
}

impl Entry for WheelEntry {
    #[inline(always)]
    fn expires(&self) -> u64 {
        self.expires.load(Relaxed)
    }

    #[inline(always)]
    fn set_expires(&self, expires: u64) {
        self.expires.store(expires, Relaxed);
    }

    /// In ticks; from 2^32 - 1 on as if none had been given. Counts from the next time that the timer is armed.
    #[inline]
    fn set_slack(&self, slack: u64) {
        self.slack.store(slack.min(u64::from(NO_SLACK)) as u32, Relaxed);
    }

    #[inline(always)]
    fn is_linked(&self) -> bool {
        !self.prev.load(Relaxed).is_null()
    }

    /// In the place of its bucket's time, which it has none of. 32 bits.
    #[inline(always)]
    fn set_slot(&self, slot: usize) {
        self.filed.store(slot as u32, Relaxed);
    }

    #[inline(always)]
    fn slot(&self) -> usize {
        self.filed.load(Relaxed) as usize
    }

    #[inline(always)]
    fn expires_word(&self) -> Option<&AtomicU64> {
        Some(&self.expires)
    }
}

/// What is in `prev` of the first entry of a bucket: the bucket's number, told from an address by being odd.
#[inline(always)]
pub(super) const fn first_of(bucket: usize) -> *mut WheelEntry {
    ptr::without_provenance_mut(bucket << 1 | 1)
}

/// The bucket whose first entry has this for `prev`; `None` if it is the entry before.
#[inline(always)]
pub(super) fn is_first_of(prev: *mut WheelEntry) -> Option<usize> {
    (prev.addr() & 1 != 0).then_some(prev.addr() >> 1)
}
