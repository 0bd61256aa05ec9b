//! All CPUs want the same lock: how often does anybody get it, and does everybody?
//!
//! 1. Every CPU acquires and releases the one lock as fast as it can, with one addition inside, and counts.
//! 2. The first CPU that finds the time to be up tells the others, so that a CPU whose turn on the host has just ended
//!    does not prolong the measurement.
//! 3. The sum over the time is the throughput. The least count over the greatest is the fairness.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::{MAX_CPUS, Native, Platform};
#[cfg(target_os = "none")]
use sync::Mutex;
use sync::{IrqSpinLock, Queued, RefCount, RwLock, SeqLock, SpinLock, Task, Ticketed};

use super::consume;
use crate::console::machine::Machine;

/// A way to acquire and release.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What the table calls it.
    pub name: &'static str,
    run: fn(&Round) -> u64,
}

/// On cache lines of its own.
#[repr(align(64))]
struct Apart<T>(T);

/// Everything that all CPUs touch, in one page: how a lock does must not depend on whether an emulator's table of
/// translated addresses has room for its page and another one at the same time.
#[repr(C, align(4096))]
struct Contested {
    /// The time is up.
    over: Apart<AtomicBool>,
    spin: Apart<SpinLock<u64>>,
    irq: Apart<IrqSpinLock<u64>>,
    ticketed: Apart<SpinLock<u64, Ticketed<Task>>>,
    queued: Apart<SpinLock<u64, Queued<Task>>>,
    rw: Apart<RwLock<u64>>,
    seq: Apart<SeqLock<u64>>,
    #[cfg(target_os = "none")]
    mutex: Apart<Mutex<u64>>,
    references: Apart<(RefCount, AtomicU64)>,
    count: Apart<AtomicU64>,
}

static CONTESTED: Contested = Contested {
    over: Apart(AtomicBool::new(false)),
    spin: Apart(SpinLock::new(0)),
    irq: Apart(IrqSpinLock::new(0)),
    ticketed: Apart(SpinLock::new(0)),
    queued: Apart(SpinLock::new(0)),
    rw: Apart(RwLock::new(0)),
    seq: Apart(SeqLock::new(0)),
    #[cfg(target_os = "none")]
    mutex: Apart(Mutex::new(0)),
    references: Apart((RefCount::new(), AtomicU64::new(0))),
    count: Apart(AtomicU64::new(0)),
};

const _: () = assert!(size_of::<Contested>() == 4096);

/// What is measured, in the order of the table.
pub const KINDS: &[Kind] = &[
    Kind { name: "SpinLock", run: |round| round.count(|| *CONTESTED.spin.0.lock() += 1) },
    Kind { name: "IrqSpinLock", run: |round| round.count(|| *CONTESTED.irq.0.lock() += 1) },
    Kind { name: "SpinLock, Ticketed", run: |round| round.count(|| *CONTESTED.ticketed.0.lock() += 1) },
    Kind { name: "SpinLock, Queued", run: |round| round.count(|| *CONTESTED.queued.0.lock() += 1) },
    Kind { name: "RwLock, write", run: |round| round.count(|| *CONTESTED.rw.0.write() += 1) },
    Kind {
        name: "RwLock, read",
        run: |round| {
            round.count(|| {
                consume(*CONTESTED.rw.0.read());
            })
        },
    },
    Kind {
        name: "SeqLock, read",
        run: |round| {
            round.count(|| {
                consume(CONTESTED.seq.0.read());
            })
        },
    },
    Kind {
        name: "reference count, read",
        run: |round| {
            round.count(|| {
                let (references, value) = &CONTESTED.references.0;
                references.get();
                consume(value.load(Ordering::Relaxed));
                consume(u64::from(references.put()));
            })
        },
    },
    #[cfg(target_os = "none")]
    Kind {
        name: "RCU, read",
        run: |round| {
            round.count(|| {
                let section = crate::rcu::read();
                consume(CONTESTED.count.0.load(Ordering::Relaxed));
                drop(section);
            })
        },
    },
    #[cfg(target_os = "none")]
    Kind {
        name: "Mutex",
        run: |round| {
            // SAFETY: a task runs this, which uses no other token meanwhile; nothing is switched off.
            let mut cx = unsafe { sync::TaskCx::new() };
            round.count(|| *CONTESTED.mutex.0.lock(&mut cx) += 1)
        },
    },
    Kind {
        name: "atomic addition",
        run: |round| {
            round.count(|| {
                consume(CONTESTED.count.0.fetch_add(1, Ordering::Relaxed));
            })
        },
    },
];

/// What came of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How long it took, in nanoseconds.
    pub ns: u64,
    /// How often each participating CPU acquired the lock.
    pub counts: Vec<u64>,
}

impl Outcome {
    /// Acquisitions a second of all CPUs together, in units of 10,000.
    pub fn ten_thousands_per_second(&self) -> u64 {
        let total: u64 = self.counts.iter().sum();
        (u128::from(total) * 100_000 / u128::from(self.ns.max(1))) as u64
    }

    /// The same in units of 1,000.
    pub fn thousands_per_second(&self) -> u64 {
        let total: u64 = self.counts.iter().sum();
        (u128::from(total) * 1_000_000 / u128::from(self.ns.max(1))) as u64
    }

    /// The count of the least served CPU over that of the most served one, in percent.
    pub fn fairness_percent(&self) -> u64 {
        self.fairness_thousandths() / 10
    }

    /// The same in thousandths.
    pub fn fairness_thousandths(&self) -> u64 {
        let least = self.counts.iter().min().copied().unwrap_or(0);
        let most = self.counts.iter().max().copied().unwrap_or(0);
        least * 1_000 / most.max(1)
    }
}

/// Has every online CPU of the machine acquire and release a lock of that kind for `ns` nanoseconds.
///
/// Task context on the console's CPU, which takes part.
pub fn measure(machine: &dyn Machine, kind: &Kind, ns: u64) -> Outcome {
    let cpus = machine.cpus().iter().filter(|cpu| cpu.state == "online").count() as u64;
    let round = Round {
        cpus,
        ns,
        arrived: AtomicU64::new(0),
        start_ns: AtomicU64::new(0),
        end_ns: AtomicU64::new(0),
    };
    CONTESTED.over.0.store(false, Ordering::Relaxed);
    let counts: Vec<AtomicU64> = (0..MAX_CPUS).map(|_| AtomicU64::new(0)).collect();
    machine.on_all_cpus(&|cpu| {
        round.begin();
        counts[cpu as usize].store((kind.run)(&round), Ordering::Relaxed);
    });
    Outcome {
        ns: round.end_ns.into_inner().saturating_sub(round.start_ns.into_inner()),
        counts: machine
            .cpus()
            .iter()
            .filter(|cpu| cpu.state == "online")
            .map(|cpu| counts[cpu.number as usize].load(Ordering::Relaxed))
            .collect(),
    }
}

/// One measurement, as the CPUs that take part see it.
///
/// All accesses are relaxed: each field says something about the clock or the number of CPUs and about no other memory.
/// What is read often is written twice in all, so that looking at it costs nothing.
struct Round {
    /// How many take part.
    cpus: u64,
    /// How long it is to take.
    ns: u64,
    arrived: AtomicU64,
    /// 0 until all have arrived.
    start_ns: AtomicU64,
    /// When `CONTESTED.over` was set.
    end_ns: AtomicU64,
}

/// How many acquisitions pass between two looks at the clock, which costs more than a lock does.
const LOOK_EVERY: u64 = 64;

impl Round {
    /// Waits for everybody, so that nobody has the lock for itself at first.
    fn begin(&self) {
        if self.arrived.fetch_add(1, Ordering::Relaxed) + 1 == self.cpus {
            self.start_ns.store(Native::now_ns().max(1), Ordering::Relaxed);
        }
        while self.start_ns.load(Ordering::Relaxed) == 0 {
            Native::relax();
        }
    }

    /// Does `once` until the time is up, and returns how often it did.
    #[inline(always)]
    fn count(&self, mut once: impl FnMut()) -> u64 {
        let mut times = 0;
        while !CONTESTED.over.0.load(Ordering::Relaxed) {
            once();
            times += 1;
            if times % LOOK_EVERY == 0 {
                self.look();
            }
        }
        times
    }

    #[cold]
    fn look(&self) {
        let now = Native::now_ns();
        let deadline = self.start_ns.load(Ordering::Relaxed) + self.ns;
        if now >= deadline && !CONTESTED.over.0.swap(true, Ordering::Relaxed) {
            self.end_ns.store(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_and_fairness() {
        let outcome = Outcome { ns: 500_000_000, counts: vec![3_000_000, 1_000_000, 2_000_000] };
        assert_eq!(outcome.ten_thousands_per_second(), 1200);
        assert_eq!(outcome.fairness_percent(), 33);
    }

    #[test]
    fn a_cpu_that_got_nothing_shows() {
        let outcome = Outcome { ns: 1, counts: vec![0, 7] };
        assert_eq!(outcome.fairness_percent(), 0);
        // And nothing at all divides by nothing.
        assert_eq!(Outcome { ns: 0, counts: vec![] }.fairness_percent(), 0);
    }
}
