//! Not more messages than a person reads.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Lets a few messages a second through and counts the others. Of a message that causes another one the latter is not let
/// through, so that reports do not report themselves.
///
/// ```
/// use kernel::watchdog::Limiter;
/// let limiter = Limiter::new(2);
/// let at = |now_ns| limiter.allow(now_ns).map(|turn| turn.suppressed());
/// assert_eq!([at(1), at(2), at(3), at(4)], [Some(0), Some(0), None, None]);
/// assert_eq!(at(1_000_000_001), Some(2)); // a second later; two were not let through
/// ```
#[derive(Debug)]
pub struct Limiter {
    a_second: u32,
    /// Somebody is being let through.
    busy: AtomicBool,
    /// When the present second began.
    began_ns: AtomicU64,
    let_through: AtomicU32,
    suppressed: AtomicU32,
}

/// A message is let through, and no other one while this value lives.
#[derive(Debug)]
pub struct Turn<'a> {
    limiter: &'a Limiter,
    suppressed: u32,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Limiter {
    /// Lets `a_second` through in each second.
    pub const fn new(a_second: u32) -> Limiter {
        Limiter {
            a_second,
            busy: AtomicBool::new(false),
            began_ns: AtomicU64::new(0),
            let_through: AtomicU32::new(0),
            suppressed: AtomicU32::new(0),
        }
    }

    /// A new second begins with the next message, and what was not let through is forgotten. Contexts: any.
    pub fn reset(&self) {
        self.began_ns.store(0, Ordering::Relaxed);
        self.suppressed.store(0, Ordering::Relaxed);
    }

    /// Whether a message at this moment is let through. Contexts: any. Never waits.
    pub fn allow(&self, now_ns: u64) -> Option<Turn<'_>> {
        // Acquire: pairs with the Release in `drop`; the counts are as the last one left them.
        if self.busy.swap(true, Ordering::Acquire) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut turn = Turn { limiter: self, suppressed: 0 };
        let began = self.began_ns.load(Ordering::Relaxed);
        if began == 0 || now_ns.saturating_sub(began) >= SECOND_NS {
            self.began_ns.store(now_ns.max(1), Ordering::Relaxed);
            self.let_through.store(0, Ordering::Relaxed);
        }
        let before = self.let_through.load(Ordering::Relaxed);
        if before >= self.a_second {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.let_through.store(before + 1, Ordering::Relaxed);
        turn.suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        Some(turn)
    }
}

impl Turn<'_> {
    /// How many have not been let through since the last one that was.
    pub fn suppressed(&self) -> u32 {
        self.suppressed
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `allow`.
        self.limiter.busy.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn none_is_lost_and_no_second_has_too_many(
            steps in prop::collection::vec(0..400_000_000_u64, 0..100),
            a_second in 1..5_u32,
        ) {
            let limiter = Limiter::new(a_second);
            let (mut now, mut heard, mut through) = (1, 0, Vec::new());
            for step in &steps {
                now += step;
                if let Some(turn) = limiter.allow(now) {
                    heard += 1 + turn.suppressed();
                    through.push(now);
                }
            }
            prop_assert_eq!(heard + limiter.suppressed.load(Ordering::Relaxed), steps.len() as u32);
            // A second that begins with one that is let through: twice the number at most, at the end of one and the
            // beginning of the next.
            for (at, first) in through.iter().enumerate() {
                let within = through[at..].iter().take_while(|later| **later < first + SECOND_NS).count();
                prop_assert!(within as u32 <= 2 * a_second);
            }
        }
    }

    #[test]
    fn a_report_does_not_report_itself() {
        let limiter = Limiter::new(9);
        let turn = limiter.allow(5);
        assert!(turn.is_some() && limiter.allow(6).is_none());
        drop(turn);
        assert_eq!(limiter.allow(7).map(|turn| turn.suppressed()), Some(1));
        let limiter = Limiter::new(1);
        assert!(limiter.allow(5).is_some() && limiter.allow(6).is_none());
        limiter.reset();
        assert_eq!(limiter.allow(7).map(|turn| turn.suppressed()), Some(0));
    }
}
