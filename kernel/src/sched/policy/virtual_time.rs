//! The clock of the fair class, and what a stretch of real time is on it.
//!
//! A task's virtual time advances while it runs, the slower the more weight it has: at weight 1,024 by [`PER_NS`] units a
//! nanosecond. The units are that fine so that the heaviest task, 87 times as slow, still sees single nanoseconds. In
//! return the clock wraps, after days at the soonest; moments are compared by their signed difference and never by size.

use core::cmp::Ordering;

use super::class::WEIGHT_OF_NICE_0;

/// Units a nanosecond at weight 1,024.
pub(super) const PER_NS: u64 = 256;
/// Units times weight a nanosecond, whatever the weight.
const SERVICE_PER_NS: u64 = PER_NS * WEIGHT_OF_NICE_0 as u64;
/// Binary places of [`Weight::inverse`].
const INVERSE_PLACES: u32 = 32;
/// The longest stretch of real time that is counted at once, 1.07 s. What is longer was not a task's doing, and sums of
/// many such could not stand it.
pub(super) const LONGEST_NS: u64 = 1 << 30;

/// A moment in virtual time.
///
/// Moments that are compared must be less than 2^63 units apart, which takes a task of the least weight 6 days of running
/// without a break.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct VirtualTime(u64);

impl VirtualTime {
    /// Where every queue begins: soon to wrap, so that a comparison that cannot stand it does not live long.
    pub(super) const START: VirtualTime = VirtualTime(0_u64.wrapping_sub(PER_NS * 20_000_000));

    /// How far `self` is after `earlier`; negative if it is before.
    #[inline(always)]
    pub(super) const fn since(self, earlier: VirtualTime) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    #[inline(always)]
    pub(super) const fn plus(self, units: i64) -> VirtualTime {
        VirtualTime(self.0.wrapping_add_signed(units))
    }
}

impl Ord for VirtualTime {
    #[inline(always)]
    fn cmp(&self, other: &VirtualTime) -> Ordering {
        self.since(*other).cmp(&0)
    }
}

impl PartialOrd for VirtualTime {
    #[inline(always)]
    fn partial_cmp(&self, other: &VirtualTime) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A weight, and what saves dividing by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Weight {
    pub(super) value: u32,
    /// Virtual units a nanosecond, with [`INVERSE_PLACES`] binary places.
    inverse: u64,
}

impl Weight {
    pub(super) const fn new(value: u32) -> Weight {
        let inverse = ((SERVICE_PER_NS << INVERSE_PLACES) + value as u64 / 2) / value as u64;
        Weight { value, inverse }
    }

    /// How far virtual time goes in `ns` of running.
    #[inline(always)]
    pub(super) const fn virtual_units(self, ns: u64) -> i64 {
        let ns = if ns > LONGEST_NS { LONGEST_NS } else { ns };
        // At most 2^30 ns by 2^15 units each.
        ((ns as u128 * self.inverse as u128) >> INVERSE_PLACES) as i64
    }

    /// How long it takes until virtual time has gone that far, in nanoseconds, rounded up; 0 if it has.
    #[inline]
    pub(super) const fn ns_until(self, units: i64) -> u64 {
        if units <= 0 {
            return 0;
        }
        let ns = ((units as u128) << INVERSE_PLACES).div_ceil(self.inverse as u128);
        if ns > LONGEST_NS as u128 { LONGEST_NS } else { ns as u64 }
    }
}
