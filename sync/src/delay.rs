//! Short waits that keep the CPU: for devices that ask for a pause, where one cannot sleep.
//!
//! The clock says when the time is over, not a count of loops. So a wait is never short, whatever the CPU's frequency does,
//! and an interrupt in the middle of it, or a host that runs somebody else, makes it longer only by what is left of that
//! time after the deadline.
//!
//! A task that may sleep should sleep instead, with a deadline: nothing else runs here meanwhile, and with interrupts off
//! not even handlers.

use hal::{Native, Platform};

use crate::Cpu;

/// Waits for `ns` nanoseconds at least.
///
/// Linux: `ndelay`. Contexts: any. Late by: one reading of the clock and one [`relax`](Platform::relax), tens of
/// nanoseconds, and whatever interrupts the caller.
///
/// ```
/// use hal::{Native, Platform};
///
/// let before = Native::now_ns();
/// sync::delay::ndelay(1_500);
/// assert!(Native::now_ns() - before >= 1_500);
/// ```
#[inline]
pub fn ndelay(ns: u64) {
    Cpu::<Native>::ndelay(ns);
}

/// Waits for `us` microseconds at least. As [`ndelay`]; Linux: `udelay`, which limits the argument to 2,000.
///
/// ```
/// use hal::{Native, Platform};
///
/// let before = Native::now_ns();
/// sync::delay::udelay(10);
/// assert!(Native::now_ns() - before >= 10_000);
/// ```
#[inline]
pub fn udelay(us: u64) {
    ndelay(us.saturating_mul(1_000));
}

/// Waits for `ms` milliseconds at least. As [`ndelay`]; Linux: `mdelay`.
///
/// With interrupts or preemption off a wait of more than a tick delays everything else on this CPU: timers, softirqs, calls
/// from others.
///
/// ```
/// use hal::{Native, Platform};
///
/// let before = Native::now_ns();
/// sync::delay::mdelay(1);
/// assert!(Native::now_ns() - before >= 1_000_000);
/// ```
#[inline]
pub fn mdelay(ms: u64) {
    ndelay(ms.saturating_mul(1_000_000));
}

impl<P: Platform> Cpu<P> {
    /// Waits for `ns` nanoseconds at least, on the clock of the platform `P`. See [`delay::ndelay`](ndelay).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// let begun = Native::now_ns();
    /// sync::Cpu::<Native>::ndelay(2_000);
    /// assert!(Native::now_ns() - begun >= 2_000);
    /// ```
    pub fn ndelay(ns: u64) {
        let begun = P::now_ns();
        // By difference, so that no deadline can overflow.
        while P::now_ns().wrapping_sub(begun) < ns {
            P::relax();
        }
    }
}
