//! `cpus`, `cpu` and `percpu`: who runs, who is to, and where each one's data is.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{Size, cpu_numbers};
use crate::console::machine::{Cpu, PerCpuAreas};
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};

pub(super) static CPUS: Command = Command {
    name: "cpus",
    usage: "",
    help: "lists the CPUs: id, state, area, frequency, ticks, IPIs\n\
           GS BASE is what the CPU adds to a per-CPU variable's address; AREA is where its variables are.\n\
           IPIS counts the interrupts that other CPUs sent to it.",
    complete: no_completion,
    run: cpus,
};

fn cpus(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 0)?;
    Ok(write_cpus(cx.out, &cx.machine.cpus())?)
}

fn write_cpus(out: &mut dyn Write, cpus: &[Cpu]) -> fmt::Result {
    writeln!(
        out,
        "{:>3}  {:>5}  {:<8}  {:<18}  {:<18}  {:>6}  {:>9}  {:>7}",
        "CPU", "APIC", "STATE", "GS BASE", "AREA", "MHZ", "TICKS", "IPIS"
    )?;
    for cpu in cpus {
        let apic_id = Optional(cpu.apic_id);
        let (gs_base, area) = (Optional(cpu.gs_base.map(Address)), Optional(cpu.area.map(Address)));
        let mhz = Optional(cpu.frequency.map(|hz| (hz + 500_000) / 1_000_000));
        let Cpu { number, state, ticks, ipis, .. } = cpu;
        writeln!(
            out,
            "{number:>3}  {apic_id:>5}  {state:<8}  {gs_base:<18}  {area:<18}  {mhz:>6}  {ticks:>9}  {ipis:>7}"
        )?;
    }
    Ok(())
}

pub(super) static CPU: Command = Command {
    name: "cpu",
    usage: "N online|offline",
    help: "takes a CPU off-line, or brings it back\n\
           A CPU that goes hands its tasks to the others and halts; tasks that may run nowhere else wait.\n\
           The boot CPU stays. `cpus` shows which are there.",
    complete: |machine, before| match before {
        [] => cpu_numbers(machine),
        [_] => alloc::vec!["online".into(), "offline".into()],
        _ => Vec::new(),
    },
    run: cpu,
};

fn cpu(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    let [number, state] = arguments else {
        return Err(Failure::Usage("which CPU, and what is it to be?".into()));
    };
    let number =
        number.parse().map_err(|_| Failure::Usage(alloc::format!("`{number}` is no CPU's number")))?;
    let online = match *state {
        "online" => true,
        "offline" => false,
        other => return Err(Failure::Usage(alloc::format!("`{other}` is not `online` or `offline`"))),
    };
    cx.machine.set_cpu_online(number, online, cx.task).map_err(Failure::Failed)?;
    writeln!(cx.out, "CPU {number} is {state}")?;
    Ok(())
}

pub(super) static PERCPU: Command = Command {
    name: "percpu",
    usage: "",
    help: "shows how per-CPU variables are laid out\n\
           Each CPU's area is a copy of the template, with room behind it for variables that come at run time.\n\
           `demo percpu` shows what they are for.",
    complete: no_completion,
    run: percpu,
};

fn percpu(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 0)?;
    Ok(write_areas(cx.out, &cx.machine.per_cpu())?)
}

fn write_areas(out: &mut dyn Write, areas: &PerCpuAreas) -> fmt::Result {
    let PerCpuAreas { template, template_size, area_size, dynamic, dynamic_used, .. } = *areas;
    writeln!(out, "  template  {} at {}", Size(template_size), Address(template))?;
    writeln!(
        out,
        "  area      {} each: template, then {} for run-time variables, {} of them in use",
        Size(area_size),
        Size(dynamic),
        Size(dynamic_used)
    )?;
    for (cpu, area) in &areas.areas {
        let name = alloc::format!("cpu{cpu}");
        writeln!(out, "  {name:<8}  {} .. {}", Address(*area), Address(area + area_size))?;
    }
    Ok(())
}

/// An address, 16 digits wide.
struct Address(u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A value, or a dash in its place.
struct Optional<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Optional<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.pad("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_cpu() {
        let cpus = [
            Cpu {
                number: 0,
                apic_id: Some(0),
                state: "online",
                gs_base: Some(0xffff_c000_0000_1000),
                area: Some(0xffff_8000_0012_3000),
                frequency: Some(2_596_600_000),
                ticks: 1234,
                ipis: 7,
            },
            Cpu {
                number: 12,
                apic_id: None,
                state: "parked",
                gs_base: None,
                area: None,
                frequency: None,
                ticks: 0,
                ipis: 0,
            },
        ];
        let mut out = String::new();
        write_cpus(&mut out, &cpus).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines,
            [
                "CPU   APIC  STATE     GS BASE             AREA                   MHZ      TICKS     IPIS",
                "  0      0  online    0xffffc00000001000  0xffff800000123000    2597       1234        7",
                " 12      -  parked    -                   -                        -          0        0",
            ]
        );
    }

    #[test]
    fn areas_are_ranges() {
        let areas = PerCpuAreas {
            template: 0xffff_ffff_8020_0000,
            template_size: 4096,
            area_size: 12288,
            dynamic: 8192,
            dynamic_used: 64,
            areas: vec![(0, 0x1000), (1, 0x5000)],
        };
        let mut out = String::new();
        write_areas(&mut out, &areas).unwrap();
        assert!(out.contains("template  4.0 KiB at 0xffffffff80200000\n"), "{out}");
        assert!(out.contains("cpu1      0x0000000000005000 .. 0x0000000000008000\n"), "{out}");
    }
}
