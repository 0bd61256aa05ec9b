//! No softirqs on this CPU while a guard lives.
//!
//! A softirq ("bottom half") is the part of an interrupt's work that can wait until the handler is over. It runs on the
//! CPU where it was raised, with interrupts on, before the interrupted task goes on. What a task shares with one is safe
//! only while none can begin, and [`disable`] keeps them from it; interrupt handlers still run and may raise more.
//!
//! 1. The guard adds two to the softirq count of the preempt word, serving a softirq adds one. Either keeps softirqs
//!    from beginning and the task from being preempted.
//! 2. Dropping the outermost guard serves what was raised meanwhile, on this CPU and before anything else: first the
//!    count goes, so that an interrupt which comes now serves for itself, and only then is the mask of pending softirqs
//!    looked at. Looked at first, what is raised between the two would wait for the next interrupt.
//! 3. Only then follows the preemption point.
//!
//! Serving takes as long as it takes, with interrupts on. So dropping a guard is illegal with interrupts off and in
//! hardirq, and debug builds report it. What is pending is not lost then: the CPU interrupts itself, which takes effect
//! when its interrupts come on.

use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::panic::Location;

use hal::context::{PREEMPT_UNIT, SOFTIRQ_DISABLE_UNIT};
use hal::percpu::Pinned;
use hal::{CpuId, Native, Platform};

use crate::cpu::CpuBound;
use crate::lockdep;
use crate::made::{Count, Made};

/// Keeps softirqs off this CPU until the guard is dropped. Nests, up to 127 levels.
///
/// Linux: `local_bh_disable` and `local_bh_enable`. Contexts: task and softirq; in hardirq debug builds report it. The
/// drop needs interrupts on. Cost: one instruction on x86_64; the drop is three, and one look at the pending softirqs.
///
/// ```
/// use sync::{bh, context::in_softirq};
///
/// let no_softirqs = bh::disable();
/// assert!(in_softirq());
/// drop(no_softirqs); // serves what was raised meanwhile
/// assert!(!in_softirq());
/// ```
#[inline(always)]
#[track_caller]
pub fn disable() -> BhGuard {
    BhGuard::new()
}

/// No softirq begins on this CPU while this value lives, and the task stays on it. Made by [`disable`].
///
/// It is neither `Send` nor `Sync`. Guards may be dropped in any order among themselves and with
/// [`PreemptGuard`](crate::PreemptGuard)s; before [`IrqGuard`](crate::IrqGuard)s made later, they must not be.
///
/// # Invariants
/// One `SOFTIRQ_DISABLE_UNIT` that the execution which owns the value added to `P`'s preempt word has not been undone.
///
/// ```
/// use sync::{bh, context::in_softirq};
/// let (first, second) = (bh::disable(), bh::disable());
/// drop(first); // in any order
/// assert!(in_softirq());
/// drop(second);
/// assert!(!in_softirq());
/// ```
#[must_use = "softirqs are served again as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct BhGuard<P: Platform = Native> {
    made: Made<P>,
    platform: PhantomData<fn() -> P>,
    _bound: CpuBound,
}

impl<P: Platform> BhGuard<P> {
    #[inline(always)]
    #[track_caller]
    pub(crate) fn new() -> BhGuard<P> {
        disable_on::<P>();
        // INVARIANT: added just now, and taken away by `drop` or `enable_no_resched`, which consume the value.
        BhGuard { made: Made::here(), platform: PhantomData, _bound: CpuBound::NEW }
    }

    /// The CPU that this code is on, and stays on while the guard lives.
    ///
    /// Contexts: as for [`disable`]. Cost: one load.
    ///
    /// ```
    /// let no_softirqs = sync::bh::disable();
    /// assert_eq!(no_softirqs.cpu(), <hal::Native as hal::Platform>::cpu());
    /// ```
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        P::cpu()
    }

    /// Drops the guard without serving softirqs and without the preemption point: what is pending is served at the end
    /// of the next interrupt or section, and a reschedule that is due stays due until the next preemption point.
    ///
    /// For code that is about to reach both anyway. Linux: `__local_bh_enable_ip`'s parts, which it does not offer
    /// alone. Contexts: any. Cost: one instruction on x86_64.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// use hal::{Native, Platform};
    /// let no_softirqs = sync::bh::disable();
    /// Native::raise_softirq(1);
    /// no_softirqs.enable_no_resched();
    /// assert!(!sync::context::in_softirq());
    /// assert!(Native::softirqs_pending(), "not served here");
    /// ```
    #[inline(always)]
    pub fn enable_no_resched(self) {
        let (may_undo, place) = (self.made.may_undo(Count::BottomHalves), self.made.place());
        mem::forget(self);
        if may_undo {
            lockdep::bottom_halves_coming_on::<P>(place);
            P::preempt_sub(SOFTIRQ_DISABLE_UNIT);
        }
    }
}

impl<P: Platform> Drop for BhGuard<P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.made.may_undo(Count::BottomHalves) {
            self.made.check_serving();
            lockdep::bottom_halves_coming_on::<P>(self.made.place());
            enable_on::<P>();
        }
    }
}

// SAFETY: by the type's invariant the preempt word is not 0 for as long as the value exists, so that the task is not
// preempted, and `Platform` promises that the execution then stays on its CPU. Neither `Send` nor `Sync`.
unsafe impl<P: Platform> Pinned for BhGuard<P> {}

impl<P: Platform> fmt::Debug for BhGuard<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BhGuard").field("cpu", &self.cpu()).finish()
    }
}

/// Counts one more reason against softirqs.
#[inline(always)]
#[track_caller]
pub(crate) fn disable_on<P: Platform>() {
    Made::<P>::check_room(Count::BottomHalves);
    P::preempt_add(SOFTIRQ_DISABLE_UNIT);
    lockdep::bottom_halves_went_off::<P>(Location::caller());
}

/// Counts one reason less; if it was the last, serves what is pending. Then a preemption point.
#[inline(always)]
pub(crate) fn enable_on<P: Platform>() {
    // One step from "softirqs off" to "preemption off": softirqs may be served from here on, but the task is not
    // replaced before those that it held up were.
    P::preempt_sub(SOFTIRQ_DISABLE_UNIT - PREEMPT_UNIT);
    if P::softirqs_pending() {
        serve_held_up::<P>();
    }
    P::preempt_enable();
}

/// Serves what is pending, or sees to it that somebody does. Out of line in every build: sections are short, and most
/// end with nothing pending.
#[cold]
#[inline(never)]
fn serve_held_up<P: Platform>() {
    P::serve_held_up_softirqs();
}
