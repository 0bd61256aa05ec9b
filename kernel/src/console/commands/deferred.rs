//! `softirq`, `work`: what was put off, and who does it.

use alloc::string::{String, ToString};
use core::fmt::{self, Write};

use super::machine::write_counts;
use crate::console::machine::{Softirqs, WorkPool, Works};
use crate::console::registry::{Command, CommandResult, Context, at_most, no_completion};

pub(super) static SOFTIRQ: Command = Command {
    name: "softirq",
    usage: "",
    help: "counts softirqs served, by vector and CPU\n\
           The last lines say how often a CPU left its softirqs to its task `softirq/N`: because ten rounds had run,\n\
           because two milliseconds were over, or because another task was due.",
    complete: no_completion,
    run: |cx, arguments| {
        at_most(arguments, 0)?;
        Ok(write_softirqs(cx.out, &cx.machine.softirqs())?)
    },
};

fn write_softirqs(out: &mut dyn Write, softirqs: &Softirqs) -> fmt::Result {
    let rows = softirqs.served.iter().map(|(name, counts)| (String::from(*name), counts.as_slice()));
    let left = softirqs.left.iter().map(|(why, counts)| (alloc::format!("left: {why}"), counts.as_slice()));
    write_counts(out, "VECTOR", rows.chain(left))
}

pub(super) static WORK: Command = Command {
    name: "work",
    usage: "",
    help: "shows the workers of each CPU, and the work queues\n\
           WAITING are items that no worker has taken, EXECUTED calls that are over.",
    complete: no_completion,
    run: work,
};

fn work(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 0)?;
    Ok(write_works(cx.out, &cx.machine.works())?)
}

fn write_works(out: &mut dyn Write, works: &Works) -> fmt::Result {
    writeln!(out, "{:<6} {:>8} {:>8} {:>8} {:>10}", "CPU", "WORKERS", "BUSY", "WAITING", "EXECUTED")?;
    for WorkPool { cpu, workers, busy, waiting, executed } in &works.pools {
        let cpu = cpu.map_or_else(|| String::from("any"), |cpu| cpu.to_string());
        writeln!(out, "{cpu:<6} {workers:>8} {busy:>8} {waiting:>8} {executed:>10}")?;
    }
    write!(out, "queues:")?;
    for (name, per_cpu) in &works.queues {
        write!(out, " {name} ({})", if *per_cpu { "each CPU" } else { "any CPU" })?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_what_was_left() {
        let softirqs = Softirqs {
            served: vec![("timer", vec![12, 3]), ("rcu", vec![0, 1])],
            left: vec![("rounds", vec![1, 0])],
        };
        let mut text = String::new();
        write_softirqs(&mut text, &softirqs).unwrap();
        assert_eq!(
            text,
            "VECTOR                             cpu0     cpu1\n\
             \x20 timer                              12        3\n\
             \x20 rcu                                 0        1\n\
             \x20 left: rounds                        1        0\n"
        );
    }

    #[test]
    fn pools_and_queues() {
        let pool = |cpu| WorkPool { cpu, workers: 2, busy: 1, waiting: 3, executed: 400 };
        let works =
            Works { pools: vec![pool(Some(0)), pool(None)], queues: vec![("system", true), ("logs", false)] };
        let mut text = String::new();
        write_works(&mut text, &works).unwrap();
        assert_eq!(
            text,
            "CPU     WORKERS     BUSY  WAITING   EXECUTED\n\
             0             2        1        3        400\n\
             any           2        1        3        400\n\
             queues: system (each CPU) logs (any CPU)\n"
        );
    }
}
