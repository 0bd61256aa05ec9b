//! From one frequency to another by a multiplication and a shift.

/// A conversion of counts at one frequency into counts at another.
///
/// # Invariants
/// `mult / 2^shift` is the quotient of the frequencies, rounded down, with at least 62 significant bits in `mult` unless
/// `shift` is 127.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    mult: u64,
    shift: u32,
}

/// Nanoseconds in a second.
pub const NS: u64 = 1_000_000_000;

impl Scale {
    /// From counts at `from_hz` to counts at `to_hz`.
    ///
    /// ```
    /// use hal::x86_64::clock::{NS, Scale};
    /// let to_ns = Scale::new(2_500_000_000, NS);
    /// // Rounded down, twice: by at most one.
    /// assert!((1_999_999_999..=2_000_000_000).contains(&to_ns.apply(5_000_000_000)));
    /// ```
    ///
    /// # Panics
    /// If one of them is zero.
    pub const fn new(from_hz: u64, to_hz: u64) -> Scale {
        assert!(from_hz > 0 && to_hz > 0, "a clock that stands still has no scale");
        // Long division, bit by bit, until 63 bits of quotient are there.
        let mut quotient = (to_hz / from_hz) as u128;
        let mut rest = (to_hz % from_hz) as u128;
        let mut shift = 0;
        while quotient < 1 << 62 && shift < 127 {
            rest <<= 1;
            quotient <<= 1;
            if rest >= from_hz as u128 {
                rest -= from_hz as u128;
                quotient |= 1;
            }
            shift += 1;
        }
        // INVARIANT: the loop stops as soon as the quotient has 63 bits, or at shift 127. A quotient of more than 64 bits
        // cannot be: it starts with at most 64.
        Scale { mult: quotient as u64, shift }
    }

    /// Converts. The result is at most one too small for results below 2^62, and wraps beyond 2^64. One multiplication and
    /// one shift.
    #[inline]
    pub const fn apply(self, count: u64) -> u64 {
        ((count as u128 * self.mult as u128) >> self.shift) as u64
    }

    /// Converts such that the result, converted back with the opposite scale, is never less than `count`: for deadlines
    /// that must not be early. Saturates.
    #[inline]
    pub const fn apply_up(self, count: u64) -> u64 {
        let result = (count as u128 * self.mult as u128) >> self.shift;
        if result >= u64::MAX as u128 - 2 { u64::MAX } else { result as u64 + 2 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_frequencies() {
        assert_eq!(Scale::new(NS, NS).apply(123), 123);
        // The PM timer's wrap, 24 bits.
        assert_eq!(Scale::new(3_579_545, NS).apply(1 << 24), 4_686_968_874);
        // A year of a 5 GHz counter; the factor is rounded down, so one nanosecond is missing.
        let year = 86_400 * 365;
        assert_eq!(Scale::new(5_000_000_000, NS).apply(5_000_000_000 * year), year * NS - 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn within_one_of_exact(from in 1u64..1 << 40, to in 1u64..1 << 40, count: u64) {
            let exact = count as u128 * to as u128 / from as u128;
            prop_assume!(exact < 1 << 62);
            let got = Scale::new(from, to).apply(count) as u128;
            prop_assert!(got <= exact && exact - got <= 1, "{got} {exact}");
        }

        #[test]
        fn never_goes_back(from in 1u64..1 << 40, a in 0u64..1 << 60, step in 0u64..1 << 20) {
            let scale = Scale::new(from, NS);
            prop_assume!((a as u128 + step as u128) * NS as u128 / (from as u128) < 1 << 63);
            prop_assert!(scale.apply(a) <= scale.apply(a + step));
        }

        #[test]
        fn deadlines_are_never_early(hz in 1_000_000u64..10_000_000_000, ns in 0u64..1 << 50) {
            let (there, back) = (Scale::new(NS, hz), Scale::new(hz, NS));
            // One count may be lost on the way back as well.
            prop_assert!(back.apply(there.apply_up(ns)) + 1 >= ns);
            prop_assert!(there.apply_up(ns) >= (ns as u128 * hz as u128).div_ceil(NS as u128) as u64);
        }
    }
}
