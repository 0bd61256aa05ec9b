//! What holding a lock switches off.
//!
//! Code that takes a lock can be interrupted by other code on the same CPU that wants the same lock, and then neither
//! ever gets on. Which code can do that is a property of the data behind the lock, the same for every place that takes
//! it. So it is a part of the lock's type.

use core::marker::PhantomData;
use core::panic::Location;

use hal::percpu::IrqsOff;
use hal::{Native, Platform};

use crate::context::{HardirqGuard, SoftirqGuard};
use crate::cpu::CpuBound;
use crate::lockdep::{self, Level};
use crate::made::{self, Count, Made};
use crate::spin::raw::{AdaptiveLock, RawSpin};
use crate::spin::{SpinLockGuard, SpinLockWithGuard};
use crate::{BhGuard, IrqGuard, PreemptGuard, bh, irq};

/// What is switched off on this CPU before a lock is acquired, and on again after it was released.
///
/// Another crate adds a flavour (bottom halves off, a per-CPU trace record opened) by implementing this for a type of
/// its own; [`SpinLock`](crate::SpinLock) needs no change.
///
/// # Safety
/// * From `enter` to the matching `exit` the execution stays on its CPU and is not preempted: guards of the flavour
///   implement [`Pinned`](hal::percpu::Pinned) on this promise.
/// * Nothing that can interrupt the execution there may take a lock of the flavour, except where that is documented as
///   the flavour's rule for its users (breaking it hangs the CPU; it must not corrupt).
/// * `enter`s and `exit`s may interleave in any order as long as they pair up.
///
/// ```
/// use sync::{Flavor, Irq, Task, lockdep::Level};
/// assert!(Task::<hal::Native>::LEVEL < Irq::<hal::Native>::LEVEL);
/// assert_eq!(<Irq as Flavor>::LEVEL, Level::Hardirq);
/// <Irq as Flavor>::enter();
/// assert!(sync::context::irqs_disabled());
/// // SAFETY: entered just now; no lock is held.
/// unsafe { <Irq as Flavor>::exit() };
/// assert!(!sync::context::irqs_disabled());
/// ```
pub unsafe trait Flavor: Sized + 'static {
    /// The machine that the lock runs on.
    type Platform: Platform;

    /// The word that spin locks of the flavour are made of: [`AdaptiveLock`], unless there is a reason.
    /// [`Queued<F>`](crate::Queued) and [`Ticketed<F>`](crate::Ticketed) are flavour `F` with another one.
    type Raw: RawSpin;

    /// The most urgent context in which a lock of the flavour may be taken. The dependency checker reports those that
    /// are taken in a more urgent one.
    const LEVEL: Level;

    /// Switches off. Debug builds may report misuse here, at the caller's line.
    ///
    /// ```
    /// use sync::{Flavor, Task};
    /// <Task as Flavor>::enter();
    /// assert!(!sync::context::preemptible());
    /// // SAFETY: entered just now; no lock is held.
    /// unsafe { <Task as Flavor>::exit() };
    /// assert!(sync::context::preemptible());
    /// ```
    #[track_caller]
    fn enter();

    /// Undoes one `enter`. Everything that was switched off comes back, and then a preemption point follows if the
    /// flavour kept one from happening.
    ///
    /// # Safety
    /// Called once for each `enter`, on the CPU of that `enter`, when the lock is no longer held.
    unsafe fn exit();

    /// Called before each `exit`, to report what forbids it at this point and to tell the dependency checker what comes
    /// on. `at` is the line that entered, where that is known. Nothing, unless a flavour has something to say.
    #[inline(always)]
    fn check_exit(_at: &'static Location<'static>) {}
}

/// Data shared between tasks: preemption is off while the lock is held. Linux: `spin_lock`.
///
/// Interrupt handlers must not take such a lock: one that interrupts the holder would wait for it for ever.
///
/// ```
/// use sync::{SpinLock, Task, context};
/// let lock: SpinLock<u32, Task> = SpinLock::new(1);
/// let _guard = lock.lock();
/// assert!(!context::preemptible() && !context::in_softirq() && !context::irqs_disabled());
/// ```
#[derive(Debug)]
pub struct Task<P = Native>(PhantomData<fn() -> P>);

// SAFETY: with preemption off `Platform` keeps the execution on its CPU and runs no other task there. Interrupts can
// come, and the documentation forbids them to take the lock. The preempt depth is a count.
unsafe impl<P: Platform> Flavor for Task<P> {
    type Platform = P;
    type Raw = AdaptiveLock;

    const LEVEL: Level = Level::Task;

    #[inline(always)]
    #[track_caller]
    fn enter() {
        Made::<P>::check_room(Count::Preempt);
        P::preempt_disable();
    }

    #[inline(always)]
    unsafe fn exit() {
        P::preempt_enable();
    }
}

/// Data shared between tasks and softirqs: bottom halves are off while the lock is held. Linux: `spin_lock_bh`.
///
/// Hardware interrupt handlers must not take such a lock. It is taken and released with interrupts on: releasing it
/// serves the softirqs that came due meanwhile ([`bh`] says more).
///
/// ```
/// use sync::{BottomHalf, SpinLock, context};
/// let lock: SpinLock<u32, BottomHalf> = SpinLock::new(1);
/// let _guard = lock.lock();
/// assert!(context::in_softirq() && !context::irqs_disabled());
/// ```
#[derive(Debug)]
pub struct BottomHalf<P = Native>(PhantomData<fn() -> P>);

// SAFETY: with a preempt word that is not 0 `Platform` keeps the execution on its CPU and runs no other task there, and
// because the softirq count is not 0 it begins no softirq. Interrupts can come, and the documentation forbids them to
// take the lock. The softirq count is a count.
unsafe impl<P: Platform> Flavor for BottomHalf<P> {
    type Platform = P;
    type Raw = AdaptiveLock;

    const LEVEL: Level = Level::Softirq;

    #[inline(always)]
    #[track_caller]
    fn enter() {
        bh::disable_on::<P>();
    }

    #[inline(always)]
    unsafe fn exit() {
        bh::enable_on::<P>();
    }

    #[inline(always)]
    fn check_exit(at: &'static Location<'static>) {
        made::check_serving::<P>(at);
        lockdep::bottom_halves_coming_on::<P>(at);
    }
}

/// Data shared with interrupt handlers: interrupts are off while the lock is held. Linux: `spin_lock_irqsave`.
///
/// NMI handlers must not take such a lock, because NMIs come in spite of it; `try_lock` is allowed to them.
///
/// ```
/// use sync::{Irq, SpinLock, context};
/// let lock: SpinLock<u32, Irq> = SpinLock::new(1);
/// let _guard = lock.lock();
/// assert!(context::irqs_disabled());
/// ```
#[derive(Debug)]
pub struct Irq<P = Native>(PhantomData<fn() -> P>);

// SAFETY: with interrupts off `Platform` keeps the execution on its CPU, and only NMIs interrupt it, which the
// documentation forbids to wait for the lock. The interrupt depth is a count.
unsafe impl<P: Platform> Flavor for Irq<P> {
    type Platform = P;
    type Raw = AdaptiveLock;

    const LEVEL: Level = Level::Hardirq;

    #[inline(always)]
    #[track_caller]
    fn enter() {
        P::irq_disable();
        lockdep::interrupts_went_off::<P>(Location::caller());
    }

    #[inline(always)]
    unsafe fn exit() {
        irq::enable_and_check::<P>();
    }

    #[inline(always)]
    fn check_exit(at: &'static Location<'static>) {
        lockdep::interrupts_coming_on::<P>(at);
    }
}

/// A flavour that turns interrupts off: guards of its locks are [`IrqsOff`].
///
/// # Safety
/// From `enter` to the matching `exit` interrupts are off on this CPU.
///
/// ```
/// use hal::percpu::IrqsOff;
/// use sync::{Irq, IrqsOffFlavor, SpinLock, context::irqs_disabled};
///
/// /// Whatever the flavour is, its guards prove that interrupts are off.
/// fn with_interrupts_off<F: IrqsOffFlavor>(lock: &SpinLock<u32, F>, act: impl Fn(&dyn IrqsOff)) {
///     act(&lock.lock());
/// }
/// with_interrupts_off::<Irq>(&SpinLock::new(1), |_| assert!(irqs_disabled()));
/// ```
pub unsafe trait IrqsOffFlavor: Flavor {}

// SAFETY: that is all that its `enter` does.
unsafe impl<P: Platform> IrqsOffFlavor for Irq<P> {}

/// What flavour `F` switches off is off while this value lives.
///
/// # Invariants
/// One `F::enter`, by the execution that owns the value, has not been undone.
pub(crate) struct Entered<F: Flavor> {
    made: Made<F::Platform>,
    flavor: PhantomData<fn() -> F>,
    _bound: CpuBound,
}

impl<F: Flavor> Entered<F> {
    #[inline(always)]
    #[track_caller]
    pub(crate) fn new() -> Entered<F> {
        F::enter();
        // INVARIANT: entered just now; only `drop` undoes it.
        Entered { made: Made::here(), flavor: PhantomData, _bound: CpuBound::NEW }
    }

    /// For an `enter` that was left behind on this CPU.
    ///
    /// # Safety
    /// One `F::enter` on this CPU has not been undone, and belongs to nobody else.
    #[track_caller]
    pub(crate) unsafe fn adopted() -> Entered<F> {
        // INVARIANT: by the contract.
        Entered { made: Made::here(), flavor: PhantomData, _bound: CpuBound::NEW }
    }
}

impl<F: Flavor> Drop for Entered<F> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.made.may_exit::<F>() {
            // SAFETY: undoes the `enter` of the invariant, on its CPU, from which the flavour let us not move. In a
            // guard the lock was released before, by the order of the fields; outside of one it was not taken.
            unsafe { F::exit() }
        }
    }
}

/// Proof that what flavour `F` switches off is off already, so that [`lock_with`](crate::SpinLock::lock_with) need not.
///
/// A flavour's crate implements it for the guards that imply the flavour.
///
/// # Safety
/// While a value of the implementing type is borrowed, everything holds that holds between `F`'s `enter` and `exit`.
/// The type is neither `Send` nor `Sync`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not prove what a lock of flavour `{F}` needs",
    note = "pass a guard that implies it (an `IrqGuard` for `Irq` locks, that or a `BhGuard` for `BottomHalf` locks, \
            these or a `PreemptGuard` for `Task` locks, or the guard of another such lock), or call `lock()`, which \
            switches off what is needed"
)]
pub unsafe trait Proves<F: Flavor> {}

// SAFETY: `IrqsOff` says that interrupts are off, which is what the flavour switches off.
unsafe impl<P: Platform, G: IrqsOff + ?Sized> Proves<Irq<P>> for G {}

/// Writes down which values prove a flavour, with the reason.
macro_rules! proofs {
    ($($(#[doc = $why:literal])* $Flavor:ident: $([$($generics:tt)*] $Guard:ty),+;)*) => {$($(
        // SAFETY: the reason is given with the flavour, below.
        unsafe impl<$($generics)* P: Platform> Proves<$Flavor<P>> for $Guard {}
    )+)*};
}

proofs! {
    /// With preemption off we are in what `Task::enter` makes. Bottom halves off, interrupts off and serving a softirq
    /// each keep the scheduler away too: the preempt word is not 0, or preemption points do nothing. A lock's guard
    /// lives between its flavour's `enter` and `exit`, or borrows a proof of the flavour.
    Task:
        [] PreemptGuard<P>, [] BhGuard<P>, [] IrqGuard<P>, [] SoftirqGuard<P>, [] HardirqGuard<P>,
        [T: ?Sized,] SpinLockGuard<'_, T, Task<P>>, [T: ?Sized,] SpinLockWithGuard<'_, T, Task<P>>,
        [T: ?Sized,] SpinLockGuard<'_, T, BottomHalf<P>>, [T: ?Sized,] SpinLockWithGuard<'_, T, BottomHalf<P>>,
        [T: ?Sized,] SpinLockGuard<'_, T, Irq<P>>, [T: ?Sized,] SpinLockWithGuard<'_, T, Irq<P>>;

    /// With bottom halves off we are in what `BottomHalf::enter` makes. While a softirq is being served no other one
    /// begins on the CPU, and with interrupts off none does, because softirqs begin with interrupts on only.
    BottomHalf:
        [] BhGuard<P>, [] IrqGuard<P>, [] SoftirqGuard<P>, [] HardirqGuard<P>,
        [T: ?Sized,] SpinLockGuard<'_, T, BottomHalf<P>>, [T: ?Sized,] SpinLockWithGuard<'_, T, BottomHalf<P>>,
        [T: ?Sized,] SpinLockGuard<'_, T, Irq<P>>, [T: ?Sized,] SpinLockWithGuard<'_, T, Irq<P>>;
}
