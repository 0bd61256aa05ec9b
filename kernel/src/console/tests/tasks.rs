//! Tasks, as the console shows and handles them.

use hal::CpuId;
use hal::cpumask::CpuMask;

use super::*;
use crate::console::tasks::{Kind, Queue, Task, Tasks};
use crate::sched::Preemption;
use crate::sched::policy::Policy;

/// A made machine's tasks: an idle one, one of the kernel's, a pinned one of the stop class, and the tasks that were
/// spawned. Time passes in `pause` only, and belongs to task 4.
#[derive(Debug)]
pub(super) struct World {
    tasks: Vec<Task>,
    now_ns: u64,
    mode: Preemption,
    /// After so many pauses that a key could end, one does.
    pauses_left: u32,
}

impl Default for World {
    fn default() -> World {
        let task = |number, name: &str, kind, policy| Task {
            number,
            name: name.into(),
            kind,
            state: if number == 4 { "running" } else { "blocked" },
            cpu: number % 2,
            affinity: CpuMask::all(2),
            policy,
            run_ns: u64::from(number) * 1_000_000,
            switches: 7,
        };
        // Not in the order of their numbers.
        let tasks = vec![
            task(4, "spin", Kind::Spawned, Policy::fair(0)),
            task(1, "idle/0", Kind::Idle, Policy::fair(0)),
            task(2, "reaper", Kind::Kernel, Policy::fair(0)),
            task(3, "stop/1", Kind::Kernel, Policy::Stop),
            task(5, "ball", Kind::Spawned, Policy::fair(0)),
            task(6, "ball", Kind::Spawned, Policy::fifo(3)),
        ];
        World { tasks, now_ns: 1_000_000_000, mode: Preemption::Full, pauses_left: 2 }
    }
}

impl World {
    fn task(&mut self, number: u32) -> Result<&mut Task, String> {
        let found = self.tasks.iter_mut().find(|task| task.number == number);
        found.ok_or_else(|| format!("task {number} has ended"))
    }
}

impl Made {
    fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        f(&mut self.world.lock().unwrap())
    }

    /// Lets time pass.
    pub(super) fn pass(&self, ns: u64) {
        self.with(|world| world.now_ns += ns);
    }
}

impl Tasks for Made {
    fn tasks(&self) -> Vec<Task> {
        self.with(|world| world.tasks.clone())
    }

    fn queues(&self) -> Vec<Queue> {
        let queue = |cpu, ready| Queue {
            cpu,
            ready,
            running: (4, "spin".into()),
            switches: 11,
            idle_ns: self.now_ns() / 4,
        };
        vec![queue(0, 3), queue(1, 0)]
    }

    fn now_ns(&self) -> u64 {
        self.with(|world| world.now_ns)
    }

    fn preemption(&self) -> Preemption {
        self.with(|world| world.mode)
    }

    fn set_preemption(&self, mode: Preemption) {
        self.with(|world| world.mode = mode);
    }

    fn kinds(&self) -> Vec<(&'static str, &'static str)> {
        vec![("spin", "computes"), ("sleep", "sleeps")]
    }

    fn spawn(&self, kind: &str, policy: Policy, cpus: Option<&CpuMask>) -> Result<Vec<u32>, String> {
        let cpus = cpus.map_or_else(|| "any".into(), CpuMask::to_string);
        self.note(format!("spawn {kind} {policy} {cpus}"));
        if kind == "sleep" { Ok(vec![7, 8]) } else { Err("no memory is left for another task".into()) }
    }

    fn cancel(&self, number: u32, _: &mut TaskCx) -> bool {
        self.note(format!("cancel {number}"));
        number != 4
    }

    fn set_policy(&self, number: u32, policy: Policy) -> Result<(), String> {
        self.with(|world| world.task(number).map(|task| task.policy = policy))
    }

    fn set_affinity(&self, number: u32, cpus: &CpuMask) -> Result<(), String> {
        self.with(|world| world.task(number).map(|task| task.affinity = cpus.clone()))
    }

    fn backtrace_of_task(&self, number: u32, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "backtrace of task {number}")
    }

    fn pause(&self, ns: u64, until_key: bool, _: &mut TaskCx) -> bool {
        let pressed = self.with(|world| {
            if until_key && world.pauses_left == 0 {
                return true;
            }
            world.pauses_left -= u32::from(until_key);
            world.now_ns += ns;
            world.task(4).unwrap().run_ns += ns / 2;
            false
        });
        self.call_due(self.now_ns());
        pressed
    }
}

#[test]
fn tasks_are_listed_by_number() {
    let (out, success) = run(&Made::default(), "ps");
    assert!(success);
    let numbers: Vec<&str> =
        out.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5", "6"], "{out}");
    assert!(out.contains("     1  idle/0                   blocked    1  idle  "), "{out}");
    assert!(out.contains("     3  stop/1                   blocked    1  stop  "), "{out}");
}

#[test]
fn spawn_says_what_there_is_and_passes_options_on() {
    let machine = Made::default();
    assert!(run(&machine, "spawn").0.contains("  spawn sleep        sleeps\n"));
    let (out, success) = run(&machine, "spawn sleep --on 1 --policy rr:7; spawn sleep --policy -3 --on all");
    assert!(success && out.contains("`sleep` is tasks 7 8; `cancel 7 8` ends them"), "{out}");
    assert!(!run(&machine, "spawn spin").1);
    assert_eq!(
        *machine.done.lock().unwrap(),
        ["spawn sleep rr:7 1", "spawn sleep nice:-3 0-1", "spawn spin nice:0 any"]
    );
    fails("spawn spin", "spawn: no memory is left");
    fails("spawn spni", "no kind `spni`; did you mean spin? there are spin, sleep; usage: spawn [KIND");
    fails("spawn spin fast", "`fast` is neither `--policy` nor `--on`");
    fails("spawn spin --on", "`--on` is followed by CPUs");
    fails("spawn spin --on 1-2", "`1-2` is no set of CPUs that exist, which are 0-1");
    fails("spawn spin --on 1-", "write CPUs as numbers and ranges");
    fails("spawn spin --policy high", "`high` is no policy: -20 to 19, `fifo:1` to `fifo:99`");
    fails("spawn spin --policy stop", "`stop` is for the kernel itself");
}

#[test]
fn cancel_asks_spawned_tasks_only() {
    let machine = Made::default();
    let (out, success) = run(&machine, "cancel 5 6; cancel spin");
    assert!(success && out.contains("task 6 `ball` has ended\n"), "{out}");
    assert!(out.contains("task 4 `spin` was asked to end, and has not yet\n"), "{out}");
    assert_eq!(*machine.done.lock().unwrap(), ["cancel 5", "cancel 6", "cancel 4"]);
    fails("cancel", "which task? `ps` lists them");
    fails("cancel 2", "task 2 `reaper` is the kernel's own and stays");
    fails("cancel 9", "there is no task 9; `ps` lists them");
    fails("cancel bell", "`bell` is no task's number or name");
    fails("cancel ball", "several tasks are called `ball`: say which of 5, 6");
}

#[test]
fn one_wrong_name_cancels_nobody() {
    let machine = Made::default();
    assert!(!run(&machine, "cancel 5 nobody").1);
    assert!(machine.done.lock().unwrap().is_empty());
}

#[test]
fn nice_changes_the_policy() {
    let machine = Made::default();
    let (out, success) = run(&machine, "nice spin -5; nice 5 fifo:10");
    assert!(success && out.contains("task 4 `spin`: nice:0 -> nice:-5\n"), "{out}");
    machine.with(|world| {
        assert_eq!(world.task(4).unwrap().policy, Policy::fair(-5));
        assert_eq!(world.task(5).unwrap().policy, Policy::fifo(10));
    });
    fails("nice 4", "as in `nice 12 -5`; usage: nice TASK POLICY");
    fails("nice 4 20", "`20` is no policy");
    fails("nice 1 5", "task 1 `idle/0` is of the class `idle`, which it cannot leave");
    fails("nice 3 5", "is of the class `stop`");
    fails("nice 4 5 6", "one argument too many");
}

#[test]
fn taskset_shows_and_changes_where_a_task_may_run() {
    let machine = Made::default();
    let (out, success) = run(&machine, "taskset 4; taskset 4 1; taskset 2; taskset 5 all");
    assert!(success && out.contains("task 4 `spin`: CPUs 0-1, now on 0\n"), "{out}");
    assert!(out.contains("task 4 `spin`: CPUs 0-1 -> 1\n"), "{out}");
    let only: Vec<CpuId> = machine.with(|world| world.task(4).unwrap().affinity.iter().collect());
    assert_eq!(only, [CpuId::new(1).unwrap()]);
    fails("taskset", "which task?");
    fails("taskset 2 0", "task 2 `reaper` is the kernel's own and stays where it is");
    fails("taskset 4 2", "`2` is no set of CPUs that exist");
}

#[test]
fn sched_shows_queues_and_sets_preemption() {
    let machine = Made::default();
    let (out, _) = run(&machine, "sched");
    assert!(out.starts_with("preemption: full\nCPU  READY"), "{out}");
    assert!(out.contains("  0      3          11   25.0  4 spin\n"), "{out}");
    assert_eq!(run(&machine, "sched preempt none; sched preempt").0, "preemption: none\npreemption: none\n");
    assert_eq!(machine.preemption(), Preemption::None);
    fails("sched preempt some", "`some` is not `full`, `voluntary` or `none`");
    fails("sched x", "`x` is not `preempt`");
}

#[test]
fn top_in_a_script_prints_once() {
    let (out, success) = run(&Made::default(), "top 2");
    assert!(success && !out.contains('\x1b'), "{out}");
    assert!(out.starts_with("5 tasks, 3 waiting for one of 2 CPUs, in 2000 ms\n"), "{out}");
    assert!(
        out.contains("     4  spin                     running    0  nice:0     50.0          0\n"),
        "{out}"
    );
    assert!(out.ends_with("and 4 that did not run\n"), "{out}");
    prints("top --once 3", "in 3000 ms\n");
    fails("top 0", "`0` is neither `--once` nor a number of seconds, 1 to 3600");
    fails("top 1 2", "`2` is one argument too many");
}

#[test]
fn top_for_a_person_goes_on_until_a_key() {
    let machine = Made::default();
    let mut out = String::new();
    let task = &mut token();
    ALL.run("top", &mut Context { out: &mut out, task, machine: &machine, success: true, interactive: true });
    let tables: Vec<&str> = out.split("\x1b[H").skip(1).collect();
    assert_eq!(tables.len(), 2, "{out}");
    assert!(tables[0].contains("in 200 ms; any key ends this\x1b[K\n"), "{out}");
    assert!(tables[1].contains("in 1000 ms;"), "{out}");
    out.clear();
    ALL.run(
        "top --once",
        &mut Context { out: &mut out, task, machine: &machine, success: true, interactive: true },
    );
    assert!(!out.contains('\x1b'), "{out}");
}

#[test]
fn backtraces_of_cpus_and_tasks() {
    prints("backtrace cpu 1", "backtrace of Some(1)");
    prints("backtrace 0", "backtrace of Some(0)");
    prints("backtrace task 1", "task 1 `idle/0`, blocked on CPU#1:\nbacktrace of task 1\n");
    prints("backtrace 4", "task 4 `spin`, running on CPU#0:\nbacktrace of task 4\n");
    prints("backtrace reaper", "backtrace of task 2");
    fails("backtrace 9", "there is no task 9; `ps` lists them; CPUs are 0 to 1; usage: backtrace");
    fails("backtrace cpu 9", "`9` is no CPU; they are 0 to 1");
    fails("backtrace tsk 1", "`tsk` is neither `cpu` nor `task`");
}

#[test]
fn completion_knows_tasks() {
    let complete = |before: &str| ALL.complete(&Made::default(), before).words;
    assert_eq!(complete("nice "), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(complete("cancel "), ["4", "5", "6"]);
    assert_eq!(complete("cancel 5 "), ["4", "6"]);
    assert_eq!(complete("nice 4 f"), ["fifo:1"]);
    assert_eq!(complete("taskset 4 "), ["0", "1", "all"]);
    assert_eq!(complete("spawn s"), ["sleep", "spin"]);
    assert_eq!(complete("spawn spin --"), ["--on", "--policy"]);
    assert_eq!(complete("spawn spin --on 1 --"), ["--policy"]);
    assert_eq!(complete("spawn spin --policy r"), ["rr:1"]);
    assert_eq!(complete("sched preempt v"), ["voluntary"]);
    assert_eq!(complete("backtrace task 6"), ["6"]);
}
