//! `timers`, `hrtimers`: what is armed where, and how punctual calls were.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use timers::{HZ, Ticks};

use super::spans::Span;
use super::{cpu_numbers, spans};
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};
use crate::console::timers::{Calls, CpuPrecise, CpuWheels, Wheel};

pub(super) static TIMERS: Command = Command {
    name: "timers",
    usage: "[CPU | slow [TIME|off]]",
    help: "shows the wheels: armed timers by level, lateness\n\
           A CPU has three wheels: for timers that are tied to it, for those that any CPU may call while it is idle\n\
           (global), and for those that do not wake it (deferrable). Level N has buckets of 8^N ticks; DUE are about\n\
           to be called. NEXT is in how long a bucket comes. `timers slow 100us` times calls from now on, counts those\n\
           that take longer, and names the slowest functions; `timers slow off` ends that.",
    complete: |machine, before| match before {
        [] => {
            let mut words = cpu_numbers(machine);
            words.push(String::from("slow"));
            words
        }
        ["slow"] => ["off", "100us"].map(String::from).to_vec(),
        _ => Vec::new(),
    },
    run: timers,
};

fn timers(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let only = match arguments {
        [] => None,
        ["slow", rest @ ..] => return slow(cx, rest),
        [cpu, rest @ ..] => {
            at_most(rest, 0)?;
            Some(*cpu)
        }
    };
    let (now, mut cpus) = cx.machine.wheels();
    if let Some(word) = only {
        let known: Vec<u32> = cpus.iter().map(|cpu| cpu.cpu).collect();
        cpus.retain(|cpu| word.parse() == Ok(cpu.cpu));
        if cpus.is_empty() {
            let known = match (known.first(), known.last()) {
                (Some(first), Some(last)) => alloc::format!("CPUs {first} to {last}"),
                _ => String::from("no CPUs"),
            };
            return Err(Failure::Usage(alloc::format!("`{word}` is neither `slow` nor one of {known}")));
        }
    }
    writeln!(cx.out, "tick {now}, {HZ} a second; {}", Limit(cx.machine.slow_limit()))?;
    Ok(cpus.iter().try_for_each(|cpu| write_cpu(cx.out, now, cpu))?)
}

fn slow(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    match arguments.first() {
        None => {}
        Some(&"off") => cx.machine.set_slow_limit(None),
        // A number alone is microseconds: nobody's timer function takes seconds.
        Some(word) => {
            let ns = match word.parse::<u32>() {
                Ok(us) => u64::from(us) * 1_000,
                Err(_) => {
                    spans::parse(word).map_err(|why| Failure::Usage(alloc::format!("{why}, or `off`")))?
                }
            };
            cx.machine.set_slow_limit(Some(ns));
        }
    }
    writeln!(cx.out, "{}", Limit(cx.machine.slow_limit()))?;
    Ok(())
}

/// The limit from which on calls are slow.
struct Limit(Option<u64>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ns) => write!(f, "calls of more than {} are slow", Span(ns)),
            None => f.write_str("calls are not timed"),
        }
    }
}

fn write_cpu(out: &mut dyn Write, now: u64, cpu: &CpuWheels) -> fmt::Result {
    let CpuWheels { cpu, rests, wheels } = cpu;
    let armed = |wheel: &Wheel| wheel.due + wheel.levels.iter().sum::<usize>();
    let total: usize = wheels.iter().map(armed).sum();
    let calls = sum_up(wheels.iter().map(|wheel| &wheel.calls));
    let tick = if *rests { "rests" } else { "runs" };
    let (called, in_time) = (calls.late.iter().sum::<u64>(), calls.late.first().unwrap_or(&0));
    write!(out, "CPU {cpu}: its tick {tick}, {total} armed, {called} called")?;
    match called {
        0 => writeln!(out)?,
        _ => writeln!(out, ", {in_time} of them in time")?,
    }
    if total > 0 {
        let levels = wheels.first().map_or(0, |wheel| wheel.levels.len());
        write!(out, "  {:<10} {:>10}", "WHEEL", "NEXT")?;
        (0..levels).try_for_each(|level| write!(out, " {:>4}", alloc::format!("L{level}")))?;
        writeln!(out, "  DUE")?;
    }
    for Wheel { name, levels, due, next, .. } in wheels.iter().filter(|wheel| armed(wheel) > 0) {
        let next = match next {
            Some(next) if *next <= now => String::from("now"),
            Some(next) => alloc::format!("{}", Span(Ticks(next - now).as_ns())),
            None => String::from("-"),
        };
        write!(out, "  {name:<10} {next:>10}")?;
        levels.iter().try_for_each(|count| write!(out, " {:>4}", Count(*count)))?;
        writeln!(out, " {:>4}", Count(*due))?;
    }
    write_lateness(out, &calls, "ticks")?;
    write_slowest(out, &calls)
}

/// A count in a column; none is a dot, so that the others are found.
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("."),
            some => fmt::Display::fmt(&some, f),
        }
    }
}

/// How many functions are named for a CPU.
const NAMED: usize = 4;

fn write_slowest(out: &mut dyn Write, calls: &Calls) -> fmt::Result {
    if calls.slow > 0 {
        writeln!(out, "  slow calls: {}", calls.slow)?;
    }
    calls
        .slowest
        .iter()
        .take(NAMED)
        .try_for_each(|(name, ns)| writeln!(out, "  {:>10} {name}", alloc::format!("{}", Span(*ns))))
}

fn sum_up<'a>(all: impl Iterator<Item = &'a Calls>) -> Calls {
    let mut sum = Calls::default();
    for calls in all {
        sum.late.resize(sum.late.len().max(calls.late.len()), 0);
        sum.late.iter_mut().zip(&calls.late).for_each(|(sum, count)| *sum += count);
        sum.latest = sum.latest.max(calls.latest);
        sum.slow += calls.slow;
        sum.slowest.extend_from_slice(&calls.slowest);
    }
    sum.slowest.sort_by_key(|(_, ns)| core::cmp::Reverse(*ns));
    sum
}

/// Writes how many calls were late by how much, if any was. `unit` is a tick, or whatever it is called.
fn write_lateness(out: &mut dyn Write, Calls { late, latest, .. }: &Calls, unit: &str) -> fmt::Result {
    if late.iter().skip(1).all(|count| *count == 0) {
        return Ok(());
    }
    let mut before = "  late:";
    for (class, count) in late.iter().enumerate().skip(1).filter(|(_, count)| **count > 0) {
        let (from, to) = (1_u64 << (class - 1), (1_u64 << class) - 1);
        match class {
            _ if class + 1 == late.len() => write!(out, "{before} {count} by {from} or more")?,
            1 => write!(out, "{before} {count} by 1")?,
            _ => write!(out, "{before} {count} by {from}-{to}")?,
        }
        before = ",";
    }
    writeln!(out, " {unit}, {latest} at most")
}

pub(super) static HRTIMERS: Command = Command {
    name: "hrtimers",
    usage: "",
    help: "shows the high-resolution timers of each CPU\n\
           HARD are armed and called in the timer's interrupt, SOFT in the softirq `highres`. NEXT is in how long one\n\
           has to be called. EVENTS are interrupts that looked for timers, RETRIES how often one looked again because\n\
           more had become due, HANGS how often it gave up on that, so that something else gets on, after LONGEST.\n\
           LATEST is the greatest lateness of a call.",
    complete: no_completion,
    run: |cx, arguments| {
        at_most(arguments, 0)?;
        Ok(write_precise(cx.out, &cx.machine.precise())?)
    },
};

fn write_precise(out: &mut dyn Write, cpus: &[CpuPrecise]) -> fmt::Result {
    writeln!(
        out,
        "CPU {:>5} {:>5} {:>10} {:>7} {:>10} {:>8} {:>7} {:>5} {:>10}",
        "HARD", "SOFT", "NEXT", "CALLED", "LATEST", "EVENTS", "RETRIES", "HANGS", "LONGEST"
    )?;
    for cpu in cpus {
        let CpuPrecise { cpu, hard, soft, next_ns, calls, events, retries, hangs, longest_hang_ns } = cpu;
        let next = next_ns.map_or_else(|| String::from("-"), |ns| alloc::format!("{}", Span(ns)));
        let called: u64 = calls.late.iter().sum();
        let some = |count: u64, ns| match count {
            0 => String::from("-"),
            _ => alloc::format!("{}", Span(ns)),
        };
        let (latest, longest) = (some(called, calls.latest), some(*hangs, *longest_hang_ns));
        writeln!(
            out,
            "{cpu:>3} {hard:>5} {soft:>5} {next:>10} {called:>7} {latest:>10} {events:>8} {retries:>7} {hangs:>5} {longest:>10}"
        )?;
    }
    cpus.iter().try_for_each(|cpu| write_slowest(out, &cpu.calls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel(name: &'static str, levels: &[usize], next: Option<u64>) -> Wheel {
        Wheel { name, levels: levels.to_vec(), next, ..Wheel::default() }
    }

    fn shown(now: u64, cpu: &CpuWheels) -> String {
        let mut out = String::new();
        write_cpu(&mut out, now, cpu).unwrap();
        out
    }

    #[test]
    fn wheels_that_have_timers_are_shown_by_level() {
        let mut cpu = CpuWheels {
            cpu: 3,
            rests: true,
            wheels: vec![
                wheel("tied", &[2, 0, 12], Some(100)),
                wheel("global", &[0, 0, 0], None),
                wheel("deferrable", &[0, 1, 0], Some(100 + HZ)),
            ],
        };
        cpu.wheels[0].due = 1;
        assert_eq!(
            shown(100, &cpu),
            "CPU 3: its tick rests, 16 armed, 0 called\n\
             \x20 WHEEL            NEXT   L0   L1   L2  DUE\n\
             \x20 tied              now    2    .   12    1\n\
             \x20 deferrable    1.000 s    .    1    .    .\n"
        );
    }

    #[test]
    fn an_empty_cpu_takes_a_line() {
        let cpu = CpuWheels { wheels: vec![wheel("tied", &[0, 0], None)], ..CpuWheels::default() };
        assert_eq!(shown(5, &cpu), "CPU 0: its tick runs, 0 armed, 0 called\n");
    }

    #[test]
    fn lateness_is_summed_over_the_wheels_and_slow_functions_are_sorted() {
        let calls = |late: &[u64], latest, slowest: &[(&str, u64)]| Calls {
            late: late.to_vec(),
            latest,
            slow: slowest.len() as u64,
            slowest: slowest.iter().map(|(name, ns)| (String::from(*name), *ns)).collect(),
        };
        let with = |calls| Wheel { calls, ..Wheel::default() };
        let cpu = CpuWheels {
            wheels: vec![
                with(calls(&[5, 1, 2, 0], 3, &[("one", 1_500)])),
                with(calls(&[1, 0, 0, 4], 900, &[("two", 2_000_000)])),
            ],
            ..CpuWheels::default()
        };
        assert_eq!(
            shown(0, &cpu),
            "CPU 0: its tick runs, 0 armed, 13 called, 6 of them in time\n\
             \x20 late: 1 by 1, 2 by 2-3, 4 by 4 or more ticks, 900 at most\n\
             \x20 slow calls: 2\n\
             \x20   2.000 ms two\n\
             \x20   1.500 us one\n"
        );
    }

    #[test]
    fn precise_timers_are_a_table() {
        let idle = CpuPrecise::default();
        let busy = CpuPrecise {
            cpu: 63,
            hard: 12,
            soft: 3,
            next_ns: Some(1_500),
            calls: Calls { late: vec![0, 0, 9], latest: 2_500_000, ..Calls::default() },
            events: 123_456,
            retries: 7,
            hangs: 1,
            longest_hang_ns: 3_000_000,
        };
        let mut out = String::new();
        write_precise(&mut out, &[idle, busy]).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines,
            [
                "CPU  HARD  SOFT       NEXT  CALLED     LATEST   EVENTS RETRIES HANGS    LONGEST",
                "  0     0     0          -       0          -        0       0     0          -",
                " 63    12     3   1.500 us       9   2.500 ms   123456       7     1   3.000 ms",
            ]
        );
    }
}
