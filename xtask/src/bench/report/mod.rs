//! `cargo xtask bench report`: what was measured, drawn, on one page that needs nothing else.
//!
//! The page has its styles and plots inside ([`page`]); plots are SVG whose colours follow the page's, light or dark
//! ([`plot`]). [`data`] finds the figures in what the other commands have written. It shows what is there: results that were not measured yet are named, with the command that measures them.

#[cfg(test)]
mod browser_tests;
mod data;
mod page;
mod plot;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::results;
use crate::{ui, workspace};
use data::{Operation, Table, number, operations};
use page::{Page, Section};
use plot::{Bar, Line, Scale, Up};

/// Draw what was measured: one HTML page with plots.
///
/// Reads what `bench compare` and `bench host` have written; writes target/bench/report.html.
#[derive(Args)]
pub(super) struct Report {}

impl Report {
    pub(super) fn run(self) -> Result<()> {
        let read = |name: &str| results::read(&results::folder().join(name));
        let measured = Measured {
            counted: read("compare-icount.json")?,
            timed: read("compare.json")?,
            host: read("host.json")?,
        };
        if measured.counted.is_none() && measured.timed.is_none() && measured.host.is_none() {
            bail!(
                "nothing was measured yet; `cargo xtask bench compare --icount`, `bench compare` and `bench host` do"
            );
        }
        let path = results::write_text("report.html", &measured.page().html())?;
        ui::note(format_args!("written to {}", workspace::shown(&path)));
        Ok(())
    }
}

/// The files of other commands.
struct Measured {
    counted: Option<Value>,
    timed: Option<Value>,
    host: Option<Value>,
}

/// How readers can be kept from what goes, and in which words; the plot that shows why RCU is there.
const READERS: [(&str, &str); 4] = [
    ("rcu_read_throughput", "RCU"),
    ("seqlock_read_throughput", "sequence lock"),
    ("rwlock_read_throughput", "reader-writer lock"),
    ("refcount_read_throughput", "reference count"),
];

/// What one CPU at a time may hold.
const LOCKS: [(&str, &str); 3] = [
    ("spinlock_throughput", "spin lock"),
    ("spinlock_irqsave_throughput", "spin lock, interrupts off"),
    ("mutex_throughput", "mutex"),
];

const SYSTEMS: [&str; 2] = ["Quiesce", "Linux"];

impl Measured {
    fn page(&self) -> Page {
        let machine = [&self.timed, &self.counted, &self.host].into_iter().flatten().next();
        let machine = machine.map_or(&Value::Null, |file| &file["machine"]);
        let mut page = Page::new(&format!(
            "{}, {} cores, QEMU {}",
            machine["processor"].as_str().unwrap_or("an unknown processor"),
            machine["cores"],
            machine["qemu"].as_str().unwrap_or("unknown")
        ));
        page.add(self.instructions());
        page.add(self.times());
        page.add(self.scaling());
        page.add(self.timers());
        page.add(self.lateness());
        page.add(self.periods());
        page.add(self.peers());
        page
    }

    fn instructions(&self) -> Section {
        let section = Section::new(
            "Instructions, against Linux",
            "One CPU, counted: the same in every run. Ours over Linux's: left of the line is less. Bars end at an eighth \
             and at eight times.",
        );
        let Some(counted) = &self.counted else {
            return section.missing("cargo xtask bench compare --icount");
        };
        section.plots_or(
            ratios("Instructions, ratio", &operations(counted), 1),
            "cargo xtask bench compare --icount",
        )
    }

    fn times(&self) -> Section {
        let section = Section::new(
            "Time, against Linux",
            "With the most CPUs that were measured. Left of the line is better than Linux. Bars end at an eighth and at eight times.",
        );
        let Some(timed) = &self.timed else { return section.missing("cargo xtask bench compare") };
        let operations = operations(timed);
        let most = operations.iter().map(|operation| operation.cpus).max().unwrap_or(1);
        let title = format!("Time, ratio, {most} CPUs");
        section.plots_or(ratios(&title, &operations, most), "cargo xtask bench compare")
    }

    /// What grows with the number of CPUs, and what does not: readers, and whoever takes a lock.
    fn scaling(&self) -> Section {
        let section = Section::new(
            "All CPUs at once",
            "Millions of sections or acquisitions a second, of all CPUs together. Nobody writes while they read. Lines are \
             Quiesce, dashed ones Linux.",
        );
        let Some(timed) = &self.timed else {
            return section.missing("cargo xtask bench compare throughput --cpus 1,2,4");
        };
        let operations = operations(timed);
        let plot = |title: &str, kinds: &[(&str, &str)]| {
            let mut lines = Vec::new();
            for (colour, (name, label)) in kinds.iter().enumerate() {
                for (side, system) in SYSTEMS.iter().enumerate() {
                    let points = points(&operations, name, side);
                    if !points.is_empty() {
                        let label = format!("{label}, {system}");
                        lines.push(Line { label, points, colour, dashed: side == 1 });
                    }
                }
            }
            (!lines.is_empty()).then(|| plot::lines(title, "CPUs", "million a second", Up::ByTens, &lines))
        };
        let plots = [plot("Reading: RCU and the others", &READERS), plot("One lock", &LOCKS)];
        section.plots_or(
            plots.into_iter().flatten().collect(),
            "cargo xtask bench compare throughput --cpus 1,2,4",
        )
    }

    /// What `bench host wheel` prints for each number of timers.
    fn timers(&self) -> Section {
        const COMMAND: &str = "cargo xtask bench host wheel";
        let section = Section::new(
            "What a coarse timer costs, by how many there are",
            "Nanoseconds on this machine, not in a guest. Timers are used in random order: with a million of them each use \
             misses the cache.",
        );
        let tables: Vec<(f64, Table)> = self
            .tables("bench-host/wheel")
            .into_iter()
            .filter_map(|table| {
                let count = table.heading.first().filter(|name| name.ends_with(" timers"))?;
                Some((number(count)?, table))
            })
            .collect();
        let Some((_, first)) = tables.first() else { return section.missing(COMMAND) };
        let names: Vec<&String> = first.rows.iter().filter_map(|row| row.first()).collect();
        let mut plots = Vec::new();
        for (column, title) in [
            ("insert", "To arm one"),
            ("cancel", "To take one back"),
            ("random", "To change a time"),
            ("spread", "To expire"),
        ] {
            let mut lines = Vec::new();
            for (at, name) in names.iter().enumerate() {
                let point = |(count, table): &(f64, Table)| {
                    let row = table.rows.iter().find(|row| row.first() == Some(name))?;
                    Some((*count, number(row.get(table.column(column)?)?)?))
                };
                let points: Vec<(f64, f64)> = tables.iter().filter_map(point).collect();
                lines.push(Line { label: (*name).clone(), points, colour: at, dashed: at >= 4 });
            }
            plots.push(plot::lines(title, "timers", "nanoseconds", Up::ByTens, &lines));
        }
        section.plots_or(plots, COMMAND)
    }

    fn lateness(&self) -> Section {
        const COMMAND: &str = "cargo xtask bench compare timer_late --icount";
        let section = Section::new(
            "How late coarse timers are called",
            "Of 64 timers in each run, how many were so many ticks late. Level 0 is 8 to 60 ticks ahead, level 1 70 to 500, \
             level 2 520 to 1,500.",
        );
        let Some(file) = self.counted.as_ref().or(self.timed.as_ref()) else {
            return section.missing(COMMAND);
        };
        let operations = operations(file);
        let Some(cpus) = operations.iter().map(|operation| operation.cpus).min() else {
            return section.missing(COMMAND);
        };
        let mut plots = Vec::new();
        let late = operations.iter().filter(|op| op.cpus == cpus && op.name.starts_with("timer_late_L"));
        for operation in late {
            let level = operation.name.trim_start_matches("timer_late_L");
            let mut bars = Vec::new();
            let classes = operation.histograms.iter().map(Vec::len).max().unwrap_or(0);
            for class in 0..classes {
                for (counts, system) in operation.histograms.iter().zip(SYSTEMS) {
                    let value = counts.get(class).copied().unwrap_or(0) as f64;
                    if !counts.is_empty() {
                        bars.push(Bar { label: format!("{}, {system}", ticks_of_class(class)), value });
                    }
                }
            }
            if !bars.is_empty() {
                plots.push(plot::bars(&format!("Level {level}: timers so late"), &bars, Scale::Linear));
            }
        }
        section.plots_or(plots, COMMAND)
    }

    /// What the simulation of grace periods prints.
    fn periods(&self) -> Section {
        const COMMAND: &str = "cargo xtask bench host grace_periods";
        let section = Section::new(
            "What a grace period costs, by how many CPUs there are",
            "Counted in a simulation with the real tree: locks of nodes taken by all CPUs together, and messages that one \
             sends another. The other CPUs are idle, or switch tasks, or queue a callback each as well.",
        );
        let Some(table) = self.tables("rcu/grace_periods").into_iter().next() else {
            return section.missing(COMMAND);
        };
        let mut plots = Vec::new();
        for (column, title, up) in [
            ("node locks", "Locks taken", Up::ByTens),
            (".. for each CPU", "Locks taken, for each CPU", Up::Evenly),
            (".. of the busiest node", "Times the busiest lock was taken", Up::Evenly),
            ("messages", "Messages", Up::Evenly),
        ] {
            let Some(column) = table.column(column) else { continue };
            let mut lines: Vec<Line> = Vec::new();
            for row in &table.rows {
                let cell = |at: usize| row.get(at).and_then(|text| number(text));
                let (Some(cpus), Some(value), Some(who)) = (cell(0), cell(column), row.get(1)) else {
                    continue;
                };
                let label = format!("the others: {}", who.to_lowercase());
                match lines.iter_mut().find(|line| line.label == label) {
                    Some(line) => line.points.push((cpus, value)),
                    None => {
                        let colour = lines.len();
                        lines.push(Line { label, points: vec![(cpus, value)], colour, dashed: false });
                    }
                }
            }
            plots.push(plot::lines(title, "CPUs", "in one grace period", up, &lines));
        }
        section.plots_or(plots, COMMAND)
    }

    fn peers(&self) -> Section {
        let section = Section::new(
            "The crates and their peers",
            "Nanoseconds on this machine, not in a guest. Bars grow by factors: one that is a little longer is much slower.",
        );
        let mut groups: BTreeMap<&str, Vec<Bar>> = BTreeMap::new();
        let rows = self.host.iter().filter_map(|host| host["criterion"].as_array()).flatten();
        for row in rows {
            let (Some(name), Some(value)) = (row["name"].as_str(), row["median"].as_f64()) else { continue };
            let (group, label) = name.split_once('/').unwrap_or((name, name));
            groups.entry(group).or_default().push(Bar { label: label.to_owned(), value });
        }
        let plots = groups.iter().map(|(group, bars)| plot::bars(group, bars, Scale::Log { line: None }));
        section.plots_or(plots.collect(), "cargo xtask bench host")
    }

    /// The tables that one benchmark on the host has printed.
    fn tables(&self, target: &str) -> Vec<Table> {
        let text = self.host.as_ref().and_then(|host| host["tables"][target].as_str());
        text.map(Table::all_of).unwrap_or_default()
    }
}

/// What is in a class of a histogram.
fn ticks_of_class(class: usize) -> String {
    match class {
        0 => "in time".to_owned(),
        1 => "1 tick".to_owned(),
        _ => format!("{} to {} ticks", 1_u64 << (class - 1), (1_u64 << class) - 1),
    }
}

fn points(operations: &[Operation<'_>], name: &str, side: usize) -> Vec<(f64, f64)> {
    let of_name = operations.iter().filter(|operation| operation.name == name);
    of_name.filter_map(|operation| Some((operation.cpus as f64, operation.medians[side]?))).collect()
}

/// In order, and in two plots that may stand beside each other if there are many.
fn ratios(title: &str, operations: &[Operation<'_>], cpus: u64) -> Vec<String> {
    const MANY: usize = 32;
    let wanted =
        operations.iter().filter(|operation| operation.cpus == cpus && operation.name != "empty_loop");
    let mut bars: Vec<Bar> = wanted
        .filter_map(|operation| Some(Bar { label: operation.name.to_owned(), value: operation.ratio? }))
        .collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    let scale = Scale::Log { line: Some(1.0) };
    if bars.len() <= MANY {
        return bars.chunks(MANY).map(|bars| plot::bars(title, bars, scale)).collect();
    }
    let halves = bars.chunks(bars.len().div_ceil(2)).zip(["the lower half", "the upper half"]);
    halves.map(|(bars, half)| plot::bars(&format!("{title}, {half}"), bars, scale)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn side(median: f64) -> Value {
        json!({ "median": median, "least": median, "most": median })
    }

    fn comparison() -> Value {
        let setting = |cpus: u32| {
            let row = |name: &str, ours: f64, linux: f64| json!({ "name": name, "unit": "ns", "quiesce": side(ours), "linux": side(linux), "ratio": ours / linux });
            let mut rows: Vec<Value> = READERS
                .iter()
                .chain(&LOCKS)
                .zip(1..)
                .map(|((name, _), at)| row(name, f64::from(at * cpus), 5.0 / f64::from(at)))
                .collect();
            rows.push(row("spin_lock_unlock", 12.0, 17.0));
            rows.push(row("workqueue_queue_to_run_same_cpu", 1040.0, 3021.0));
            for level in ["timer_late_L0", "timer_late_L1"] {
                let mut late = row(level, 4.0, 5.0);
                late["quiesce"]["histogram"] = json!([40, 20, 3, 1]);
                late["linux"]["histogram"] = json!([0, 64]);
                rows.push(late);
            }
            json!({ "cpus": cpus, "operations": rows })
        };
        json!({ "machine": { "processor": "a <fast> one", "cores": 2, "qemu": "7.2" },
            "settings": [setting(1), setting(2), setting(4)] })
    }

    fn host() -> Value {
        let wheel: String = [1_000, 100_000, 1_000_000]
            .map(|timers| {
                format!(
                    "\n| {timers} timers | fill | insert | cancel | random | spread |\n|---|---:|---:|---:|---:|---:|\n\
                     | ours | 9.1 | 6.1 | 3.0 | 8 | 12 |\n| a tree | 50 | 120 | 80 | 300 | 1,400 |\n"
                )
            })
            .concat();
        let periods = "| CPUs | the others | node locks | .. for each CPU | .. of the busiest node | messages |\n|---:|---|---:|---:|---:|---:|\n\
            | 4 | Idle | 12 | 3.00 | 12 | 0.0 |\n| 4096 | Idle | 600 | 0.15 | 60 | 0.0 |\n| 4 | Switch | 20 | 5.00 | 20 | 1.0 |\n\
            | 4096 | Switch | 5,000 | 1.22 | 80 | 1.0 |\n";
        json!({
            "criterion": [{ "name": "spin/ours", "median": 6.0 }, { "name": "spin/theirs", "median": 266_144_272.0 }],
            "tables": { "bench-host/wheel": wheel, "rcu/grace_periods": periods },
        })
    }

    /// A page with all of its plots, of figures made up.
    pub(super) fn whole_page() -> String {
        let measured =
            Measured { counted: Some(comparison()), timed: Some(comparison()), host: Some(host()) };
        measured.page().html()
    }

    /// How many plots that page has: two of ratios, two over CPUs, four of timers, two of lateness, four of grace periods, one
    /// of peers.
    pub(super) const PLOTS: usize = 15;

    fn svgs(html: &str) -> Vec<&str> {
        html.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap()).collect()
    }

    /// Every plot is there, is not empty, and has every mark inside of its frame.
    #[test]
    fn the_plots_are_there() {
        let html = whole_page();
        let plots = svgs(&html);
        assert_eq!(plots.len(), PLOTS, "{html}");
        for plot in &plots {
            assert!(plot.contains("<rect class=\"bar") || plot.contains("<circle"), "{plot}");
            assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
            plot::tests::assert_marks_are_inside(plot);
        }
        for text in
            ["spin_lock_unlock", "RCU, Linux", "2 to 3 ticks, Quiesce", "the others: switch", "a tree"]
        {
            assert!(html.contains(text), "{text} is not there");
        }
        // What the machine calls itself is text.
        assert!(html.contains("a &lt;fast&gt; one"));
        assert!(html.contains("prefers-color-scheme: dark") && html.contains("name=\"viewport\""));
        // Self-contained: nothing is fetched.
        assert!(!html.contains("src=") && !html.contains("href=") && !html.contains("@import"));
        assert!(!html.contains("Not measured yet"));
    }

    #[test]
    fn many_ratios_are_two_plots() {
        let names: Vec<String> = (0..41).map(|number| format!("operation_{number}")).collect();
        let operations: Vec<Operation<'_>> = names
            .iter()
            .zip(1..)
            .map(|(name, at)| Operation {
                name,
                cpus: 1,
                ratio: Some(f64::from(at) / 20.0),
                medians: [None; 2],
                histograms: [Vec::new(), Vec::new()],
            })
            .collect();
        let plots = ratios("time", &operations, 1);
        assert_eq!(plots.len(), 2);
        assert!(plots[0].contains("operation_20<") && plots[1].contains("operation_21<"), "{plots:?}");
        assert!(ratios("time", &operations, 2).is_empty());
    }

    #[test]
    fn what_is_missing_is_said() {
        let html = Measured { counted: Some(comparison()), timed: None, host: None }.page().html();
        assert_eq!(svgs(&html).len(), 3);
        for command in ["host</code>", "host wheel</code>", "host grace_periods</code>", "compare</code>"] {
            assert!(html.contains(&format!("<code>cargo xtask bench {command}")), "{command} is not named");
        }
        // Files of which only a part was measured.
        let nothing = json!({ "settings": [{ "cpus": 1, "operations": [] }], "tables": {} });
        let html =
            Measured { counted: None, timed: Some(nothing.clone()), host: Some(nothing) }.page().html();
        assert!(html.matches("Not measured yet").count() >= 6, "{html}");
    }
}
