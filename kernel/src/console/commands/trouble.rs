//! `backtrace` and `crash`: looking at trouble, and making some.

use alloc::string::String;
use alloc::vec::Vec;

use super::cpu_numbers;
use crate::console::machine::Machine;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};
use crate::console::words::near;

pub(super) static BACKTRACE: Command = Command {
    name: "backtrace",
    usage: "[CPU]",
    help: "shows what a CPU is doing, or all of them\n\
           Other CPUs are asked by NMI, so one that hangs with interrupts off answers too.",
    complete: |machine, before| if before.is_empty() { cpu_numbers(machine) } else { Vec::new() },
    run: backtrace,
};

fn backtrace(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let cpu =
        match arguments.first() {
            None => None,
            Some(word) => {
                let cpus = cx.machine.cpus();
                let known = word.parse().ok().filter(|number| cpus.iter().any(|cpu| cpu.number == *number));
                let last = cpus.last().map_or(0, |cpu| cpu.number);
                Some(known.ok_or_else(|| {
                    Failure::Usage(alloc::format!("`{word}` is no CPU; they are 0 to {last}"))
                })?)
            }
        };
    Ok(cx.machine.backtrace(cpu, cx.out)?)
}

pub(super) static CRASH: Command = Command {
    name: "crash",
    usage: "[KIND]",
    help: "crashes the kernel, to see a report; alone lists the ways",
    complete: |machine, before| if before.is_empty() { kinds(machine) } else { Vec::new() },
    run: crash,
};

fn kinds(machine: &dyn Machine) -> Vec<String> {
    machine.crashes().iter().map(|(name, _)| String::from(*name)).collect()
}

fn crash(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let known = cx.machine.crashes();
    let Some(kind) = arguments.first() else {
        for (name, help) in known {
            writeln!(cx.out, "  {name:<24} {help}")?;
        }
        return Ok(());
    };
    if !known.iter().any(|(name, _)| name == kind) {
        let meant = match near(kind, known.iter().map(|(name, _)| *name)) {
            near if near.is_empty() => String::new(),
            near => alloc::format!(" did you mean {}?", near.join(" or ")),
        };
        return Err(Failure::Usage(alloc::format!("`{kind}` is no way to crash;{meant} `crash` lists them")));
    }
    cx.machine.crash(kind);
    Err(Failure::Failed(alloc::format!("`{kind}` did not crash the kernel")))
}
