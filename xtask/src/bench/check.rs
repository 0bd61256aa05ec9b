//! `cargo xtask bench check`: no operation takes more instructions than it did.
//!
//! Counts of instructions are the same in every run of one build, so that a change of a few per cent is a change of the
//! code, or of the compiler or the emulator. The baseline therefore names these, and says nothing about others.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Map, Value, json};

use super::boot::Setting;
use super::lines::Output;
use super::{guest, operations, results, table};
use crate::build::{BuildOptions, Chaos, Profile};
use crate::toolchain::Toolchain;
use crate::ui::Exit;
use crate::{qemu, ui, workspace};

/// Compare counts of instructions with bench/baseline.json.
///
/// An operation on one CPU that takes more than 3 % more instructions fails. With another compiler, QEMU or profile than
/// the baseline's nothing is compared, which is said.
#[derive(Args)]
pub(super) struct Check {
    /// Write what is measured into the baseline
    #[arg(long)]
    update: bool,
    /// Parts of operations' names; with ! before them, what is left out
    #[arg(value_name = "FILTER", conflicts_with = "update")]
    filters: Vec<String>,
    #[command(flatten)]
    build: BuildOptions,
}

/// What counts depend on besides the code.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    compiler: String,
    qemu: String,
    profile: &'static str,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, QEMU {}, {}", self.compiler, self.qemu, self.profile)
    }
}

impl Key {
    fn json(&self) -> Value {
        json!({ "compiler": self.compiler, "qemu": self.qemu, "profile": self.profile })
    }

    fn is_of(&self, entry: &Value) -> bool {
        entry["key"] == self.json()
    }
}

impl Check {
    pub(super) fn run(self) -> Result<()> {
        operations::check_filters(&self.filters)?;
        self.build.ensure_measurable()?;
        qemu::require(self.build.installing())?;
        let key = self.key()?;
        let path = baseline_path();
        let mut baseline = Baseline { entries: read_entries(&path)? };
        let known = baseline.instructions(&key).cloned();
        if !self.update && known.is_none() {
            ui::note(format_args!("skipped: the baseline has nothing for {key}"));
            ui::note("`cargo xtask bench check --update` adds what this machine counts");
            return Ok(());
        }
        let kernel = self.build.build(Chaos::Off)?;
        let mut filters = operations::only_counted();
        filters.extend(self.filters.iter().cloned());
        let output = guest::measure(&kernel, Setting { cpus: 1, icount: true }, &filters)?;
        let counted = counts(&output);
        if self.update {
            let many = counted.len();
            baseline.set(&key, counted);
            std::fs::write(&path, format!("{:#}\n", baseline.json()))
                .with_context(|| format!("writing {}", path.display()))?;
            ui::note(format_args!("{} has {many} operations for {key}", workspace::shown(&path)));
            return Ok(());
        }
        let verdict = judge(&known.unwrap_or_default(), &counted, &self.filters);
        print!("{}", verdict.text);
        if verdict.failed > 0 {
            return Err(Exit::with(
                1,
                "more instructions than in bench/baseline.json; if they are wanted: `cargo xtask bench check --update`",
            ));
        }
        Ok(())
    }

    fn key(&self) -> Result<Key> {
        let toolchain = Toolchain::choose(self.build.toolchain(), self.build.installing())?;
        let qemu = qemu::installed().context("QEMU does not tell its version")?.1;
        let profile = match self.build.profile() {
            Profile::Release => "release",
            Profile::Debug => "debug",
        };
        Ok(Key { compiler: format!("rustc {}", toolchain.version), qemu, profile })
    }
}

fn baseline_path() -> PathBuf {
    workspace::root().join("bench/baseline.json")
}

fn read_entries(path: &std::path::Path) -> Result<Vec<Value>> {
    let Some(file) = results::read(path)? else { return Ok(Vec::new()) };
    let entries = file["entries"].as_array().cloned();
    entries.with_context(|| format!("{} has no `entries`", path.display()))
}

/// Instructions of each operation, in tenths exact.
type Counts = Map<String, Value>;

/// `bench/baseline.json`: for each key, what was counted.
struct Baseline {
    entries: Vec<Value>,
}

impl Baseline {
    fn instructions(&self, key: &Key) -> Option<&Counts> {
        self.entries.iter().find(|entry| key.is_of(entry))?["instructions"].as_object()
    }

    fn set(&mut self, key: &Key, counts: Counts) {
        self.entries.retain(|entry| !key.is_of(entry));
        self.entries.push(json!({ "key": key.json(), "instructions": counts }));
    }

    fn json(&self) -> Value {
        json!({ "entries": self.entries })
    }
}

fn counts(output: &Output) -> Counts {
    let counted = output.figures.iter().filter(|f| f.unit == "ns" && operations::is_counted(&f.name));
    counted.map(|figure| (figure.name.clone(), json!((figure.median * 10.0).round() / 10.0))).collect()
}

struct Verdict {
    text: String,
    failed: usize,
}

/// How much more is no failure: 3 %, and half an instruction for what the loop around it rounds to.
fn is_more(now: f64, before: f64) -> bool {
    now > before * 1.03 + 0.5
}

fn judge(before: &Counts, now: &Counts, filters: &[String]) -> Verdict {
    let mut rows = Vec::new();
    let mut failed = 0;
    let (mut same, mut less, mut new) = (0, 0, 0);
    for (name, count) in now {
        let count = count.as_f64().unwrap_or(0.0);
        let Some(old) = before.get(name).and_then(Value::as_f64) else {
            new += 1;
            continue;
        };
        let word = if is_more(count, old) {
            failed += 1;
            "MORE"
        } else if is_more(old, count) {
            less += 1;
            "less"
        } else {
            same += 1;
            continue;
        };
        let change = format!("{:+.1} %", (count / old.max(0.1) - 1.0) * 100.0);
        rows.push(vec![name.clone(), table::number(old), table::number(count), change, word.to_owned()]);
    }
    // Without filters everything that was there must still be there.
    for name in before.keys().filter(|name| filters.is_empty() && !now.contains_key(*name)) {
        failed += 1;
        rows.push(vec![name.clone(), "counted".to_owned(), "-".to_owned(), String::new(), "GONE".to_owned()]);
    }
    let mut text = String::new();
    if !rows.is_empty() {
        text = table::render(&["OPERATION", "BEFORE", "NOW", "CHANGE", ""], &rows);
    }
    text += &format!(
        "{same} the same within 3 %, {less} less, {failed} more or gone, {new} not in the baseline\n"
    );
    Verdict { text, failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(pairs: &[(&str, f64)]) -> Counts {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
    }

    #[test]
    fn three_per_cent_and_half_an_instruction() {
        assert!(!is_more(3.0, 3.0) && !is_more(3.4, 3.0) && is_more(4.0, 3.0));
        assert!(!is_more(103.0, 100.0) && !is_more(103.4, 100.0) && is_more(104.0, 100.0));
        assert!(is_more(1.0, 0.0));
    }

    #[test]
    fn more_fails_and_less_is_told() {
        let before = counts_of(&[("a", 10.0), ("b", 100.0), ("c", 5.0), ("d", 7.0)]);
        let now = counts_of(&[("a", 12.0), ("b", 80.0), ("c", 5.0), ("e", 1.0)]);
        let verdict = judge(&before, &now, &[]);
        assert_eq!(verdict.failed, 2, "{}", verdict.text);
        let shown = |name: &str| verdict.text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        assert!(shown("a ").unwrap().ends_with("+20.0 %  MORE"));
        assert!(shown("b ").unwrap().ends_with("-20.0 %  less"));
        assert!(shown("d ").unwrap().ends_with("GONE"));
        assert!(shown("c ").is_none());
        assert!(
            verdict.text.ends_with("1 the same within 3 %, 1 less, 2 more or gone, 1 not in the baseline\n")
        );
        // With a filter only what was measured is judged.
        assert_eq!(judge(&before, &counts_of(&[("c", 5.0)]), &["c".to_owned()]).failed, 0);
    }

    #[test]
    fn another_key_has_nothing() {
        let key = |qemu: &str| Key { compiler: "rustc 1.96.0".into(), qemu: qemu.into(), profile: "release" };
        let mut baseline = Baseline { entries: Vec::new() };
        baseline.set(&key("7.2.22"), counts_of(&[("a", 1.0)]));
        baseline.set(&key("7.2.22"), counts_of(&[("a", 2.0)]));
        assert_eq!(baseline.entries.len(), 1);
        assert_eq!(baseline.instructions(&key("7.2.22")).unwrap()["a"], 2.0);
        assert!(baseline.instructions(&key("10.0.0")).is_none());
    }

    #[test]
    fn only_counts_are_kept() {
        let mut output = Output::default();
        for line in
            ["BENCH ktime_get 41.04 ns", "BENCH mutex_throughput 4 Mops/s", "BENCH timer_late_L0 1 ticks"]
        {
            output.take(line).unwrap();
        }
        assert_eq!(counts(&output), counts_of(&[("ktime_get", 41.0)]));
    }

    /// The file in the repository can be read, and has plausible counts of operations that there are.
    #[test]
    fn the_baseline_can_be_read() {
        let entries = read_entries(&baseline_path()).unwrap();
        assert!(!entries.is_empty());
        for entry in &entries {
            for (name, count) in entry["instructions"].as_object().unwrap() {
                assert!(operations::NAMES.contains(&name.as_str()), "`{name}` is no operation");
                assert!(operations::is_counted(name), "`{name}` is not counted");
                assert!(count.as_f64().is_some_and(|count| count >= 0.0), "{name}: {count} is no count");
            }
        }
    }
}
