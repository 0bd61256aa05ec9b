//! A 64-bit counter out of a narrow one that wraps around.

use core::sync::atomic::{AtomicU64, Ordering};

/// Extends a counter of `bits` bits, shared by all CPUs and contexts.
///
/// It remembers the last extended value. A read loads that, then the hardware, and adds the difference modulo the
/// hardware's width. One compare-and-swap publishes the sum; if it fails another read has published a newer value in
/// the meantime, which is returned instead. So a read is wait-free, may interrupt another (NMI), and values never go
/// back in the order in which reads complete.
///
/// Some read must happen at least once per wrap (4.6 s for a 24-bit PM timer): a timer tick or the idle loop does that.
#[derive(Debug)]
pub struct Extended {
    last: AtomicU64,
    mask: u64,
}

impl Extended {
    /// Starts at the hardware value `raw`.
    pub const fn new(bits: u32, raw: u64) -> Extended {
        let mask = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        Extended { last: AtomicU64::new(raw & mask), mask }
    }

    /// The extended value. `hardware` reads the counter.
    #[inline]
    pub fn read(&self, hardware: impl FnOnce() -> u64) -> u64 {
        // Acquire: pairs with the release half of the exchange below. The hardware is read after the value from which
        // the difference is taken was published, hence after that value was read from it.
        let last = self.last.load(Ordering::Acquire);
        let now = last.wrapping_add(hardware().wrapping_sub(last) & self.mask);
        // Release: as above. Acquire on failure: a caller sees what the publisher saw.
        match self.last.compare_exchange(last, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(newer) => newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn equals_the_wide_counter(
            bits in 8u32..=64,
            start in 0u64..1 << 50,
            steps in prop::collection::vec(0u64..256, 1..200),
        ) {
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            let mut wide = start;
            let extended = Extended::new(bits, wide & mask);
            let offset = wide - (wide & mask);
            for step in steps {
                wide += step;
                prop_assert_eq!(extended.read(|| wide & mask) + offset, wide);
            }
        }

        /// A reader that stalls between the two steps while others read: never back, and no wrap is gained or lost.
        #[test]
        fn an_interrupted_read_is_never_behind(before in 0u64..200, during in 1u64..55) {
            let extended = Extended::new(8, 0);
            let first = extended.read(|| before & 0xff);
            let mut nested = 0;
            let outer = extended.read(|| {
                nested = extended.read(|| (before + during) & 0xff);
                before & 0xff
            });
            prop_assert!(nested >= first && outer >= nested);
            prop_assert_eq!(extended.read(|| (before + during) & 0xff), before + during);
        }
    }

    #[test]
    fn never_goes_back_across_threads() {
        let hardware = AtomicU64::new(0);
        let extended = Extended::new(12, 0);
        let seen = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let published = seen.load(Ordering::Acquire);
                        let value = extended.read(|| hardware.fetch_add(1, Ordering::AcqRel) & 0xfff);
                        assert!(value >= published, "{value} after {published}");
                        seen.fetch_max(value, Ordering::AcqRel);
                    }
                });
            }
        });
        let end: Vec<u64> = [hardware.load(Ordering::Relaxed), seen.load(Ordering::Relaxed)].into();
        assert!(end[1] < end[0] && end[0] - end[1] < 4096, "{end:?}");
    }
}
