//! `mem`, `irq`, `acpi`, `clock`: what the machine is made of.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{Size, write_facts};
use crate::console::machine::{Fact, Interrupt, Memory};
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};
use crate::memory::check::Findings;

pub(super) static MEM: Command = Command {
    name: "mem",
    usage: "[map | check [MIB]]",
    help: "shows who uses memory; `mem map`: what firmware says\n\
           `mem check` sums the constant pages of the image again and compares with the sums of the boot. Then it\n\
           fills MIB of free memory (16 if not said otherwise, half of it at most) with patterns and compares.",
    complete: |_, before| {
        if before.is_empty() { alloc::vec!["map".into(), "check".into()] } else { alloc::vec![] }
    },
    run: mem,
};

fn mem(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    match arguments {
        [] => Ok(write_memory(cx.out, &cx.machine.memory())?),
        ["map"] => Ok(write_map(cx.out, &cx.machine.memory())?),
        ["check"] => check(cx, 16),
        ["check", mib] => match mib.parse() {
            Ok(mib @ 0..=0xffff_ffff) => check(cx, mib),
            _ => Err(Failure::Usage(alloc::format!("`{mib}` is not a number of MiB"))),
        },
        ["map", extra] => Err(Failure::Usage(alloc::format!("`{extra}` is one argument too many"))),
        [other, ..] => Err(Failure::Usage(alloc::format!("`{other}` is not `map` or `check`"))),
    }
}

fn check(cx: &mut Context<'_>, mib: u64) -> CommandResult {
    let findings = cx.machine.check_memory(mib << 20);
    write_findings(cx.out, &findings)?;
    match findings.is_clean() {
        true => Ok(()),
        false => Err(Failure::Failed("memory is not as it should be".into())),
    }
}

/// The most damaged pages that are listed.
const SHOWN_PAGES: usize = 8;

fn write_findings(out: &mut dyn Write, findings: &Findings) -> fmt::Result {
    let Findings { constant_pages, changed, frames, bad, method, ns } = findings;
    writeln!(out, "  constant pages {constant_pages:>8}, changed: {}", changed.len())?;
    changed.iter().take(SHOWN_PAGES).try_for_each(|page| writeln!(out, "    {page:#018x}"))?;
    writeln!(out, "  free frames    {frames:>8}, that do not keep what is written: {}", bad.len())?;
    bad.iter()
        .take(SHOWN_PAGES)
        .try_for_each(|(at, bits)| writeln!(out, "    {at:#014x}: bits {bits:#x}"))?;
    writeln!(out, "  in {}.{} ms, {method}", ns / 1_000_000, ns / 100_000 % 10)
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
    let name = |row: &Interrupt| alloc::format!("{:#04x}  {}", row.vector, row.name);
    write_counts(out, "VECTOR  NAME", interrupts.iter().map(|row| (name(row), row.counts.as_slice())))
}

/// Writes a table of names and of counts for each CPU.
pub(super) fn write_counts<'a>(
    out: &mut dyn Write,
    head: &str,
    rows: impl Iterator<Item = (String, &'a [u64])>,
) -> fmt::Result {
    let rows: Vec<_> = rows.collect();
    let cpus = rows.iter().map(|(_, counts)| counts.len()).max().unwrap_or(0);
    let summed = cpus > SHOWN_CPUS + 1;
    let shown = if summed { SHOWN_CPUS } else { cpus };
    write!(out, "{head:<30}")?;
    (0..shown).try_for_each(|cpu| write!(out, " {:>8}", alloc::format!("cpu{cpu}")))?;
    writeln!(out, "{}", if summed { "   others" } else { "" })?;
    for (name, counts) in rows {
        write!(out, "  {name:<28}")?;
        let (first, others) = counts.split_at(shown.min(counts.len()));
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
    fn damage_is_listed() {
        let mut findings = Findings {
            constant_pages: 200,
            frames: 4096,
            method: "AVX2",
            ns: 1_250_000,
            ..Findings::default()
        };
        let mut out = String::new();
        write_findings(&mut out, &findings).unwrap();
        assert_eq!(
            out,
            "  constant pages      200, changed: 0\n  free frames        4096, that do not keep what is written: 0\n  in 1.2 ms, AVX2\n"
        );
        findings.changed = vec![0xffff_ffff_8020_0000];
        findings.bad = (0..20).map(|frame| (frame << 12, 0x10)).collect();
        out.clear();
        write_findings(&mut out, &findings).unwrap();
        assert!(out.contains("changed: 1\n    0xffffffff80200000\n"), "{out}");
        assert!(out.contains("written: 20\n    0x000000000000: bits 0x10\n"), "{out}");
        assert_eq!(out.matches("bits").count(), SHOWN_PAGES);
        assert!(!findings.is_clean());
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
