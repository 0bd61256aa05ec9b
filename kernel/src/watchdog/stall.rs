//! How long something has not moved.

/// Looks at something that ought to move, once a tick or less often.
///
/// ```
/// use kernel::watchdog::Stall;
/// let mut stall = Stall::new();
/// // The same value, 1 + 3 times:
/// assert_eq!([7, 7, 7, 7].map(|value| stall.look(1, true, value, 3)), [None, None, None, Some(3)]);
/// assert_eq!(stall.look(1, true, 7, 3), None); // told already
/// assert_eq!(stall.look(1, true, 8, 3), None); // it moves
/// assert_eq!(stall.look(3, true, 8, 3), Some(3)); // a look after three ticks
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stall {
    value: u64,
    /// One more than the ticks for which it has stood still; 0 before it was seen, or while it need not move.
    ticks: u64,
    told: bool,
}

impl Stall {
    /// Nothing has been seen.
    pub const fn new() -> Stall {
        Stall { value: 0, ticks: 0, told: false }
    }

    /// One look, `ticks` after the last one: whether it ought to move at all, and its value. Once it ought to and has not
    /// moved for `limit` ticks, gives their number; for each stall once.
    pub fn look(&mut self, ticks: u64, ought_to_move: bool, value: u64, limit: u64) -> Option<u64> {
        if !ought_to_move || self.ticks == 0 || value != self.value {
            *self = Stall { value, ticks: u64::from(ought_to_move), told: false };
            return None;
        }
        self.ticks += ticks;
        let still_for = self.ticks - 1;
        if self.told || still_for < limit {
            return None;
        }
        self.told = true;
        Some(still_for)
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
        fn tells_each_stall_once(
            looks in proptest::collection::vec((proptest::bool::weighted(0.9), 0..2_u64, 1..4_u64), 0..80),
            limit in 1..9_u64,
        ) {
            let mut stall = Stall::new();
            for (now, (ought, value, ticks)) in looks.iter().enumerate() {
                let same = looks[..=now].iter().rev().take_while(|look| look.0 && look.1 == *value);
                let (count, sum) = same.fold((0, 0), |(count, sum), look| (count + 1, sum + look.2));
                // The first look at the value begins the stall.
                let still = sum - if count > 0 { looks[now + 1 - count].2 } else { 0 };
                let expected = (*ought && still >= limit && still - ticks < limit && count > 1).then_some(still);
                prop_assert_eq!(stall.look(*ticks, *ought, *value, limit), expected);
            }
        }
    }
}
