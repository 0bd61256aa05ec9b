//! `cargo xtask bench compare`: the two kernels by turns, and one table.
//!
//! A busy host disturbs whoever happens to run. So the two take turns, and who begins changes from run to run; of each
//! operation's medians the median counts, and how far they are apart is shown.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::boot::Setting;
use super::lines::{Figure, Output};
use super::linux::{self, Linux};
use super::{guest, operations, results, table};
use crate::build::{BuildOptions, Chaos, Kernel};
use crate::qemu::{self, parse_cpus};
use crate::{ui, workspace};

/// Measure both kernels by turns, and put them side by side.
///
/// A ratio below 1 means that this kernel needs less than Linux or, where all CPUs contend, does more. Writes
/// target/bench/compare.txt and compare.json.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench compare --icount               instructions on 1 CPU\n  \
    cargo xtask bench compare --cpus 1,2,4           times\n  \
    cargo xtask bench compare throughput --cpus 4 --runs 5")]
pub(super) struct Compare {
    /// Parts of operations' names; with ! before them, what is left out
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Numbers of CPUs [default: 1,2,4, and 1 with --icount]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = parse_cpus)]
    cpus: Vec<u32>,
    /// Count instructions: each takes a nanosecond; on 1 CPU only
    #[arg(long)]
    icount: bool,
    /// Boots of each kernel [default: 3, and 1 with --icount]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: Option<u32>,
    #[command(flatten)]
    build: BuildOptions,
}

impl Compare {
    pub(super) fn run(self) -> Result<()> {
        operations::check_filters(&self.filters)?;
        self.build.ensure_measurable()?;
        let settings = self.settings();
        settings.iter().try_for_each(|setting| linux::check_setting(*setting))?;
        qemu::require(self.build.installing())?;
        let linux = Linux::prepare()?;
        let kernel = self.build.build(Chaos::Off)?;
        let mut text = format!("{}; Linux {}\n", results::machine_in_words(), linux.release);
        let mut files = Vec::new();
        for setting in settings {
            let comparison = self.compare(&kernel, &linux, setting)?;
            let part = comparison.text();
            print!("\n{part}");
            write!(text, "\n{part}")?;
            files.push(comparison.json());
        }
        let name = if self.icount { "compare-icount" } else { "compare" };
        let report = json!({ "machine": results::machine(), "linux": linux.release, "settings": files });
        results::write(&format!("{name}.json"), &report)?;
        let path = results::write_text(&format!("{name}.txt"), &text)?;
        ui::note(format_args!("written to {} and .json", workspace::shown(&path)));
        Ok(())
    }

    fn settings(&self) -> Vec<Setting> {
        let default: &[u32] = if self.icount { &[1] } else { &[1, 2, 4] };
        let cpus = if self.cpus.is_empty() { default } else { &self.cpus };
        cpus.iter().map(|&cpus| Setting { cpus, icount: self.icount }).collect()
    }

    fn compare(&self, kernel: &Kernel, linux: &Linux, setting: Setting) -> Result<Comparison> {
        let runs = self.runs.unwrap_or(if self.icount { 1 } else { 3 });
        let mut comparison = Comparison { setting, ours: Vec::new(), linux: Vec::new() };
        for run in 0..runs {
            ui::note(format_args!("{}: run {} of {runs}", setting.words(), run + 1));
            for turn in 0..2 {
                if (run + turn) % 2 == 0 {
                    let output = guest::measure(kernel, setting, &self.filters).context("Quiesce")?;
                    comparison.ours.push(output);
                } else {
                    comparison.linux.push(linux.measure(setting, &self.filters).context("Linux")?);
                }
            }
        }
        Ok(comparison)
    }
}

/// What all runs of one setting gave.
#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    setting: Setting,
    ours: Vec<Output>,
    linux: Vec<Output>,
}

/// One operation of one kernel, over all runs.
#[derive(Clone, Debug, PartialEq)]
struct Side {
    median: f64,
    least: f64,
    most: f64,
    fairness: Option<f64>,
    /// Of all runs together.
    histogram: Vec<u32>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: &'static str,
    unit: String,
    ours: Option<Side>,
    linux: Option<Side>,
    /// Below 1 where ours does better.
    ratio: Option<f64>,
}

impl Comparison {
    fn rows(&self) -> Vec<Row> {
        let row = |&name: &&'static str| {
            let find = |outputs: &[Output]| -> Vec<Figure> {
                outputs.iter().filter_map(|output| output.find(name).cloned()).collect()
            };
            let (ours, linux) = (find(&self.ours), find(&self.linux));
            let any = ours.first().or(linux.first())?;
            let (unit, more) = (any.unit.clone(), any.more_is_better());
            let (ours, linux) = (side(&ours), side(&linux));
            let ratio = match (&ours, &linux) {
                (Some(ours), Some(linux)) => ratio(ours.median, linux.median, more),
                _ => None,
            };
            Some(Row { name, unit, ours, linux, ratio })
        };
        operations::NAMES.iter().filter_map(row).collect()
    }

    fn text(&self) -> String {
        let rows = self.rows();
        let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
        let heading = ["OPERATION", "QUIESCE", "SPREAD", "LINUX", "SPREAD", "UNIT", "RATIO"];
        let mut text = format!("{}; {} of each\n", self.setting.words(), runs(self.ours.len()));
        text += &table::render(&heading, &cells);
        if let Some(summary) = summary(&rows) {
            text += &summary;
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows().iter().map(Row::json).collect();
        json!({
            "cpus": self.setting.cpus, "icount": self.setting.icount, "runs": self.ours.len(), "operations": rows
        })
    }
}

fn runs(count: usize) -> String {
    if count == 1 { "1 run".to_owned() } else { format!("{count} runs") }
}

fn side(figures: &[Figure]) -> Option<Side> {
    let mut medians: Vec<f64> = figures.iter().map(|figure| figure.median).collect();
    medians.sort_by(f64::total_cmp);
    let fairness = figures.iter().filter_map(|figure| figure.fairness).min_by(f64::total_cmp);
    let mut histogram = vec![0; figures.iter().map(|figure| figure.histogram.len()).max().unwrap_or(0)];
    for counts in figures.iter().map(|figure| &figure.histogram) {
        histogram.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    Some(Side {
        median: middle(&medians)?,
        least: *medians.first()?,
        most: *medians.last()?,
        fairness,
        histogram,
    })
}

/// The median of numbers in order.
fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// Ours over Linux's, or the other way round where more is better; `None` where one of them is nothing.
fn ratio(ours: f64, linux: f64, more_is_better: bool) -> Option<f64> {
    let (upper, lower) = if more_is_better { (linux, ours) } else { (ours, linux) };
    // Below a tenth of an instruction there is nothing to compare: two ticks of delay that are both none are equal.
    match (upper < 0.05, lower < 0.05) {
        (true, true) => Some(1.0),
        (_, true) => None,
        _ => Some(upper / lower),
    }
}

/// What is better than in Linux, what is not, and the median ratio. The loop is neither's.
fn summary(rows: &[Row]) -> Option<String> {
    let compared: Vec<(&str, f64)> = rows
        .iter()
        .filter(|row| row.name != "empty_loop")
        .filter_map(|row| Some((row.name, row.ratio?)))
        .collect();
    let mut ratios: Vec<f64> = compared.iter().map(|(_, ratio)| *ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median = middle(&ratios)?;
    // Half a per cent is what rounding to thousandths and the loop's last turn make of small figures.
    let worse: Vec<&str> =
        compared.iter().filter(|(_, ratio)| *ratio > 1.005).map(|(name, _)| *name).collect();
    let mut text = format!("{} compared, median ratio {median:.2}", compared.len());
    if !worse.is_empty() {
        text += &format!("; {} above 1: {}", worse.len(), worse.join(" "));
    }
    text.push('\n');
    Some(text)
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let [ours, our_spread] = cells_of(self.ours.as_ref());
        let [linux, linux_spread] = cells_of(self.linux.as_ref());
        let ratio = self.ratio.map_or("-".to_owned(), |ratio| match ratio {
            0.0..0.01 => format!("{ratio:.5}"),
            _ => format!("{ratio:.2}"),
        });
        vec![self.name.to_owned(), ours, our_spread, linux, linux_spread, self.unit.clone(), ratio]
    }

    fn json(&self) -> Value {
        let side = |side: &Option<Side>| {
            side.as_ref().map(|side| {
                let mut value = json!({
                    "median": side.median, "least": side.least, "most": side.most, "fairness": side.fairness
                });
                if !side.histogram.is_empty() {
                    value["histogram"] = json!(side.histogram);
                }
                value
            })
        };
        json!({
            "name": self.name, "unit": self.unit, "quiesce": side(&self.ours), "linux": side(&self.linux),
            "ratio": self.ratio,
        })
    }
}

/// The median, with the fairness where there is one, and how far the runs are apart.
fn cells_of(side: Option<&Side>) -> [String; 2] {
    let Some(side) = side else { return ["-".to_owned(), String::new()] };
    let mut shown = table::number(side.median);
    if let Some(fairness) = side.fairness {
        shown += &format!(" ({fairness:.2})");
    }
    let spread = match side.most > side.least {
        true => format!("{}..{}", table::number(side.least), table::number(side.most)),
        false => String::new(),
    };
    [shown, spread]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(lines: &[&str]) -> Output {
        let mut output = Output::default();
        lines.iter().for_each(|line| _ = output.take(line).unwrap());
        output
    }

    #[test]
    fn the_median_of_the_medians_counts() {
        let sides: Vec<Figure> = [12.0, 10.0, 50.0]
            .iter()
            .map(|ns| output(&[&format!("BENCH ktime_get {ns} ns")]).figures.remove(0))
            .collect();
        let side = side(&sides).unwrap();
        assert_eq!((side.median, side.least, side.most), (12.0, 10.0, 50.0));
        let late = ["40,20", "30,20,0,4"].map(|counts| {
            output(&[&format!("BENCH timer_late_L0 1 ticks histogram={counts}")]).figures.remove(0)
        });
        assert_eq!(super::side(&late).unwrap().histogram, [70, 40, 0, 4]);
        assert_eq!(middle(&[1.0, 3.0]), Some(2.0));
        assert_eq!(middle(&[]), None);
    }

    #[test]
    fn ratios_are_below_one_where_ours_does_better() {
        assert_eq!(ratio(10.0, 20.0, false), Some(0.5));
        assert_eq!(ratio(10.0, 20.0, true), Some(2.0));
        assert_eq!(ratio(0.0, 0.0, false), Some(1.0));
        assert_eq!(ratio(3.0, 0.0, false), None);
    }

    #[test]
    fn a_table() {
        let comparison = Comparison {
            setting: Setting { cpus: 1, icount: true },
            ours: vec![output(&[
                "BENCH empty_loop 2 ns",
                "BENCH ktime_get 41 ns",
                "BENCH cond_resched 6 ns",
                "BENCH mutex_throughput 40 Mops/s fairness=0.75",
            ])],
            linux: vec![output(&[
                "BENCH empty_loop 3 ns",
                "BENCH ktime_get 44 ns",
                "BENCH cond_resched 1 ns",
                "BENCH mutex_throughput 20 Mops/s fairness=1",
                "BENCH synchronize_rcu 12000000 ns",
            ])],
        };
        let text = comparison.text();
        assert!(text.starts_with("1 CPU, an instruction is a nanosecond; 1 run of each\n"), "{text}");
        assert!(text.ends_with("3 compared, median ratio 0.93; 1 above 1: cond_resched\n"), "{text}");
        let row = |name: &str| {
            text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(row("ktime_get"), ["ktime_get", "41.0", "44.0", "ns", "0.93"]);
        assert_eq!(row("mutex"), ["mutex_throughput", "40.0", "(0.75)", "20.0", "(1.00)", "Mops/s", "0.50"]);
        assert_eq!(row("synchronize_rcu"), ["synchronize_rcu", "-", "12,000,000", "ns", "-"]);
        let json = comparison.json();
        assert_eq!(json["operations"][1]["quiesce"]["median"], 41.0);
        assert!(json["operations"].as_array().unwrap().iter().any(|row| row["quiesce"].is_null()));
    }
}
