//! Judging measurements of a frequency, some of which are wrong.
//!
//! A virtual machine's host may stop it at any moment. A stop while a sample's two counters are being read makes the
//! sample vague; a stop at a bad moment in between, with a reference that wraps around, makes it precise and wrong. So
//! each sample is taken as an *interval* of frequencies that it allows, and the frequency that most samples allow wins
//! (the selection that NTP uses among time servers). Wrong samples rarely agree with each other. The average is of no
//! use: one sample may be wrong by a factor of a hundred.

use alloc::vec::Vec;

use super::scale::NS;

/// One measurement: a counter of unknown frequency advanced this far while a reference counted this long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Counts of the unknown counter.
    pub cycles: u64,
    /// What the reference says, in ns.
    pub ns: u64,
    /// How much `cycles` may be off, because the counters cannot be read in the same moment, and because the reference is
    /// coarse.
    pub slack_cycles: u64,
}

impl Sample {
    /// The lowest and highest frequency that this sample allows, in Hz.
    fn range(&self) -> (u64, u64) {
        let hz = |cycles: u64| {
            u64::try_from(u128::from(cycles) * u128::from(NS) / u128::from(self.ns)).unwrap_or(u64::MAX)
        };
        let low = hz(self.cycles.saturating_sub(self.slack_cycles));
        let high = hz(self.cycles.saturating_add(self.slack_cycles));
        (low - ppm_of(low, RIPPLE_PPM), high.saturating_add(ppm_of(high, RIPPLE_PPM)))
    }

    fn hz(&self) -> u64 {
        let (low, high) = self.range();
        low.midpoint(high)
    }

    /// The slack as a part of the whole, in ppm.
    fn vagueness_ppm(&self) -> u64 {
        part_ppm(self.slack_cycles, self.cycles)
    }
}

/// Two honest samples may differ by this much without slack: emulated clocks are not smooth.
const RIPPLE_PPM: u64 = 50;
/// A sample vaguer than this cannot contribute to the value.
const VAGUE_PPM: u64 = 10_000;

fn ppm_of(value: u64, ppm: u64) -> u64 {
    (u128::from(value) * u128::from(ppm) / 1_000_000) as u64
}

fn part_ppm(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// How far apart two frequencies are, in ppm of the first.
pub fn difference_ppm(a: u64, b: u64) -> u64 {
    part_ppm(a.abs_diff(b), a)
}

/// What samples say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The frequency in Hz.
    pub hz: u64,
    /// How far the samples that count are apart, in ppm.
    pub spread_ppm: u32,
    /// How many samples count.
    pub used: u32,
    /// How many contradict them or are too vague.
    pub rejected: u32,
}

/// The samples do not say: none is usable, or no two of them agree. Take more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Undecided {
    /// How many there were.
    pub samples: u32,
}

/// Finds the frequency that most samples allow. Pure; O(n²) for a handful of samples.
///
/// ```
/// use hal::x86_64::clock::{Sample, judge};
/// // 2.6 GHz over 5 ms, twice; and once with a stall of 50 ms that the reference missed.
/// let good = Sample { cycles: 13_000_000, ns: 5_000_000, slack_cycles: 500 };
/// let stalled = Sample { cycles: 143_000_000, ..good };
/// let verdict = judge(&[good, stalled, good]).unwrap();
/// assert!(verdict.hz.abs_diff(2_600_000_000) < 100_000);
/// assert_eq!((verdict.used, verdict.rejected), (2, 1));
/// ```
///
/// # Errors
/// [`Undecided`] if fewer than two samples agree, or if two different frequencies are allowed by equally many.
pub fn judge(samples: &[Sample]) -> Result<Verdict, Undecided> {
    let undecided = Undecided { samples: samples.len() as u32 };
    let usable: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.ns > 0 && sample.cycles > 0 && sample.vagueness_ppm() <= VAGUE_PPM)
        .collect();

    // The most allowed frequency is the lower end of some sample's range.
    let support = |hz: u64| usable.iter().filter(move |s| (s.range().0..=s.range().1).contains(&hz));
    let ends = usable.iter().map(|sample| sample.range().0);
    let (votes, best) = ends.clone().map(|hz| (support(hz).count(), hz)).max().ok_or(undecided)?;
    if votes < 2 {
        return Err(undecided);
    }
    // A second camp as large as the first, with no member in common, means that nobody knows.
    let rival = ends
        .filter(|hz| support(*hz).count() == votes)
        .any(|hz| support(hz).all(|sample| !(sample.range().0..=sample.range().1).contains(&best)));
    if rival {
        return Err(undecided);
    }

    let chosen: Vec<&&Sample> = support(best).collect();
    // Pool them: longer samples weigh more, and vague ones spoil sharp ones, so only those near the sharpest count.
    let sharpest = chosen.iter().map(|sample| sample.vagueness_ppm()).min().unwrap_or(0);
    let pooled: Vec<&&&Sample> =
        chosen.iter().filter(|sample| sample.vagueness_ppm() <= sharpest * 4 + RIPPLE_PPM).collect();
    let cycles: u128 = pooled.iter().map(|sample| u128::from(sample.cycles)).sum();
    let ns: u128 = pooled.iter().map(|sample| u128::from(sample.ns)).sum();
    let hz = u64::try_from(cycles * u128::from(NS) / ns).map_err(|_| undecided)?;
    let rates = pooled.iter().map(|sample| sample.hz());
    let spread = rates.clone().max().unwrap_or(hz) - rates.min().unwrap_or(hz);
    let used = pooled.len() as u32;
    Ok(Verdict {
        hz,
        spread_ppm: u32::try_from(part_ppm(spread, hz)).unwrap_or(u32::MAX),
        used,
        rejected: undecided.samples - used,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HZ: u64 = 2_596_000_000;

    fn good(ns: u64, error_cycles: i64) -> Sample {
        let cycles = (u128::from(HZ) * u128::from(ns) / u128::from(NS)) as u64;
        Sample { cycles: cycles.saturating_add_signed(error_cycles), ns, slack_cycles: 2_000 }
    }

    fn average(samples: &[Sample]) -> u64 {
        samples.iter().map(Sample::hz).sum::<u64>() / samples.len() as u64
    }

    #[test]
    fn a_host_that_stalls_during_6_of_8_tries_still_gives_the_right_frequency() {
        // While the guest stood still its TSC ran on and the 16-bit reference wrapped, once or several times.
        let stalled = |wraps: u64| {
            let ns = 5_000_000;
            let real = ns + wraps * 54_925_000;
            Sample {
                cycles: (u128::from(HZ) * u128::from(real) / u128::from(NS)) as u64,
                ns,
                slack_cycles: 2_000,
            }
        };
        let samples = [
            stalled(1),
            stalled(3),
            good(5_000_000, 900),
            stalled(2),
            stalled(4),
            stalled(1 << 1 | 1 << 2),
            good(5_001_000, -1200),
            stalled(5),
        ];
        assert!(average(&samples) > 9 * HZ, "the average is wrong by {}x", average(&samples) / HZ);
        let verdict = judge(&samples).unwrap();
        assert!(difference_ppm(HZ, verdict.hz) < 200, "{verdict:?}");
        assert_eq!((verdict.used, verdict.rejected), (2, 6));
    }

    #[test]
    fn stalls_the_other_way_are_rejected_as_well() {
        // A guest whose TSC stood still while the reference ran on: too slow by 9.
        let slow = |ns| Sample { cycles: good(5_000_000, 0).cycles, ns, slack_cycles: 2_000 };
        let samples =
            [slow(47_200_000), good(5_000_000, 0), slow(31_000_000), good(5_000_000, 300), slow(80_000_000)];
        assert!(difference_ppm(HZ, judge(&samples).unwrap().hz) < 200);
    }

    #[test]
    fn a_stall_inside_a_reading_only_makes_a_sample_vague() {
        let vague = Sample { slack_cycles: 130_000_000, ..good(5_000_000, 100_000_000) };
        let samples = [vague, good(5_000_000, 0), vague, good(5_000_000, 1000), vague];
        let verdict = judge(&samples).unwrap();
        assert!(difference_ppm(HZ, verdict.hz) < 200);
        assert_eq!(verdict.rejected, 3);
    }

    #[test]
    fn who_does_not_know_says_so() {
        assert_eq!(judge(&[]), Err(Undecided { samples: 0 }));
        assert_eq!(judge(&[good(5_000_000, 0)]), Err(Undecided { samples: 1 }));
        let dead = Sample { cycles: 0, ns: 0, slack_cycles: 0 };
        assert!(judge(&[dead, dead, dead]).is_err());
        let other = Sample { cycles: 99, ns: 7_000, slack_cycles: 0 };
        assert!(judge(&[good(5_000_000, 0), other]).is_err());
        // Two camps of two.
        assert!(judge(&[good(5_000_000, 0), other, other, good(5_000_000, 0)]).is_err());
        // Three against two.
        assert!(judge(&[good(5_000_000, 0), other, other, good(5_000_000, 0), other]).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        /// With at least three honest samples and any number of scattered liars the honest ones win.
        #[test]
        fn honest_samples_win(
            errors in prop::collection::vec(-1500i64..1500, 3..8),
            hz in 100_000_000u64..6_000_000_000,
            lies in prop::collection::vec(1usize..40, 0..12),
        ) {
            let cycles = |ns: u64| (u128::from(hz) * u128::from(ns) / u128::from(NS)) as u64;
            let honest = errors.iter().map(|e| Sample {
                cycles: cycles(5_000_000).saturating_add_signed(*e), ns: 5_000_000, slack_cycles: 1_500,
            });
            // Each lie has its own factor, so that no two agree.
            let lying = lies.iter().enumerate().map(|(n, lie)| Sample {
                cycles: cycles(5_000_000) * (2 + lie + 41 * n) as u64, ns: 5_000_000, slack_cycles: 1_500,
            });
            let samples: Vec<Sample> = lying.chain(honest).collect();
            let verdict = judge(&samples).unwrap();
            let allowed = 100 + 2 * 1_500 * 1_000_000 / cycles(5_000_000);
            prop_assert!(difference_ppm(hz, verdict.hz) <= allowed, "{verdict:?} for {hz}");
        }

        #[test]
        fn nothing_panics(raw in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..10)) {
            let samples: Vec<Sample> =
                raw.into_iter().map(|(cycles, ns, slack_cycles)| Sample { cycles, ns, slack_cycles }).collect();
            let _ = judge(&samples);
        }
    }
}
