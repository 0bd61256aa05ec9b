//! `backtrace` and `crash`: looking at trouble, and making some.

use alloc::string::String;
use alloc::vec::Vec;

use super::cpu_numbers;
use super::tasks::{Called, find_task, task_numbers};
use crate::console::machine::Machine;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};
use crate::console::words::near;

pub(super) static BACKTRACE: Command = Command {
    name: "backtrace",
    usage: "[[cpu] CPU | [task] TASK]",
    help: "shows what a CPU or a task is doing, or all CPUs\n\
           Other CPUs are asked by NMI, so one that hangs with interrupts off answers too. TASK is a number, or a\n\
           name that one task has. A number that is a CPU's means the CPU; `task 2` means the task.",
    complete: |machine, before| match before {
        [] => {
            let mut words = alloc::vec![String::from("cpu"), String::from("task")];
            words.extend(cpu_numbers(machine));
            words
        }
        ["cpu"] => cpu_numbers(machine),
        ["task"] => task_numbers(machine),
        _ => Vec::new(),
    },
    run: backtrace,
};

fn backtrace(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    let cpus = cx.machine.cpus();
    let known = |word: &str| word.parse().ok().filter(|number| cpus.iter().any(|cpu| cpu.number == *number));
    let (what, word) = match arguments {
        [] => return Ok(cx.machine.backtrace(None, cx.out)?),
        [word] => (if known(word).is_some() { "cpu" } else { "task" }, *word),
        [what, word] => (*what, *word),
        _ => unreachable!("two at most"),
    };
    let last = cpus.last().map_or(0, |cpu| cpu.number);
    match what {
        "cpu" => match known(word) {
            Some(cpu) => Ok(cx.machine.backtrace(Some(cpu), cx.out)?),
            None => Err(Failure::Usage(alloc::format!("`{word}` is no CPU; they are 0 to {last}"))),
        },
        "task" => {
            let task = find_task(cx.machine, word).map_err(|failure| match failure {
                Failure::Usage(why) if arguments.len() == 1 => {
                    Failure::Usage(alloc::format!("{why}; CPUs are 0 to {last}"))
                }
                other => other,
            })?;
            writeln!(cx.out, "{}, {} on CPU#{}:", Called(&task), task.state, task.cpu)?;
            Ok(cx.machine.backtrace_of_task(task.number, cx.out)?)
        }
        other => Err(Failure::Usage(alloc::format!("`{other}` is neither `cpu` nor `task`"))),
    }
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
