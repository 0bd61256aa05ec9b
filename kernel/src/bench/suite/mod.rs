//! The operations that are compared with another kernel's, each by one name and one line.
//!
//! 1. A [`Benchmark`] is an entry of [`all`]: a name, how many CPUs it takes, and a function that returns [`Figures`].
//! 2. What one task does is done by a task made for it, of the real-time class, on the last CPU that is online; its partner,
//!    where there is one, is on the CPU before. So it is in the other kernel.
//! 3. Short operations are timed a thousand at a time (`Place::batches`), net of the same loop around nothing; long ones one
//!    by one (`Place::singles`), net of two readings of the clock.
//! 4. The console's `bench` writes `BENCH name median unit min=.. p99=.. max=.. samples=..`, which `cargo xtask bench` reads.
//!
//! `docs/benchmarks.md` defines each operation, and says what the other side does for it.

#![cfg_attr(not(target_os = "none"), expect(dead_code, reason = "what is measured is the machine's"))]

#[cfg(target_os = "none")]
mod alone;
#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod deferred;
mod figures;
#[cfg(target_os = "none")]
mod rcu;
#[cfg(target_os = "none")]
mod throughput;
#[cfg(target_os = "none")]
mod timers;
#[cfg(target_os = "none")]
mod turns;

use core::fmt::{self, Write};
use core::hint::black_box;

use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use crate::console::machine::Machine;

pub use figures::{Figures, Unit};

/// Something that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Benchmark {
    /// What it is called, here and in the other kernel.
    pub name: &'static str,
    /// It takes at least so many CPUs.
    pub cpus: usize,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// By a task of its own.
    Task(fn(Place, &mut TaskCx) -> Figures),
    /// By all CPUs at once.
    AllCpus(fn(&dyn Machine) -> Figures),
}

impl Benchmark {
    const fn task(name: &'static str, run: fn(Place, &mut TaskCx) -> Figures) -> Benchmark {
        Benchmark { name, cpus: 1, how: How::Task(run) }
    }

    /// One that takes another CPU.
    const fn pair(name: &'static str, run: fn(Place, &mut TaskCx) -> Figures) -> Benchmark {
        Benchmark { name, cpus: 2, how: How::Task(run) }
    }

    const fn all_cpus(name: &'static str, run: fn(&dyn Machine) -> Figures) -> Benchmark {
        Benchmark { name, cpus: 1, how: How::AllCpus(run) }
    }

    /// Whether one of `filters` is part of the name, or there are none; those with a `!` before them exclude.
    pub fn is_wanted(&self, filters: &[&str]) -> bool {
        is_wanted(self.name, filters)
    }
}

fn is_wanted(name: &str, filters: &[&str]) -> bool {
    let excluded =
        filters.iter().filter_map(|filter| filter.strip_prefix('!')).any(|part| name.contains(part));
    let mut included = filters.iter().filter(|filter| !filter.starts_with('!')).peekable();
    !excluded && (included.peek().is_none() || included.any(|part| name.contains(part)))
}

/// Every benchmark, in the order in which they are measured.
pub fn all() -> impl Iterator<Item = &'static Benchmark> {
    #[cfg(target_os = "none")]
    const PARTS: &[&[Benchmark]] =
        &[alone::ALL, deferred::ALL, turns::ALL, timers::ALL, rcu::ALL, calls::ALL, throughput::ALL];
    #[cfg(not(target_os = "none"))]
    const PARTS: &[&[Benchmark]] = &[];
    PARTS.iter().copied().flatten()
}

/// Where a benchmark is done, and what its loops cost by themselves.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The CPU that measures.
    pub here: CpuId,
    /// Another one, if there is one.
    pub there: Option<CpuId>,
    /// Of a thousand turns of a loop around nothing, with reading the clock before and after.
    empty_loop_ns: u64,
    /// Of two readings of the clock.
    clock_ns: u64,
}

/// Turns of a loop that is timed as a whole.
const TURNS: u32 = 1_000;
const BATCHES: usize = 101;
/// So many samples are taken before those that count.
const WARM: usize = 3;
const SINGLES: usize = 301;

/// How long a loop around `once` takes. The compiler must not know how many turns it has, nor merge two.
///
/// `once` comes by value and is given back, so that what it refers to is in registers: by reference, every turn would read
/// from memory where the lock is.
#[inline(always)]
fn time<F: FnMut(u32)>(mut once: F) -> (u64, F) {
    let begun = Native::now_ns();
    for turn in 0..black_box(TURNS) {
        once(turn);
        black_box(());
    }
    (Native::now_ns() - begun, once)
}

/// `count` samples of `take`, after those that do not count.
#[inline(always)]
fn samples(count: usize, mut take: impl FnMut() -> u64) -> Vec<u64> {
    (0..WARM).for_each(|_| _ = take());
    (0..count).map(|_| take()).collect()
}

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

impl Place {
    /// Here, with the overhead measured now.
    fn find(here: CpuId, there: Option<CpuId>) -> Place {
        let clock_ns = median(samples(SINGLES, clock_pair));
        Place { here, there, empty_loop_ns: median(samples(SINGLES, || time(|_| ()).0)), clock_ns }
    }

    /// A short operation: a thousand turns at a time, net of the loop. The operation is told the turn.
    #[inline(always)]
    fn batches(self, mut once: impl FnMut(u32)) -> Figures {
        let mut net = Vec::with_capacity(BATCHES);
        for batch in 0..WARM + BATCHES {
            let ns;
            (ns, once) = time(once);
            if batch >= WARM {
                net.push(ns.saturating_sub(self.empty_loop_ns) * 1_000 / u64::from(TURNS));
            }
        }
        Figures::new(Unit::Ns, net)
    }

    /// A long operation: each time by itself, net of reading the clock.
    #[inline(always)]
    fn singles(self, times: usize, mut once: impl FnMut()) -> Figures {
        self.each(times, || {
            let begun = Native::now_ns();
            once();
            Native::now_ns() - begun
        })
    }

    /// What `take` says that it took, the clock's two readings included.
    #[inline(always)]
    fn each(self, times: usize, mut take: impl FnMut() -> u64) -> Figures {
        Figures::new(Unit::Ns, samples(times, || take().saturating_sub(self.clock_ns) * 1_000))
    }
}

fn clock_pair() -> u64 {
    let begun = Native::now_ns();
    Native::now_ns() - begun
}

/// Measures what is wanted, and writes a line for each as soon as it is done. Returns how many lines there are.
///
/// Task context.
///
/// # Errors
/// If there is no memory for a task, or `out` takes nothing.
pub fn run(
    filters: &[&str],
    machine: &dyn Machine,
    cx: &mut TaskCx,
    out: &mut dyn Write,
) -> Result<u32, fmt::Error> {
    let mut online: Vec<CpuId> = hal::percpu::cpus().collect();
    online.retain(|cpu| machine.cpus().iter().any(|c| c.number == cpu.as_u32() && c.state == "online"));
    let count = online.len();
    let here = online.pop().unwrap_or(CpuId::BOOT);
    let there = online.pop();
    writeln!(out, "BENCH_INFO system Quiesce {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "BENCH_INFO cpus {count}")?;
    writeln!(out, "BENCH_INFO hz {}", ::timers::HZ)?;
    let mut lines = 0;
    for benchmark in all().filter(|benchmark| benchmark.is_wanted(filters) && benchmark.cpus <= count) {
        let figures = match benchmark.how {
            How::AllCpus(run) => run(machine),
            How::Task(run) => in_task(here, there, run, cx)?,
        };
        writeln!(out, "BENCH {} {figures}", benchmark.name)?;
        lines += 1;
    }
    writeln!(out, "BENCH_DONE")?;
    Ok(lines)
}

#[cfg(target_os = "none")]
fn in_task(
    here: CpuId,
    there: Option<CpuId>,
    run: fn(Place, &mut TaskCx) -> Figures,
    cx: &mut TaskCx,
) -> Result<Figures, fmt::Error> {
    use crate::sched::policy::Policy;
    use crate::task::Builder;

    let body = move |cx: &mut TaskCx| run(Place::find(here, there), cx);
    let task = Builder::new("bench").on(here).policy(Policy::fifo(10)).spawn(body);
    // The only error is a lack of memory; what was written before it says how far this came.
    Ok(task.map_err(|_| fmt::Error)?.join(cx))
}

#[cfg(not(target_os = "none"))]
fn in_task(
    here: CpuId,
    there: Option<CpuId>,
    run: fn(Place, &mut TaskCx) -> Figures,
    cx: &mut TaskCx,
) -> Result<Figures, fmt::Error> {
    Ok(run(Place::find(here, there), cx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let name = "spin_lock_bh";
        for wanted in [&[][..], &["spin"], &["mutex", "bh"], &["!mutex"], &["lock", "!mutex"]] {
            assert!(is_wanted(name, wanted), "{wanted:?}");
        }
        for unwanted in [&["mutex"][..], &["!bh"], &["spin", "!lock"]] {
            assert!(!is_wanted(name, unwanted), "{unwanted:?}");
        }
    }
}
