//! Longer and longer pauses of a task that looks again and again.

use hal::Platform;
use sync::TaskCx;

/// A waiting task spins so many turns, then sleeps.
const SPINS: u32 = 100;
/// One in a hurry spins so many.
const HURRIED_SPINS: u32 = 2_000;
/// The shortest and the longest sleep between two looks, in ns.
const SLEEPS_NS: (u64, u64) = (20_000, 1_000_000);

pub(crate) struct Pause {
    spins: u32,
    sleep_ns: u64,
    longest_ns: u64,
}

impl Pause {
    pub(crate) fn new() -> Pause {
        Pause { spins: SPINS, sleep_ns: SLEEPS_NS.0, longest_ns: SLEEPS_NS.1 }
    }

    /// Of somebody who would rather burn time than come late: short ones.
    pub(crate) fn hurried() -> Pause {
        Pause { spins: HURRIED_SPINS, sleep_ns: SLEEPS_NS.0, longest_ns: SLEEPS_NS.0 }
    }

    pub(crate) fn once<P: Platform>(&mut self, cx: &mut TaskCx<P>) {
        if self.spins > 0 {
            self.spins -= 1;
            P::relax();
        } else {
            cx.block(Some(P::now_ns() + self.sleep_ns));
            self.sleep_ns = self.longest_ns.min(2 * self.sleep_ns);
        }
    }
}
