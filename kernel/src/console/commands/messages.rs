//! `log` and `dmesg`: what the kernel says, and what it has said.

use alloc::string::ToString;

use ::log::LevelFilter;

use crate::console::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};
use crate::log;

pub(super) static LOG: Command = Command {
    name: "log",
    usage: "[LEVEL]",
    help: "shows or sets which messages are logged\nThe levels are off, error, warn, info, debug and trace; each includes those before it.",
    complete: |_, before| match before {
        [] => LevelFilter::iter().map(|level| level.as_str().to_ascii_lowercase()).collect(),
        _ => alloc::vec![],
    },
    run: set_level,
};

fn set_level(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    if let Some(word) = arguments.first() {
        let wrong = |_| {
            Failure::Usage(alloc::format!(
                "`{word}` is no level; levels: off, error, warn, info, debug, trace"
            ))
        };
        log::set_level(word.parse().map_err(wrong)?);
    }
    writeln!(cx.out, "messages are logged up to level {}", log::level().to_string().to_ascii_lowercase())?;
    Ok(())
}

pub(super) static DMESG: Command = Command {
    name: "dmesg",
    usage: "[LINES]",
    help: "shows log messages again\nThe newest 64 KiB are kept; LINES asks for the newest of them only.",
    complete: no_completion,
    run: dmesg,
};

fn dmesg(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let wanted = match arguments.first() {
        Some(number) => number
            .parse()
            .map_err(|_| Failure::Usage(alloc::format!("`{number}` is not a number of lines")))?,
        None => usize::MAX,
    };
    let history = log::history();
    let all = history.lines().count();
    history.lines().skip(all.saturating_sub(wanted)).try_for_each(|line| writeln!(cx.out, "{line}"))?;
    Ok(())
}
