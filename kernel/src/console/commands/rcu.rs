//! `rcu`: grace periods, who holds them up, and what waits for them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use ::rcu::Domain;
use hal::{Native, Platform};

use super::cpu_numbers;
use super::spans::Span;
use crate::console::rcu::{Callbacks, Grace, Holdout, Node, Readers, Wait};
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};

pub(super) static RCU: Command = Command {
    name: "rcu",
    usage: "[sync|expedite|barrier [N] | stall | offload CPU on|off]",
    help: "shows grace periods and callbacks, waits for them\n\
           NODE: PRESENT are the CPUs of a leaf that are up, or the children of an inner node, a bit for each; WAITING\n\
           those that have not reported in the running grace period, EXPED. in the expedited one. READERS were\n\
           preempted while they read, and HOLD of them hold the grace period up.\n\
           CPU: callbacks that are DONE with waiting, WAIT for a known grace period, are READY for the one after it,\n\
           or have just come (NEXT); LAZY ones are in no hurry, CALLED ones are being called, by the CPU or a task.\n\
           `rcu sync 10` waits for ten grace periods and says how long that took; `rcu stall` has a reader stay until\n\
           it is reported; `rcu offload 1 on` has a task call the callbacks of CPU 1.",
    complete: |machine, before| match before {
        [] => ["sync", "expedite", "barrier", "stall", "offload"].map(String::from).to_vec(),
        ["offload"] => cpu_numbers(machine),
        ["offload", _] => ["on", "off"].map(String::from).to_vec(),
        _ => Vec::new(),
    },
    run: rcu,
};

fn rcu(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    match arguments {
        [] => Ok(write_grace(cx.out, &cx.machine.grace_periods())?),
        ["sync", rest @ ..] => wait(cx, Wait::GracePeriod, rest),
        ["expedite", rest @ ..] => wait(cx, Wait::Expedited, rest),
        ["barrier", rest @ ..] => wait(cx, Wait::Barrier, rest),
        ["stall", rest @ ..] => {
            at_most(rest, 0)?;
            stall(cx)
        }
        ["offload", rest @ ..] => offload(cx, rest),
        [word, ..] => Err(Failure::Usage(alloc::format!(
            "`{word}` is not `sync`, `expedite`, `barrier`, `stall` or `offload`"
        ))),
    }
}

// ---- How things stand ----

fn write_grace(out: &mut dyn Write, grace: &Grace) -> fmt::Result {
    let Grace { ended, helped, expedited, stalls, held_back, unbounded, .. } = grace;
    write_running(out, grace)?;
    writeln!(
        out,
        "{ended} have ended, {helped} of them driven by who waited; {expedited} expedited ones begun"
    )?;
    let kind = if grace.preemptible { "may be preempted" } else { "are not preempted" };
    if grace.nodes.is_empty() {
        writeln!(out, "readers {kind}; whenever the only CPU switches tasks or halts there is none")?;
        return write_cpus(out, &grace.cpus);
    }
    let times = if *stalls == 1 { "time" } else { "times" };
    writeln!(out, "readers {kind}; reported after {}: {stalls} {times} since boot", Span(grace.stall_ns))?;
    if held_back + unbounded > 0 {
        writeln!(
            out,
            "too many callbacks: {held_back} times somebody waited, {unbounded} came where nobody could"
        )?;
    }
    write_nodes(out, &grace.nodes)?;
    write_cpus(out, &grace.cpus)
}

fn write_running(out: &mut dyn Write, grace: &Grace) -> fmt::Result {
    match (grace.running, grace.running_ns) {
        (false, _) => writeln!(out, "no grace period runs")?,
        (true, None) => writeln!(out, "grace period {} runs", grace.ended + 1)?,
        (true, Some(ns)) => writeln!(out, "grace period {} runs, for {}", grace.ended + 1, Span(ns))?,
    }
    write_holdouts(out, &grace.holdouts)?;
    if grace.expedited_running {
        writeln!(out, "an expedited one runs")?;
        write_holdouts(out, &grace.expedited_holdouts)?;
    }
    Ok(())
}

fn write_holdouts(out: &mut dyn Write, holdouts: &[Holdout]) -> fmt::Result {
    holdouts.iter().try_for_each(|holdout| match holdout {
        Holdout::Cpu(cpu) => writeln!(out, "  waits for CPU {cpu}"),
        Holdout::Task(number, name) => {
            writeln!(out, "  waits for task {number} `{name}`, preempted while it reads")
        }
    })
}

fn write_nodes(out: &mut dyn Write, nodes: &[Node]) -> fmt::Result {
    writeln!(
        out,
        "{:<4} {:>5} {:>9} {:>16} {:>8} {:>8} {:>7} {:>4} {:>8}",
        "NODE", "LEVEL", "CPUS", "PRESENT", "WAITING", "EXPED.", "READERS", "HOLD", "LOCKED"
    )?;
    for (number, node) in nodes.iter().enumerate() {
        let Node { level, cpus: (first, last), present, waiting, expedited, readers, holding_up, locked } =
            node;
        let cpus = if first == last { alloc::format!("{first}") } else { alloc::format!("{first}-{last}") };
        writeln!(
            out,
            "{number:>4} {level:>5} {cpus:>9} {present:>16x} {:>8} {:>8} {:>7} {:>4} {locked:>8}",
            Bits(*waiting),
            Bits(*expedited),
            Count(*readers),
            Count(*holding_up)
        )?;
    }
    Ok(())
}

fn write_cpus(out: &mut dyn Write, cpus: &[Callbacks]) -> fmt::Result {
    writeln!(
        out,
        "{:>4} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  BY",
        "CPU", "DONE", "WAIT", "READY", "NEXT", "LAZY", "CALLED"
    )?;
    for Callbacks { cpu, offloaded, segments, lazy, in_flight } in cpus {
        write!(out, "{cpu:>4}")?;
        segments
            .iter()
            .chain([lazy, in_flight])
            .try_for_each(|count| write!(out, " {:>7}", Count(*count)))?;
        writeln!(out, "  {}", if *offloaded { "a task" } else { "the CPU" })?;
    }
    Ok(())
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

/// The same for a mask.
struct Bits(u64);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("."),
            some => fmt::LowerHex::fmt(&some, f),
        }
    }
}

// ---- Waiting ----

/// The most times that one command waits.
const MOST: usize = 10_000;

fn wait(cx: &mut Context<'_>, what: Wait, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let times = match arguments.first() {
        None => 1,
        Some(word) => match word.parse() {
            Ok(times) if (1..=MOST).contains(&times) => times,
            _ => {
                let why = alloc::format!("`{word}` is not how often to wait, 1 to {MOST}");
                return Err(Failure::Usage(why));
            }
        },
    };
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = cx.machine.now_ns();
        cx.machine.wait_for(what, cx.task);
        took.push(cx.machine.now_ns() - begun);
    }
    Ok(write_times(cx.out, what, &mut took)?)
}

fn write_times(out: &mut dyn Write, what: Wait, took: &mut [u64]) -> fmt::Result {
    took.sort_unstable();
    let name = match what {
        Wait::GracePeriod => "a grace period",
        Wait::Expedited => "an expedited grace period",
        Wait::Barrier => "a barrier",
    };
    match took {
        [] => Ok(()),
        [only] => writeln!(out, "{name}: {}", Span(*only)),
        [first, .., last] => {
            let (first, last) = (*first, *last);
            let median = took[took.len() / 2];
            writeln!(
                out,
                "{name}, {} times: median {}, from {} to {}",
                took.len(),
                Span(median),
                Span(first),
                Span(last)
            )
        }
    }
}

// ---- Stalls ----

/// From how long on grace periods are reported while one is stalled on purpose: before readers that were preempted are
/// boosted, so that this one does not keep the console from its CPU.
const STALL_NS: u64 = 300_000_000;
/// How long the reader stays at the most.
const STAY_NS: u64 = 20 * STALL_NS;
/// How often the console looks.
const LOOK_NS: u64 = 10_000_000;

const NO_CPU: &str = "the task `stays` was not given a CPU";

/// What the console and the reader tell each other.
#[derive(Default)]
struct Stay {
    inside: AtomicBool,
    enough: AtomicBool,
    left: AtomicBool,
}

fn stall(cx: &mut Context<'_>) -> CommandResult {
    let before = cx.machine.set_stall_limit(STALL_NS);
    let result = provoke(cx);
    cx.machine.set_stall_limit(before);
    result
}

fn provoke(cx: &mut Context<'_>) -> CommandResult {
    let reports = cx.machine.stalls();
    let stay = Arc::new(Stay::default());
    let own = Arc::clone(&stay);
    let body = move |_: &mut sync::TaskCx| {
        let section = ::rcu::read::<Readers>();
        let begun = Native::now_ns();
        own.inside.store(true, Ordering::Release);
        while !own.enough.load(Ordering::Relaxed) && Native::now_ns() - begun < STAY_NS {
            Native::relax();
        }
        drop(section);
        // Release: pairs with the Acquire in `until`.
        own.left.store(true, Ordering::Release);
    };
    cx.machine.start("stays", Box::new(body)).map_err(Failure::Failed)?;
    if !until(cx, &stay.inside) {
        stay.enough.store(true, Ordering::Relaxed);
        return Err(Failure::Failed(String::from(NO_CPU)));
    }
    writeln!(
        cx.out,
        "the task `stays` reads, and a grace period waits for it; it is reported after {}",
        Span(STALL_NS)
    )?;
    let state = Readers::start_poll();
    let asked = cx.machine.now_ns();
    while cx.machine.stalls() == reports && !stay.left.load(Ordering::Relaxed) {
        cx.machine.pause(LOOK_NS, false, cx.task);
    }
    let waited = cx.machine.now_ns() - asked;
    if !stay.left.load(Ordering::Relaxed) {
        write_running(cx.out, &cx.machine.grace_periods())?;
    }
    stay.enough.store(true, Ordering::Relaxed);
    if !until(cx, &stay.left) {
        return Err(Failure::Failed(String::from(NO_CPU)));
    }
    cx.machine.wait_for(Wait::GracePeriod, cx.task);
    match (cx.machine.stalls() - reports, Readers::poll(state)) {
        (0, _) => {
            let why = alloc::format!(
                "it left after {}, and nothing was reported: on one CPU without preemption nobody else runs meanwhile",
                Span(STAY_NS)
            );
            Err(Failure::Failed(why))
        }
        (_, false) => Err(Failure::Failed(String::from("it has left, and the grace period has not ended"))),
        (_, true) => {
            writeln!(
                cx.out,
                "reported after {}; it has left, and the grace period has ended; `dmesg` has the report",
                Span(waited)
            )?;
            Ok(())
        }
    }
}

/// Waits until the reader has set the mark, and says whether it has; it does so unless it is not given a CPU for long.
fn until(cx: &mut Context<'_>, mark: &AtomicBool) -> bool {
    let begun = Native::now_ns();
    // Acquire: pairs with the Releases of the reader.
    while !mark.load(Ordering::Acquire) && Native::now_ns() - begun < 2 * STAY_NS {
        cx.machine.pause(LOOK_NS / 10, false, cx.task);
        Native::relax();
    }
    mark.load(Ordering::Acquire)
}

// ---- Off-loading ----

fn offload(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let (word, on) = match arguments {
        [cpu, "on"] => (*cpu, true),
        [cpu, "off"] => (*cpu, false),
        [_, word] => return Err(Failure::Usage(alloc::format!("`{word}` is not `on` or `off`"))),
        [_, _, extra, ..] => {
            return Err(Failure::Usage(alloc::format!("`{extra}` is one argument too many")));
        }
        _ => {
            let why = "callbacks of which CPU, and on or off? As in `rcu offload 1 on`";
            return Err(Failure::Usage(String::from(why)));
        }
    };
    let cpus = cx.machine.cpus();
    let Some(cpu) = cpus.iter().map(|cpu| cpu.number).find(|cpu| word.parse() == Ok(*cpu)) else {
        let last = cpus.last().map_or(0, |cpu| cpu.number);
        return Err(Failure::Usage(alloc::format!("`{word}` is no CPU; they are 0 to {last}")));
    };
    cx.machine.set_offloaded(cpu, on, cx.task).map_err(Failure::Failed)?;
    let by = if on { "a task" } else { "the CPU" };
    writeln!(cx.out, "callbacks of CPU {cpu} are called by {by}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_and_whom_it_waits_for() {
        let mut grace = Grace { ended: 41, running: true, running_ns: Some(3_200_000), ..Grace::default() };
        grace.holdouts = vec![Holdout::Cpu(3), Holdout::Task(17, "reader".into())];
        let shown = |grace: &Grace| {
            let mut out = String::new();
            write_running(&mut out, grace).unwrap();
            out
        };
        assert_eq!(
            shown(&grace),
            "grace period 42 runs, for 3.200 ms\n\
             \x20 waits for CPU 3\n\
             \x20 waits for task 17 `reader`, preempted while it reads\n"
        );
        grace =
            Grace { expedited_running: true, expedited_holdouts: vec![Holdout::Cpu(1)], ..Grace::default() };
        assert_eq!(shown(&grace), "no grace period runs\nan expedited one runs\n  waits for CPU 1\n");
        grace = Grace { ended: 9, running: true, ..Grace::default() };
        assert_eq!(shown(&grace), "grace period 10 runs\n");
    }

    #[test]
    fn nodes_and_callbacks_are_tables_of_a_terminals_width() {
        let root = Node { cpus: (0, 4095), present: 15, waiting: 4, locked: 1234, ..Node::default() };
        let leaf = Node {
            level: 2,
            cpus: (16, 31),
            present: 0xffff,
            waiting: 0x8001,
            expedited: 2,
            readers: 3,
            holding_up: 1,
            locked: 99,
        };
        let mut out = String::new();
        write_nodes(&mut out, &[root, leaf]).unwrap();
        write_cpus(
            &mut out,
            &[
                Callbacks { cpu: 0, segments: [1, 20, 3, 0], lazy: 5, ..Callbacks::default() },
                Callbacks { cpu: 4095, offloaded: true, in_flight: 32, ..Callbacks::default() },
            ],
        )
        .unwrap();
        assert_eq!(
            out,
            "NODE LEVEL      CPUS          PRESENT  WAITING   EXPED. READERS HOLD   LOCKED\n\
             \x20  0     0    0-4095                f        4        .       .    .     1234\n\
             \x20  1     2     16-31             ffff     8001        2       3    1       99\n\
             \x20CPU    DONE    WAIT   READY    NEXT    LAZY  CALLED  BY\n\
             \x20  0       1      20       3       .       5       .  the CPU\n\
             4095       .       .       .       .       .      32  a task\n"
        );
        assert!(out.lines().all(|line| line.len() < 80), "{out}");
    }

    #[test]
    fn times_have_a_median() {
        let shown = |took: &mut [u64]| {
            let mut out = String::new();
            write_times(&mut out, Wait::GracePeriod, took).unwrap();
            out
        };
        assert_eq!(shown(&mut [7]), "a grace period: 7 ns\n");
        assert_eq!(
            shown(&mut [9_000, 2, 300]),
            "a grace period, 3 times: median 300 ns, from 2 ns to 9.000 us\n"
        );
    }
}
