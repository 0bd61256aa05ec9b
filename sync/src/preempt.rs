//! Staying on this CPU: preemption off while a guard lives.
//!
//! A kernel's scheduler may replace the running task at any interrupt, and a replaced task may continue elsewhere.
//! Code that has learnt its CPU's number, or holds a pointer to that CPU's data, must not let that happen in the
//! middle. [`disable`] counts up this CPU's preempt depth, dropping the guard counts it down, and the drop that reaches
//! zero is a preemption point: if a reschedule came due meanwhile, it happens there, once.
//!
//! Interrupt handlers and softirqs still run. Data that they share needs [`irq::disable`](crate::irq::disable) or
//! [`bh::disable`](crate::bh::disable).
//!
//! In debug builds a guard remembers where it was made. One that is dropped on another CPU or after its count is gone
//! is reported with that line and leaves the counts alone; a 256th level stops the machine.

use core::fmt;
use core::marker::PhantomData;
use core::mem;

use hal::context::PREEMPT_UNIT;
use hal::percpu::Pinned;
use hal::{CpuId, Native, Platform};

use crate::cpu::CpuBound;
use crate::made::{Count, Made};

/// Forbids preemption on this CPU until the guard is dropped. Nests, up to 255 levels.
///
/// Linux: `preempt_disable`, and `get_cpu` where [`PreemptGuard::cpu`] is used. Contexts: any. Cost: one instruction on
/// x86_64, and two for the drop.
///
/// ```
/// use core::sync::atomic::{AtomicU64, Ordering};
///
/// hal::percpu! {
///     static SERVED: AtomicU64 = AtomicU64::new(0);
/// }
/// let here = sync::preempt::disable();
/// // Two statements about one CPU: without the guard the task could move between them.
/// let mine = SERVED.get(&here);
/// mine.store(mine.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
/// assert_eq!(SERVED.on(here.cpu()).load(Ordering::Relaxed), 1);
/// ```
#[inline(always)]
#[track_caller]
pub fn disable() -> PreemptGuard {
    PreemptGuard::new()
}

/// Preemption is off on this CPU while this value lives. Made by [`disable`].
///
/// It is neither `Send` nor `Sync`: on another CPU, or seen from one, it would prove something about the wrong CPU.
/// Guards may be dropped in any order; they count.
///
/// # Invariants
/// One `preempt_disable` of `P`, by the execution that owns the value, has not been undone.
///
/// ```
/// use sync::{context::preemptible, preempt};
/// let (first, second) = (preempt::disable(), preempt::disable());
/// drop(first); // in any order
/// assert!(!preemptible());
/// drop(second);
/// assert!(preemptible());
/// ```
#[must_use = "preemption is on again as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct PreemptGuard<P: Platform = Native> {
    made: Made<P>,
    platform: PhantomData<fn() -> P>,
    _bound: CpuBound,
}

impl<P: Platform> PreemptGuard<P> {
    #[inline(always)]
    #[track_caller]
    pub(crate) fn new() -> PreemptGuard<P> {
        Made::<P>::check_room(Count::Preempt);
        P::preempt_disable();
        // INVARIANT: disabled just now, and undone by `drop` or `enable_no_resched`, which consume the value.
        PreemptGuard { made: Made::here(), platform: PhantomData, _bound: CpuBound::NEW }
    }

    /// The CPU that this code is on, and stays on while the guard lives.
    ///
    /// Contexts: any. Cost: one load.
    ///
    /// ```
    /// let here = sync::preempt::disable();
    /// assert_eq!(here.cpu(), <hal::Native as hal::Platform>::cpu());
    /// ```
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        P::cpu()
    }

    /// Drops the guard without the preemption point: a reschedule that is due stays due until the next one.
    ///
    /// For code that is about to reach a preemption point anyway, or must not be replaced at this very place.
    /// Linux: `preempt_enable_no_resched`. Contexts: any. Cost: one instruction on x86_64.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// use hal::{Native, Platform};
    /// let here = sync::preempt::disable();
    /// Native::set_need_resched(Native::cpu());
    /// here.enable_no_resched();
    /// assert!(Native::context().resched_due(), "still due");
    /// # Native::check_resched();
    /// ```
    #[inline(always)]
    pub fn enable_no_resched(self) {
        let may_undo = self.made.may_undo(Count::Preempt);
        mem::forget(self);
        if may_undo {
            P::preempt_sub(PREEMPT_UNIT);
        }
    }
}

impl<P: Platform> Drop for PreemptGuard<P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.made.may_undo(Count::Preempt) {
            P::preempt_enable();
        }
    }
}

// SAFETY: by the type's invariant preemption is off for as long as the value exists, and `Platform` promises that the
// execution then stays on its CPU. The value is neither `Send` nor `Sync`.
unsafe impl<P: Platform> Pinned for PreemptGuard<P> {}

impl<P: Platform> fmt::Debug for PreemptGuard<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreemptGuard").field("cpu", &self.cpu()).finish()
    }
}
