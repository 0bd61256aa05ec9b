//! How long something has not moved.

/// Looks at something that ought to move, once a tick.
///
/// ```
/// use kernel::watchdog::Stall;
/// let mut stall = Stall::new();
/// // The same value, 1 + 3 times:
/// assert_eq!([7, 7, 7, 7].map(|value| stall.look(true, value, 3)), [None, None, None, Some(3)]);
/// assert_eq!(stall.look(true, 7, 3), None); // told already
/// assert_eq!(stall.look(true, 8, 3), None); // it moves
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stall {
    value: u64,
    looks: u64,
    told: bool,
}

impl Stall {
    /// Nothing has been seen.
    pub const fn new() -> Stall {
        Stall { value: 0, looks: 0, told: false }
    }

    /// One look: whether it ought to move at all, and its value. Once it ought to and has not moved for `limit` looks, gives
    /// their number; for each stall once.
    pub fn look(&mut self, ought_to_move: bool, value: u64, limit: u64) -> Option<u64> {
        if !ought_to_move || self.looks == 0 || value != self.value {
            *self = Stall { value, looks: u64::from(ought_to_move), told: false };
            return None;
        }
        self.looks += 1;
        let still_for = self.looks - 1;
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
        /// Against the whole history.
        #[test]
        fn tells_each_stall_once(
            looks in proptest::collection::vec((proptest::bool::weighted(0.9), 0..2_u64), 0..80),
            limit in 1..6_u64,
        ) {
            let mut stall = Stall::new();
            for (now, (ought, value)) in looks.iter().enumerate() {
                let same = looks[..=now].iter().rev().take_while(|look| look.0 && look.1 == *value).count() as u64;
                let expected = (*ought && same == limit + 1).then_some(limit);
                prop_assert_eq!(stall.look(*ought, *value, limit), expected);
            }
        }
    }
}
