//! What a grace period costs, by the number of CPUs: locks taken, and messages sent.
//!
//! `cargo test --release -p rcu --lib -- --nocapture what_a_grace_period_costs` prints a table and a plot.

use std::fmt::Write;
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use hal::Native;

use crate::head::Head;
use crate::tree::{Action, Driver, Geometry, Next, Node, PerCpu, Readers, Tree};

const PERIODS: u64 = 20;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Others {
    /// All CPUs but the first are idle.
    Idle,
    /// They switch tasks.
    Switch,
    /// They do, and each queues a callback.
    Call,
}

/// Per grace period: locks of nodes taken, by all and of the one that was taken most; messages to other CPUs.
struct Cost {
    locks: f64,
    most: f64,
    messages: f64,
}

unsafe fn nothing(_: NonNull<Head>) {}

fn measure(cpus: u32, others: Others) -> Cost {
    let shape = Geometry::new(cpus);
    let mut nodes: Vec<Node<Native>> = (0..shape.nodes()).map(|_| Node::new()).collect();
    let mut parts: Vec<PerCpu<Native>> = (0..cpus).map(|_| PerCpu::new()).collect();
    let tree = Tree::new(shape, Readers::NonPreemptible, &mut nodes, &mut parts);
    let mut driver = Driver::new(&tree);
    (0..cpus).for_each(|cpu| tree.cpu_up(cpu));
    if others == Others::Idle {
        for cpu in 1..cpus {
            let _ = tree.idle_enter(cpu);
        }
    }
    let heads: Vec<Head> = (0..cpus).map(|_| Head::new()).collect();
    let taken = |node| tree.node(node).acquisitions;
    let before: Vec<u64> = (0..shape.nodes()).map(taken).collect();
    let mut messages = 0;
    for _ in 0..PERIODS {
        if others == Others::Call {
            for cpu in 0..cpus {
                // SAFETY: invoked below, before the heads go.
                let _ = unsafe { tree.call(cpu, NonNull::from(&heads[cpu as usize]), nothing) };
                let _ = tree.process(cpu);
            }
        }
        let (cookie, _) = tree.start_poll(0);
        while !tree.poll(cookie) {
            while driver.step(0, 0, |action| {
                messages += u64::from(!matches!(action, Action::Ended(_) | Action::MayBeDue(_)))
            }) == Next::Again
            {}
            if others != Others::Idle {
                for cpu in 1..cpus {
                    messages += u64::from(tree.note_context_switch(cpu, None).wake_driver);
                }
            }
        }
        for cpu in 0..cpus {
            if others == Others::Call {
                let _ = tree.note_context_switch(cpu, None);
                let _ = tree.process(cpu);
                // SAFETY: `nothing` may be called anywhere.
                assert_eq!(unsafe { tree.run_ready(cpu, |_| false) }.called, 1);
            }
        }
    }
    // The look itself takes each lock once.
    let per_node = (0..shape.nodes()).map(|node| (taken(node) - before[node] - 1) as f64 / PERIODS as f64);
    let (locks, most) = per_node.fold((0.0, 0.0_f64), |(sum, most), locks| (sum + locks, most.max(locks)));
    Cost { locks, most, messages: messages as f64 / PERIODS as f64 }
}

#[test]
fn what_a_grace_period_costs() {
    let mut table = String::from(
        "| CPUs | the others | node locks | .. for each CPU | .. of the busiest node | messages |\n\
         |---:|---|---:|---:|---:|---:|\n",
    );
    let mut plot = String::from("node locks in a grace period; each # is a quarter of a doubling\n");
    for cpus in [4, 64, 512, 4096] {
        for others in [Others::Idle, Others::Switch, Others::Call] {
            let Cost { locks, most, messages } = measure(cpus, others);
            writeln!(
                table,
                "| {cpus} | {others:?} | {locks:.0} | {:.2} | {most:.0} | {messages:.1} |",
                locks / f64::from(cpus),
            )
            .unwrap();
            let bar = "#".repeat((4.0 * locks.log2()).round() as usize);
            writeln!(plot, "{cpus:5} {:6} |{bar} {locks:.0}", format!("{others:?}")).unwrap();
            // Nobody's lock is taken more often than it has children, give or take what the driver and requests do.
            assert!(most <= 6.0 * 16.0 + 64.0 && locks <= 4.0 * f64::from(cpus) + 1_200.0, "{table}");
            if others == Others::Idle {
                assert_eq!(messages, 0.0, "idle CPUs were disturbed");
            }
        }
    }
    println!("{table}\n{plot}");
}

/// Nanoseconds for each operation, on one thread: `cargo test --release -p rcu --lib -- --ignored --nocapture nanoseconds`.
#[test]
#[ignore = "a measurement"]
fn nanoseconds() {
    const TIMES: u32 = 1_000_000;
    let shape = Geometry::new(64);
    let mut nodes: Vec<Node<Native>> = (0..shape.nodes()).map(|_| Node::new()).collect();
    let mut parts: Vec<PerCpu<Native>> = (0..64).map(|_| PerCpu::new()).collect();
    let tree = Tree::new(shape, Readers::NonPreemptible, &mut nodes, &mut parts);
    let mut driver = Driver::new(&tree);
    tree.cpu_up(0);
    let report = |what: &str, begun: Instant, times: u32| {
        println!("{what}: {:.1} ns", begun.elapsed().as_nanos() as f64 / f64::from(times));
    };
    let begun = Instant::now();
    for _ in 0..TIMES {
        let _ = black_box(&tree).note_context_switch(black_box(0), None);
    }
    report("context switch, nobody waits", begun, TIMES);
    let begun = Instant::now();
    for _ in 0..TIMES {
        let _ = black_box(&tree).idle_enter(0);
        tree.idle_exit(0);
    }
    report("idle enter and exit", begun, TIMES);
    let heads: Vec<Head> = (0..100_000).map(|_| Head::new()).collect();
    let all = Instant::now();
    for head in &heads {
        // SAFETY: invoked below, before the heads go.
        let _ = unsafe { black_box(&tree).call(0, NonNull::from(head), nothing) };
    }
    report("callback, queued", all, 100_000);
    let _ = tree.process(0);
    while driver.step(0, 0, |_| ()) == Next::Again {}
    let _ = tree.process(0);
    // SAFETY: `nothing` may be called anywhere.
    assert_eq!(unsafe { tree.run_ready(0, |_| false) }.called, 100_000);
    report("callback, queued and called", all, 100_000);
    let begun = Instant::now();
    for _ in 0..10_000 {
        let (cookie, _) = tree.start_poll(0);
        while driver.step(0, 0, |_| ()) == Next::Again {}
        assert!(tree.poll(cookie));
    }
    report("grace period of one CPU in a tree for 64", begun, 10_000);
}
