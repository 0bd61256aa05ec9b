//! What the tree knows.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ::rcu::tree::{self, Which};
use hal::{CpuId, Native, Platform, percpu};
use sync::TaskCx;

use crate::console::rcu::{Callbacks, Grace, Holdout, Node};
use crate::rcu;
use crate::task;

/// Who a grace period of this kind waits for. Tasks that have ended meanwhile are left out.
fn holdouts(which: Which) -> Vec<Holdout> {
    let mut found = Vec::new();
    rcu::tree().holdouts(which, |holdout| found.push(holdout));
    let named = found.into_iter().filter_map(|holdout| match holdout {
        tree::Holdout::Cpu(cpu) => Some(Holdout::Cpu(cpu)),
        tree::Holdout::Task(id) => {
            // A reference first: nothing is allocated while the table is locked.
            let task = task::table().lock().iter().find(|task| task.id() == id).map(task::Task::reference)?;
            Some(Holdout::Task(task.number(), task.name().to_string()))
        }
    });
    named.collect()
}

/// The CPUs under a node, the first and the last.
fn span(shape: &tree::Geometry, node: usize) -> (u32, u32) {
    let under = |cpu: &u32| {
        let mut at = shape.leaf_of(*cpu);
        // Parents have lower numbers.
        while at > node {
            at = shape.parent_of(at).map_or(0, |(parent, _)| parent);
        }
        at == node
    };
    let first = (0..shape.cpus()).find(under).unwrap_or(0);
    (first, (first..shape.cpus()).rev().find(under).unwrap_or(first))
}

fn node(number: usize) -> Node {
    let tree = rcu::tree();
    let seen = tree.node(number);
    Node {
        level: seen.level,
        cpus: span(tree.geometry(), number),
        present: seen.present,
        waiting: seen.waiting,
        expedited: seen.expedited,
        readers: seen.blocked,
        holding_up: seen.holding_up,
        locked: seen.acquisitions,
    }
}

fn callbacks(cpu: CpuId) -> Callbacks {
    let backlog = rcu::tree().backlog(cpu.as_u32());
    Callbacks {
        cpu: cpu.as_u32(),
        offloaded: rcu::offloaded(cpu),
        segments: backlog.segments,
        lazy: backlog.lazy,
        in_flight: backlog.in_flight,
    }
}

pub(super) fn grace_periods() -> Grace {
    let tree = rcu::tree();
    let (figures, overruns) = (rcu::figures(), rcu::overruns());
    let nodes: Vec<Node> = (0..tree.geometry().nodes()).map(node).collect();
    let expedited_holdouts = holdouts(Which::Expedited);
    Grace {
        preemptible: rcu::PREEMPTIBLE,
        ended: figures.ended,
        helped: figures.helped,
        expedited: figures.expedited,
        running: tree.node(0).running,
        running_ns: rcu::running_since().map(|begun| Native::now_ns().saturating_sub(begun)),
        expedited_running: nodes.first().is_some_and(|root| root.expedited != 0)
            || !expedited_holdouts.is_empty(),
        stall_ns: tree.stall_ns(),
        stalls: rcu::stalls(),
        held_back: overruns.waits,
        unbounded: overruns.unbounded,
        nodes,
        cpus: percpu::cpus().map(callbacks).collect(),
        holdouts: holdouts(Which::Normal),
        expedited_holdouts,
    }
}

pub(super) fn set_offloaded(cpu: u32, on: bool, cx: &mut TaskCx) -> Result<(), String> {
    let Some(id) = CpuId::new(cpu) else { return Err(alloc::format!("there is no CPU {cpu}")) };
    rcu::offload(id, on, cx).map_err(|error| error.to_string())
}

pub(super) fn set_stall_limit(ns: u64) -> u64 {
    rcu::set_stall_ns(ns)
}

pub(super) fn stalls() -> u64 {
    rcu::stalls()
}
