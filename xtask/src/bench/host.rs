//! `cargo xtask bench host`: the crates' own benchmarks, beside those of other crates.
//!
//! Every `[[bench]]` target of the workspace is run. What criterion has measured is read from the files that it leaves, and
//! put in one table; benchmarks that write tables of their own are shown as they are. One more target is no benchmark of
//! time: the simulation of grace periods, which counts locks and messages for up to 4,096 CPUs.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::{results, table};
use crate::ui::{self, Step};
use crate::workspace;

/// Run the crates' benchmarks beside those of their peers, on this machine and not in a guest.
///
/// Writes target/bench/host.txt and host.json.
#[derive(Args)]
pub(super) struct Host {
    /// Only these targets, such as locks or wheel
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// A `[[bench]]` target, or a test that prints a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    package: String,
    name: String,
    /// The name of the test.
    test: Option<&'static str>,
}

/// The test that counts what a grace period costs; its table is the same in every run.
fn grace_periods() -> Target {
    Target { package: "rcu".into(), name: "grace_periods".into(), test: Some("what_a_grace_period_costs") }
}

/// What criterion says of one benchmark, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
struct Estimate {
    name: String,
    median: f64,
    low: f64,
    high: f64,
}

impl Host {
    pub(super) fn run(self) -> Result<()> {
        let mut all = targets(&metadata()?);
        all.push(grace_periods());
        let wanted = choose(&all, &self.targets)?;
        let begun = SystemTime::now();
        let mut text = format!("{}\n", results::machine_in_words());
        let mut outputs = BTreeMap::new();
        let mut failed = Vec::new();
        for target in &wanted {
            // What the others have measured is not lost by one that fails, or takes too long.
            let output = match bench(target) {
                Ok(output) => output,
                Err(problem) => {
                    ui::error(&format!("{problem:#}"));
                    failed.push(target.name.as_str());
                    continue;
                }
            };
            let own = own_tables(&output);
            if !own.is_empty() {
                let part = format!("\n{}/{}\n{own}", target.package, target.name);
                print!("{part}");
                text += &part;
            }
            outputs.insert(format!("{}/{}", target.package, target.name), json!(own));
        }
        let mut estimates = Vec::new();
        collect(&workspace::target().join("criterion"), begun, &mut estimates)?;
        estimates.sort_by(|a, b| a.name.cmp(&b.name));
        if !estimates.is_empty() {
            let part = format!("\n{}", render(&estimates));
            print!("{part}");
            text += &part;
        }
        let rows: Vec<Value> = estimates
            .iter()
            .map(|e| json!({ "name": e.name, "median": e.median, "low": e.low, "high": e.high }))
            .collect();
        let report = json!({ "machine": results::machine(), "criterion": rows, "tables": outputs });
        let report = match results::read(&results::folder().join("host.json"))? {
            Some(older) if wanted.len() < all.len() || !failed.is_empty() => with_older(report, &older),
            _ => report,
        };
        results::write("host.json", &report)?;
        let path = results::write_text("host.txt", &text)?;
        ui::note(format_args!("written to {} and .json", workspace::shown(&path)));
        ensure!(failed.is_empty(), "without {}, which failed", failed.join(" "));
        Ok(())
    }
}

/// What was measured now, and of what was measured before all that was not measured now.
fn with_older(mut report: Value, older: &Value) -> Value {
    let empty = Vec::new();
    let mut rows = report["criterion"].as_array().cloned().unwrap_or_default();
    for row in older["criterion"].as_array().unwrap_or(&empty) {
        if !rows.iter().any(|other| other["name"] == row["name"]) {
            rows.push(row.clone());
        }
    }
    report["criterion"] = Value::Array(rows);
    for (name, table) in older["tables"].as_object().into_iter().flatten() {
        if report["tables"][name].is_null() {
            report["tables"][name] = table.clone();
        }
    }
    report
}

/// Cargo as it was called.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    command
}

fn metadata() -> Result<Value> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    serde_json::from_slice(&output.stdout).context("cargo metadata did not give JSON")
}

fn targets(metadata: &Value) -> Vec<Target> {
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let mut targets = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            if list(&target["kind"]).iter().any(|kind| kind == "bench") {
                let (package, name) = (text(&package["name"]), text(&target["name"]));
                targets.push(Target { package, name, test: None });
            }
        }
    }
    targets
}

fn choose(all: &[Target], names: &[String]) -> Result<Vec<Target>> {
    if let Some(name) = names.iter().find(|name| !all.iter().any(|target| target.name == **name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("no benchmark target `{name}`; there are: {}", known.join(" "));
    }
    Ok(all.iter().filter(|target| names.is_empty() || names.contains(&target.name)).cloned().collect())
}

fn bench(target: &Target) -> Result<String> {
    let mut command = cargo();
    match target.test {
        None => command.args(["bench", "--package", &target.package, "--bench", &target.name]),
        Some(test) => {
            command.args(["test", "--package", &target.package, "--lib", "--", "--nocapture", test])
        }
    };
    // Where its results are looked for.
    command.env("CARGO_TARGET_DIR", workspace::target());
    let step = Step::new(format!("measuring {}/{}", target.package, target.name));
    Ok(step.limit(Duration::from_secs(1800)).run(command)?.output)
}

/// What a benchmark has written besides cargo's and criterion's lines.
fn own_tables(output: &str) -> String {
    let is_criterion = output.contains("time:   [");
    let after_build = output.rsplit_once("Running ").map_or(output, |(_, rest)| rest);
    if is_criterion {
        return String::new();
    }
    let lines = after_build.lines().skip(1).map(str::trim_end);
    lines.map(|line| format!("{line}\n")).collect::<String>().trim_matches('\n').to_owned() + "\n"
}

/// Reads the estimates below `folder` that are newer than `begun`.
fn collect(folder: &Path, begun: SystemTime, estimates: &mut Vec<Estimate>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let file = path.join("estimates.json");
        if path.ends_with("new") && file.exists() {
            if fs::metadata(&file)?.modified()? >= begun {
                estimates.extend(estimate(&path)?);
            }
        } else {
            collect(&path, begun, estimates)?;
        }
    }
    Ok(())
}

fn estimate(folder: &Path) -> Result<Option<Estimate>> {
    let file = |name: &str| -> Result<Option<Value>> { results::read(&PathBuf::from(folder).join(name)) };
    let (Some(estimates), Some(benchmark)) = (file("estimates.json")?, file("benchmark.json")?) else {
        return Ok(None);
    };
    Ok(parse_estimate(&estimates, &benchmark))
}

fn parse_estimate(estimates: &Value, benchmark: &Value) -> Option<Estimate> {
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    Some(Estimate {
        name: benchmark["full_id"].as_str()?.to_owned(),
        median: median["point_estimate"].as_f64()?,
        low: interval["lower_bound"].as_f64()?,
        high: interval["upper_bound"].as_f64()?,
    })
}

fn render(estimates: &[Estimate]) -> String {
    let rows: Vec<Vec<String>> = estimates
        .iter()
        .map(|e| {
            vec![
                e.name.clone(),
                table::number(e.median),
                format!("{}..{}", table::number(e.low), table::number(e.high)),
            ]
        })
        .collect();
    table::render(&["BENCHMARK", "NS", "95 % OF MEDIANS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bench_targets_are_found() {
        let metadata = json!({ "packages": [
            { "name": "sync", "targets": [
                { "name": "sync", "kind": ["lib"] }, { "name": "locks", "kind": ["bench"] } ] },
            { "name": "timers", "targets": [{ "name": "wheel", "kind": ["bench"] }] } ] });
        let all = targets(&metadata);
        assert_eq!(all.len(), 2);
        assert_eq!(choose(&all, &[]).unwrap().len(), 2);
        assert_eq!(choose(&all, &["wheel".to_owned()]).unwrap()[0].package, "timers");
        assert!(choose(&all, &["whel".to_owned()]).unwrap_err().to_string().contains("locks wheel"));
    }

    #[test]
    fn a_part_that_is_measured_again_leaves_the_rest() {
        let row = |name: &str, median: f64| json!({ "name": name, "median": median });
        let older =
            json!({ "criterion": [row("a", 1.0), row("b", 2.0)], "tables": { "x": "old", "y": "old" } });
        let now = json!({ "criterion": [row("b", 3.0)], "tables": { "y": "new" } });
        let both = with_older(now, &older);
        assert_eq!(both["criterion"], json!([row("b", 3.0), row("a", 1.0)]));
        assert_eq!(both["tables"], json!({ "x": "old", "y": "new" }));
    }

    #[test]
    fn estimates_are_read() {
        let estimates = json!({ "median": { "point_estimate": 12.5,
            "confidence_interval": { "lower_bound": 12.0, "upper_bound": 13.0 } } });
        let estimate = parse_estimate(&estimates, &json!({ "full_id": "spin/ours" })).unwrap();
        assert_eq!(estimate, Estimate { name: "spin/ours".into(), median: 12.5, low: 12.0, high: 13.0 });
        assert_eq!(parse_estimate(&json!({}), &json!({})), None);
        assert!(render(&[estimate]).ends_with("spin/ours  12.5       12.0..13.0\n"));
    }

    #[test]
    fn tables_of_their_own_are_kept() {
        let output = "   Compiling x\n     Running benches/wheel.rs (target/x)\n\ninsert  6\nrearm  8\n";
        assert_eq!(own_tables(output), "insert  6\nrearm  8\n");
        assert_eq!(own_tables("     Running b\nspin  time:   [1 ns 2 ns 3 ns]\n"), "");
    }
}
