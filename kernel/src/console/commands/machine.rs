//! `mem`, `irq`, `acpi`, `clock`: what the machine is made of.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{Size, write_facts};
use crate::console::machine::{Fact, Interrupt, Memory};
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};

pub(super) static MEM: Command = Command {
    name: "mem",
    usage: "[map]",
    help: "shows who uses memory; `mem map`: what firmware says",
    complete: |_, before| if before.is_empty() { alloc::vec!["map".into()] } else { alloc::vec![] },
    run: mem,
};

fn mem(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let memory = cx.machine.memory();
    match arguments.first() {
        None => Ok(write_memory(cx.out, &memory)?),
        Some(&"map") => Ok(write_map(cx.out, &memory)?),
        Some(other) => Err(Failure::Usage(alloc::format!("`{other}` is not `map`"))),
    }
}

fn write_memory(out: &mut dyn Write, memory: &Memory) -> fmt::Result {
    let used: u64 = memory.used.iter().map(|(_, bytes)| bytes).sum();
    let mut row = |what: &str, bytes: u64| writeln!(out, "  {what:<30} {:>12}", Size(bytes));
    row("usable", memory.total)?;
    row("in use", used)?;
    for (who, bytes) in &memory.used {
        row(&alloc::format!("  {who}"), *bytes)?;
    }
    row("free", memory.total.saturating_sub(used))?;
    row("largest free piece", memory.largest_free)?;
    row("free inside the heap", memory.heap_free)
}

fn write_map(out: &mut dyn Write, memory: &Memory) -> fmt::Result {
    for (start, length, kind) in &memory.map {
        writeln!(out, "  {start:#014x} .. {:#014x}  {:>10}  {kind}", start + length, Size(*length))?;
    }
    Ok(())
}

pub(super) static IRQ: Command = Command {
    name: "irq",
    usage: "[hash]",
    help: "counts interrupts; `irq hash` digests the timer interrupts\n\
           The hash is over each timer interrupt's CPU, address and order. Under a deterministic emulator two\n\
           runs with the same seed print the same.",
    complete: |_, before| if before.is_empty() { alloc::vec!["hash".into()] } else { alloc::vec![] },
    run: irq,
};

fn irq(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    match arguments.first() {
        None => Ok(write_interrupts(cx.out, &cx.machine.interrupts())?),
        Some(&"hash") => Ok(writeln!(cx.out, "IRQHASH {:016x}", cx.machine.interrupt_digest())?),
        Some(other) => Err(Failure::Usage(alloc::format!("`{other}` is not `hash`"))),
    }
}

/// The columns of CPUs that fit into a line; the rest is summed up.
const SHOWN_CPUS: usize = 4;

fn write_interrupts(out: &mut dyn Write, interrupts: &[Interrupt]) -> fmt::Result {
    let cpus = interrupts.iter().map(|row| row.counts.len()).max().unwrap_or(0);
    let summed = cpus > SHOWN_CPUS + 1;
    let shown = if summed { SHOWN_CPUS } else { cpus };
    write!(out, "VECTOR  {:<22}", "NAME")?;
    (0..shown).try_for_each(|cpu| write!(out, " {:>8}", alloc::format!("cpu{cpu}")))?;
    writeln!(out, "{}", if summed { "   others" } else { "" })?;
    for row in interrupts {
        write!(out, "  {:#04x}  {:<22}", row.vector, row.name)?;
        let (first, others) = row.counts.split_at(shown.min(row.counts.len()));
        first.iter().try_for_each(|count| write!(out, " {count:>8}"))?;
        if summed {
            write!(out, " {:>8}", others.iter().sum::<u64>())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

pub(super) static ACPI: Command = Command {
    name: "acpi",
    usage: "",
    help: "what firmware says of CPUs, interrupts, timers and power",
    complete: no_completion,
    run: |cx, arguments| facts(cx, arguments, |cx| cx.machine.acpi()),
};

pub(super) static CLOCK: Command = Command {
    name: "clock",
    usage: "",
    help: "shows where time comes from and how it was measured",
    complete: no_completion,
    run: |cx, arguments| facts(cx, arguments, |cx| cx.machine.clock()),
};

fn facts(cx: &mut Context<'_>, arguments: &[&str], ask: fn(&Context<'_>) -> Vec<Fact>) -> CommandResult {
    at_most(arguments, 0)?;
    let facts = ask(cx);
    Ok(write_facts(cx.out, &facts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_adds_up() {
        let memory = Memory {
            total: 128 << 20,
            used: vec![("kernel image", 1 << 20), ("heap", 3 << 20)],
            heap_free: 100,
            largest_free: 64 << 20,
            map: vec![(0x10_0000, 0x7f0_0000, "usable")],
        };
        let mut out = String::new();
        write_memory(&mut out, &memory).unwrap();
        assert!(out.contains("  in use                              4.0 MiB\n"), "{out}");
        assert!(out.contains("    kernel image                      1.0 MiB\n"), "{out}");
        assert!(out.contains("  free                              124.0 MiB\n"), "{out}");
        out.clear();
        write_map(&mut out, &memory).unwrap();
        assert_eq!(out, "  0x000000100000 .. 0x000008000000   127.0 MiB  usable\n");
    }

    #[test]
    fn interrupts_of_many_cpus_are_summed() {
        let row = |counts: &[u64]| Interrupt { vector: 0x20, name: "timer", counts: counts.to_vec() };
        let mut out = String::new();
        write_interrupts(&mut out, &[row(&[1, 2, 3, 4, 5])]).unwrap();
        assert!(
            out.ends_with("  0x20  timer                         1        2        3        4        5\n"),
            "{out}"
        );
        out.clear();
        write_interrupts(&mut out, &[row(&[1, 2, 3, 4, 5, 6])]).unwrap();
        assert!(out.lines().next().unwrap().ends_with("cpu3   others"), "{out}");
        assert!(out.ends_with("  4       11\n"), "{out}");
    }
}
