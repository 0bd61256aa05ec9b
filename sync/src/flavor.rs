//! What holding a lock switches off.
//!
//! Code that takes a lock can be interrupted by other code on the same CPU that wants the same lock, and then neither
//! ever gets on. Which code can do that is a property of the data behind the lock, the same for every place that takes
//! it. So it is a part of the lock's type.

use core::marker::PhantomData;

use hal::percpu::IrqsOff;
use hal::{Native, Platform};

use crate::cpu::CpuBound;
use crate::lockdep::Level;
use crate::spin::raw::{AdaptiveLock, RawSpin};
use crate::spin::{SpinLockGuard, SpinLockWithGuard};
use crate::{IrqGuard, PreemptGuard, irq};

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
pub unsafe trait Flavor: Sized + 'static {
    /// The machine that the lock runs on.
    type Platform: Platform;

    /// The word that spin locks of the flavour are made of: [`AdaptiveLock`], unless there is a reason.
    /// [`Queued<F>`](crate::Queued) and [`Ticketed<F>`](crate::Ticketed) are flavour `F` with another one.
    type Raw: RawSpin;

    /// The most urgent context in which a lock of the flavour may be taken. The dependency checker reports those that
    /// are taken in a more urgent one.
    const LEVEL: Level;

    /// Switches off.
    fn enter();

    /// Undoes one `enter`. Everything that was switched off comes back, and then a preemption point follows if the
    /// flavour kept one from happening.
    ///
    /// # Safety
    /// Called once for each `enter`, on the CPU of that `enter`, when the lock is no longer held.
    unsafe fn exit();
}

/// Data shared between tasks: preemption is off while the lock is held. Linux: `spin_lock`.
///
/// Interrupt handlers must not take such a lock: one that interrupts the holder would wait for it for ever.
#[derive(Debug)]
pub struct Task<P = Native>(PhantomData<fn() -> P>);

// SAFETY: with preemption off `Platform` keeps the execution on its CPU and runs no other task there. Interrupts can
// come, and the documentation forbids them to take the lock. The preempt depth is a count.
unsafe impl<P: Platform> Flavor for Task<P> {
    type Platform = P;
    type Raw = AdaptiveLock;

    const LEVEL: Level = Level::Task;

    #[inline(always)]
    fn enter() {
        P::preempt_disable();
    }

    #[inline(always)]
    unsafe fn exit() {
        P::preempt_enable();
    }
}

/// Data shared with interrupt handlers: interrupts are off while the lock is held. Linux: `spin_lock_irqsave`.
///
/// NMI handlers must not take such a lock, because NMIs come in spite of it; `try_lock` is allowed to them.
#[derive(Debug)]
pub struct Irq<P = Native>(PhantomData<fn() -> P>);

// SAFETY: with interrupts off `Platform` keeps the execution on its CPU, and only NMIs interrupt it, which the
// documentation forbids to wait for the lock. The interrupt depth is a count.
unsafe impl<P: Platform> Flavor for Irq<P> {
    type Platform = P;
    type Raw = AdaptiveLock;

    const LEVEL: Level = Level::Hardirq;

    #[inline(always)]
    fn enter() {
        P::irq_disable();
    }

    #[inline(always)]
    unsafe fn exit() {
        irq::enable_and_check::<P>();
    }
}

/// A flavour that turns interrupts off: guards of its locks are [`IrqsOff`].
///
/// # Safety
/// From `enter` to the matching `exit` interrupts are off on this CPU.
pub unsafe trait IrqsOffFlavor: Flavor {}

// SAFETY: that is all that its `enter` does.
unsafe impl<P: Platform> IrqsOffFlavor for Irq<P> {}

/// What flavour `F` switches off is off while this value lives.
///
/// # Invariants
/// One `F::enter`, by the execution that owns the value, has not been undone.
pub(crate) struct Entered<F: Flavor> {
    flavor: PhantomData<fn() -> F>,
    _bound: CpuBound,
}

impl<F: Flavor> Entered<F> {
    #[inline(always)]
    pub(crate) fn new() -> Entered<F> {
        F::enter();
        // INVARIANT: entered just now; only `drop` undoes it.
        Entered { flavor: PhantomData, _bound: CpuBound::NEW }
    }
}

impl<F: Flavor> Drop for Entered<F> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: undoes the `enter` of the invariant, on its CPU, from which the flavour let us not move. In a guard
        // the lock was released before, by the order of the fields; outside of one it was not taken.
        unsafe { F::exit() }
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
    note = "pass a guard that implies it (an `IrqGuard` for `Irq` locks, a `PreemptGuard` or `IrqGuard` for `Task` \
            locks, or the guard of another such lock), or call `lock()`, which switches off what is needed"
)]
pub unsafe trait Proves<F: Flavor> {}

// SAFETY: `IrqsOff` says that interrupts are off, which is what the flavour switches off.
unsafe impl<P: Platform, G: IrqsOff + ?Sized> Proves<Irq<P>> for G {}

// SAFETY: with preemption off we are in what the flavour's `enter` makes.
unsafe impl<P: Platform> Proves<Task<P>> for PreemptGuard<P> {}

// SAFETY: with interrupts off nothing preempts: preemption points do nothing and none comes from an interrupt.
unsafe impl<P: Platform> Proves<Task<P>> for IrqGuard<P> {}

// SAFETY: the guard exists between the `enter` and `exit` of `Task` or of `Irq`; for `Irq` see above.
unsafe impl<T: ?Sized, P: Platform> Proves<Task<P>> for SpinLockGuard<'_, T, Task<P>> {}
// SAFETY: as above.
unsafe impl<T: ?Sized, P: Platform> Proves<Task<P>> for SpinLockGuard<'_, T, Irq<P>> {}
// SAFETY: the guard borrows a proof of its own flavour, which therefore holds while it lives.
unsafe impl<T: ?Sized, P: Platform> Proves<Task<P>> for SpinLockWithGuard<'_, T, Task<P>> {}
// SAFETY: as above, and interrupts off implies preemption off.
unsafe impl<T: ?Sized, P: Platform> Proves<Task<P>> for SpinLockWithGuard<'_, T, Irq<P>> {}
