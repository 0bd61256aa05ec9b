//! The lines that both kernels write, as figures.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// What one operation costs, in the unit that it says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) samples: u32,
    /// The least served CPU's share over the most served one's.
    pub(super) fairness: Option<f64>,
    /// How many samples were 0 units, 1, 2 to 3, 4 to 7, and so on; empty where that is not said.
    pub(super) histogram: Vec<u32>,
}

impl Figure {
    /// Whether a larger number is the better one.
    pub(super) fn more_is_better(&self) -> bool {
        self.unit.ends_with("/s")
    }
}

/// What one boot has written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Output {
    /// What the kernel says of itself: `system`, `cpus`, `hz`.
    pub(super) info: BTreeMap<String, String>,
    pub(super) figures: Vec<Figure>,
    /// Whether it came to the end.
    pub(super) done: bool,
}

impl Output {
    /// Takes a line in. Returns whether it was one of ours; whatever stands before the word `BENCH` does not matter.
    ///
    /// # Errors
    /// If it begins like one of ours and does not go on so.
    pub(super) fn take(&mut self, line: &str) -> Result<bool> {
        let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("BENCH"));
        match words.next() {
            Some("BENCH") => {
                let figure = figure(words).with_context(|| format!("a line that is not whole: {line}"))?;
                ensure!(self.find(&figure.name).is_none(), "two lines for {}", figure.name);
                self.figures.push(figure);
            }
            Some("BENCH_INFO") => {
                let key = words.next().with_context(|| format!("a line that is not whole: {line}"))?;
                self.info.insert(key.to_owned(), words.collect::<Vec<_>>().join(" "));
            }
            Some("BENCH_DONE") => self.done = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}

fn figure<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Figure> {
    let name = words.next().context("no name")?.to_owned();
    let median: f64 = words.next().context("no number")?.parse().context("the number")?;
    let unit = words.next().context("no unit")?.to_owned();
    let mut figure = Figure {
        name,
        unit,
        median,
        min: median,
        p99: median,
        max: median,
        samples: 1,
        fairness: None,
        histogram: Vec::new(),
    };
    for word in words {
        let (key, value) = word.split_once('=').with_context(|| format!("`{word}` is no key=value"))?;
        if key == "histogram" {
            let counts = value.split(',').map(str::parse).collect::<Result<_, _>>();
            figure.histogram = counts.with_context(|| format!("`{word}` is no list of counts"))?;
            continue;
        }
        let value: f64 = value.parse().with_context(|| format!("`{word}` has no number"))?;
        match key {
            "min" => figure.min = value,
            "p99" => figure.p99 = value,
            "max" => figure.max = value,
            "samples" => figure.samples = value as u32,
            "fairness" => figure.fairness = Some(value),
            // A newer kernel may know more.
            _ => {}
        }
    }
    Ok(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kernels() {
        let mut output = Output::default();
        assert!(
            output.take("BENCH spin_lock_unlock 14.001 ns min=13.5 p99=14.2 max=20.000 samples=101").unwrap()
        );
        let line =
            "[    9.1] BENCH mutex_throughput 35.9 Mops/s min=35 p99=36 max=36 samples=3 fairness=0.805";
        assert!(output.take(line).unwrap());
        assert!(output.take("[    1.5] BENCH_INFO system Linux 6.1.0").unwrap());
        assert!(!output.take("[    1.6] clocksource: Switched").unwrap());
        assert!(!output.done);
        assert!(output.take("BENCH_DONE").unwrap());
        assert!(output.done);
        let lock = output.find("spin_lock_unlock").unwrap();
        assert_eq!(
            (lock.median, lock.min, lock.p99, lock.max, lock.samples),
            (14.001, 13.5, 14.2, 20.0, 101)
        );
        assert!(!lock.more_is_better());
        let mutex = output.find("mutex_throughput").unwrap();
        assert!(mutex.more_is_better() && mutex.fairness == Some(0.805));
        assert_eq!(output.info["system"], "Linux 6.1.0");
    }

    #[test]
    fn histograms_are_counts_in_classes() {
        let mut output = Output::default();
        output.take("BENCH timer_late_L0 1.000 ticks max=5.000 samples=64 histogram=40,20,0,4").unwrap();
        assert_eq!(output.find("timer_late_L0").unwrap().histogram, [40, 20, 0, 4]);
        assert!(output.take("BENCH timer_late_L1 1.000 ticks histogram=40,x").is_err());
    }

    #[test]
    fn torn_lines_are_errors() {
        for torn in
            ["BENCH", "BENCH name", "BENCH name x ns", "BENCH name 1.0", "BENCH name 1.0 ns mi", "BENCH_INFO"]
        {
            assert!(Output::default().take(torn).is_err(), "{torn}");
        }
    }

    #[test]
    fn a_name_comes_once() {
        let mut output = Output::default();
        output.take("BENCH a 1 ns").unwrap();
        assert!(output.take("BENCH a 2 ns").is_err());
    }
}
