//! The wheel's machinery, for the sound rules and, in tests, for broken ones.

use core::marker::PhantomData;
use core::mem;
use core::ptr::{self, NonNull};

use super::entry::{WheelEntry, first_of, is_first_of};
use super::geometry::{BUCKETS, Bits, LEVELS, Place, Rules, earliest, place, place_at_once, within};
use crate::primitives::Ordering::Relaxed;
use crate::queue::{Entry, Popped, Taker};

/// The number of the list of entries whose bucket has come: one more bucket, after those of the levels.
const DUE: usize = LEVELS * BUCKETS;

/// # Invariants
/// 1. Each entry of the wheel is in exactly one bucket's list, or in the due list, with the links that [`WheelEntry`]
///    states. Its address was handed in by `insert`, whose caller keeps it valid, and the same, until it has left.
/// 2. `occupied` has exactly the bits of the buckets that have entries, and `DUE`'s word has none.
/// 3. Everything before `clock` has been gone through: no bucket's time is earlier, except those in `overdue`.
/// 4. `next` is not later than the time of any bucket that has entries, and is exactly the earliest unless `stale`.
/// 5. While `draining`, `next` is at most the tick that is being gone through. `overdue` are the buckets of
///    `next..clock` that have not been taken yet, and the due list is what is left of the one that was taken last.
///    Otherwise both are empty.
pub(super) struct Raw<R> {
    next: u64,
    clock: u64,
    stale: bool,
    draining: bool,
    refiled: u64,
    /// Which entries were filed anew, and on which level.
    #[cfg(all(test, not(loom)))]
    pub(super) log: Vec<(NonNull<WheelEntry>, usize)>,
    rules: PhantomData<R>,
    occupied: [u64; LEVELS + 1],
    overdue: Bits,
    heads: [*mut WheelEntry; LEVELS * BUCKETS + 1],
}

// SAFETY: entries are accessed through `&mut Raw` only, and their owners let anybody do it who has that: `insert` says so.
unsafe impl<R> Send for Raw<R> {}

impl<R: Rules> Raw<R> {
    pub(super) const fn new() -> Raw<R> {
        Raw {
            next: u64::MAX,
            clock: 0,
            stale: false,
            draining: false,
            refiled: 0,
            #[cfg(all(test, not(loom)))]
            log: Vec::new(),
            rules: PhantomData,
            occupied: [0; LEVELS + 1],
            overdue: [0; LEVELS],
            heads: [ptr::null_mut(); LEVELS * BUCKETS + 1],
        }
    }

    /// The head of a list.
    ///
    /// # Safety
    /// `bucket` is [`DUE`] or below.
    #[inline(always)]
    unsafe fn head(&mut self, bucket: usize) -> &mut *mut WheelEntry {
        debug_assert!(bucket <= DUE);
        // SAFETY: by the contract; there are `DUE + 1` heads.
        unsafe { self.heads.get_unchecked_mut(bucket) }
    }

    /// Which buckets have entries.
    #[inline(always)]
    fn levels(&self) -> &Bits {
        self.occupied.first_chunk().expect("a word for each level")
    }

    /// Where an entry goes if it is armed at `now`. A clock that idle left behind does not matter: distances count from
    /// the present.
    #[inline(always)]
    fn place(&self, expires: u64, now: u64, slack: u32) -> Place {
        let base = if R::FORWARDS { now.max(self.clock) } else { self.clock };
        place::<R>(expires, base, slack)
    }

    /// The same for most times.
    #[inline(always)]
    fn place_at_once(&self, expires: u64, now: u64, slack: u32) -> Option<Place> {
        let base = if R::FORWARDS { now.max(self.clock) } else { self.clock };
        place_at_once::<R>(expires, base, slack)
    }

    /// Puts an entry where it belongs. Returns whether `next` is earlier than before.
    ///
    /// # Safety
    /// It is in no list, and whoever has the wheel may access it until it has left.
    #[inline(always)]
    unsafe fn link(&mut self, entry: NonNull<WheelEntry>, place: Place) -> bool {
        let Place { level, slot, time } = place;
        let bucket = level * BUCKETS + slot;
        // SAFETY: by the contract.
        let this = unsafe { entry.as_ref() };
        // SAFETY: `place` returns levels and slots that there are.
        let head = unsafe { self.head(bucket) };
        let first = *head;
        *head = entry.as_ptr();
        this.next.set(first);
        this.prev.store(first_of(bucket).cast(), Relaxed);
        this.filed.store(time as u32, Relaxed);
        if first.is_null() {
            // INVARIANT 2: it has an entry now.
            self.occupied[level] |= 1 << slot;
        } else {
            // SAFETY: invariant 1.
            unsafe { (*first).prev.store(entry.as_ptr(), Relaxed) };
        }
        let earlier = time < self.next;
        if earlier {
            self.next = time;
        }
        earlier
    }

    /// Takes an entry out of its list.
    ///
    /// # Safety
    /// It is in a list of this wheel.
    #[inline(always)]
    unsafe fn unlink(&mut self, entry: NonNull<WheelEntry>) {
        // SAFETY: by the contract and invariant 1; so is what is accessed below.
        let this = unsafe { entry.as_ref() };
        let (next, prev) = (this.next.get(), this.prev.load(Relaxed));
        this.prev.store(ptr::null_mut(), Relaxed);
        let first_of = is_first_of(prev);
        match first_of {
            // SAFETY: an entry's `prev` names a list that there is.
            Some(bucket) => *unsafe { self.head(bucket) } = next,
            // SAFETY: as above.
            None => unsafe { (*prev).next.set(next) },
        }
        if !next.is_null() {
            // SAFETY: as above.
            unsafe { (*next).prev.store(prev, Relaxed) };
        } else if let Some(bucket) = first_of {
            // INVARIANT 2: that was the last one. The due list's bit is none.
            // SAFETY: there is a word for each list.
            *unsafe { self.occupied.get_unchecked_mut(bucket / BUCKETS) } &= !(1 << (bucket % BUCKETS));
            // INVARIANT 4: `next` may have been this bucket's time, if its lower half is, or the time of what is due.
            if self.draining || this.filed.load(Relaxed) == self.next as u32 {
                self.stale = true;
            }
        }
    }

    /// As [`Queue::insert`](crate::queue::Queue::insert).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn insert(&mut self, entry: NonNull<WheelEntry>, now: u64) -> bool {
        // SAFETY: by the contract.
        let this = unsafe { entry.as_ref() };
        debug_assert!(!this.is_linked(), "the entry is in a wheel already");
        let place = self.place(this.expires(), now, this.slack.load(Relaxed));
        // SAFETY: by the contract.
        unsafe { self.link(entry, place) }
    }

    /// As [`Queue::insert_at_once`](crate::queue::Queue::insert_at_once).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn insert_at_once(&mut self, entry: NonNull<WheelEntry>, now: u64) -> Option<bool> {
        // SAFETY: by the contract.
        let this = unsafe { entry.as_ref() };
        debug_assert!(!this.is_linked(), "the entry is in a wheel already");
        let place = self.place_at_once(this.expires(), now, this.slack.load(Relaxed))?;
        // SAFETY: by the contract.
        Some(unsafe { self.link(entry, place) })
    }

    /// As [`Queue::remove`](crate::queue::Queue::remove).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn remove(&mut self, entry: NonNull<WheelEntry>) {
        // SAFETY: by the contract.
        unsafe {
            debug_assert!(entry.as_ref().is_linked(), "the entry is in no wheel");
            self.unlink(entry);
        }
    }

    /// As [`Queue::modify`](crate::queue::Queue::modify).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn modify(&mut self, entry: NonNull<WheelEntry>, expires: u64, now: u64) -> bool {
        // SAFETY: by the contract.
        let this = unsafe { entry.as_ref() };
        this.set_expires(expires);
        // No bucket's time is 2^31 ticks after the present, so that none is taken for one that comes before.
        let stays = this.comes_by(expires) || !R::STAYS_IF_EARLIER;
        if expires >= now && stays {
            return false;
        }
        // SAFETY: by the contract.
        unsafe { self.move_to(entry, now) }
    }

    /// Brings an entry to where its time belongs.
    ///
    /// # Safety
    /// It is in a list of this wheel.
    unsafe fn move_to(&mut self, entry: NonNull<WheelEntry>, now: u64) -> bool {
        // SAFETY: by the contract.
        let this = unsafe { entry.as_ref() };
        // Its bucket has come: it cannot be had earlier. Only then is the clock near enough to be compared with.
        if self.draining && this.comes_by(self.clock - 1) {
            return false;
        }
        let place = self.place(this.expires(), now, this.slack.load(Relaxed));
        if this.filed.load(Relaxed) == place.time as u32 {
            return false;
        }
        // SAFETY: by the contract.
        unsafe {
            self.unlink(entry);
            self.link(entry, place)
        }
    }

    /// As [`Queue::next`](crate::queue::Queue::next).
    #[inline(always)]
    pub(super) fn next(&mut self) -> u64 {
        if self.stale {
            self.refresh();
        }
        self.next
    }

    #[cold]
    fn refresh(&mut self) {
        if !self.draining {
            self.find_next(self.next);
        } else if self.heads[DUE].is_null() && self.first_overdue().is_none() {
            self.finish();
        }
    }

    /// The bucket that is to be taken next, without those whose entries have all left since they were found overdue.
    fn first_overdue(&mut self) -> Option<Place> {
        for (overdue, &occupied) in self.overdue.iter_mut().zip(&self.occupied) {
            *overdue &= occupied;
        }
        earliest(&self.overdue, self.next)
    }

    /// All that was due is gone.
    fn finish(&mut self) {
        self.draining = false;
        self.find_next(self.clock);
    }

    /// Makes `next` exact. No bucket that has entries comes before `from`.
    fn find_next(&mut self, from: u64) {
        self.next = earliest(self.levels(), from).map_or(u64::MAX, |place| place.time);
        self.stale = false;
    }

    /// Makes sure that what comes next is a timer's time and not only that of a bucket, as far as that takes no more than
    /// `limit` entries: those at its head that were re-armed since go where they belong now.
    pub(super) fn settle(&mut self, now: u64, limit: usize) -> u64 {
        for _ in 0..limit {
            let next = self.next();
            if self.draining || next <= now {
                break;
            }
            let Some(place) = earliest(self.levels(), next) else {
                break;
            };
            // SAFETY: there is such a bucket.
            let first = *unsafe { self.head(place.level * BUCKETS + place.slot) };
            let Some(entry) = NonNull::new(first) else { break };
            // SAFETY: invariant 1.
            let this = unsafe { entry.as_ref() };
            let better = self.place(this.expires(), now, this.slack.load(Relaxed));
            if this.expires() <= next || better.time <= next {
                break;
            }
            // SAFETY: it is in this bucket's list.
            unsafe {
                self.unlink(entry);
                self.refile(entry, better);
            }
        }
        self.next()
    }

    /// As [`Queue::pop_due`](crate::queue::Queue::pop_due).
    #[inline(always)]
    pub(super) fn pop_due(&mut self, now: u64) -> Option<NonNull<WheelEntry>> {
        if now < self.next {
            return None;
        }
        match self.pop() {
            Some(entry) if self.is_due(entry, now) => Some(entry),
            other => self.pop_slow(now, other),
        }
    }

    /// Takes the first one of the due list out.
    #[inline(always)]
    fn pop(&mut self) -> Option<NonNull<WheelEntry>> {
        let entry = NonNull::new(self.heads[DUE])?;
        // SAFETY: invariant 1.
        let this = unsafe { entry.as_ref() };
        let next = this.next.get();
        self.heads[DUE] = next;
        if next.is_null() {
            // INVARIANT 4: this may have been the last of what is due.
            self.stale = true;
        } else {
            // SAFETY: invariant 1.
            unsafe { (*next).prev.store(first_of(DUE), Relaxed) };
        }
        this.prev.store(ptr::null_mut(), Relaxed);
        Some(entry)
    }

    #[inline(always)]
    fn is_due(&self, entry: NonNull<WheelEntry>, now: u64) -> bool {
        // SAFETY: invariant 1: it was taken out just now.
        unsafe { entry.as_ref().expires() <= now || !R::LOOKS }
    }

    /// Goes on to what is due, with an entry that was taken out and is not, or at the end of a bucket.
    #[inline(never)]
    fn pop_slow(&mut self, now: u64, popped: Option<NonNull<WheelEntry>>) -> Option<NonNull<WheelEntry>> {
        let mut popped = popped;
        loop {
            match popped {
                Some(entry) if self.is_due(entry, now) => return Some(entry),
                Some(entry) => {
                    // SAFETY: invariant 1: it was taken out just now.
                    unsafe { self.refile_now(entry, now) };
                }
                None => {
                    if !self.take_bucket(now) {
                        return None;
                    }
                }
            }
            popped = self.pop();
        }
    }

    /// As [`Queue::pop_batch`](crate::queue::Queue::pop_batch).
    #[inline(always)]
    pub(super) fn pop_batch(&mut self, now: u64, room: usize, taker: &mut impl Taker<WheelEntry>) -> Popped {
        let mut left = room;
        while now >= self.next && left != 0 {
            let Some(mut entry) = NonNull::new(self.heads[DUE]) else {
                if !self.take_bucket(now) {
                    break;
                }
                continue;
            };
            // What is behind `entry` is linked all the while, and the head is put right at the end. Nothing is called in
            // this loop, so that all it has is in registers; and what counts down also ends it.
            let next = loop {
                // SAFETY: invariant 1.
                let this = unsafe { entry.as_ref() };
                let next = this.next.get();
                this.prev.store(ptr::null_mut(), Relaxed);
                this.set_slot(left);
                if !taker.take_alike(entry, left) {
                    if !taker.take_other(entry, left) && R::LOOKS {
                        self.set_rest(next);
                        // SAFETY: invariant 1: it was taken out just now.
                        unsafe { self.refile_now(entry, now) };
                    }
                    left -= 1;
                    break next;
                }
                let Some(following) = NonNull::new(next) else {
                    left -= 1;
                    break next;
                };
                entry = following;
                left -= 1;
                if left == 0 {
                    break next;
                }
            };
            self.set_rest(next);
        }
        Popped { all: now < self.next, room: left }
    }

    /// `rest` is what is left of the due list.
    #[inline(always)]
    fn set_rest(&mut self, rest: *mut WheelEntry) {
        self.heads[DUE] = rest;
        // SAFETY: invariant 1.
        match unsafe { rest.as_ref() } {
            Some(first) => first.prev.store(first_of(DUE), Relaxed),
            // INVARIANT 4: these may have been the last of what is due.
            None => self.stale = true,
        }
    }

    /// Files an entry where it belongs that was taken out and is not due.
    ///
    /// # Safety
    /// As for [`link`](Raw::link).
    #[cold]
    unsafe fn refile_now(&mut self, entry: NonNull<WheelEntry>, now: u64) {
        // SAFETY: by the contract.
        let this = unsafe { entry.as_ref() };
        let place = self.place(this.expires(), now, this.slack.load(Relaxed));
        // SAFETY: as above.
        unsafe { self.refile(entry, place) };
    }

    /// Files an entry anew whose bucket has come, or is not what it should be woken up for.
    ///
    /// # Safety
    /// As for [`link`](Raw::link).
    #[cold]
    unsafe fn refile(&mut self, entry: NonNull<WheelEntry>, place: Place) {
        self.refiled += 1;
        #[cfg(all(test, not(loom)))]
        self.log.push((entry, place.level));
        // SAFETY: by the contract.
        unsafe { self.link(entry, place) };
    }

    /// Makes the entries of a bucket that has come the due list, which is empty. Returns whether there was one.
    #[inline(never)]
    fn take_bucket(&mut self, now: u64) -> bool {
        loop {
            if self.draining {
                if let Some(Place { level, slot, .. }) = self.first_overdue() {
                    self.overdue[level] &= !(1 << slot);
                    self.occupied[level] &= !(1 << slot);
                    // SAFETY: there is such a bucket.
                    let head = unsafe { self.head(level * BUCKETS + slot) };
                    let first = mem::take(head);
                    self.heads[DUE] = first;
                    // SAFETY: invariants 1 and 2: the bucket has entries.
                    unsafe { (*first).prev.store(first_of(DUE), Relaxed) };
                    return true;
                }
                self.finish();
            }
            if now < self.next {
                return false;
            }
            let from = if R::CATCHES_UP { self.next } else { now };
            self.overdue = within(self.levels(), from, now);
            self.clock = now + 1;
            self.draining = true;
        }
    }

    /// How often an entry was filed anew.
    pub(super) fn refiled(&self) -> u64 {
        self.refiled
    }

    /// Calls `each` with every entry and the level that it is on; `None` for those whose bucket has come.
    pub(super) fn for_each(&self, mut each: impl FnMut(&WheelEntry, Option<usize>)) {
        for (bucket, &head) in self.heads.iter().enumerate() {
            let level = (bucket != DUE).then_some(bucket / BUCKETS);
            let mut next = NonNull::new(head);
            while let Some(entry) = next {
                // SAFETY: invariant 1.
                let this = unsafe { entry.as_ref() };
                each(this, level);
                next = NonNull::new(this.next.get());
            }
        }
    }

    /// As [`Queue::pop_any`](crate::queue::Queue::pop_any).
    pub(super) fn pop_any(&mut self) -> Option<NonNull<WheelEntry>> {
        let bucket = if self.heads[DUE].is_null() {
            let Some(level) = self.occupied.iter().position(|&bits| bits != 0) else {
                // INVARIANTS 4 and 5: there is nothing.
                self.overdue = [0; LEVELS];
                (self.draining, self.stale, self.next) = (false, false, u64::MAX);
                return None;
            };
            level * BUCKETS + self.occupied[level].trailing_zeros() as usize
        } else {
            DUE
        };
        // SAFETY: there is such a bucket.
        let entry = NonNull::new(*unsafe { self.head(bucket) })?;
        // SAFETY: it is the first of this list.
        unsafe { self.unlink(entry) };
        Some(entry)
    }
}

#[cfg(all(test, not(loom)))]
#[path = "check.rs"]
mod check;
