//! In what context code runs, asked at run time; and the entries and exits that make it so.
//!
//! 1. A CPU is in a task, or in something that interrupted one: a softirq, a hardirq, an NMI, each able to interrupt
//!    those before it. The preempt word ([`hal::context`]) counts each of them, and the sections without preemption and
//!    without bottom halves as well.
//! 2. Where a guard can be asked for, ask for the guard: it proves, and costs nothing. The questions here are for code
//!    that cannot know its callers: assertions, statistics, and functions that may sleep ([`might_sleep`]).
//! 3. A kernel's trap entry says what it enters: [`enter_hardirq`], [`enter_softirq`], [`enter_nmi`].
//! 4. Who calls somebody else's function (a timer's, a softirq's) and needs the counts back as they were calls it
//!    through [`expect_balanced`].
//!
//! The free functions are [`Native`]'s; other platforms have the same ones at [`Cpu`]. All may be called in every
//! context unless they say otherwise.

mod balance;
mod entry;
mod state;

use hal::platform::{Report, ReschedPoint, Severity};
use hal::{Native, Platform};

pub use balance::{Balance, expect_balanced};
pub use entry::{HardirqGuard, NmiGuard, SoftirqGuard, enter_hardirq, enter_nmi, enter_softirq};
pub(crate) use state::{HeldLocks, State};

use crate::{Cpu, PreemptGuard, preempt};

/// Writes each function twice: for `Cpu<P>`, and as a free one for `Native`.
macro_rules! functions {
    ($($(#[$meta:meta])* fn $name:ident() -> $Ret:ty { $($body:tt)* })*) => {
        impl<P: Platform> Cpu<P> {$(
            $(#[$meta])*
            #[inline]
            pub fn $name() -> $Ret { $($body)* }
        )*}
        $(
            $(#[$meta])*
            #[inline]
            pub fn $name() -> $Ret { Cpu::<Native>::$name() }
        )*
    };
}

functions! {
    /// What forbids preemption, as the counts of the preempt word: preempt depth in bits 0-7, softirq in 8-15, hardirq
    /// in 16-19, NMI in 20-23. 0 means that only the interrupt flag could. Linux: `preempt_count()`. Cost: one load.
    ///
    /// ```
    /// use hal::context::{PREEMPT_UNIT, SOFTIRQ_DISABLE_UNIT};
    /// use sync::{bh, context::preempt_count, preempt};
    ///
    /// let (_here, _no_softirqs) = (preempt::disable(), bh::disable());
    /// assert_eq!(preempt_count(), PREEMPT_UNIT + SOFTIRQ_DISABLE_UNIT);
    /// ```
    fn preempt_count() -> u32 {
        P::context().count()
    }

    /// The running task can be replaced at this very point: nothing forbids it and interrupts are on.
    /// Linux: `preemptible()`. Cost: two loads.
    ///
    /// ```
    /// use sync::{context::preemptible, irq};
    ///
    /// assert!(preemptible());
    /// let _quiet = irq::disable();
    /// assert!(!preemptible());
    /// ```
    fn preemptible() -> bool {
        P::context().count() == 0 && P::irq_depth() == 0
    }

    /// A task runs, and no interrupt of any kind is being served. It may have preemption, bottom halves or interrupts
    /// off. Linux: `in_task()`. Cost: one load.
    ///
    /// ```
    /// use sync::{bh, context, irq};
    /// let _quiet = irq::disable();
    /// assert!(context::in_task(), "with interrupts off too");
    /// ```
    fn in_task() -> bool {
        P::context().in_task()
    }

    /// No softirq can begin here: one is being served, or bottom halves are disabled. Linux: `in_softirq()`.
    /// Cost: one load.
    ///
    /// ```
    /// use sync::{bh, context::{in_serving_softirq, in_softirq, in_task}};
    ///
    /// let _no_softirqs = bh::disable();
    /// assert!(in_softirq() && !in_serving_softirq() && in_task());
    /// ```
    fn in_softirq() -> bool {
        P::context().in_softirq()
    }

    /// A softirq is being served. Linux: `in_serving_softirq()`. Cost: one load.
    ///
    /// ```
    /// use sync::{bh, context, irq};
    /// let _no_softirqs = bh::disable();
    /// assert!(!context::in_serving_softirq(), "kept off, and not served");
    /// ```
    fn in_serving_softirq() -> bool {
        P::context().in_serving_softirq()
    }

    /// A hardware interrupt is being served. Linux: `in_hardirq()`. Cost: one load.
    ///
    /// ```
    /// use sync::{bh, context, irq};
    /// let _quiet = irq::disable();
    /// assert!(!context::in_hardirq(), "none is served");
    /// ```
    fn in_hardirq() -> bool {
        P::context().in_hardirq()
    }

    /// An NMI is being served. Linux: `in_nmi()`. Cost: one load.
    ///
    /// ```
    /// assert!(!sync::context::in_nmi());
    /// ```
    fn in_nmi() -> bool {
        P::context().in_nmi()
    }

    /// Something other than the interrupt flag forbids preemption. Linux: `in_atomic()`; unlike there it is always
    /// exact, because the count is kept in every build. Cost: one load.
    ///
    /// ```
    /// use sync::{bh, context, irq};
    /// let quiet = irq::disable();
    /// assert!(!context::in_atomic(), "the flag is not in the count");
    /// drop(quiet);
    /// let _no_softirqs = bh::disable();
    /// assert!(context::in_atomic());
    /// ```
    fn in_atomic() -> bool {
        P::context().in_atomic()
    }

    /// Interrupts are off on this CPU, or one is being served. Linux: `irqs_disabled()`. Cost: one load.
    ///
    /// ```
    /// use sync::{bh, context, irq};
    /// let quiet = irq::disable();
    /// assert!(context::irqs_disabled());
    /// drop(quiet);
    /// assert!(!context::irqs_disabled());
    /// ```
    fn irqs_disabled() -> bool {
        P::irq_depth() != 0
    }

    /// A preemption point: lets another task run if a reschedule is due and nothing forbids it.
    /// Linux: `preempt_check_resched()`. Cost: one load and one branch when none is due.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// use hal::{Native, Platform};
    /// Native::set_need_resched(Native::cpu());
    /// sync::context::check_resched();
    /// assert!(!Native::context().resched_due());
    /// ```
    fn check_resched() -> () {
        P::check_resched();
    }

    /// Says that the caller may sleep in what follows, and reports if it must not.
    ///
    /// Every sleeping function calls it first, also where it then finds that it need not wait: the mistake is so found
    /// by the first call and not by the first that has to wait.
    ///
    /// Linux: `might_sleep()`; unlike there it is on in all builds. Contexts: task, with preemption, bottom halves and
    /// interrupts on. In others it reports `BUG: sleeping function called from invalid context at FILE:LINE` with the
    /// caller's line, the task, the CPU, the counts and, with the dependency checker, the locks that the task holds, and
    /// returns. The platform adds a backtrace if it can. Cost: two loads.
    ///
    /// ```
    /// sync::context::might_sleep(); // nothing is switched off: nothing is said
    /// ```
    #[track_caller]
    fn might_sleep() -> () {
        if !Cpu::<P>::undisturbed() {
            might_sleep_slow::<P>(ReschedPoint::MaySleep);
        }
    }

    /// Lets another task run if one should; for long computations of tasks. Returns whether one should have.
    ///
    /// Linux: `cond_resched()`. Contexts and report: as for [`might_sleep`], because another task
    /// may run. Cost: two loads when no reschedule is due.
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// use sync::context::cond_resched;
    ///
    /// # let _cpu = hal::hosted::bind();
    /// assert!(!cond_resched());
    /// Native::set_need_resched(Native::cpu());
    /// assert!(cond_resched() && !cond_resched());
    /// ```
    #[track_caller]
    fn cond_resched() -> bool {
        !Cpu::<P>::undisturbed() && might_sleep_slow::<P>(ReschedPoint::Asked)
    }
}

impl<P: Platform> Cpu<P> {
    /// The task can be replaced here, and nobody asks for that: there is nothing for [`might_sleep`] to do.
    #[inline(always)]
    fn undisturbed() -> bool {
        P::context().is_clear() && P::irq_depth() == 0
    }
}

/// Reports if sleeping is forbidden here, or else reschedules if that is due. Returns whether it was.
#[cold]
#[track_caller]
fn might_sleep_slow<P: Platform>(point: ReschedPoint) -> bool {
    if !Cpu::<P>::preemptible() {
        sleeping_in_atomic::<P>();
        return false;
    }
    let due = P::context().resched_due();
    if due {
        P::voluntary_resched(point);
    }
    due
}

/// [`preempt::disable`] by Linux's name, for the use that it names: `get_cpu().cpu()` is the CPU that the caller is on
/// and stays on.
///
/// ```
/// use sync::context::{get_cpu, put_cpu};
///
/// let here = get_cpu();
/// assert!(here.cpu().index() < hal::MAX_CPUS);
/// put_cpu(here);
/// ```
#[inline]
#[track_caller]
pub fn get_cpu() -> PreemptGuard {
    preempt::disable()
}

/// Drops the guard: a preemption point if it is the outermost one. Linux: `put_cpu()`.
///
/// ```
/// use sync::context::{get_cpu, in_atomic, put_cpu};
/// let here = get_cpu();
/// assert!(in_atomic());
/// put_cpu(here);
/// assert!(!in_atomic());
/// ```
#[inline]
pub fn put_cpu<P: Platform>(guard: PreemptGuard<P>) {
    drop(guard);
}

/// [`PreemptGuard::enable_no_resched`] by Linux's name: drops the guard without the preemption point.
///
/// ```
/// use sync::{context::preempt_enable_no_resched, preempt};
///
/// let here = preempt::disable();
/// preempt_enable_no_resched(here);
/// ```
#[inline]
pub fn preempt_enable_no_resched<P: Platform>(guard: PreemptGuard<P>) {
    guard.enable_no_resched();
}

/// The report of [`might_sleep`]. In a function of its own, to keep it out of the way of those who may.
#[cold]
#[track_caller]
fn sleeping_in_atomic<P: Platform>() {
    P::report(&Report {
        severity: Severity::Bug,
        message: format_args!(
            "sleeping function called from invalid context\n  {}{}",
            State::<P>::now(),
            HeldLocks::<P>::now()
        ),
        location: core::panic::Location::caller(),
    });
}
