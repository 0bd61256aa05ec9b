//! Somebody else's function gives back the context as it got it, or is named.
//!
//! A timer's function that forgets to enable preemption again does no harm to itself. The harm comes later and
//! elsewhere: a CPU that never reschedules, a sleep that is refused in code that did nothing wrong. So who calls such
//! functions compares the counts before and after, names the function, and puts the counts right.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use hal::context::Counts;
use hal::platform::{Report, Severity};
use hal::{Native, Platform};

use crate::Cpu;
use crate::cpu::CpuBound;

/// The counts at one moment, to be compared with those at a later one. See [`expect_balanced`], which does both.
///
/// ```
/// use core::panic::Location;
/// use sync::context::Balance;
///
/// let balance = Balance::<hal::Native>::now();
/// // .. calls a function that it does not know ..
/// assert!(balance.check(format_args!("timer: the name of the function"), Location::caller()));
/// ```
#[must_use = "nothing is compared until `check` is called"]
pub struct Balance<P: Platform = Native> {
    counts: Counts,
    platform: PhantomData<fn() -> P>,
    _bound: CpuBound,
}

impl<P: Platform> Balance<P> {
    /// Notes the counts. Cost: one load, or two, as the platform has them.
    ///
    /// ```
    /// # use core::panic::Location;
    /// use sync::{context::Balance, preempt};
    /// let outer = preempt::disable();
    /// let balance = Balance::<hal::Native>::now(); // with one section
    /// assert!(balance.check(format_args!("f"), Location::caller()));
    /// # drop(outer);
    /// ```
    #[inline]
    pub fn now() -> Balance<P> {
        Balance { counts: P::counts(), platform: PhantomData, _bound: CpuBound::NEW }
    }

    /// Whether the counts are what they were. Changes nothing. Cost: one comparison with memory, or two, and two more if it became due
    /// meanwhile to reschedule.
    ///
    /// ```
    /// use sync::{context::Balance, preempt};
    /// let balance = Balance::<hal::Native>::now();
    /// let section = preempt::disable();
    /// assert!(!balance.is_kept());
    /// drop(section);
    /// assert!(balance.is_kept());
    /// ```
    #[inline(always)]
    pub fn is_kept(&self) -> bool {
        P::counts_are(self.counts) || kept_but_for_the_flag::<P>(self.counts)
    }

    /// Returns whether the counts are what they were. If not, reports `NAME preempt leak A -> B` (the preempt count,
    /// hexadecimal) or `NAME interrupt leak A -> B` (the interrupt depth), at the place `at`, and restores what they
    /// were.
    ///
    /// A count that is restored downwards passes over its preemption point; the next one makes up for it.
    ///
    /// Cost: as [`is_kept`](Self::is_kept).
    ///
    /// ```
    /// # use core::panic::Location;
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// use sync::{context, preempt};
    /// let reports = hal::hosted::ReportCapture::new();
    /// let balance = context::Balance::<hal::Native>::now();
    /// core::mem::forget(preempt::disable()); // what a faulty callback does
    /// assert!(!balance.check(format_args!("timer f"), Location::caller()));
    /// assert_eq!(reports.take()[0].message, "timer f preempt leak 00000000 -> 00000001");
    /// assert!(!context::in_atomic(), "put right");
    /// ```
    #[inline]
    pub fn check(self, name: fmt::Arguments<'_>, at: &'static Location<'static>) -> bool {
        let balanced = self.is_kept();
        if !balanced {
            self.restore(name, at);
        }
        balanced
    }

    #[cold]
    fn restore(self, name: fmt::Arguments<'_>, at: &'static Location<'static>) {
        let (before, after) = (self.counts.context().count(), P::context().count());
        let depth_after = P::irq_depth();
        // The counts first: the report may have to take locks.
        if after > before {
            P::preempt_sub(after - before);
        } else {
            P::preempt_add(before - after);
        }
        for _ in self.counts.irq_depth()..depth_after {
            P::irq_enable();
        }
        for _ in depth_after..self.counts.irq_depth() {
            P::irq_disable();
        }
        let report = |message: fmt::Arguments<'_>| {
            P::report(&Report { severity: Severity::Bug, message, location: at });
        };
        if after != before {
            report(format_args!("{name} preempt leak {before:08x} -> {after:08x}"));
        }
        if depth_after != self.counts.irq_depth() {
            report(format_args!("{name} interrupt leak {} -> {depth_after}", self.counts.irq_depth()));
        }
    }
}

/// It may have become due to reschedule meanwhile. By value: what is compared stays in registers.
#[inline(never)]
fn kept_but_for_the_flag<P: Platform>(counts: Counts) -> bool {
    P::context().count() == counts.context().count() && P::irq_depth() == counts.irq_depth()
}

impl<P: Platform> fmt::Debug for Balance<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("preempt_count", &format_args!("{:#x}", self.counts.context().count()))
            .field("irq_depth", &self.counts.irq_depth())
            .finish()
    }
}

impl<P: Platform> Cpu<P> {
    /// Runs `callback`; reports under `name`, and mends, counts that it did not give back. See [`expect_balanced`].
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// use sync::{Cpu, irq};
    /// let reports = hal::hosted::ReportCapture::new();
    /// let seven = Cpu::<hal::Native>::expect_balanced(format_args!("f"), || {
    ///     core::mem::forget(irq::disable());
    ///     7
    /// });
    /// assert_eq!((seven, sync::context::irqs_disabled()), (7, false));
    /// assert_eq!(reports.take()[0].message, "f interrupt leak 0 -> 1");
    /// ```
    #[inline]
    #[track_caller]
    pub fn expect_balanced<R>(name: fmt::Arguments<'_>, callback: impl FnOnce() -> R) -> R {
        let balance = Balance::<P>::now();
        let result = callback();
        balance.check(name, Location::caller());
        result
    }
}

/// Runs `callback` and checks that it gives back preemption, bottom halves and interrupts as it got them.
///
/// If it does not, `NAME preempt leak A -> B` or `NAME interrupt leak A -> B` is reported at the caller's line, and the
/// counts are put right. Linux: the checks around timer functions and softirq handlers. Cost: four loads.
///
/// ```
/// use hal::hosted::ReportCapture;
/// use sync::{context, preempt};
///
/// let reports = ReportCapture::new();
/// context::expect_balanced(format_args!("timer: tick"), || core::mem::forget(preempt::disable()));
/// assert_eq!(reports.take()[0].message, "timer: tick preempt leak 00000000 -> 00000001");
/// assert_eq!(context::preempt_count(), 0);
/// ```
#[inline]
#[track_caller]
pub fn expect_balanced<R>(name: fmt::Arguments<'_>, callback: impl FnOnce() -> R) -> R {
    Cpu::<Native>::expect_balanced(name, callback)
}
