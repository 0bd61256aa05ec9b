//! Measuring one counter by another.

use alloc::vec::Vec;

use super::judge::{Sample, Undecided, Verdict, judge};
use super::reference::Reference;
use super::scale::NS;
use crate::x86_64::relax;

/// How long one try lasts, in ns: long enough that a reading's 1 to 2 us are below 0.1 %, short enough that a busy host
/// rarely stops us in the middle, and far below the PIT's wrap of 55 ms.
const TRY_NS: u64 = 4_000_000;
/// Tries per round.
const TRIES: u32 = 4;
/// One round, and more while the samples do not say, of tries this many times as long: on a host where reading a device
/// takes long, short tries are vague.
const ROUNDS: [u64; 4] = [1, 1, 2, 4];
/// A reference that has not moved after this many reads does not exist.
const DEAD_AFTER: u32 = 5_000;
/// Readings from which the sharpest is taken, at each end of a try.
const READINGS: u32 = 4;

/// A counter to measure, or to measure with.
pub(in crate::x86_64) trait Counter {
    /// Counts up, modulo a power of two.
    fn read(&mut self) -> u64;
    /// That power minus one.
    fn mask(&self) -> u64;
}

impl<F: FnMut() -> u64> Counter for (F, u64) {
    fn read(&mut self) -> u64 {
        (self.0)()
    }

    fn mask(&self) -> u64 {
        self.1
    }
}

/// Both counters in about the same moment.
#[derive(Clone, Copy)]
struct Reading {
    fine: u64,
    coarse: u64,
    /// Counts of the fine counter that passed while reading the coarse one.
    width: u64,
}

fn reading(fine: &mut impl Counter, coarse: &mut impl Counter) -> Reading {
    let before = fine.read();
    let middle = coarse.read();
    let width = fine.read().wrapping_sub(before) & fine.mask();
    Reading { fine: before.wrapping_add(width / 2) & fine.mask(), coarse: middle, width }
}

fn sharpest(fine: &mut impl Counter, coarse: &mut impl Counter) -> Reading {
    let mut best = reading(fine, coarse);
    for _ in 1..READINGS {
        let next = reading(fine, coarse);
        if next.width < best.width {
            best = next;
        }
    }
    best
}

/// One try. `None` if the coarse counter does not count.
fn sample(
    fine: &mut impl Counter,
    coarse: &mut impl Counter,
    coarse_hz: u64,
    length_ns: u64,
) -> Option<Sample> {
    let target = (u128::from(length_ns) * u128::from(coarse_hz) / u128::from(NS)) as u64;
    let start = sharpest(fine, coarse);
    let mut idle = 0;
    loop {
        let elapsed = coarse.read().wrapping_sub(start.coarse) & coarse.mask();
        if elapsed >= target {
            break;
        }
        idle = if elapsed == 0 { idle + 1 } else { 0 };
        if idle > DEAD_AFTER {
            return None;
        }
        relax();
    }
    let end = sharpest(fine, coarse);
    let ticks = end.coarse.wrapping_sub(start.coarse) & coarse.mask();
    let cycles = end.fine.wrapping_sub(start.fine) & fine.mask();
    // Each end is known to half a reading, and to one tick of the coarse counter.
    let tick = cycles / ticks.max(1);
    Some(Sample {
        cycles,
        ns: (u128::from(ticks) * u128::from(NS) / u128::from(coarse_hz)) as u64,
        slack_cycles: start.width.div_ceil(2) + end.width.div_ceil(2) + tick,
    })
}

/// Why a measurement failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The reference does not count.
    Dead,
    /// The tries contradict each other.
    Undecided(Undecided),
}

/// Measures the frequency of `fine`: four tries, more if they contradict each other. Takes 16 to 128 ms; does not sleep.
pub(in crate::x86_64) fn measure(
    fine: &mut impl Counter,
    coarse: &mut impl Counter,
    coarse_hz: u64,
) -> Result<Verdict, Failure> {
    let mut samples = Vec::new();
    let mut last = Undecided { samples: 0 };
    for times in ROUNDS {
        for _ in 0..TRIES {
            samples.push(sample(fine, coarse, coarse_hz, times * TRY_NS).ok_or(Failure::Dead)?);
        }
        match judge(&samples) {
            Ok(verdict) => return Ok(verdict),
            Err(undecided) => last = undecided,
        }
    }
    Err(Failure::Undecided(last))
}

impl Counter for &Reference {
    fn read(&mut self) -> u64 {
        Reference::read(self)
    }

    fn mask(&self) -> u64 {
        Reference::mask(self)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;
    use crate::x86_64::clock::judge::difference_ppm;

    /// A machine in which reading takes time, and which the host stops now and then.
    struct World {
        ns: Cell<u64>,
        reads: Cell<u64>,
        stalls: fn(u64) -> u64,
    }

    impl World {
        fn step(&self, ns: u64) -> u64 {
            self.reads.set(self.reads.get() + 1);
            self.ns.set(self.ns.get() + ns + (self.stalls)(self.reads.get()));
            self.ns.get()
        }
    }

    const HZ: u64 = 2_596_000_000;

    fn measured(stalls: fn(u64) -> u64, hz: u64, bits: u32) -> Result<Verdict, Failure> {
        let world = World { ns: Cell::new(0), reads: Cell::new(0), stalls };
        let count = |ns: u64, hz: u64| (u128::from(ns) * u128::from(hz) / u128::from(NS)) as u64;
        let mask = (1 << bits) - 1;
        let mut fine = (|| count(world.step(30), HZ), u64::MAX);
        let mut coarse = (|| count(world.step(1500), hz) & mask, mask);
        measure(&mut fine, &mut coarse, hz)
    }

    #[test]
    fn a_quiet_machine_measures_well_with_each_reference() {
        for (hz, bits) in [(100_000_000, 32), (14_318_180, 32), (3_579_545, 24), (1_193_182, 16)] {
            let verdict = measured(|_| 0, hz, bits).unwrap();
            assert!(difference_ppm(HZ, verdict.hz) < 300, "{hz}: {verdict:?}");
            assert!(verdict.used >= 2);
        }
    }

    #[test]
    fn a_busy_host_does_not_mislead() {
        // Stops of 20 ms and more, beyond the PIT's wrap, scattered so that about half of the tries are hit.
        let stalls = |read: u64| {
            if read.wrapping_mul(0x9e37_79b9) >> 8 & 0xfff == 0 { 20_000_000 + read * 31_337 } else { 0 }
        };
        for (hz, bits) in [(100_000_000, 32), (3_579_545, 24), (1_193_182, 16)] {
            let verdict = measured(stalls, hz, bits).unwrap();
            assert!(difference_ppm(HZ, verdict.hz) < 1000, "{hz}: {verdict:?}");
        }
    }

    #[test]
    fn a_reference_that_stands_still_is_dead() {
        let mut time = 0;
        let mut fine = (
            || {
                time += 100;
                time
            },
            u64::MAX,
        );
        assert_eq!(measure(&mut fine, &mut (|| 0xffff, 0xffff), 1_193_182), Err(Failure::Dead));
    }
}
