//! Entering and leaving interrupts, for kernels that write their own trap entry.
//!
//! A platform counts the nesting of its interrupts in the preempt word. Each of the guards here adds its kind when it is
//! made and takes it away when it is dropped; what follows an interrupt (serving softirqs, rescheduling) is the
//! platform's, because it depends on what the hardware saved and will restore.
//!
//! The entry code of [`hal`]'s own x86_64 machine lies below this crate and cannot name it. It adjusts the same word by
//! the same one instruction itself.
//!
//! Unlike guards of tasks these nest strictly: an interrupt ends before what it interrupted goes on.

use core::fmt;
use core::marker::PhantomData;

use hal::context::{HARDIRQ_UNIT, NMI_UNIT, SOFTIRQ_UNIT};
use hal::percpu::{IrqsOff, Pinned};
use hal::{Native, Platform};

use crate::cpu::CpuBound;

/// Writes a guard that adds a unit to the preempt word.
macro_rules! entry_guard {
    ($(#[$meta:meta])* $Guard:ident, $UNIT:ident) => {
        $(#[$meta])*
        #[must_use = "the context is left as soon as the guard is dropped"]
        #[clippy::has_significant_drop]
        pub struct $Guard<P: Platform = Native> {
            platform: PhantomData<fn() -> P>,
            _bound: CpuBound,
        }

        impl<P: Platform> $Guard<P> {
            #[inline(always)]
            fn new() -> $Guard<P> {
                P::preempt_add($UNIT);
                $Guard { platform: PhantomData, _bound: CpuBound::NEW }
            }
        }

        impl<P: Platform> Drop for $Guard<P> {
            #[inline(always)]
            fn drop(&mut self) {
                P::preempt_sub($UNIT);
            }
        }

        impl<P: Platform> fmt::Debug for $Guard<P> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Guard)).field("cpu", &P::cpu()).finish()
            }
        }

        // SAFETY: an interrupt of any kind stays on its CPU until it ends, and by the contract of the function that
        // made the value it lives in one. Neither `Send` nor `Sync`.
        unsafe impl<P: Platform> Pinned for $Guard<P> {}
    };
}

entry_guard! {
    /// A hardware interrupt is being served while this value lives. Made by [`enter_hardirq`].
    ///
    /// It proves that interrupts are off, so that a handler takes its locks by
    /// [`lock_with(&hardirq)`](crate::SpinLock::lock_with).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use sync::{IrqSpinLock, context::enter_hardirq};
    /// static RING: IrqSpinLock<u32> = IrqSpinLock::new(1);
    ///
    /// Native::irq_disable();
    /// // SAFETY: interrupts are off and counted, and the guard goes before they come on.
    /// let hardirq = unsafe { enter_hardirq() };
    /// *RING.lock_with(&hardirq) += 1;
    /// drop(hardirq);
    /// Native::irq_enable();
    /// assert_eq!(*RING.lock(), 2);
    /// ```
    HardirqGuard, HARDIRQ_UNIT
}

entry_guard! {
    /// A softirq is being served while this value lives. Made by [`enter_softirq`].
    ///
    /// It proves that no other softirq runs on this CPU, as a [`BhGuard`](crate::BhGuard) does.
    ///
    /// ```
    /// use sync::{BhSpinLock, context::enter_softirq};
    /// static QUEUE: BhSpinLock<u32> = BhSpinLock::new(1);
    ///
    /// // SAFETY: this is a task, which serves softirqs itself here; the guard goes before it goes on.
    /// let serving = unsafe { enter_softirq() };
    /// *QUEUE.lock_with(&serving) += 1;
    /// drop(serving);
    /// assert_eq!(*QUEUE.lock(), 2);
    /// ```
    SoftirqGuard, SOFTIRQ_UNIT
}

entry_guard! {
    /// An NMI is being served while this value lives. Made by [`enter_nmi`].
    ///
    /// It proves [`Pinned`] and no more. Interrupts are off in an NMI, but what it interrupted may be in the middle of a
    /// section that relies on that too: [`IrqsOff`] means "alone on this CPU", and an NMI is not.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use sync::context::enter_nmi;
    /// hal::percpu! {
    ///     static NMIS: AtomicU32 = AtomicU32::new(0);
    /// }
    /// // SAFETY: a simulation; the guard goes before what it interrupts goes on.
    /// let nmi = unsafe { enter_nmi() };
    /// assert_eq!(NMIS.get(&nmi).fetch_add(1, Relaxed), 0);
    /// ```
    NmiGuard, NMI_UNIT
}

// SAFETY: the contract of `enter_hardirq`.
unsafe impl<P: Platform> IrqsOff for HardirqGuard<P> {}

/// Enters a hardware interrupt on [`Native`]; others call [`Cpu::enter_hardirq`](crate::Cpu::enter_hardirq).
///
/// Linux: `irq_enter_rcu`, `__irq_enter`. Cost: one instruction on x86_64, and one for the drop.
///
/// # Safety
/// The caller is the trap entry (or a simulation of one) and has interrupts off, counted in the platform's interrupt
/// depth, until the guard is dropped. The guard is dropped before the interrupted code goes on. At most 15 nest.
///
/// ```
/// use hal::{Native, Platform};
/// use sync::context::{enter_hardirq, in_hardirq, in_task};
///
/// Native::irq_disable();
/// // SAFETY: interrupts are off and counted, and the guard goes before they come on.
/// let serving = unsafe { enter_hardirq() };
/// assert!(in_hardirq() && !in_task());
/// drop(serving);
/// Native::irq_enable();
/// ```
#[inline(always)]
pub unsafe fn enter_hardirq() -> HardirqGuard {
    HardirqGuard::new()
}

/// Enters the serving of softirqs on [`Native`]; others call [`Cpu::enter_softirq`](crate::Cpu::enter_softirq).
///
/// Linux: `softirq_handle_begin`. Cost: one instruction on x86_64, and one for the drop.
///
/// # Safety
/// Nothing forbids softirqs: no interrupt is being served, bottom halves are enabled. The guard is dropped before the
/// interrupted code goes on.
///
/// ```
/// use sync::BhSpinLock;
/// use sync::context::{enter_softirq, in_hardirq, in_serving_softirq, in_task};
///
/// let seen = BhSpinLock::new(0);
/// // SAFETY: this is a task, which serves softirqs itself here; the guard goes before it goes on.
/// let serving = unsafe { enter_softirq() };
/// assert!(in_serving_softirq() && !in_hardirq() && !in_task());
/// *seen.lock_with(&serving) += 1; // no other softirq comes here meanwhile
/// drop(serving);
/// assert!(!in_serving_softirq() && in_task());
/// ```
#[inline(always)]
pub unsafe fn enter_softirq() -> SoftirqGuard {
    SoftirqGuard::new()
}

/// Enters an NMI on [`Native`]; others call [`Cpu::enter_nmi`](crate::Cpu::enter_nmi).
///
/// Linux: `nmi_enter`. Cost: one instruction on x86_64, and one for the drop.
///
/// # Safety
/// The caller is the NMI's entry (or a simulation of one). The guard is dropped before the interrupted code goes on.
/// At most 15 nest.
///
/// ```
/// use sync::context::{enter_nmi, in_hardirq, in_nmi, in_task};
///
/// // SAFETY: a simulation; the guards go before what they interrupt goes on.
/// let (outer, inner) = unsafe { (enter_nmi(), enter_nmi()) };
/// drop(inner);
/// assert!(in_nmi() && !in_hardirq() && !in_task());
/// drop(outer);
/// assert!(!in_nmi() && in_task());
/// ```
#[inline(always)]
pub unsafe fn enter_nmi() -> NmiGuard {
    NmiGuard::new()
}

impl<P: Platform> crate::Cpu<P> {
    /// Enters a hardware interrupt.
    ///
    /// # Safety
    /// As for [`context::enter_hardirq`](enter_hardirq).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use sync::Cpu;
    ///
    /// Native::irq_disable();
    /// // SAFETY: interrupts are off and counted, and the guard goes before they come on.
    /// let serving = unsafe { Cpu::<Native>::enter_hardirq() };
    /// assert!(Cpu::<Native>::in_hardirq());
    /// drop(serving);
    /// assert!(!Cpu::<Native>::in_hardirq());
    /// # Native::irq_enable();
    /// ```
    #[inline(always)]
    pub unsafe fn enter_hardirq() -> HardirqGuard<P> {
        HardirqGuard::new()
    }

    /// Enters the serving of softirqs.
    ///
    /// # Safety
    /// As for [`context::enter_softirq`](enter_softirq).
    ///
    /// ```
    /// use hal::Native;
    /// use sync::Cpu;
    ///
    /// // SAFETY: this is a task, which serves softirqs itself here; the guard goes before it goes on.
    /// let serving = unsafe { Cpu::<Native>::enter_softirq() };
    /// assert!(Cpu::<Native>::in_serving_softirq());
    /// drop(serving);
    /// assert!(!Cpu::<Native>::in_serving_softirq());
    /// ```
    #[inline(always)]
    pub unsafe fn enter_softirq() -> SoftirqGuard<P> {
        SoftirqGuard::new()
    }

    /// Enters an NMI.
    ///
    /// # Safety
    /// As for [`context::enter_nmi`](enter_nmi).
    ///
    /// ```
    /// use hal::Native;
    /// use sync::Cpu;
    ///
    /// // SAFETY: a simulation; the guard goes before what it interrupts goes on.
    /// let serving = unsafe { Cpu::<Native>::enter_nmi() };
    /// assert!(Cpu::<Native>::in_nmi());
    /// drop(serving);
    /// assert!(!Cpu::<Native>::in_nmi());
    /// ```
    #[inline(always)]
    pub unsafe fn enter_nmi() -> NmiGuard<P> {
        NmiGuard::new()
    }
}
