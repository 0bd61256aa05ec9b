//! `bench`: what operations cost, measured by the kernel itself.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::bench::locks::{self, Outcome};
use crate::bench::operations::{self, OPERATIONS};
use crate::bench::suite;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};

pub(super) static BENCH: Command = Command {
    name: "bench",
    usage: "[PART OF A NAME ...] | list | insn|tasks|calls|timers|locks [SECONDS]",
    help: "measures operations, alone and by all CPUs\n\
           Without a word from below: what docs/benchmarks.md defines, all of it or what has one of the parts\n\
           in its name, and none that `!` is before. A line for each: BENCH, name, median, unit, spread.\n\
           `list` writes the names. The rest are tables for reading:\n\
           `insn`: what locks, guards and lists cost on one CPU, in ns. Under `cargo xtask run --cpus 1\n\
           --icount 0 --no-chaos` an instruction takes 1 ns, and the figures are the same in every run.\n\
           `tasks`: mutexes, semaphores and the like when nobody waits, and two tasks that take turns.\n\
           `calls`: an interrupt to another CPU and back, and calls between CPUs, each timed by itself.\n\
           `timers`: arming, moving, deleting and calling timers, alone and a hundred thousand at once.\n\
           `locks`: every CPU acquires and releases one lock, 1 second for each kind of lock if not said\n\
           otherwise. FAIR is the least served CPU's count over the most served one's, NS the time from one\n\
           acquisition to the next, by whomever.",
    complete: |_, before| {
        if before.is_empty() {
            let tables = ["list", "insn", "tasks", "calls", "timers", "locks"];
            tables.into_iter().chain(suite::all().map(|benchmark| benchmark.name)).map(String::from).collect()
        } else {
            Vec::new()
        }
    },
    run: bench,
};

/// The longest that one kind of lock is measured, in seconds.
const MOST_SECONDS: u64 = 60;

fn bench(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    match arguments {
        ["list"] => list(cx),
        ["insn"] => bench_operations(cx),
        ["tasks"] => bench_tasks(cx),
        ["calls"] => bench_calls(cx),
        ["timers"] => bench_timers(cx),
        ["locks"] => bench_locks(cx, 1),
        ["locks", seconds] => bench_locks(cx, parse_seconds(seconds)?),
        ["list" | "insn" | "tasks" | "calls" | "timers" | "locks", ..] => at_most(arguments, 1),
        filters => bench_suite(cx, filters),
    }
}

fn list(cx: &mut Context<'_>) -> CommandResult {
    for benchmark in suite::all() {
        writeln!(cx.out, "{}", benchmark.name)?;
    }
    Ok(())
}

fn bench_suite(cx: &mut Context<'_>, filters: &[&str]) -> CommandResult {
    let lacking = |filter: &&&str| {
        let part = filter.trim_start_matches('!');
        !suite::all().any(|benchmark| benchmark.name.contains(part))
    };
    if let Some(filter) = filters.iter().find(lacking) {
        return Err(Failure::Usage(alloc::format!(
            "no benchmark's name contains `{filter}`: see `bench list`"
        )));
    }
    suite::run(filters, cx.machine, cx.task, cx.out)?;
    Ok(())
}

fn parse_seconds(text: &str) -> Result<u64, Failure> {
    match text.parse() {
        Ok(seconds) if (1..=MOST_SECONDS).contains(&seconds) => Ok(seconds),
        _ => Err(Failure::Usage(alloc::format!(
            "`{text}` is not a number of seconds from 1 to {MOST_SECONDS}"
        ))),
    }
}

fn bench_operations(cx: &mut Context<'_>) -> CommandResult {
    writeln!(cx.out, "  {:<34} {:>9}", "OPERATION", "NS")?;
    for operation in OPERATIONS {
        writeln!(cx.out, "  {:<34} {:>9}", operation.name, Tenths(operations::measure(operation)))?;
    }
    writeln!(cx.out, "each net of the loop around it, which takes {}", Tenths(operations::measure_loop()))?;
    Ok(())
}

/// A number of tenths, with its point.
struct Tenths(u64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&alloc::format!("{}.{}", self.0 / 10, self.0 % 10))
    }
}

#[cfg(target_os = "none")]
fn bench_tasks(cx: &mut Context<'_>) -> CommandResult {
    let figures =
        crate::bench::tasks::measure(cx.task).map_err(|error| Failure::Failed(alloc::format!("{error}")))?;
    write_figures(cx, figures)
}

#[cfg(target_os = "none")]
fn write_figures(cx: &mut Context<'_>, figures: Vec<crate::bench::tasks::Figure>) -> CommandResult {
    writeln!(cx.out, "  {:<34} {:>9}", "OPERATION", "NS")?;
    for crate::bench::tasks::Figure { name, tenths } in figures {
        writeln!(cx.out, "  {name:<34} {:>9}", Tenths(tenths))?;
    }
    Ok(())
}

#[cfg(target_os = "none")]
fn bench_timers(cx: &mut Context<'_>) -> CommandResult {
    let figures = crate::bench::timers::measure(cx.task);
    write_figures(cx, figures)
}

#[cfg(not(target_os = "none"))]
fn bench_timers(_: &mut Context<'_>) -> CommandResult {
    Err(Failure::Failed("there are no timers here".into()))
}

#[cfg(not(target_os = "none"))]
fn bench_tasks(_: &mut Context<'_>) -> CommandResult {
    Err(Failure::Failed("there are no tasks here".into()))
}

#[cfg(target_os = "none")]
fn bench_calls(cx: &mut Context<'_>) -> CommandResult {
    writeln!(cx.out, "  {:<24} {:<8} {:>9}  {:>9}", "OPERATION", "TARGET", "MEDIAN NS", "BEST NS")?;
    for figure in crate::bench::calls::measure(cx.task) {
        let crate::bench::calls::Figure { name, target, median_ns, best_ns } = figure;
        writeln!(cx.out, "  {name:<24} {target:<8} {median_ns:>9}  {best_ns:>9}")?;
    }
    Ok(())
}

#[cfg(not(target_os = "none"))]
fn bench_calls(_: &mut Context<'_>) -> CommandResult {
    Err(Failure::Failed("there are no CPUs to interrupt here".into()))
}

fn bench_locks(cx: &mut Context<'_>, seconds: u64) -> CommandResult {
    writeln!(
        cx.out,
        "  {:<22} {:>9}  {:>6}  {:>5}  ACQUISITIONS OF EACH CPU",
        "LOCK", "MILLION/S", "NS", "FAIR"
    )?;
    for kind in locks::KINDS {
        let outcome = locks::measure(cx.machine, kind, seconds * 1_000_000_000);
        write_outcome(cx.out, kind.name, &outcome)?;
    }
    Ok(())
}

fn write_outcome(out: &mut dyn Write, name: &str, outcome: &Outcome) -> fmt::Result {
    let rate = outcome.ten_thousands_per_second();
    let each = outcome.ns / outcome.counts.iter().sum::<u64>().max(1);
    let rate = alloc::format!("{}.{:02}", rate / 100, rate % 100);
    let fairness = outcome.fairness_percent();
    let counts: Vec<String> = outcome.counts.iter().map(|count| alloc::format!("{count}")).collect();
    writeln!(out, "  {name:<22} {rate:>9}  {each:>6}  {fairness:>4}%  {}", counts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_lock() {
        let outcome = Outcome { ns: 2_000_000_000, counts: vec![15_000_000, 10_100_000] };
        let mut out = String::new();
        write_outcome(&mut out, "SpinLock", &outcome).unwrap();
        assert_eq!(out, "  SpinLock                   12.55      79    67%  15000000 10100000\n");
    }

    #[test]
    fn tenths_are_padded() {
        assert_eq!(alloc::format!("{:>6}|", Tenths(123)), "  12.3|");
    }

    #[test]
    fn seconds_are_checked() {
        assert_eq!(parse_seconds("3"), Ok(3));
        for bad in ["0", "61", "-1", "x", "1.5", ""] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
