//! `holds` and `hung`: what takes too long.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::cmdline::{MOST_HUNG_S, MOST_US};
use crate::console::machine::Holds;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};

fn complete_off(before: &[&str]) -> Vec<String> {
    if before.is_empty() { Vec::from([String::from("off")]) } else { Vec::new() }
}

/// A number up to `most`, or `None` for `off`.
fn limit(arguments: &[&str], what: &str, most: u64) -> Result<Option<Option<u64>>, Failure> {
    at_most(arguments, 1)?;
    match arguments {
        [] => Ok(None),
        ["off"] => Ok(Some(None)),
        [word, ..] => match word.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(Some(number))),
            _ => {
                let why = alloc::format!("`{word}` is neither `off` nor a number of {what}, 1 to {most}");
                Err(Failure::Usage(why))
            }
        },
    }
}

pub(super) static HOLDS: Command = Command {
    name: "holds",
    usage: "[US | off]",
    help: "reports locks held, interrupts off, handlers for long\n\
           From US microseconds on: spin locks held, interrupts or bottom halves off, handlers of interrupts and softirqs,\n\
           each with the place that began it, at most five a second. Alone `holds` shows the limit, how often each was too\n\
           long since that was set, and the longest. Time that the host takes from a CPU counts.",
    complete: |_, before| complete_off(before),
    run: |cx, arguments| {
        if let Some(limit) = limit(arguments, "microseconds", MOST_US)? {
            cx.machine.set_holds_limit(limit);
        }
        Ok(write_holds(cx.out, &cx.machine.holds())?)
    },
};

fn write_holds(out: &mut dyn Write, holds: &Holds) -> fmt::Result {
    let Some(limit) = holds.limit_us else { return writeln!(out, "nothing is measured") };
    writeln!(out, "reported from {limit} us on")?;
    if !holds.locks {
        writeln!(
            out,
            "this kernel measures handlers only; debug builds, and the feature `lockdep`, locks too"
        )?;
    }
    writeln!(out, "{:<20} {:>9} {:>12}", "", "TOO LONG", "LONGEST, us")?;
    for (name, count, longest) in &holds.seen {
        writeln!(out, "{name:<20} {count:>9} {:>10}.{}", longest / 1_000, longest % 1_000 / 100)?;
    }
    Ok(())
}

pub(super) static HUNG: Command = Command {
    name: "hung",
    usage: "[SECONDS | off]",
    help: "shows blocked tasks, and sets when they count as hung\n\
           A task that is blocked for SECONDS, and waits for somebody who must do something, is reported with where it is.\n\
           Those that wait for something to do, or for a moment, are not. BLOCKED is for how long a task has been seen so.",
    complete: |_, before| complete_off(before),
    run: hung,
};

fn hung(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    if let Some(limit) = limit(arguments, "seconds", MOST_HUNG_S)? {
        cx.machine.set_hung_limit(limit);
    }
    match cx.machine.hung_limit() {
        Some(seconds) => writeln!(cx.out, "tasks are reported when they are blocked for {seconds} s")?,
        None => writeln!(cx.out, "tasks that are blocked are not reported")?,
    }
    let stuck = cx.machine.stuck_tasks();
    if stuck.is_empty() {
        return Ok(writeln!(cx.out, "no task waits for somebody who must do something")?);
    }
    writeln!(cx.out, "{:>6}  {:<23}  {:>3}  {:>10}", "NUMBER", "NAME", "CPU", "BLOCKED, s")?;
    for (number, name, cpu, ms) in stuck {
        writeln!(cx.out, "{number:>6}  {name:<23}  {cpu:>3}  {:>8}.{}", ms / 1_000, ms % 1_000 / 100)?;
    }
    Ok(())
}
