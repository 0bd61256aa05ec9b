//! Staying on this CPU, without keeping others from it.
//!
//! A task that works on its CPU's data for long, or sleeps in the middle, must not keep the scheduler off. If all that
//! it needs is that the CPU's number stays true, [`disable`] promises that and no more: other tasks may run on the CPU
//! meanwhile, and with the same per-CPU data. So the guard opens what may be shared ([`PerCpu::get`] for `Sync` types),
//! and neither stands for a lock's flavour nor opens a [`LocalLock`](crate::LocalLock).
//!
//! Platforms say how it is done. The default, on [`hal`]'s machines as well, is to forbid preemption, which keeps the
//! promise and costs what it costs; code that sleeps under the guard would then be refused.
//!
//! [`PerCpu::get`]: hal::percpu::PerCpu::get

use core::fmt;
use core::marker::PhantomData;

use hal::percpu::Pinned;
use hal::{CpuId, Native, Platform};

use crate::cpu::CpuBound;
use crate::made::{Count, Made};

/// Keeps the task on this CPU until the guard is dropped. Nests.
///
/// Linux: `migrate_disable` and `migrate_enable`. Contexts: any; in an interrupt it changes nothing. Cost: the
/// platform's; by default that of [`preempt::disable`](crate::preempt::disable).
///
/// ```
/// let here = sync::migrate::disable();
/// assert_eq!(here.cpu(), here.cpu());
/// ```
#[inline(always)]
#[track_caller]
pub fn disable() -> MigrateGuard {
    MigrateGuard::new()
}

/// The task stays on this CPU while this value lives; other tasks may run there too. Made by [`disable`].
///
/// It is neither `Send` nor `Sync`. Guards may be dropped in any order; they count.
///
/// # Invariants
/// One `migrate_disable` of `P`, by the execution that owns the value, has not been undone.
///
/// ```
/// use hal::{Native, Platform};
/// let (first, second) = (sync::migrate::disable(), sync::migrate::disable());
/// drop(first); // in any order
/// assert_eq!(second.cpu(), Native::cpu());
/// ```
#[must_use = "the task can be moved again as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct MigrateGuard<P: Platform = Native> {
    made: Made<P>,
    platform: PhantomData<fn() -> P>,
    _bound: CpuBound,
}

impl<P: Platform> MigrateGuard<P> {
    #[inline(always)]
    #[track_caller]
    pub(crate) fn new() -> MigrateGuard<P> {
        P::migrate_disable();
        // INVARIANT: disabled just now, and undone by `drop`, which consumes the value.
        MigrateGuard { made: Made::here(), platform: PhantomData, _bound: CpuBound::NEW }
    }

    /// The CPU that this code is on, and stays on while the guard lives.
    ///
    /// Contexts: any. Cost: one load.
    ///
    /// ```
    /// let here = sync::migrate::disable();
    /// assert_eq!(here.cpu(), <hal::Native as hal::Platform>::cpu());
    /// ```
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        P::cpu()
    }
}

impl<P: Platform> Drop for MigrateGuard<P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.made.may_undo(Count::Migration) {
            P::migrate_enable();
        }
    }
}

// SAFETY: by the type's invariant migration is disabled for as long as the value exists, and `Platform` promises that
// the task then stays on its CPU. The value is neither `Send` nor `Sync`.
unsafe impl<P: Platform> Pinned for MigrateGuard<P> {}

impl<P: Platform> fmt::Debug for MigrateGuard<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigrateGuard").field("cpu", &self.cpu()).finish()
    }
}
