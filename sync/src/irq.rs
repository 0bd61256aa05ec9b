//! No interrupts on this CPU while a guard lives.
//!
//! An interrupt handler can run between any two instructions of the code that it interrupts. What both touch is safe
//! only while interrupts are off, and [`disable`] turns them off.
//!
//! 1. The platform counts how many parties on this CPU want interrupts off. The guard that brings the count to zero
//!    turns them on, whichever it is. Guards may so be dropped in any order, where the usual "save the flag, restore
//!    the flag" would turn interrupts on under the feet of the guard that is left.
//! 2. While interrupts are off nothing reschedules on this CPU: leaving a preemption-off section inside only notes that
//!    one is due. So the outermost interrupt guard is itself a preemption point, after it turned interrupts on.
//!
//! Other CPUs' interrupts are untouched, and NMIs come in spite of it.

use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::panic::Location;

use hal::percpu::{IrqsOff, Pinned};
use hal::{CpuId, Native, Platform};

use crate::cpu::CpuBound;
use crate::lockdep;
use crate::made::{Count, Made};

/// Turns this CPU's interrupts off until the guard is dropped. Nests.
///
/// Linux: `local_irq_save` and `local_irq_restore`; what is restored is a count, not the flags register, of which the
/// interrupt flag is the only bit that is touched. Contexts: task, softirq, hardirq; not NMI, whose handler interrupts
/// others' guards and would hold a proof that proves nothing. Cost: two instructions on x86_64.
///
/// ```
/// use core::cell::Cell;
///
/// hal::percpu! {
///     static LAST: Cell<u32> = Cell::new(0);
/// }
/// let quiet = sync::irq::disable();
/// // A `Cell` may be used here: no handler can be in the middle of it.
/// LAST.get_local(&quiet).set(LAST.get_local(&quiet).get() + 1);
/// ```
#[inline(always)]
#[track_caller]
pub fn disable() -> IrqGuard {
    IrqGuard::new()
}

/// Interrupts are off on this CPU while this value lives. Made by [`disable`].
///
/// It is neither `Send` nor `Sync`. Guards may be dropped in any order; they count. Dropping the outermost one turns
/// interrupts on and is then a preemption point.
///
/// # Invariants
/// One `irq_disable` of `P`, by the execution that owns the value, has not been undone.
///
/// ```
/// use sync::{context::irqs_disabled, irq};
/// let (first, second) = (irq::disable(), irq::disable());
/// drop(first); // in any order
/// assert!(irqs_disabled());
/// drop(second);
/// assert!(!irqs_disabled());
/// ```
#[must_use = "interrupts are on again as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct IrqGuard<P: Platform = Native> {
    made: Made<P>,
    platform: PhantomData<fn() -> P>,
    _bound: CpuBound,
}

impl<P: Platform> IrqGuard<P> {
    #[inline(always)]
    #[track_caller]
    pub(crate) fn new() -> IrqGuard<P> {
        P::irq_disable();
        lockdep::interrupts_went_off::<P>(Location::caller());
        // INVARIANT: disabled just now, and undone by `drop` or `enable_no_resched`, which consume the value.
        IrqGuard { made: Made::here(), platform: PhantomData, _bound: CpuBound::NEW }
    }

    /// The CPU that this code is on, and stays on while the guard lives.
    ///
    /// Contexts: as for [`disable`]. Cost: one load.
    ///
    /// ```
    /// let quiet = sync::irq::disable();
    /// assert_eq!(quiet.cpu(), <hal::Native as hal::Platform>::cpu());
    /// ```
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        P::cpu()
    }

    /// Drops the guard without the preemption point: if it is the outermost one interrupts come on, and a reschedule
    /// that is due stays due until the next preemption point.
    ///
    /// For contexts that cannot schedule, the scheduler itself first of all. Contexts: as for [`disable`].
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// use hal::{Native, Platform};
    /// let quiet = sync::irq::disable();
    /// Native::set_need_resched(Native::cpu());
    /// quiet.enable_no_resched();
    /// assert!(!sync::context::irqs_disabled());
    /// assert!(Native::context().resched_due(), "still to be done");
    /// ```
    #[inline(always)]
    pub fn enable_no_resched(self) {
        let (may_undo, place) = (self.made.may_undo(Count::Interrupts), self.made.place());
        mem::forget(self);
        if may_undo {
            lockdep::interrupts_coming_on::<P>(place);
            P::irq_enable();
        }
    }
}

impl<P: Platform> Drop for IrqGuard<P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.made.may_undo(Count::Interrupts) {
            lockdep::interrupts_coming_on::<P>(self.made.place());
            enable_and_check::<P>();
        }
    }
}

/// Undoes one `irq_disable`; a preemption point if that turned interrupts on.
#[inline(always)]
pub(crate) fn enable_and_check<P: Platform>() {
    // A reschedule can have come due in the section, where preemption points do nothing. This one is the first that
    // can act on it; without it the request would wait for the next interrupt.
    if P::irq_enable() {
        P::check_resched();
    }
}

// SAFETY: by the type's invariant interrupts are off for as long as the value exists, and `Platform` promises that the
// execution then stays on its CPU. The value is neither `Send` nor `Sync`.
unsafe impl<P: Platform> Pinned for IrqGuard<P> {}

// SAFETY: by the type's invariant interrupts are off for as long as the value exists.
unsafe impl<P: Platform> IrqsOff for IrqGuard<P> {}

impl<P: Platform> fmt::Debug for IrqGuard<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqGuard").field("cpu", &self.cpu()).finish()
    }
}
