//! Who waits for whom: a domain is a set of readers and the grace periods that wait for them.
//!
//! 1. A domain is a *type* that implements [`Domain`], with one live instance behind it. Guards, pointers and retired
//!    objects carry it in their types, so that a section of one domain does not compile as the protection of another
//!    one's pointer.
//! 2. A **read section** lasts from [`read_lock`](Domain::read_lock) to the matching [`read_unlock`](Domain::read_unlock).
//!    [`ReadGuard`](crate::ReadGuard) is one as a value.
//! 3. A **grace period** that somebody waits for ends when every section that had begun before the wait did has ended. It
//!    does not wait for sections that begin later, and these see what was done before the wait.
//!
//! How grace periods are found out is the domain's own business: on host threads it is not what it is on a machine with
//! one CPU, or with many. The functions are the same.

use core::fmt;
use core::ptr::NonNull;

use hal::Platform;
use hal::platform::{Report, Severity};
use sync::TaskCx;

use crate::head::{Callback, Head};

/// A set of readers, and grace periods that wait for them.
///
/// Everything is an associated function, because there is one instance of each domain. Made by
/// [`hosted_domain!`](crate::hosted_domain); a kernel that has grace periods of its own implements it.
///
/// | Linux | here |
/// |---|---|
/// | `rcu_read_lock`, `rcu_read_unlock` | [`read`](crate::read) and the end of its guard |
/// | `call_rcu_hurry`, `call_rcu` | `call`, `call_lazy` |
/// | `synchronize_rcu`, `synchronize_rcu_expedited` | `synchronize`, `synchronize_expedited` |
/// | `rcu_barrier` | `barrier` |
/// | `get_state_synchronize_rcu`, `start_poll_synchronize_rcu` | `get_state`, `start_poll` |
/// | `poll_state_synchronize_rcu`, `cond_synchronize_rcu` | `poll`, `cond_synchronize` |
///
/// # Safety
/// Readers' references are valid because of these promises, which an implementation must keep:
/// * **The guarantee.** Take a read section and a grace period (waited for by `synchronize`, completed according to
///   `poll`, or waited for on behalf of a callback). Either everything in the section happens before what follows the
///   grace period (the return, the `true`, the callback's call), or everything before the grace period was asked for
///   (the call of `synchronize`, `call`, `get_state` or `start_poll`) happens before everything in the section.
/// * A callback is called at most once for each time that its head was queued, with the head's address.
/// * `barrier` returns after the calls of all callbacks that were queued before it began have returned.
/// * `read_lock` nests. Sections may end in any order, on the execution that began them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an RCU domain",
    label = "this type has no readers and grace periods",
    note = "make one: `rcu::hosted_domain! {{ struct {Self}; }}` for a program on host threads"
)]
pub unsafe trait Domain: Sized + 'static {
    /// The machine that its readers run on.
    type Platform: Platform;
    /// What the beginning of a section tells its end.
    type Section: Copy;
    /// The name of a moment, to be asked later whether a grace period has passed since.
    type State: Copy + Eq + fmt::Debug + Send + Sync + 'static;

    /// For reports.
    const NAME: &'static str;

    /// Begins a read section of the executing task or interrupt. Nests.
    ///
    /// Contexts: any. [`read`](crate::read) is the safe way to use it.
    fn read_lock() -> Self::Section;

    /// Ends one.
    ///
    /// # Safety
    /// `section` is what `read_lock` returned to the same execution; it has not been ended. No reference that was
    /// obtained under its protection is used any more.
    unsafe fn read_unlock(section: Self::Section);

    /// Whether the executing task is in a read section that this domain knows of: for assertions and reports. A domain
    /// whose readers leave no trace may answer by what else it sees. Linux: `rcu_read_lock_held`.
    fn is_reading() -> bool;

    /// Has `function` called with `head` after a grace period, with bottom halves off.
    ///
    /// Linux: `call_rcu_hurry`. Contexts: any but NMI, also read sections and callbacks. Does not allocate, never fails. Where
    /// the caller may sleep it may be held back while too many callbacks wait.
    ///
    /// # Safety
    /// `head` is valid and in no queue, and stays so, in place, until `function` is called. It may be called in that
    /// way, by another thread.
    #[track_caller]
    unsafe fn call(head: NonNull<Head>, function: Callback);

    /// As `call`, for callbacks that nobody waits for, such as those that only free memory: a domain may let them wait
    /// for others, or for a time. Linux: `call_rcu`.
    ///
    /// # Safety
    /// As for [`call`](Domain::call).
    #[inline(always)]
    #[track_caller]
    unsafe fn call_lazy(head: NonNull<Head>, function: Callback) {
        // SAFETY: the same contract.
        unsafe { Self::call(head, function) };
    }

    /// Waits for a grace period. A full memory barrier.
    ///
    /// Linux: `synchronize_rcu`. Contexts: task, where sleeping is allowed, outside of the domain's read sections.
    /// Otherwise the machine stops with `Illegal synchronize`: returning early could free what a reader uses, and
    /// returning late would be never.
    #[track_caller]
    fn synchronize(cx: &mut TaskCx<Self::Platform>);

    /// As `synchronize`, sooner, at a cost to others: CPUs are interrupted. Linux: `synchronize_rcu_expedited`.
    #[inline]
    #[track_caller]
    fn synchronize_expedited(cx: &mut TaskCx<Self::Platform>) {
        Self::synchronize(cx);
    }

    /// Waits until the callbacks that were queued before have been called, all over the machine.
    ///
    /// Linux: `rcu_barrier`. Contexts: as for `synchronize`.
    #[track_caller]
    fn barrier(cx: &mut TaskCx<Self::Platform>);

    /// Names this moment. When [`poll`](Domain::poll) says so a grace period has passed since. A full memory barrier.
    ///
    /// Linux: `get_state_synchronize_rcu`. Contexts: any. Starts nothing: others have to want the grace period.
    fn get_state() -> Self::State;

    /// As `get_state`, and sees to it that the grace period comes. Linux: `start_poll_synchronize_rcu`.
    /// Contexts: any but NMI.
    fn start_poll() -> Self::State;

    /// Whether a grace period has passed since `state` was named. If so, a full memory barrier.
    ///
    /// Linux: `poll_state_synchronize_rcu`. Contexts: any.
    fn poll(state: Self::State) -> bool;

    /// Waits, unless a grace period has passed since `state` was named.
    ///
    /// Linux: `cond_synchronize_rcu`. Contexts: as for `synchronize`.
    #[track_caller]
    fn cond_synchronize(state: Self::State, cx: &mut TaskCx<Self::Platform>) {
        if !Self::poll(state) {
            Self::synchronize(cx);
        }
    }
}

/// What forbids the executing task to wait for a grace period of `D`, in words; `None` if nothing does.
///
/// For those who implement a domain. Read sections are asked for first: where they are preempt-off sections, that is
/// what the user wrote.
///
/// ```
/// use rcu::domain::illegal_wait;
/// rcu::hosted_domain! { struct Routes; }
/// assert_eq!(illegal_wait::<Routes>(), None);
/// let reader = rcu::read::<Routes>();
/// assert_eq!(illegal_wait::<Routes>(), Some("in RCU read-side critical section"));
/// drop(reader);
/// let here = sync::preempt::disable();
/// assert_eq!(illegal_wait::<Routes>(), Some("with preemption off"));
/// ```
pub fn illegal_wait<D: Domain>() -> Option<&'static str> {
    if D::is_reading() {
        return Some("in RCU read-side critical section");
    }
    what_forbids_waiting::<D::Platform>()
}

/// The same, as far as the platform knows.
pub(crate) fn what_forbids_waiting<P: Platform>() -> Option<&'static str> {
    let context = P::context();
    if context.in_nmi() || context.in_hardirq() || context.in_serving_softirq() {
        Some("in an interrupt handler or softirq")
    } else if P::irq_depth() != 0 {
        Some("with interrupts off")
    } else if context.bottom_half_depth() != 0 {
        Some("with bottom halves off")
    } else if context.preempt_depth() != 0 {
        Some("with preemption off")
    } else {
        None
    }
}

/// Stops the machine if the executing task may not wait for a grace period. For those who implement a domain: the first
/// thing in `synchronize` and `barrier`, which `operation` names.
///
/// ```should_panic
/// rcu::hosted_domain! { struct Routes; }
/// let _reader = rcu::read::<Routes>();
/// rcu::domain::check_may_wait::<Routes>("synchronize"); // "Illegal synchronize in RCU read-side critical section"
/// ```
#[track_caller]
pub fn check_may_wait<D: Domain>(operation: &str) {
    stop_if::<D::Platform>(illegal_wait::<D>(), operation, D::NAME);
}

/// Stops the machine if there is a reason to.
#[track_caller]
pub(crate) fn stop_if<P: Platform>(why: Option<&'static str>, operation: &str, domain: &str) {
    if let Some(why) = why {
        P::report(&Report {
            severity: Severity::Fatal,
            message: format_args!("Illegal {operation} {why} (domain {domain})"),
            location: core::panic::Location::caller(),
        });
        // A platform whose fatal reports return would go on with a grace period that did not pass.
        panic!("Illegal {operation} {why} (domain {domain})");
    }
}
