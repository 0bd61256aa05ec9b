//! `top` and `sched`: who has the CPUs.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::tasks::policy_of;
use crate::console::machine::Machine;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};
use crate::console::tasks::{Kind, Queue, Task};
use crate::sched::Preemption;

pub(super) static TOP: Command = Command {
    name: "top",
    usage: "[SECONDS] [--once]",
    help: "shows who uses the CPUs, again and again; any key ends it\n\
           CPU% is the share of one CPU's time that the task had in the last SECONDS (1 if not said otherwise),\n\
           SWITCHES how often it was given a CPU in them. `--once` prints one table, as in scripts.",
    complete: |_, before| match before {
        [.., "--once"] => Vec::new(),
        _ => Vec::from([String::from("--once")]),
    },
    run: top,
};

/// The longest that `top` waits between two tables, in seconds.
const MOST_SECONDS: u64 = 3600;
/// The first table on a screen comes soon, and the next ones are better.
const FIRST_NS: u64 = 200_000_000;
/// So many tasks at most fit on a screen of 24 lines.
const SHOWN_TASKS: usize = 16;
/// CPUs in a line of `top`, and such lines at most.
const CPUS_IN_A_LINE: usize = 6;
const CPU_LINES: usize = 3;

fn top(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let (mut seconds, mut once) = (None, !cx.interactive);
    for argument in arguments {
        match *argument {
            "--once" => once = true,
            word if seconds.is_none() => match word.parse() {
                Ok(number @ 1..=MOST_SECONDS) => seconds = Some(number),
                _ => {
                    return Err(Failure::Usage(alloc::format!(
                        "`{word}` is neither `--once` nor a number of seconds, 1 to {MOST_SECONDS}"
                    )));
                }
            },
            extra => return Err(Failure::Usage(alloc::format!("`{extra}` is one argument too many"))),
        }
    }
    let interval = seconds.unwrap_or(1) * 1_000_000_000;
    let mut before = Sample::take(cx.machine);
    if once {
        cx.machine.pause(interval, false, cx.task);
        return Ok(write_top(cx.out, &before, &Sample::take(cx.machine), "")?);
    }
    // Clears the screen.
    write!(cx.out, "\x1b[2J")?;
    let mut wait = FIRST_NS;
    while !cx.machine.pause(wait, true, cx.task) {
        let now = Sample::take(cx.machine);
        // From the corner on over what is there, without the flicker of an empty screen in between.
        let mut table = String::from("\x1b[H");
        write_top(&mut table, &before, &now, "; any key ends this")?;
        write!(cx.out, "{}", table.replace('\n', "\x1b[K\n"))?;
        writeln!(cx.out, "\x1b[J")?;
        (before, wait) = (now, interval);
    }
    Ok(())
}

/// What everybody has had up to a moment.
struct Sample {
    at_ns: u64,
    tasks: Vec<Task>,
    queues: Vec<Queue>,
}

impl Sample {
    fn take(machine: &dyn Machine) -> Sample {
        let mut tasks = machine.tasks();
        tasks.sort_by_key(|task| task.number);
        Sample { at_ns: machine.now_ns(), tasks, queues: machine.queues() }
    }

    /// What the task of this number had run, and how often it had been switched to.
    fn had(&self, number: u32) -> (u64, u64) {
        match self.tasks.binary_search_by_key(&number, |task| task.number) {
            Ok(at) => (self.tasks[at].run_ns, self.tasks[at].switches),
            // It did not exist.
            Err(_) => (0, 0),
        }
    }
}

/// A part of a whole, in percent with one digit. Not more than the whole: samples of several CPUs are not of one moment.
struct Percent {
    part: u64,
    whole: u64,
}

impl Percent {
    fn tenths(&self) -> u64 {
        let (part, whole) = (u128::from(self.part), u128::from(self.whole.max(1)));
        ((part * 1000 + whole / 2) / whole).min(1000) as u64
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&alloc::format!("{}.{}", self.tenths() / 10, self.tenths() % 10))
    }
}

fn write_top(out: &mut dyn Write, before: &Sample, now: &Sample, note: &str) -> fmt::Result {
    let whole = now.at_ns.saturating_sub(before.at_ns);
    let share = |part: u64| Percent { part, whole };
    let idle_of = |queue: &Queue| {
        let earlier = before.queues.iter().find(|other| other.cpu == queue.cpu);
        // Since a CPU came on line, if that was in between: never more than the whole.
        share(queue.idle_ns.saturating_sub(earlier.map_or(0, |queue| queue.idle_ns)))
    };
    let ready: usize = now.queues.iter().map(|queue| queue.ready).sum();
    let tasks: Vec<&Task> = now.tasks.iter().filter(|task| task.kind != Kind::Idle).collect();
    let cpus = now.queues.len();
    let in_ms = whole / 1_000_000;
    writeln!(out, "{} tasks, {ready} waiting for one of {cpus} CPUs, in {in_ms} ms{note}", tasks.len())?;
    for line in now.queues.chunks(CPUS_IN_A_LINE).take(CPU_LINES) {
        write!(out, "idle%")?;
        for queue in line {
            write!(out, " cpu{:<3}{:>5}", queue.cpu, idle_of(queue))?;
        }
        writeln!(out)?;
    }
    let more = now.queues.get(CPUS_IN_A_LINE * CPU_LINES..).unwrap_or(&[]);
    if !more.is_empty() {
        let sum: u64 = more.iter().map(|queue| idle_of(queue).tenths()).sum();
        let average = Percent { part: sum, whole: more.len() as u64 * 1000 };
        writeln!(out, "idle%  {average} on the average of {} others", more.len())?;
    }
    let mut ran: Vec<(u64, u64, &Task)> = tasks
        .iter()
        .map(|task| {
            let (run_ns, switches) = before.had(task.number);
            (task.run_ns.saturating_sub(run_ns), task.switches.saturating_sub(switches), *task)
        })
        .filter(|(run_ns, switches, task)| *run_ns != 0 || *switches != 0 || task.state != "blocked")
        .collect();
    ran.sort_by_key(|(run_ns, _, task)| (core::cmp::Reverse(*run_ns), task.number));
    writeln!(
        out,
        "{:>6}  {:<23}  {:<7}  {:>3}  {:<8}  {:>5}  {:>9}",
        "NUMBER", "NAME", "STATE", "CPU", "POLICY", "CPU%", "SWITCHES"
    )?;
    for (run_ns, switches, task) in ran.iter().take(SHOWN_TASKS) {
        let Task { number, name, state, cpu, .. } = task;
        let (policy, share) = (policy_of(task), share(*run_ns));
        writeln!(
            out,
            "{number:>6}  {name:<23}  {state:<7}  {cpu:>3}  {policy:<8}  {share:>5}  {switches:>9}"
        )?;
    }
    let (left_out, slept) = (ran.len().saturating_sub(SHOWN_TASKS), tasks.len() - ran.len());
    match left_out {
        0 => writeln!(out, "and {slept} that did not run"),
        more => writeln!(out, "and {more} that ran less, {slept} that did not run"),
    }
}

pub(super) static SCHED: Command = Command {
    name: "sched",
    usage: "[preempt [full | voluntary | none]]",
    help: "shows what the scheduler does on each CPU\n\
           READY counts the tasks that wait for the CPU, IDLE% is the share of the time since the start in which\n\
           it had nothing to do. `sched preempt` shows or changes at which points a task is replaced that did not\n\
           ask: `full`, everywhere; `voluntary`, also where it calls what may sleep; `none`, only where it asks.",
    complete: |_, before| match before {
        [] => Vec::from([String::from("preempt")]),
        ["preempt"] => Preemption::NAMES.map(|(name, _)| String::from(name)).to_vec(),
        _ => Vec::new(),
    },
    run: sched,
};

fn sched(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    match arguments {
        [] => {
            writeln!(cx.out, "preemption: {}", cx.machine.preemption())?;
            return Ok(write_queues(cx.out, &cx.machine.queues(), cx.machine.now_ns())?);
        }
        ["preempt"] => {}
        ["preempt", word] => match Preemption::NAMES.iter().find(|(name, _)| name == word) {
            Some((_, mode)) => cx.machine.set_preemption(*mode),
            None => {
                return Err(Failure::Usage(alloc::format!("`{word}` is not `full`, `voluntary` or `none`")));
            }
        },
        [other, ..] => return Err(Failure::Usage(alloc::format!("`{other}` is not `preempt`"))),
    }
    writeln!(cx.out, "preemption: {}", cx.machine.preemption())?;
    Ok(())
}

fn write_queues(out: &mut dyn Write, queues: &[Queue], now_ns: u64) -> fmt::Result {
    writeln!(out, "{:>3}  {:>5}  {:>10}  {:>5}  RUNNING", "CPU", "READY", "SWITCHES", "IDLE%")?;
    for queue in queues {
        let Queue { cpu, ready, switches, running: (number, name), .. } = queue;
        let idle = Percent { part: queue.idle_ns, whole: now_ns };
        writeln!(out, "{cpu:>3}  {ready:>5}  {switches:>10}  {idle:>5}  {number} {name}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hal::cpumask::CpuMask;

    use super::*;
    use crate::sched::policy::Policy;

    fn task(number: u32, run_ms: u64, switches: u64) -> Task {
        Task {
            number,
            name: format!("task/{number}"),
            kind: if number == 1 { Kind::Idle } else { Kind::Spawned },
            state: if number == 3 { "blocked" } else { "running" },
            cpu: 0,
            affinity: CpuMask::new(),
            policy: Policy::fifo(7),
            run_ns: run_ms * 1_000_000,
            switches,
        }
    }

    fn queue(cpu: u32, idle_ms: u64) -> Queue {
        Queue { cpu, ready: 2, running: (1, "idle/0".into()), switches: 9, idle_ns: idle_ms * 1_000_000 }
    }

    fn sample(at_ms: u64, tasks: Vec<Task>, queues: Vec<Queue>) -> Sample {
        Sample { at_ns: at_ms * 1_000_000, tasks, queues }
    }

    #[test]
    fn shares_are_of_the_interval() {
        let before = sample(1000, vec![task(1, 50, 1), task(2, 100, 1), task(3, 5, 7)], vec![queue(0, 500)]);
        let after = sample(
            3000,
            vec![task(1, 90, 2), task(2, 600, 11), task(3, 5, 7), task(4, 1499, 1)],
            vec![queue(0, 520), queue(1, 9999)],
        );
        let mut out = String::new();
        write_top(&mut out, &before, &after, "; x").unwrap();
        assert_eq!(
            out.lines().collect::<Vec<_>>(),
            [
                "3 tasks, 4 waiting for one of 2 CPUs, in 2000 ms; x",
                "idle% cpu0    1.0 cpu1  100.0",
                "NUMBER  NAME                     STATE    CPU  POLICY     CPU%   SWITCHES",
                "     4  task/4                   running    0  fifo:7     75.0          1",
                "     2  task/2                   running    0  fifo:7     25.0         10",
                "and 1 that did not run",
            ]
        );
    }

    #[test]
    fn a_large_machine_fits_on_a_screen() {
        let queues = || (0..64).map(|cpu| queue(cpu, 100)).collect::<Vec<_>>();
        let before = sample(0, vec![], (0..64).map(|cpu| queue(cpu, 50)).collect());
        let after = sample(100, (2..100).map(|number| task(number, number.into(), 1)).collect(), queues());
        let mut out = String::new();
        write_top(&mut out, &before, &after, "; any key ends this").unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.len() < 24 && lines.iter().all(|line| line.len() < 80), "{out}");
        assert_eq!(lines[4], "idle%  50.0 on the average of 46 others");
        assert!(lines[6].starts_with("    99  task/99 "), "{out}");
        assert_eq!(lines.last(), Some(&"and 82 that ran less, 0 that did not run"));
    }

    #[test]
    fn queues_are_rows() {
        let mut out = String::new();
        write_queues(&mut out, &[queue(0, 250), queue(11, 2000)], 1_000_000_000).unwrap();
        assert_eq!(
            out.lines().collect::<Vec<_>>(),
            [
                "CPU  READY    SWITCHES  IDLE%  RUNNING",
                "  0      2           9   25.0  1 idle/0",
                " 11      2           9  100.0  1 idle/0",
            ]
        );
    }
}
