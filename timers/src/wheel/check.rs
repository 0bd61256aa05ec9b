//! Whether a wheel's invariants hold.

use super::*;

impl<R: Rules> Raw<R> {
    /// Panics if they do not; returns how many entries there are.
    pub(crate) fn check(&self) -> usize {
        let mut entries = 0;
        for level in 0..LEVELS {
            let granule = 1 << (3 * level);
            let mut occupied = self.occupied[level];
            while occupied != 0 {
                let slot = occupied.trailing_zeros() as usize;
                occupied &= occupied - 1;
                let overdue = self.overdue[level] & 1 << slot != 0;
                entries += self.check_list(level * BUCKETS + slot, |entry| {
                    let filed = entry.filed.load(Relaxed);
                    assert_eq!(filed % granule, 0, "a bucket's time is a multiple of its length");
                    assert_eq!(
                        filed as usize / granule as usize % BUCKETS,
                        slot,
                        "filed in the wrong bucket"
                    );
                    // What is compared is not further apart than the horizon.
                    let from = if self.draining { self.clock } else { self.next };
                    let past = (filed.wrapping_sub(from as u32) as i32) < 0;
                    assert!(overdue || !past, "the clock or what comes next is past a bucket");
                });
            }
        }
        assert_eq!(self.occupied[LEVELS], 0);
        let due = if self.heads[DUE].is_null() { 0 } else { self.check_list(DUE, |_| ()) };
        if !self.draining {
            assert_eq!((due, self.overdue), (0, [0; LEVELS]));
            assert!(self.next >= self.clock, "what comes next has been gone through");
            let exact = earliest(self.levels(), self.next).map_or(u64::MAX, |place| place.time);
            assert!(self.stale || self.next == exact, "next is {}, not {exact}", self.next);
        }
        entries + due
    }

    fn check_list(&self, list: usize, check: impl Fn(&WheelEntry)) -> usize {
        let (mut entry, mut prev, mut entries) = (self.heads[list], first_of(list), 0);
        assert!(!entry.is_null(), "list {list} is empty, and said not to be");
        while !entry.is_null() {
            // SAFETY: invariant 1.
            let this = unsafe { &*entry };
            assert_eq!(this.prev.load(Relaxed), prev, "the chain is broken");
            check(this);
            (prev, entry, entries) = (entry, this.next.get(), entries + 1);
        }
        entries
    }

    /// Panics if a bucket that is said to be empty is not. Slow.
    pub(crate) fn check_empty(&self) {
        for (bucket, head) in self.heads[..DUE].iter().enumerate() {
            let occupied = self.occupied[bucket / BUCKETS] & 1 << (bucket % BUCKETS) != 0;
            assert_eq!(occupied, !head.is_null(), "bucket {bucket}");
        }
    }
}
