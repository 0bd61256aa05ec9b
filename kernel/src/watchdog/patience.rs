//! How long a task has been blocked.

/// What a watchdog remembers of a task between two looks at it.
///
/// Time is what passes between looks, and counts for a quarter of the limit at most: neither a guest that its host has
/// stopped for an hour, nor a machine that slept and did not look, makes a task look stuck at once. It takes four looks.
///
/// ```
/// use kernel::watchdog::Patience;
/// let mut patience = Patience::NEW;
/// // Looks one second apart, the limit is 4 s; the task was given a CPU 7 times.
/// let told: Vec<_> = (0..7).map(|_| patience.look(true, 7, 1_000, 4_000)).collect();
/// assert_eq!(told, [None, None, None, None, Some(4_000), None, None]);
/// assert_eq!(patience.look(true, 8, 1_000, 4_000), None); // it has run
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// How often the task had been given a CPU when it was first seen blocked.
    switches: u32,
    blocked_ms: u32,
    told: bool,
}

const TOLD: u64 = 1 << 63;
/// 24 days.
const MOST_MS: u32 = u32::MAX >> 1;

impl Patience {
    /// Nothing has been seen.
    pub const NEW: Patience = Patience { switches: 0, blocked_ms: 0, told: false };

    /// One look: whether the task is blocked with nobody's promise, how often it has been given a CPU (only equality
    /// counts), how long the last look is ago and how long it may be blocked, in milliseconds. Tells for how long it has
    /// been, once for each time that it is blocked, when that has reached the limit.
    pub fn look(&mut self, is_blocked: bool, switches: u32, passed_ms: u64, limit_ms: u64) -> Option<u64> {
        if !is_blocked || switches != self.switches {
            // Of a task that runs another number than its own, so that its block begins with the look that first sees it.
            let switches = if is_blocked { switches } else { !switches };
            *self = Patience { switches, ..Patience::NEW };
            return None;
        }
        let counted = passed_ms.min(limit_ms.div_ceil(4));
        self.blocked_ms = (u64::from(self.blocked_ms) + counted).min(u64::from(MOST_MS)) as u32;
        let blocked_ms = u64::from(self.blocked_ms);
        if self.told || blocked_ms < limit_ms {
            return None;
        }
        self.told = true;
        Some(blocked_ms)
    }

    /// For how long the task has been seen blocked, in milliseconds.
    pub const fn blocked_ms(self) -> u64 {
        self.blocked_ms as u64
    }

    /// All of it in one number; 0 is [`Patience::NEW`].
    pub const fn to_bits(self) -> u64 {
        let told = if self.told { TOLD } else { 0 };
        told | (self.blocked_ms as u64) << 32 | self.switches as u64
    }

    /// Undoes [`to_bits`](Patience::to_bits).
    pub const fn from_bits(bits: u64) -> Patience {
        let blocked_ms = ((bits & !TOLD) >> 32) as u32;
        Patience { switches: bits as u32, blocked_ms, told: bits & TOLD != 0 }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        /// Against the whole history.
        #[test]
        fn tells_each_block_once(
            looks in prop::collection::vec((prop::bool::weighted(0.95), 1..3_u32, 0..40_u64), 0..60),
            limit in 1..60_u64,
        ) {
            let mut patience = Patience::NEW;
            let mut told_since = None;
            for (now, (blocked, switches, _)) in looks.iter().enumerate() {
                let same = looks[..=now].iter().rev().take_while(|look| look.0 && look.1 == *switches).count();
                // The look that first saw it so has seen no time pass.
                let start = now + 1 - same;
                let is_news = told_since != Some(start);
                let since = if *blocked { &looks[(start + 1).min(now + 1)..=now] } else { &[] };
                let passed: u64 = since.iter().map(|look| look.2.min(limit.div_ceil(4))).sum();
                let expected = (*blocked && passed >= limit && is_news).then_some(passed);
                if expected.is_some() {
                    told_since = Some(start);
                }
                prop_assert_eq!(patience.look(*blocked, *switches, looks[now].2, limit), expected, "look {}", now);
                prop_assert_eq!(Patience::from_bits(patience.to_bits()), patience);
            }
        }
    }

    #[test]
    fn a_stopped_guest_makes_nobody_hang() {
        let mut patience = Patience::NEW;
        assert_eq!(patience.look(true, 1, 10, 120_000), None);
        assert_eq!(patience.look(true, 1, u64::MAX, 120_000), None);
        assert_eq!(patience.blocked_ms(), 30_000);
        // Not more than there is room for, either.
        for _ in 0..1000 {
            patience.look(true, 1, u64::MAX, u64::MAX / 2);
        }
        assert_eq!(patience.blocked_ms(), u64::from(MOST_MS));
        assert_eq!(Patience::from_bits(0), Patience::NEW);
    }
}
