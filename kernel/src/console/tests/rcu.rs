//! Grace periods, as the console shows and handles them.

use super::*;
use crate::console::rcu::{Body, Callbacks, Grace, GracePeriods, Holdout, Node, Wait};
use crate::console::tasks::Tasks;
use crate::console::torture::Torture;

/// A made machine's grace periods. Each wait takes a microsecond longer than the one before; a reader that was started
/// is reported when the limit has passed. Its tasks are threads.
#[derive(Debug, Default)]
pub(super) struct World {
    waits: u64,
    limit_ns: u64,
    /// When the first task was started.
    started_ns: Option<u64>,
    offloaded: Option<u32>,
    /// No task can be started any more.
    full: bool,
}

impl Torture for Made {}

impl GracePeriods for Made {
    fn grace_periods(&self) -> Grace {
        let world = self.rcu.lock().unwrap();
        Grace {
            preemptible: true,
            ended: 41,
            helped: 30,
            expedited: 2,
            running: true,
            running_ns: Some(1_500_000),
            stall_ns: 21_000_000_000,
            stalls: 1,
            unbounded: 7,
            nodes: vec![Node { cpus: (0, 1), present: 3, waiting: 2, locked: 400, ..Node::default() }],
            cpus: (0..2)
                .map(|cpu| Callbacks {
                    cpu,
                    offloaded: world.offloaded == Some(cpu),
                    segments: [0, 0, 0, cpu as usize],
                    ..Callbacks::default()
                })
                .collect(),
            holdouts: vec![Holdout::Cpu(1)],
            ..Grace::default()
        }
    }

    fn wait_for(&self, what: Wait, _: &mut TaskCx) {
        let mut rcu = self.rcu.lock().unwrap();
        rcu.waits += 1;
        self.note(format!("{what:?}"));
        self.pass(rcu.waits * 1_000);
    }

    fn set_offloaded(&self, cpu: u32, on: bool, _: &mut TaskCx) -> Result<(), String> {
        if self.rcu.lock().unwrap().full {
            return Err("no memory is left for another task".into());
        }
        self.rcu.lock().unwrap().offloaded = on.then_some(cpu);
        Ok(())
    }

    fn set_stall_limit(&self, ns: u64) -> u64 {
        std::mem::replace(&mut self.rcu.lock().unwrap().limit_ns, ns)
    }

    fn stalls(&self) -> u64 {
        let world = self.rcu.lock().unwrap();
        world.started_ns.is_some_and(|at| self.now_ns() - at >= world.limit_ns).into()
    }

    fn start(&self, name: &'static str, body: Body) -> Result<(), String> {
        let mut world = self.rcu.lock().unwrap();
        if world.full {
            return Err("no memory is left for another task".into());
        }
        world.started_ns.get_or_insert(self.now_ns());
        let body = move || body(&mut token());
        std::thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(|error| error.to_string())
    }
}

#[test]
fn rcu_shows_how_things_stand() {
    let (out, success) = run(&Made::default(), "rcu");
    assert!(success);
    assert_eq!(
        out,
        "grace period 42 runs, for 1.500 ms\n\
         \x20 waits for CPU 1\n\
         41 have ended, 30 of them driven by who waited; 2 expedited ones begun\n\
         readers may be preempted; reported after 21.000 s: 1 time since boot\n\
         too many callbacks: 0 times somebody waited, 7 came where nobody could\n\
         NODE LEVEL      CPUS          PRESENT  WAITING   EXPED. READERS HOLD   LOCKED\n\
         \x20  0     0       0-1                3        2        .       .    .      400\n\
         \x20CPU    DONE    WAIT   READY    NEXT    LAZY  CALLED  BY\n\
         \x20  0       .       .       .       .       .       .  the CPU\n\
         \x20  1       .       .       .       1       .       .  the CPU\n"
    );
    assert!(out.lines().all(|line| line.len() < 80), "{out}");
}

#[test]
fn rcu_waits_as_often_as_one_says_and_tells_how_long() {
    let machine = Made::default();
    assert_eq!(run(&machine, "rcu sync").0, "a grace period: 1.000 us\n");
    assert_eq!(
        run(&machine, "rcu expedite 3").0,
        "an expedited grace period, 3 times: median 3.000 us, from 2.000 us to 4.000 us\n"
    );
    assert_eq!(run(&machine, "rcu barrier 1").0, "a barrier: 5.000 us\n");
    assert_eq!(
        *machine.done.lock().unwrap(),
        ["GracePeriod", "Expedited", "Expedited", "Expedited", "Barrier"]
    );
    fails("rcu sync 0", "`0` is not how often to wait, 1 to 10000");
    fails("rcu barrier 10001", "`10001` is not how often to wait");
    fails("rcu expedite x", "`x` is not how often to wait");
    fails("rcu sync 1 2", "`2` is one argument too many; usage: rcu [sync|expedite|barrier [N] | stall |");
    fails("rcu snyc", "`snyc` is not `sync`, `expedite`, `barrier`, `stall` or `offload`");
}

#[test]
fn rcu_stall_has_a_reader_stay_until_it_is_reported() {
    let machine = Made::default();
    machine.set_stall_limit(77);
    let (out, success) = run(&machine, "rcu stall");
    assert!(success, "{out}");
    assert!(
        out.contains("a grace period waits for it; it is reported after 300.000 ms\ngrace period 42 runs, "),
        "{out}"
    );
    assert!(
        out.contains("\nreported after ")
            && out.contains("; it has left, and the grace period has ended; `dmesg` has the report\n"),
        "{out}"
    );
    assert_eq!(machine.set_stall_limit(0), 77, "the limit is as before");
    fails("rcu stall 1", "`1` is one argument too many");
    machine.rcu.lock().unwrap().full = true;
    machine.set_stall_limit(78);
    let (out, success) = run(&machine, "rcu stall");
    assert!(!success && out.contains("rcu: no memory is left for another task"), "{out}");
    assert_eq!(machine.set_stall_limit(0), 78, "the limit is as before");
}

#[test]
fn rcu_offload_switches_one_cpu() {
    let machine = Made::default();
    let (out, success) = run(&machine, "rcu offload 1 on; rcu");
    assert!(success && out.starts_with("callbacks of CPU 1 are called by a task\n"), "{out}");
    assert!(out.ends_with("       .       .  a task\n"), "{out}");
    assert_eq!(run(&machine, "rcu offload 1 off").0, "callbacks of CPU 1 are called by the CPU\n");
    fails("rcu offload", "callbacks of which CPU, and on or off? As in `rcu offload 1 on`");
    fails("rcu offload 1", "callbacks of which CPU, and on or off?");
    fails("rcu offload 2 on", "`2` is no CPU; they are 0 to 1");
    fails("rcu offload all on", "`all` is no CPU");
    fails("rcu offload 1 yes", "`yes` is not `on` or `off`");
    fails("rcu offload 1 on 2", "`2` is one argument too many");
    machine.rcu.lock().unwrap().full = true;
    assert!(run(&machine, "rcu offload 0 on").0.contains("rcu: no memory is left for another task"));
}

#[test]
fn completion_knows_grace_periods() {
    let complete = |before: &str| ALL.complete(&Made::default(), before).words;
    assert_eq!(complete("rc"), ["rcu"]);
    assert_eq!(complete("rcu s"), ["stall", "sync"]);
    assert_eq!(complete("rcu offload "), ["0", "1"]);
    assert_eq!(complete("rcu offload 1 "), ["off", "on"]);
    assert_eq!(complete("rcu stall "), [""; 0]);
    assert_eq!(complete("demo "), ["lists", "percpu", "rcu", "timers"]);
}

#[test]
fn the_demo_reads_freed_objects_only_where_it_says() {
    let (out, success) = run(&Made::default(), "demo rcu");
    assert!(success, "{out}");
    // This thread may be stopped for so long that the reader has left; not each time.
    assert!(out.contains("freed at once: ") && !out.contains("freed at once: 0 of 8"), "{out}");
    assert!(out.contains("freed after a grace period: 0 of 8 were read after that, 8 freed\n"), "{out}");
    assert!(out.contains("freed by a callback after a grace period: 0 of 8 were read after"), "{out}");
    assert!(out.lines().all(|line| line.len() < 100), "{out}");
}

#[test]
fn the_demo_of_lists_loses_nothing_that_stays() {
    let (out, success) = run(&Made::default(), "demo lists");
    assert!(success, "{out}");
    assert!(out.contains("freed objects that were met: 0; "), "{out}");
    assert!(out.contains("in order: 0\n"), "{out}");
    let walks = out.lines().nth(1).unwrap();
    assert!(walks.starts_with("2 readers walked it ") && !walks.contains(" 0 times"), "{out}");
}

#[test]
fn a_demo_without_memory_for_its_tasks_says_so() {
    let machine = Made::default();
    machine.rcu.lock().unwrap().full = true;
    for demo in ["demo rcu", "demo lists"] {
        let (out, success) = run(&machine, demo);
        assert!(!success && out.contains("demo: no memory is left for another task"), "{out}");
    }
}
