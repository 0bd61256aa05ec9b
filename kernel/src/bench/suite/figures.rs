//! What came of a measurement, and the line that says so.

use core::fmt;

use alloc::vec::Vec;

/// What a figure is counted in. Each is kept in thousandths, so that a tenth of a nanosecond is no fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds for one operation; instructions, under an emulator that counts an instruction as a nanosecond.
    Ns,
    /// Ticks of the coarse timers' time.
    Ticks,
    /// Millions of operations a second, of all CPUs together.
    MopsPerSecond,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Ns => "ns",
            Unit::Ticks => "ticks",
            Unit::MopsPerSecond => "Mops/s",
        })
    }
}

/// The samples of one benchmark.
///
/// # Invariants
/// `thousandths` is sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    unit: Unit,
    thousandths: Vec<u64>,
    /// The least served CPU's share over the most served one's, in thousandths.
    fairness: Option<u64>,
}

impl Figures {
    /// Samples in any order, in thousandths of the unit.
    pub fn new(unit: Unit, mut thousandths: Vec<u64>) -> Figures {
        thousandths.sort_unstable();
        Figures { unit, thousandths, fairness: None }
    }

    /// The same with a fairness, in thousandths.
    #[must_use]
    pub fn with_fairness(self, thousandths: u64) -> Figures {
        Figures { fairness: Some(thousandths), ..self }
    }

    /// The sample that `percent` of the others are not above; 0 if there are none.
    fn percentile(&self, percent: usize) -> u64 {
        let last = self.thousandths.len().saturating_sub(1);
        self.thousandths.get(last * percent / 100).copied().unwrap_or(0)
    }

    /// How many samples are below 1, how many are 1, 2 to 3, 4 to 7, and so on up to the greatest, in whole units.
    fn by_class(&self) -> Vec<u32> {
        let class =
            |thousandths: u64| (thousandths / 1_000).checked_ilog2().map_or(0, |log| log as usize + 1);
        let mut counts = alloc::vec![0; 1 + class(self.percentile(100))];
        self.thousandths.iter().for_each(|sample| counts[class(*sample)] += 1);
        counts
    }

    /// Half of the samples are not above it. In thousandths of the unit.
    pub fn median(&self) -> u64 {
        self.percentile(50)
    }
}

/// What follows the name in a line: `median unit min=.. p99=.. max=.. samples=..`, and for ticks `histogram=..`.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, p99, max] = [50, 0, 99, 100].map(|percent| Thousandths(self.percentile(percent)));
        let samples = self.thousandths.len();
        write!(f, "{median} {} min={min} p99={p99} max={max} samples={samples}", self.unit)?;
        self.fairness.map_or(Ok(()), |fairness| write!(f, " fairness={}", Thousandths(fairness)))?;
        if self.unit == Unit::Ticks {
            write!(f, " histogram=")?;
            for (class, count) in self.by_class().into_iter().enumerate() {
                write!(f, "{}{count}", if class == 0 { "" } else { "," })?;
            }
        }
        Ok(())
    }
}

/// A number of thousandths, with its point.
struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_line() {
        let figures = Figures::new(Unit::Ns, alloc::vec![7_250, 6_000, 1_000_001]);
        assert_eq!(figures.to_string(), "7.250 ns min=6.000 p99=7.250 max=1000.001 samples=3");
        let shared = Figures::new(Unit::MopsPerSecond, alloc::vec![12_100]).with_fairness(805);
        assert_eq!(
            shared.to_string(),
            "12.100 Mops/s min=12.100 p99=12.100 max=12.100 samples=1 fairness=0.805"
        );
    }

    #[test]
    fn ticks_are_counted_by_class() {
        let figures = Figures::new(Unit::Ticks, [0, 0, 1, 2, 3, 8].map(|ticks| ticks * 1_000).to_vec());
        assert!(figures.to_string().ends_with(" samples=6 histogram=2,1,2,0,1"), "{figures}");
        let none = Figures::new(Unit::Ticks, Vec::new());
        assert!(none.to_string().ends_with(" samples=0 histogram=0"), "{none}");
    }

    #[test]
    fn percentiles() {
        let figures = Figures::new(Unit::Ticks, (0..=100).rev().collect());
        assert_eq!([0, 50, 99, 100].map(|percent| figures.percentile(percent)), [0, 50, 99, 100]);
        assert_eq!(Figures::new(Unit::Ticks, Vec::new()).median(), 0);
    }
}
