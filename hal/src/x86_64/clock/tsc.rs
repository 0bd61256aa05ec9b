//! The time stamp counter, and whether those of all CPUs agree.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::x86_64::relax;

/// Reads the executing CPU's TSC. The fence keeps the read from being done before the loads that precede it, so that a
/// value that another CPU published is never ahead of one read afterwards. Any context; a few ns.
#[inline]
pub fn read() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: every x86_64 processor has both instructions, and the kernel does not forbid itself `rdtsc`. Not `nomem`:
    // loads before it stay before it. (The intrinsic of the fence is a call where vector instructions are off.)
    unsafe { asm!("lfence", "rdtsc", out("rax") low, out("rdx") high, options(nostack, preserves_flags)) };
    high << 32 | low
}

/// Looks for CPUs whose TSCs disagree.
///
/// Everybody does the same: load the newest value that anyone has seen, then read the own TSC, then publish it if it is
/// newer. With counters in step the own value cannot be the smaller one. A CPU that is behind sees newer values at once;
/// one that is ahead makes the others see them. The CPUs that start compare themselves with each other and with the one
/// that starts them, all at the same time, which spares 64 CPUs 63 rendezvous.
#[derive(Debug, Default)]
pub struct WarpTest {
    newest: AtomicU64,
    worst: AtomicU64,
    rounds: AtomicU32,
}

/// How many times a starting CPU wants to have seen the other side look.
const ROUNDS: u32 = 64;
/// After this many looks of its own a starting CPU goes on without: the other side is busy or gone.
/// About a second: with many virtual CPUs on few cores it takes that long until the other side runs again.
const MOST_LOOKS: u32 = 4_000_000;

/// What a CPU found out about its TSC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// Nobody was ahead of anybody.
    InStep,
    /// Someone was, by up to this many cycles.
    Warped(u64),
    /// The other side did not take part for long enough to tell.
    Unchecked,
}

impl WarpTest {
    /// A test in which nobody has taken part.
    pub const fn new() -> WarpTest {
        WarpTest { newest: AtomicU64::new(0), worst: AtomicU64::new(0), rounds: AtomicU32::new(0) }
    }

    /// One look with the given way to read the own TSC. Any context.
    #[inline]
    pub fn look(&self, tsc: impl FnOnce() -> u64) {
        // Acquire: pairs with the release half of the maximum below; the own read comes after the published one.
        let newest = self.newest.load(Ordering::Acquire);
        let own = tsc();
        if own < newest {
            self.worst.fetch_max(newest - own, Ordering::Relaxed);
        } else {
            self.newest.fetch_max(own, Ordering::AcqRel);
        }
    }

    /// One look by the CPU that starts others; call it while waiting for them.
    pub fn look_as_starter(&self, tsc: impl FnOnce() -> u64) {
        self.look(tsc);
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks, as a CPU that is being started, until the starter has looked often enough meanwhile. Interrupts off.
    pub fn check(&self, mut tsc: impl FnMut() -> u64) -> Sync {
        let start = self.rounds.load(Ordering::Relaxed);
        for _ in 0..MOST_LOOKS {
            self.look(&mut tsc);
            if self.worst() > 0 {
                return Sync::Warped(self.worst());
            }
            if self.rounds.load(Ordering::Relaxed).wrapping_sub(start) >= ROUNDS {
                return Sync::InStep;
            }
            relax();
        }
        Sync::Unchecked
    }

    /// The largest disagreement so far, in cycles.
    pub fn worst(&self) -> u64 {
        self.worst.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;

    use super::*;

    /// Two threads with a common counter, the started one's off by `offset`.
    fn run(offset: i64) -> (Sync, u64) {
        let counter = AtomicU64::new(1 << 40);
        let tsc = |offset: i64| counter.fetch_add(1, Ordering::AcqRel).wrapping_add_signed(offset);
        let (test, done) = (WarpTest::new(), AtomicBool::new(false));
        let found = std::thread::scope(|scope| {
            let started = scope.spawn(|| {
                let mut found = test.check(|| tsc(offset));
                while found == Sync::Unchecked {
                    found = test.check(|| tsc(offset));
                }
                done.store(true, Ordering::Release);
                found
            });
            while !done.load(Ordering::Acquire) {
                test.look_as_starter(|| tsc(0));
            }
            started.join().unwrap()
        });
        // One more look from each side: who was ahead may have been the last to publish.
        test.look(|| tsc(0));
        test.look(|| tsc(offset));
        (found, test.worst())
    }

    #[test]
    fn counters_in_step_pass() {
        for _ in 0..4 {
            assert_eq!(run(0), (Sync::InStep, 0));
        }
    }

    #[test]
    fn a_counter_behind_or_ahead_is_found() {
        for offset in [-1_000_000, 1_000_000] {
            let (_, worst) = run(offset);
            assert!((900_000..=1_000_000).contains(&worst), "off by {offset}, found {worst}");
        }
    }

    #[test]
    fn alone_nobody_can_tell() {
        let mut counter = 0;
        let found = WarpTest::new().check(|| {
            counter += 1;
            counter
        });
        assert_eq!(found, Sync::Unchecked);
    }

    #[test]
    fn the_real_counter_advances() {
        let first = read();
        assert!(read() >= first);
    }
}
