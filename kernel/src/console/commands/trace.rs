//! `trace`: what CPUs did a moment ago.

use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};

pub(super) static TRACE: Command = Command {
    name: "trace",
    usage: "[start | stop | dump [N]]",
    help: "records switches, wake-ups, interrupts, softirqs, hotplug\n\
           Each CPU keeps its newest 1024 records. `trace dump` shows the newest 50 of all CPUs, or N; alone `trace`\n\
           says whether it is on. Showing records takes time and makes records: stop first.",
    complete: |_, before| {
        if before.is_empty() { ["start", "stop", "dump"].map(Into::into).to_vec() } else { alloc::vec![] }
    },
    run: trace,
};

/// How many records are shown if no number is given.
const SHOWN: usize = 50;

fn trace(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    match arguments {
        [] => {}
        ["start"] => cx.machine.set_tracing(true),
        ["stop"] => cx.machine.set_tracing(false),
        ["dump"] => return Ok(write!(cx.out, "{}", cx.machine.trace(SHOWN))?),
        ["dump", count] => match count.parse() {
            Ok(count) => return Ok(write!(cx.out, "{}", cx.machine.trace(count))?),
            Err(_) => return Err(Failure::Usage(alloc::format!("`{count}` is not a number of records"))),
        },
        [other, ..] => {
            return Err(Failure::Usage(alloc::format!("`{other}` is not `start`, `stop` or `dump N`")));
        }
    }
    writeln!(cx.out, "tracing is {}", if cx.machine.is_tracing() { "on" } else { "off" })?;
    Ok(())
}
