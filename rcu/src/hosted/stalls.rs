//! When a grace period has waited for too long.

use crate::primitives::{AtomicU64, Ordering, const_fn};

/// A grace period that has waited so long is reported, if nothing else is said.
const LIMIT_NS: u64 = 21_000_000_000;

/// The driver's clock for the running grace period. Only who is in the driver's seat changes `since_ns` and `next_ns`.
pub(super) struct Stalls {
    limit_ns: AtomicU64,
    /// When readers were first found in the way; 0 if none were.
    since_ns: AtomicU64,
    /// After how long a wait the next report is due.
    next_ns: AtomicU64,
}

impl Stalls {
    const_fn! {
        pub(super) fn new() -> Stalls {
            Stalls {
                limit_ns: AtomicU64::new(LIMIT_NS),
                since_ns: AtomicU64::new(0),
                next_ns: AtomicU64::new(0),
            }
        }
    }

    pub(super) fn set_limit(&self, ns: u64) {
        self.limit_ns.store(ns, Ordering::Relaxed);
    }

    /// The grace period has ended.
    pub(super) fn over(&self) {
        self.since_ns.store(0, Ordering::Relaxed);
    }

    /// Readers are in the way. How long they have been, if that is to be reported: after the limit, and each time that the
    /// wait has become half as long again.
    pub(super) fn look(&self, now_ns: u64) -> Option<u64> {
        let since_ns = self.since_ns.load(Ordering::Relaxed);
        if since_ns == 0 {
            self.since_ns.store(now_ns.max(1), Ordering::Relaxed);
            self.next_ns.store(0, Ordering::Relaxed);
            return None;
        }
        let (waited, limit) = (now_ns.saturating_sub(since_ns), self.limit_ns.load(Ordering::Relaxed));
        if waited < limit.max(self.next_ns.load(Ordering::Relaxed)) {
            return None;
        }
        self.next_ns.store(waited.saturating_add(limit.max(waited / 2)), Ordering::Relaxed);
        Some(waited)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reports_come_less_and_less_often() {
        let stalls = Stalls::new();
        stalls.set_limit(10);
        let reported: Vec<u64> = (5..100).filter_map(|now| stalls.look(now)).collect();
        assert_eq!(reported, [10, 20, 30, 45, 67]);
        stalls.over();
        assert_eq!([100, 109, 110].map(|now| stalls.look(now)), [None, None, Some(10)]);
    }
}
