//! The running machine's tasks, as the console sees them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use hal::cpumask::CpuMask;
use hal::{Native, Platform};
use sync::{SpinLock, TaskCx};

use super::{ThisMachine, toys};
use crate::console::tasks::{Kind, Queue, Task as Shown, Tasks};
use crate::sched::policy::Policy;
use crate::sched::{self, Preemption};
use crate::task::{self, State, Task, TaskRef};
use crate::{cpus, serial, snapshot};

/// The tasks that the console has started and that have not ended when it last looked.
static SPAWNED: SpinLock<Vec<TaskRef>> = SpinLock::new(Vec::new());

/// How long `cancel` waits for a task to end, in nanoseconds.
const CANCEL_PATIENCE_NS: u64 = 500_000_000;
/// How often a wait looks for what nobody tells it, in nanoseconds.
const LOOK_NS: u64 = 10_000_000;

/// References to all tasks that have not ended.
fn all() -> Vec<TaskRef> {
    let mut count = 0;
    task::for_each(|_| count += 1);
    // Room first: the table's lock is not held while memory is allocated. Tasks that come in between are new.
    let mut all = Vec::with_capacity(count);
    task::for_each(|task| {
        if all.len() < all.capacity() && task.state() != State::Ended {
            all.push(task.reference());
        }
    });
    all
}

fn gone(number: u32) -> String {
    alloc::format!("task {number} has ended")
}

/// Blocks the console's task for a moment, until `deadline_ns` at most.
fn look_again(deadline_ns: u64, task: &mut TaskCx) {
    task.block(Some(deadline_ns.min(Native::now_ns() + LOOK_NS)));
}

/// What the console shows of a task.
fn shown(task: &Task) -> Shown {
    let kind = match sched::idle_task(task.cpu()) {
        Some(idle) if core::ptr::eq(idle, task) => Kind::Idle,
        _ if SPAWNED.lock().iter().any(|spawned| spawned.number() == task.number()) => Kind::Spawned,
        _ => Kind::Kernel,
    };
    Shown {
        number: task.number(),
        name: task.name().to_string(),
        kind,
        state: match task.state() {
            State::Running => "running",
            State::Ready => "ready",
            State::Blocked => "blocked",
            State::Ended => "ended",
        },
        cpu: task.cpu().as_u32(),
        affinity: task.affinity(),
        policy: task.policy(),
        run_ns: sched::run_time_ns(task),
        switches: task.switches(),
    }
}

impl Tasks for ThisMachine {
    fn tasks(&self) -> Vec<Shown> {
        all().iter().map(|task| shown(task)).collect()
    }

    fn queues(&self) -> Vec<Queue> {
        let queue = |cpu| {
            let report = sched::report(cpu)?;
            Some(Queue {
                cpu: cpu.as_u32(),
                ready: report.ready,
                running: (report.running.number(), report.running.name().to_string()),
                switches: report.switches,
                idle_ns: report.idle_ns,
            })
        };
        cpus::online().filter_map(queue).collect()
    }

    fn now_ns(&self) -> u64 {
        Native::now_ns()
    }

    fn preemption(&self) -> Preemption {
        sched::preemption()
    }

    fn set_preemption(&self, mode: Preemption) {
        sched::set_preemption(mode);
    }

    fn kinds(&self) -> Vec<(&'static str, &'static str)> {
        toys::TOYS.iter().map(|toy| (toy.name, toy.about)).collect()
    }

    fn spawn(&self, kind: &str, policy: Policy, cpus: Option<&CpuMask>) -> Result<Vec<u32>, String> {
        let Some(toy) = toys::TOYS.iter().find(|toy| toy.name == kind) else {
            return Err(alloc::format!("there is no kind `{kind}`"));
        };
        let tasks = toys::start(toy, policy, cpus).map_err(|error| error.to_string())?;
        let numbers = tasks.iter().map(|task| task.number()).collect();
        // Only the console's task uses the list, so it may be away while it changes; the lock is not held over that.
        let mut known = core::mem::take(&mut *SPAWNED.lock());
        known.retain(|task| task.state() != State::Ended);
        known.extend(tasks);
        *SPAWNED.lock() = known;
        Ok(numbers)
    }

    fn cancel(&self, number: u32, cx: &mut TaskCx) -> bool {
        let Some(task) = task::find(number) else { return true };
        task.cancel();
        let deadline = Native::now_ns() + CANCEL_PATIENCE_NS;
        while task.state() != State::Ended && Native::now_ns() < deadline {
            look_again(deadline, cx);
        }
        task.state() == State::Ended
    }

    fn set_policy(&self, number: u32, policy: Policy) -> Result<(), String> {
        task::find(number).ok_or_else(|| gone(number))?.set_policy(policy);
        Ok(())
    }

    fn set_affinity(&self, number: u32, cpus: &CpuMask) -> Result<(), String> {
        let task = task::find(number).ok_or_else(|| gone(number))?;
        task.set_affinity(cpus).map_err(|error| error.to_string())
    }

    fn backtrace_of_task(&self, number: u32, out: &mut dyn fmt::Write) -> fmt::Result {
        match task::find(number) {
            // Its CPU knows where it is.
            Some(task) if task.state() == State::Running => snapshot::print_cpu(out, task.cpu()),
            Some(task) => snapshot::print_steps(out, task.backtrace()),
            None => writeln!(out, "{}", gone(number)),
        }
    }

    fn pause(&self, ns: u64, until_key: bool, cx: &mut TaskCx) -> bool {
        let deadline = Native::now_ns() + ns;
        while Native::now_ns() < deadline {
            if until_key {
                serial::on_interrupt();
                if serial::has_input() {
                    // The whole of what the key sends.
                    while serial::read_byte().is_some() {}
                    return true;
                }
            }
            look_again(deadline, cx);
        }
        false
    }
}
