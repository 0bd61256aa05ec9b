//! `ps`, `spawn`, `cancel`, `nice`, `taskset`: tasks, one by one.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use hal::cpumask::CpuMask;

use super::cpu_numbers;
use crate::console::machine::Machine;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};
use crate::console::tasks::{Kind, Task};
use crate::console::words::near;
use crate::sched::policy::Policy;

pub(super) static PS: Command = Command {
    name: "ps",
    usage: "",
    help: "lists the tasks: state, CPU, policy, run time, switches\n\
           CPU is where the task runs, waits to run, or ran last. POLICY is `nice:N` for a share by weight, `fifo:N`\n\
           and `rr:N` for real-time priorities, `stop` for what comes before everything, `idle` for what comes last.\n\
           SWITCHES counts how often it was given a CPU.",
    complete: no_completion,
    run: ps,
};

fn ps(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 0)?;
    let mut tasks = cx.machine.tasks();
    tasks.sort_by_key(|task| task.number);
    Ok(write_tasks(cx.out, &tasks)?)
}

fn write_tasks(out: &mut dyn Write, tasks: &[Task]) -> fmt::Result {
    writeln!(
        out,
        "{:>6}  {:<23}  {:<7}  {:>3}  {:<8}  {:>12}  {:>9}",
        "NUMBER", "NAME", "STATE", "CPU", "POLICY", "RUN TIME", "SWITCHES"
    )?;
    for task in tasks {
        let Task { number, name, state, cpu, switches, .. } = task;
        let (policy, run_time) = (policy_of(task), Seconds(task.run_ns).to_string());
        writeln!(
            out,
            "{number:>6}  {name:<23}  {state:<7}  {cpu:>3}  {policy:<8}  {run_time:>12}  {switches:>9}"
        )?;
    }
    Ok(())
}

/// A task's policy in a word, for idle tasks too.
pub(super) fn policy_of(task: &Task) -> String {
    match task.kind {
        Kind::Idle => String::from("idle"),
        Kind::Kernel | Kind::Spawned => task.policy.to_string(),
    }
}

/// Nanoseconds, as seconds with milliseconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

pub(super) static SPAWN: Command = Command {
    name: "spawn",
    usage: "[KIND [--policy POLICY] [--on CPUS]]",
    help: "starts tasks to play with; alone lists the kinds\n\
           POLICY is a nice value (-20 to 19), `fifo:N` or `rr:N` with a priority of 1 to 99. CPUS is where it may\n\
           run: numbers and ranges like 0,2-3, or `all`. `cancel` ends it.",
    complete: |machine, before| match before {
        [] => machine.kinds().iter().map(|(name, _)| String::from(*name)).collect(),
        [.., "--policy"] => policies(),
        [.., "--on"] => cpu_sets(machine),
        _ => ["--policy", "--on"].iter().filter(|o| !before.contains(o)).map(|o| String::from(*o)).collect(),
    },
    run: spawn,
};

fn spawn(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let kinds = cx.machine.kinds();
    let Some((kind, options)) = arguments.split_first() else {
        for (name, about) in kinds {
            writeln!(cx.out, "  spawn {name:<12} {about}")?;
        }
        return Ok(());
    };
    if !kinds.iter().any(|(name, _)| name == kind) {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        let meant = match near(kind, names.iter().copied()) {
            near if near.is_empty() => String::new(),
            near => alloc::format!(" did you mean {}?", near.join(" or ")),
        };
        let known = names.join(", ");
        return Err(Failure::Usage(alloc::format!("there is no kind `{kind}`;{meant} there are {known}")));
    }
    let (mut policy, mut cpus) = (Policy::default(), None);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let missing = |what| Failure::Usage(alloc::format!("`{option}` is followed by {what}"));
        match *option {
            "--policy" => policy = parse_policy(options.next().ok_or_else(|| missing("a policy"))?)?,
            "--on" => {
                let word = options.next().ok_or_else(|| missing("CPUs"))?;
                cpus = Some(parse_cpus(cx.machine, word)?);
            }
            other => {
                return Err(Failure::Usage(alloc::format!("`{other}` is neither `--policy` nor `--on`")));
            }
        }
    }
    let numbers = cx.machine.spawn(kind, policy, cpus.as_ref()).map_err(Failure::Failed)?;
    let (plural, them) = if numbers.len() == 1 { ("", "it") } else { ("s", "them") };
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    let numbers = numbers.join(" ");
    writeln!(cx.out, "`{kind}` is task{plural} {numbers}; `cancel {numbers}` ends {them}")?;
    Ok(())
}

pub(super) static CANCEL: Command = Command {
    name: "cancel",
    usage: "TASK..",
    help: "asks tasks that `spawn` started to end\n\
           TASK is a number, or a name that one task has. A task ends when it looks whether it should: nobody ends\n\
           it from outside. The kernel's own tasks are not asked.",
    complete: |machine, before| {
        let spawned = machine.tasks().into_iter().filter(|task| task.kind == Kind::Spawned);
        spawned.map(|task| task.number.to_string()).filter(|n| !before.contains(&n.as_str())).collect()
    },
    run: cancel,
};

fn cancel(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    if arguments.is_empty() {
        return Err(Failure::Usage(String::from("which task? `ps` lists them")));
    }
    let tasks: Result<Vec<Task>, Failure> =
        arguments.iter().map(|word| find_task(cx.machine, word)).collect();
    for task in tasks? {
        let called = Called(&task).to_string();
        if task.kind != Kind::Spawned {
            return Err(Failure::Failed(alloc::format!("{called} is the kernel's own and stays")));
        }
        match cx.machine.cancel(task.number, cx.task) {
            true => writeln!(cx.out, "{called} has ended")?,
            false => writeln!(cx.out, "{called} was asked to end, and has not yet")?,
        }
    }
    Ok(())
}

pub(super) static NICE: Command = Command {
    name: "nice",
    usage: "TASK POLICY",
    help: "changes how a task is scheduled\n\
           TASK is a number, or a name that one task has. POLICY is a nice value from -20, which gets most, to 19;\n\
           or `fifo:N`, `rr:N` with a real-time priority of 1 to 99. Real-time tasks run before all others, but for\n\
           5 % of the time. A `fifo` task keeps its CPU as long as it likes, `rr` tasks take turns.",
    complete: |machine, before| match before {
        [] => task_numbers(machine),
        [_] => policies(),
        _ => Vec::new(),
    },
    run: nice,
};

fn nice(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    let [task, policy] = arguments else {
        return Err(Failure::Usage(String::from("a task and a policy are needed, as in `nice 12 -5`")));
    };
    let task = find_task(cx.machine, task)?;
    let policy = parse_policy(policy)?;
    if task.kind == Kind::Idle || task.policy == Policy::Stop {
        let (called, is) = (Called(&task), policy_of(&task));
        return Err(Failure::Failed(alloc::format!(
            "{called} is of the class `{is}`, which it cannot leave"
        )));
    }
    cx.machine.set_policy(task.number, policy).map_err(Failure::Failed)?;
    writeln!(cx.out, "{}: {} -> {policy}", Called(&task), task.policy)?;
    Ok(())
}

pub(super) static TASKSET: Command = Command {
    name: "taskset",
    usage: "TASK [CPUS]",
    help: "shows or changes on which CPUs a task may run\n\
           TASK is a number, or a name that one task has. CPUS are numbers and ranges like 0,2-3, or `all`. The\n\
           kernel's own tasks stay where they are.",
    complete: |machine, before| match before {
        [] => task_numbers(machine),
        [_] => cpu_sets(machine),
        _ => Vec::new(),
    },
    run: taskset,
};

fn taskset(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 2)?;
    let Some((task, cpus)) = arguments.split_first() else {
        return Err(Failure::Usage(String::from("which task? `ps` lists them")));
    };
    let task = find_task(cx.machine, task)?;
    let called = Called(&task);
    let Some(cpus) = cpus.first() else {
        writeln!(cx.out, "{called}: CPUs {}, now on {}", task.affinity, task.cpu)?;
        return Ok(());
    };
    let cpus = parse_cpus(cx.machine, cpus)?;
    if task.kind != Kind::Spawned {
        return Err(Failure::Failed(alloc::format!("{called} is the kernel's own and stays where it is")));
    }
    cx.machine.set_affinity(task.number, &cpus).map_err(Failure::Failed)?;
    writeln!(cx.out, "{called}: CPUs {} -> {cpus}", task.affinity)?;
    Ok(())
}

/// A task, as messages call it.
pub(super) struct Called<'a>(pub(super) &'a Task);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} `{}`", self.0.number, self.0.name)
    }
}

/// The numbers of the tasks, for completion.
pub(super) fn task_numbers(machine: &dyn Machine) -> Vec<String> {
    machine.tasks().iter().map(|task| task.number.to_string()).collect()
}

fn policies() -> Vec<String> {
    ["nice:0", "fifo:1", "rr:1"].map(String::from).to_vec()
}

fn cpu_sets(machine: &dyn Machine) -> Vec<String> {
    let mut sets = cpu_numbers(machine);
    sets.push(String::from("all"));
    sets
}

/// The task of that number, or the only one of that name.
pub(super) fn find_task(machine: &dyn Machine, word: &str) -> Result<Task, Failure> {
    let mut tasks = machine.tasks();
    let wrong = |why| Err(Failure::Usage(why));
    if let Ok(number) = word.parse::<u32>() {
        return match tasks.into_iter().find(|task| task.number == number) {
            Some(task) => Ok(task),
            None => wrong(alloc::format!("there is no task {number}; `ps` lists them")),
        };
    }
    tasks.retain(|task| task.name == word);
    tasks.sort_by_key(|task| task.number);
    match &tasks[..] {
        [task] => Ok(task.clone()),
        [] => wrong(alloc::format!("`{word}` is no task's number or name; `ps` lists them")),
        several => {
            let numbers: Vec<String> = several.iter().map(|task| task.number.to_string()).collect();
            let numbers = numbers.join(", ");
            wrong(alloc::format!("several tasks are called `{word}`: say which of {numbers}"))
        }
    }
}

/// What a person writes for a policy: a nice value alone too, but not `stop`.
fn parse_policy(word: &str) -> Result<Policy, Failure> {
    let named = if word.parse::<i64>().is_ok() { alloc::format!("nice:{word}") } else { String::from(word) };
    match named.parse() {
        Ok(Policy::Stop) => {
            Err(Failure::Usage(String::from("`stop` is for the kernel itself; `fifo:99` comes next")))
        }
        Ok(policy) => Ok(policy),
        Err(_) => Err(Failure::Usage(alloc::format!(
            "`{word}` is no policy: -20 to 19, `fifo:1` to `fifo:99`, or `rr:1` to `rr:99`"
        ))),
    }
}

/// A set of CPUs that exist.
fn parse_cpus(machine: &dyn Machine, word: &str) -> Result<CpuMask, Failure> {
    let known: CpuMask = machine.cpus().iter().filter_map(|cpu| hal::CpuId::new(cpu.number)).collect();
    if word == "all" {
        return Ok(known);
    }
    let cpus: CpuMask =
        word.parse().map_err(|why| Failure::Usage(alloc::format!("`{word}` is no set of CPUs: {why}")))?;
    if cpus.is_empty() || !cpus.is_subset(&known) {
        return Err(Failure::Usage(alloc::format!(
            "`{word}` is no set of CPUs that exist, which are {known}"
        )));
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_task() {
        let task = Task {
            number: 1,
            name: "idle/0".into(),
            kind: Kind::Idle,
            state: "running",
            cpu: 0,
            affinity: CpuMask::new(),
            policy: Policy::fair(0),
            run_ns: 1_234_567_890,
            switches: 5,
        };
        let other = Task {
            number: 12345,
            name: "a name of 23 characters".into(),
            kind: Kind::Spawned,
            state: "blocked",
            cpu: 63,
            policy: Policy::fair(-20),
            run_ns: 0,
            ..task.clone()
        };
        let mut out = String::new();
        write_tasks(&mut out, &[task, other]).unwrap();
        assert_eq!(
            out.lines().collect::<Vec<_>>(),
            [
                "NUMBER  NAME                     STATE    CPU  POLICY        RUN TIME   SWITCHES",
                "     1  idle/0                   running    0  idle           1.234 s          5",
                " 12345  a name of 23 characters  blocked   63  nice:-20       0.000 s          5",
            ]
        );
    }

    #[test]
    fn policies_as_people_write_them() {
        assert_eq!(parse_policy("-5"), Ok(Policy::fair(-5)));
        assert_eq!(parse_policy("nice:3"), Ok(Policy::fair(3)));
        assert_eq!(parse_policy("fifo:10"), Ok(Policy::fifo(10)));
        assert_eq!(parse_policy("rr:99"), Ok(Policy::round_robin(99)));
        for wrong in ["20", "-21", "fifo", "fifo:0", "rr:100", "stop", "", "x", "99999999999"] {
            assert!(parse_policy(wrong).is_err(), "{wrong}");
        }
    }
}
