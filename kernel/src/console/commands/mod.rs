//! The commands. One file a topic; each has its [`Command`]s and the functions that lay out their answers, which take
//! plain values and are tested with such.

mod bench;
mod deferred;
mod demo;
mod lockdep;
mod locks;
mod machine;
mod messages;
mod power;
mod processors;
mod rcu;
mod scheduler;
mod spans;
mod tasks;
mod timer;
mod timers;
mod torture;
mod trace;
mod trouble;
mod watchdogs;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::machine::Machine;
use super::registry::{Command, CommandResult, Context, Failure, Registry, at_most, usage};

/// All commands, in the order in which `help` lists them.
pub const ALL: Registry = Registry(&[
    &HELP,
    &demo::DEMO,
    &processors::CPUS,
    &processors::CPU,
    &machine::MEM,
    &machine::IRQ,
    &machine::ACPI,
    &machine::CLOCK,
    &processors::PERCPU,
    &tasks::PS,
    &scheduler::TOP,
    &scheduler::SCHED,
    &tasks::SPAWN,
    &tasks::CANCEL,
    &tasks::NICE,
    &tasks::TASKSET,
    &timers::TIMERS,
    &timers::HRTIMERS,
    &timer::TIMER,
    &deferred::SOFTIRQ,
    &deferred::WORK,
    &rcu::RCU,
    &torture::TORTURE,
    &locks::LOCKS,
    &lockdep::LOCKDEP,
    &watchdogs::HOLDS,
    &watchdogs::HUNG,
    &bench::BENCH,
    &messages::LOG,
    &messages::DMESG,
    &trace::TRACE,
    &trouble::BACKTRACE,
    &trouble::CRASH,
    &power::POWEROFF,
    &power::REBOOT,
]);

static HELP: Command = Command {
    name: "help",
    usage: "[COMMAND]",
    help: "lists the commands, or explains one",
    complete: |_, before| {
        if before.is_empty() { ALL.0.iter().map(|c| c.name.into()).collect() } else { Vec::new() }
    },
    run: help,
};

/// What is wider is cut in the list.
const USAGE_COLUMNS: usize = 18;

fn help(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let Some(name) = arguments.first() else {
        for command in ALL.0 {
            let summary = command.help.lines().next().unwrap_or("");
            let usage = match usage(command) {
                usage if usage.len() <= USAGE_COLUMNS => usage,
                _ => alloc::format!("{} ..", command.name),
            };
            writeln!(cx.out, "  {usage:<USAGE_COLUMNS$} {summary}")?;
        }
        writeln!(cx.out, "`;` separates commands on one line. Tab completes, Up recalls.")?;
        return Ok(());
    };
    let command = ALL.find(name).ok_or_else(|| Failure::Failed(ALL.unknown(name)))?;
    writeln!(cx.out, "{}", usage(command))?;
    command.help.lines().try_for_each(|line| writeln!(cx.out, "  {line}"))?;
    Ok(())
}

/// The numbers of the CPUs, for completion.
fn cpu_numbers(machine: &dyn Machine) -> Vec<String> {
    machine.cpus().iter().map(|cpu| alloc::format!("{}", cpu.number)).collect()
}

/// Bytes, in the largest unit that leaves few digits: `512 B`, `16.0 KiB`, `1.5 GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut text = crate::log::StackText::<16>::new();
        // The largest unit of which there is one at least; tenths are rounded down, so that free never looks more.
        match self.0.checked_ilog2().unwrap_or(0) / 10 {
            0 => fmt::Write::write_fmt(&mut text, format_args!("{} B", self.0))?,
            power => {
                let (unit, shift) = (UNITS[power as usize - 1], power * 10);
                let tenths = ((self.0 & ((1 << shift) - 1)) as u128 * 10) >> shift;
                fmt::Write::write_fmt(&mut text, format_args!("{}.{tenths} {unit}", self.0 >> shift))?;
            }
        }
        f.pad(text.as_str())
    }
}

/// Writes facts as two columns.
fn write_facts<'f>(
    out: &mut dyn fmt::Write,
    facts: impl IntoIterator<Item = &'f super::machine::Fact, IntoIter: Clone>,
) -> fmt::Result {
    let facts = facts.into_iter();
    let width = facts.clone().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    for (what, value) in facts {
        writeln!(out, "  {what:<width$}  {value}")?;
    }
    Ok(())
}
