//! The executing CPU, of a platform that is named.

use core::marker::PhantomData;

use hal::{Native, Platform};

use crate::{BhGuard, IrqGuard, MigrateGuard, PreemptGuard};

/// The CPU that executes the call, on platform `P`: for platforms other than [`Native`] what free functions are for that
/// one, the guard-making [`preempt::disable`](crate::preempt::disable), [`bh::disable`](crate::bh::disable),
/// [`irq::disable`](crate::irq::disable) and [`migrate::disable`](crate::migrate::disable), and all of
/// [`context`](crate::context).
///
/// There are no values of this type. It exists because a free function generic over the platform could not infer it.
///
/// ```
/// use hal::Platform;
/// use sync::Cpu;
///
/// fn cpu_twice<P: Platform>() -> (hal::CpuId, hal::CpuId) {
///     let pinned = Cpu::<P>::disable_preemption();
///     (pinned.cpu(), pinned.cpu()) // the same, whatever the scheduler would like
/// }
/// let (a, b) = cpu_twice::<hal::Native>();
/// assert_eq!(a, b);
/// ```
#[derive(Debug)]
pub struct Cpu<P = Native>(PhantomData<P>, core::convert::Infallible);

impl<P: Platform> Cpu<P> {
    /// Forbids preemption until the guard is dropped. See [`preempt::disable`](crate::preempt::disable).
    ///
    /// ```
    /// use sync::{Cpu, context};
    /// let here = Cpu::<hal::Native>::disable_preemption();
    /// assert!(!context::preemptible() && !context::irqs_disabled());
    /// drop(here);
    /// assert!(context::preemptible());
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn disable_preemption() -> PreemptGuard<P> {
        PreemptGuard::new()
    }

    /// Keeps the task on this CPU until the guard is dropped. See [`migrate::disable`](crate::migrate::disable).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// let here = sync::Cpu::<Native>::disable_migration();
    /// assert_eq!((here.cpu(), sync::context::irqs_disabled()), (Native::cpu(), false));
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn disable_migration() -> MigrateGuard<P> {
        MigrateGuard::new()
    }

    /// Keeps softirqs off this CPU until the guard is dropped. See [`bh::disable`](crate::bh::disable).
    ///
    /// ```
    /// use sync::{Cpu, context};
    /// let no_softirqs = Cpu::<hal::Native>::disable_bottom_halves();
    /// assert!(context::in_softirq() && !context::irqs_disabled());
    /// drop(no_softirqs);
    /// assert!(!context::in_softirq());
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn disable_bottom_halves() -> BhGuard<P> {
        BhGuard::new()
    }

    /// Turns this CPU's interrupts off until the guard is dropped. See [`irq::disable`](crate::irq::disable).
    ///
    /// ```
    /// use sync::{Cpu, context};
    /// let quiet = Cpu::<hal::Native>::disable_interrupts();
    /// assert!(context::irqs_disabled());
    /// drop(quiet);
    /// assert!(!context::irqs_disabled());
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn disable_interrupts() -> IrqGuard<P> {
        IrqGuard::new()
    }
}

/// Makes what contains it neither `Send` nor `Sync`, as a raw pointer does, and takes no room.
///
/// Guards contain it: on another CPU, or seen from one, a guard would prove something about the wrong CPU.
pub(crate) struct CpuBound {
    // An array and not `PhantomData`, so that the compiler's explanation names types of this crate only.
    _pointer: [*mut (); 0],
}

impl CpuBound {
    pub(crate) const NEW: CpuBound = CpuBound { _pointer: [] };
}
