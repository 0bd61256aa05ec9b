//! `timer`: timers of the console's own.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::cpu_numbers;
use super::spans::{self, Span};
use crate::console::machine::Machine;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};
use crate::console::timers::{OwnTimer, Wish};

pub(super) static TIMER: Command = Command {
    name: "timer",
    usage: "add TIME [--slack TIME] [--every] [--exact] [--on CPU] | del TIMER | list",
    help: "arms a timer that says in the log how late it is\n\
           TIME is a number and its unit, as in 300us, 1.5s or 2h (ns us ms s m h).\n\
           Without more it is a coarse timer: called at a tick, never early, and later the further off it is.\n\
           --slack TIME  how long after the tick at most\n\
           --every       again and again; a coarse one every so many whole ticks\n\
           --exact       a high-resolution timer\n\
           --on CPU      on that CPU, also if it is idle\n\
           A timer that is called once is gone then. `timer del` takes its number.",
    complete,
    run: timer,
};

const OPTIONS: [&str; 4] = ["--slack", "--every", "--exact", "--on"];

/// Each call of a timer is a line of the log.
const SHORTEST_PERIOD_NS: u64 = 10_000_000;

fn complete(machine: &dyn Machine, before: &[&str]) -> Vec<String> {
    match before {
        [] => ["add", "del", "list"].map(String::from).to_vec(),
        ["del"] => machine.own_timers().iter().map(|timer| timer.number.to_string()).collect(),
        ["add"] | ["add", .., "--slack"] => ["10ms", "1s"].map(String::from).to_vec(),
        ["add", .., "--on"] => cpu_numbers(machine),
        ["add", given @ ..] => OPTIONS
            .iter()
            .filter(|option| !given.contains(option))
            .map(|option| String::from(*option))
            .collect(),
        _ => Vec::new(),
    }
}

fn timer(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    match arguments {
        ["add", rest @ ..] => add(cx, rest),
        ["del", rest @ ..] => delete(cx, rest),
        ["list", rest @ ..] => {
            at_most(rest, 0)?;
            Ok(write_own(cx.out, &cx.machine.own_timers())?)
        }
        [] => Err(Failure::Usage(String::from("`add`, `del` or `list`?"))),
        [other, ..] => Err(Failure::Usage(alloc::format!("`{other}` is not `add`, `del` or `list`"))),
    }
}

fn add(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let wish = parse_wish(cx.machine, arguments)?;
    let number = cx.machine.add_timer(&wish).map_err(Failure::Failed)?;
    writeln!(cx.out, "timer {number}: {}; `timer del {number}` takes it back", Wished(&wish))?;
    Ok(())
}

/// What the arguments of `timer add` ask for.
fn parse_wish(machine: &dyn Machine, arguments: &[&str]) -> Result<Wish, Failure> {
    let Some((time, options)) = arguments.split_first() else {
        return Err(Failure::Usage(String::from("in how long? As in `timer add 3s`")));
    };
    let mut wish = Wish { ns: spans::parse(time).map_err(Failure::Usage)?, ..Wish::default() };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let missing = |what| Failure::Usage(alloc::format!("`{option}` is followed by {what}"));
        match *option {
            "--slack" => {
                let word = options.next().ok_or_else(|| missing("a time, as in `--slack 10ms`"))?;
                wish.slack_ns = Some(spans::parse(word).map_err(Failure::Usage)?);
            }
            "--every" => wish.every = true,
            "--exact" => wish.exact = true,
            "--on" => wish.on = Some(parse_cpu(machine, options.next().ok_or_else(|| missing("a CPU"))?)?),
            other => {
                let known = OPTIONS.join(", ");
                return Err(Failure::Usage(alloc::format!("`{other}` is no option; there are {known}")));
            }
        }
    }
    if wish.every && wish.ns < SHORTEST_PERIOD_NS {
        return Err(Failure::Usage(String::from(
            "each call is a line of the log: no more than one every 10ms",
        )));
    }
    Ok(wish)
}

/// A CPU that is on-line.
fn parse_cpu(machine: &dyn Machine, word: &str) -> Result<u32, Failure> {
    let cpus = machine.cpus();
    match cpus.iter().find(|cpu| word.parse() == Ok(cpu.number)) {
        Some(cpu) if cpu.state == "online" => Ok(cpu.number),
        Some(cpu) => Err(Failure::Failed(alloc::format!(
            "CPU {0} is {1}; `cpu {0} online` brings it on-line",
            cpu.number,
            cpu.state
        ))),
        None => {
            let last = cpus.len().saturating_sub(1);
            Err(Failure::Usage(alloc::format!("`{word}` is no CPU; they are 0 to {last}")))
        }
    }
}

fn delete(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let Some(word) = arguments.first() else {
        return Err(Failure::Usage(String::from("which timer? `timer list` has their numbers")));
    };
    let Ok(number) = word.parse() else {
        return Err(Failure::Usage(alloc::format!("`{word}` is no timer's number; `timer list` has them")));
    };
    match cx.machine.delete_timer(number) {
        Some(true) => writeln!(cx.out, "timer {number} is deleted")?,
        Some(false) => writeln!(cx.out, "timer {number} is being called, and is not called again")?,
        None => {
            return Err(Failure::Failed(alloc::format!(
                "there is no timer {number}, or it has been called; `timer list` lists those that will be"
            )));
        }
    }
    Ok(())
}

/// What was asked for, in words.
struct Wished<'a>(&'a Wish);

impl fmt::Display for Wished<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wish { ns, slack_ns, every, exact, on } = self.0;
        f.write_str(if *exact { "exact, " } else { "coarse, " })?;
        write!(f, "{} {}", if *every { "every" } else { "in" }, Span(*ns))?;
        if let Some(slack) = slack_ns {
            write!(f, ", slack {}", Span(*slack))?;
        }
        on.map_or(Ok(()), |cpu| write!(f, ", on CPU {cpu}"))
    }
}

fn write_own(out: &mut dyn Write, timers: &[OwnTimer]) -> fmt::Result {
    if timers.is_empty() {
        return writeln!(out, "no timer of the console's is armed; `timer add 3s` arms one");
    }
    writeln!(out, "TIMER       NEXT   CALLS  ARMED AS")?;
    for OwnTimer { number, wish, remaining_ns, calls } in timers {
        let next = Span(*remaining_ns).to_string();
        writeln!(out, "{number:>5} {next:>10} {calls:>7}  {}", Wished(wish))?;
    }
    Ok(())
}
