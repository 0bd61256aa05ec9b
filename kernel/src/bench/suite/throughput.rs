//! All CPUs want the same: how often in all, and how evenly.

use alloc::vec::Vec;

use super::{Benchmark, Figures, Unit};
use crate::bench::locks::{self, Outcome};
use crate::console::machine::Machine;

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::all_cpus("spinlock_throughput", |machine| throughput(machine, "SpinLock")),
    Benchmark::all_cpus("spinlock_irqsave_throughput", |machine| throughput(machine, "IrqSpinLock")),
    Benchmark::all_cpus("mutex_throughput", |machine| throughput(machine, "Mutex")),
    Benchmark::all_cpus("rwlock_read_throughput", |machine| throughput(machine, "RwLock, read")),
    Benchmark::all_cpus("seqlock_read_throughput", |machine| throughput(machine, "SeqLock, read")),
    Benchmark::all_cpus("refcount_read_throughput", |machine| throughput(machine, "reference count, read")),
    Benchmark::all_cpus("rcu_read_throughput", |machine| throughput(machine, "RCU, read")),
];

/// How long all CPUs contend, each time.
const NS: u64 = 300_000_000;
const TRIES: usize = 3;

fn throughput(machine: &dyn Machine, kind: &str) -> Figures {
    let Some(kind) = locks::KINDS.iter().find(|known| known.name == kind) else {
        return Figures::new(Unit::MopsPerSecond, Vec::new());
    };
    let outcomes: Vec<Outcome> = (0..TRIES).map(|_| locks::measure(machine, kind, NS)).collect();
    let fairness = outcomes.iter().map(Outcome::fairness_thousandths).min().unwrap_or(0);
    let rates = outcomes.iter().map(Outcome::thousands_per_second).collect();
    Figures::new(Unit::MopsPerSecond, rates).with_fairness(fairness)
}
