//! A crate's tests, run harder than `cargo test` runs them.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Kind;
use super::row::{Row, Verdict};
use crate::build::is_inherited_setting;
use crate::models;
use crate::tally::Tally;
use crate::ui::{Step, error};
use crate::workspace;

/// What the sanitizer is built for.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// What a test reads to know for how long to go on (`test_support::fuzz`).
const SECONDS: &str = "QUIESCE_FUZZ_SECONDS";
/// What a property multiplies the number of its cases by (`test_support::cases`).
const FACTOR: &str = "QUIESCE_CASES_FACTOR";
/// The longest that one crate's tests may take, besides fuzzing.
const LIMIT: Duration = Duration::from_secs(3600);

/// All tests of a crate, properties with `factor` times as many cases.
pub(super) fn properties(krate: &str, factor: u32, filter: Option<&str>) -> Result<Option<Row>> {
    let mut command = tests_of(krate, filter);
    command.env(FACTOR, factor.to_string());
    run("properties", krate, command, LIMIT)
}

/// The tests that go on for as long as they are told to.
pub(super) fn fuzz(krate: &str, time: Duration, filter: Option<&str>) -> Result<Option<Row>> {
    let mut command = cargo();
    let names = filter.unwrap_or("fuzz");
    command.args(["test", "--lib", "--package", krate, "--", "--show-output", names]);
    command.env(SECONDS, time.as_secs().max(1).to_string());
    let row = run("fuzz", krate, command, time + LIMIT)?;
    // A filter may have left only others, which did what they always do.
    Ok(row.filter(|row| row.verdict == Verdict::Failed || row.tally.explored.contains_key("seeds")))
}

/// Which of these crates have tests that go on for as long as they are told to.
pub(super) fn fuzzers<'a>(crates: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut found = Vec::new();
    for krate in crates {
        if models::mentions(&workspace::root().join(krate).join("src"), "test_support::fuzz(")? {
            found.push(*krate);
        }
    }
    Ok(found)
}

/// All tests of a crate, compiled with the address sanitizer.
pub(super) fn address(krate: &str, filter: Option<&str>) -> Result<Option<Row>> {
    let mut command = tests_of(krate, filter);
    // Programs that must not compile are refused before any code runs.
    command.args(["--skip", "types", "--skip", "compile", "--skip", "refused"]);
    // An option of the compiler's that is not stable. It concerns nothing but this target folder. The standard library is
    // taken as it came, without instrumentation.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    command.env("CARGO_BUILD_TARGET", HOST).env("CARGO_TARGET_DIR", workspace::target().join("address"));
    // Threads of tests that panic on purpose, and objects that live for ever, leave memory behind.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    run(Kind::Address.name(), krate, command, LIMIT)
}

/// All tests of a crate in Miri, but for those that say that they would take minutes there.
pub(super) fn interpreted(krate: &str, filter: Option<&str>) -> Result<Option<Row>> {
    let mut command = miri();
    command.args(["test", "--lib", "--tests", "--no-fail-fast", "--package", krate, "--", "--show-output"]);
    // Programs that must not compile are refused before any code runs; the processor's own instructions are not interpreted.
    command
        .args(filter)
        .args(["--skip", "types", "--skip", "compile", "--skip", "refused", "--skip", "x86_64::"]);
    command.env("CARGO_TARGET_DIR", workspace::target().join("miri"));
    // The host's clock; addresses that are turned into numbers and back; areas of CPUs, which live for ever.
    let flags = "-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks";
    command.env("MIRIFLAGS", flags);
    run(Kind::Miri.name(), krate, command, LIMIT)
}

/// `cargo miri` of the nightly tool chain: there is no other.
fn miri() -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(workspace::root());
    for (name, _) in env::vars_os() {
        if is_inherited_setting(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.args(["run", "nightly", "cargo", "miri"]);
    command
}

/// Why this cannot be done on this machine, if so.
pub(super) fn missing(kind: Kind) -> Result<Option<String>> {
    if kind == Kind::Miri {
        let there = miri().arg("--version").output().is_ok_and(|output| output.status.success());
        let why = "there is none (`rustup component add --toolchain nightly miri rust-src`)";
        return Ok((!there).then(|| why.to_owned()));
    }
    if kind != Kind::Address {
        return Ok(None);
    }
    let output = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .current_dir(workspace::root())
        .args(["--print", "target-libdir", "--target", HOST])
        .output()
        .context("asking rustc where its libraries are")?;
    ensure!(output.status.success(), "rustc does not say where its libraries are");
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(without_runtime(Path::new(&folder)))
}

/// Says so if the tool chain whose libraries are in `folder` has no run-time library of the address sanitizer.
fn without_runtime(folder: &Path) -> Option<String> {
    let has = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("librustc-") && name.ends_with("_rt.asan.a")
    };
    let found = fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(has));
    (!found).then(|| format!("no librustc-*_rt.asan.a in {}", folder.display()))
}

/// The library tests and the test programs of a crate.
fn tests_of(krate: &str, filter: Option<&str>) -> Command {
    let mut command = cargo();
    command.args(["test", "--lib", "--tests", "--no-fail-fast", "--package", krate, "--", "--show-output"]);
    command.args(filter);
    command
}

/// Cargo as it was called, without flags that belong to somebody's shell.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root()).env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
    command.env("CARGO_TARGET_DIR", workspace::target());
    command
}

/// Runs the tests. `None` if a filter left nothing of them.
fn run(kind: &'static str, krate: &str, command: Command, limit: Duration) -> Result<Option<Row>> {
    let result = Step::new(format!("{kind} of {krate}")).limit(limit).try_run(command)?;
    let tally = Tally::of(&result.output);
    if !result.success {
        eprint!("{}", result.output);
        let why = if result.timed_out { "took too long" } else { "failed; its output is above" };
        error(&format!("{krate} ({kind}): {why}"));
    }
    let nothing = tally.is_empty() && result.success;
    Ok((!nothing).then(|| Row::new(kind, krate, tally, result.elapsed, result.success)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sanitizer_is_there_if_its_library_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("librustc-stable_rt.tsan.a"), "").unwrap();
        assert!(without_runtime(folder.path()).unwrap().contains("librustc-*_rt.asan.a"));
        fs::write(folder.path().join("librustc-stable_rt.asan.a"), "").unwrap();
        assert_eq!(without_runtime(folder.path()), None);
        assert!(without_runtime(&folder.path().join("none")).is_some());
    }
}
