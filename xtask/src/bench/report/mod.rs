//! `cargo xtask bench report`: what was measured, drawn, on one page that needs nothing else.
//!
//! The page has its styles and plots inside ([`page`]); plots are SVG whose colours follow the page's, light or dark
//! ([`plot`]). It shows what is there: results that were not measured yet are named, with the command that measures them.

mod page;
mod plot;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::results;
use crate::{ui, workspace};
use page::{Page, Section};
use plot::{Bar, Line, Scale};

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

/// One operation at one setting.
#[derive(Clone, Debug)]
struct Operation<'a> {
    name: &'a str,
    cpus: u64,
    ratio: Option<f64>,
    /// Ours and Linux's.
    medians: [Option<f64>; 2],
}

fn operations(comparison: &Value) -> Vec<Operation<'_>> {
    let list = |value: &'static str, of: &Value| of[value].as_array().map_or(0, Vec::len);
    let mut all = Vec::new();
    for setting in 0..list("settings", comparison) {
        let setting = &comparison["settings"][setting];
        for row in 0..list("operations", setting) {
            let row = &setting["operations"][row];
            all.push(Operation {
                name: row["name"].as_str().unwrap_or(""),
                cpus: setting["cpus"].as_u64().unwrap_or(0),
                ratio: row["ratio"].as_f64(),
                medians: ["quiesce", "linux"].map(|side| row[side]["median"].as_f64()),
            });
        }
    }
    all
}

/// What the plots of all CPUs show, and in which words.
const SCALING: [(&str, &str); 7] = [
    ("rcu_read_throughput", "RCU, read"),
    ("seqlock_read_throughput", "sequence lock, read"),
    ("refcount_read_throughput", "reference count, read"),
    ("rwlock_read_throughput", "reader-writer lock, read"),
    ("spinlock_throughput", "spin lock"),
    ("spinlock_irqsave_throughput", "spin lock, interrupts off"),
    ("mutex_throughput", "mutex"),
];

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
        self.scaling().into_iter().for_each(|section| page.add(section));
        page.add(self.lateness());
        page.add(self.host_plot());
        page
    }

    fn instructions(&self) -> Section {
        let section = Section::new(
            "Instructions, against Linux",
            "One CPU, counted: the same in every run. Left of the line is less than Linux; bars end at an eighth and at eight times.",
        );
        let Some(counted) = &self.counted else {
            return section.missing("cargo xtask bench compare --icount");
        };
        section.plot(ratios(&operations(counted), 1))
    }

    fn times(&self) -> Section {
        let section = Section::new(
            "Time, against Linux",
            "With the most CPUs that were measured. Left of the line is better than Linux; bars end at an eighth and at eight times.",
        );
        let Some(timed) = &self.timed else { return section.missing("cargo xtask bench compare") };
        let operations = operations(timed);
        let most = operations.iter().map(|operation| operation.cpus).max().unwrap_or(1);
        section.plot(ratios(&operations, most))
    }

    /// One plot for readers, one for those who write: what grows with CPUs, and what does not.
    fn scaling(&self) -> Vec<Section> {
        let (readers, writers) = SCALING.split_at(3);
        let make = |title: &str, words: &str, kinds: &[(&str, &str)]| {
            let section = Section::new(title, words);
            let Some(timed) = &self.timed else {
                return section.missing("cargo xtask bench compare throughput");
            };
            let mut lines = Vec::new();
            for (name, label) in kinds {
                for (side, system) in ["Quiesce", "Linux"].iter().enumerate() {
                    let points = points(&operations(timed), name, side);
                    lines.push(Line { label: format!("{label}, {system}"), points, dashed: side == 1 });
                }
            }
            section.plot(plot::lines("CPUs", "million a second", &lines))
        };
        vec![
            make("Reading, by all CPUs", "Sections a second of all CPUs together; nobody writes.", readers),
            make("One lock, all CPUs", "Acquisitions a second of all CPUs together.", writers),
        ]
    }

    fn lateness(&self) -> Section {
        let section = Section::new(
            "How late coarse timers are",
            "Ticks after the time asked for, the median of 64 timers; level 0 is up to 60 ticks ahead, 1 up to 500, 2 up to 1,500.",
        );
        let file = self.counted.as_ref().or(self.timed.as_ref());
        let Some(file) = file else { return section.missing("cargo xtask bench compare --icount") };
        let mut bars = Vec::new();
        for operation in operations(file).iter().filter(|operation| operation.name.starts_with("timer_late_"))
        {
            for (median, system) in operation.medians.iter().zip(["Quiesce", "Linux"]) {
                if let Some(ticks) = median {
                    let label = format!("{}, {system}", operation.name.trim_start_matches("timer_late_"));
                    bars.push(Bar { label, value: *ticks });
                }
            }
        }
        section.plot(plot::bars(&bars, Scale::Linear))
    }

    fn host_plot(&self) -> Section {
        let section = Section::new(
            "The crates and their peers",
            "Nanoseconds on this machine, not in a guest; the scale is logarithmic.",
        );
        let Some(host) = &self.host else { return section.missing("cargo xtask bench host") };
        let mut groups: BTreeMap<&str, Vec<Bar>> = BTreeMap::new();
        for row in host["criterion"].as_array().into_iter().flatten() {
            let (Some(name), Some(value)) = (row["name"].as_str(), row["median"].as_f64()) else { continue };
            let group = name.split('/').next().unwrap_or(name);
            groups.entry(group).or_default().push(Bar { label: name.to_owned(), value });
        }
        groups
            .values()
            .fold(section, |section, bars| section.plot(plot::bars(bars, Scale::Log { line: None })))
    }
}

fn points(operations: &[Operation<'_>], name: &str, side: usize) -> Vec<(f64, f64)> {
    let of_name = operations.iter().filter(|operation| operation.name == name);
    of_name.filter_map(|operation| Some((operation.cpus as f64, operation.medians[side]?))).collect()
}

fn ratios(operations: &[Operation<'_>], cpus: u64) -> String {
    let wanted =
        operations.iter().filter(|operation| operation.cpus == cpus && operation.name != "empty_loop");
    let mut bars: Vec<Bar> = wanted
        .filter_map(|operation| Some(Bar { label: operation.name.to_owned(), value: operation.ratio? }))
        .collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    plot::bars(&bars, Scale::Log { line: Some(1.0) })
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
            let mut rows: Vec<Value> =
                SCALING.iter().map(|(name, _)| row(name, 10.0 * f64::from(cpus), 5.0)).collect();
            rows.push(row("spin_lock_unlock", 12.0, 17.0));
            rows.push(row("timer_late_L1", 4.0, 5.0));
            json!({ "cpus": cpus, "operations": rows })
        };
        json!({ "machine": { "processor": "a <fast> one", "cores": 2, "qemu": "7.2" },
            "settings": [setting(1), setting(2), setting(4)] })
    }

    fn svgs(html: &str) -> Vec<&str> {
        html.split("<svg").skip(1).map(|rest| rest.split("</svg>").next().unwrap()).collect()
    }

    /// Every plot is there, is not empty, and has every mark inside of its frame.
    #[test]
    fn the_plots_are_there() {
        let host = json!({ "criterion": [{ "name": "spin/ours", "median": 6.0 }, { "name": "spin/theirs", "median": 60.0 }] });
        let measured = Measured { counted: Some(comparison()), timed: Some(comparison()), host: Some(host) };
        let html = measured.page().html();
        let plots = svgs(&html);
        assert_eq!(plots.len(), 6, "{html}");
        for plot in &plots {
            assert!(plot.contains("<rect class=\"bar") || plot.contains("<polyline"), "{plot}");
            assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
            plot::tests::assert_marks_are_inside(plot);
        }
        assert!(html.contains("spin_lock_unlock") && html.contains("RCU, read, Linux"));
        // What the machine calls itself is text.
        assert!(html.contains("a &lt;fast&gt; one"));
        assert!(html.contains("prefers-color-scheme: dark") && html.contains("name=\"viewport\""));
        // Self-contained: nothing is fetched.
        assert!(!html.contains("src=") && !html.contains("href=") && !html.contains("@import"));
    }

    #[test]
    fn what_is_missing_is_said() {
        let html = Measured { counted: Some(comparison()), timed: None, host: None }.page().html();
        assert_eq!(svgs(&html).len(), 2);
        assert!(
            html.contains("cargo xtask bench host") && html.contains("cargo xtask bench compare throughput")
        );
    }
}
