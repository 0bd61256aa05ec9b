//! A function that is to run on a CPU, with the room that the queue needs: nothing is allocated when it is sent.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;

use hal::platform::{Report, Severity};
use hal::{Native, Platform};

use super::queue::{CallQueue, Closed, Entry};
use super::state::State;
use crate::context::Balance;

/// A function and what it takes to have a CPU call it in a hardware interrupt, without waiting for it. Owned by the caller,
/// and used any number of times.
///
/// It is *pending* from the moment that it is sent until the function begins, and a second sending meanwhile is refused
/// with [`CallError::Pending`](super::CallError::Pending): the run that is to come sees everything that the refused sender
/// did before. As soon as the function has begun, it may be sent again, by the function itself too; if that is to another
/// CPU, two of them may be inside of the function.
///
/// While it is pending its address is in a queue. So it is sent by a `&'static` reference
/// ([`Calls::queue`](super::Calls::queue)) or by a pinned one ([`Calls::queue_pinned`](super::Calls::queue_pinned)). Dropping
/// it waits until it is neither pending nor running; with interrupts off that could be for ever, and the machine stops with a
/// report.
///
/// Linux: `call_single_data_t` and `struct irq_work`, in one: this one may be sent from NMIs, to any CPU. Size: four words
/// and the function.
///
/// ```
/// use sync::call::CallData;
///
/// fn note_it() { /* in hardirq context */ }
/// static NOTE: CallData = CallData::new(note_it);
/// assert!(!NOTE.is_pending() && !NOTE.is_busy());
/// ```
#[repr(C)]
pub struct CallData<F = fn(), P: Platform = Native> {
    // The first field: its address is the descriptor's.
    entry: Entry,
    state: State,
    /// Where it was made, for reports: the type of a plain `fn()` tells nothing.
    made_at: &'static Location<'static>,
    function: F,
    platform: PhantomData<fn() -> P>,
}

macro_rules! constructors {
    ($($const:ident)?) => {
        impl<F: Fn() + Sync + 'static> CallData<F> {
            /// A descriptor of `function`, on this build's platform.
            ///
            /// The function runs in hardirq context with interrupts off: it must not sleep, and should be short.
            ///
            /// ```
            /// use sync::call::CallData;
            /// static NOTE: CallData = CallData::new(|| ());
            /// assert!(!NOTE.is_busy());
            /// ```
            #[track_caller]
            pub $($const)? fn new(function: F) -> CallData<F> {
                CallData::new_in(function)
            }
        }

        impl<F: Fn() + Sync + 'static, P: Platform> CallData<F, P> {
            /// A descriptor of `function`, on the platform `P`. See [`new`](CallData::new).
            ///
            /// ```
            /// use sync::call::CallData;
            /// let note = CallData::<_, hal::Native>::new_in(|| ());
            /// assert!(!note.is_busy());
            /// ```
            #[track_caller]
            pub $($const)? fn new_in(function: F) -> CallData<F, P> {
                CallData {
                    entry: Entry::new(run::<F, P>),
                    state: State::new(),
                    made_at: Location::caller(),
                    function,
                    platform: PhantomData,
                }
            }
        }
    };
}

#[cfg(not(loom))]
constructors!(const);
#[cfg(loom)]
constructors!();

impl<F, P: Platform> CallData<F, P> {
    /// Whether it was sent and its function has not begun. Out of date at once. Linux: `irq_work_is_pending`. Any context.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # use sync::call::{CallData, Calls};
    /// # static CALLS: Calls = Calls::new(|_| ());
    /// static NOTE: CallData = CallData::new(|| assert!(!NOTE.is_pending(), "it has begun"));
    /// CALLS.open(Native::cpu());
    /// CALLS.queue(Native::cpu(), &NOTE).unwrap();
    /// assert!(NOTE.is_pending());
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve(&sync::irq::disable())).unwrap();
    /// assert_eq!(CALLS.served(Native::cpu()), 1);
    /// ```
    #[doc(alias = "irq_work_is_pending")]
    pub fn is_pending(&self) -> bool {
        self.state.is_pending()
    }

    /// Whether it is pending or a CPU is inside of its function. If not, everything that the function did is visible. Out
    /// of date at once. Linux: `irq_work_is_busy`. Any context.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// # use sync::call::{CallData, Calls};
    /// # static CALLS: Calls = Calls::new(|_| ());
    /// static NOTE: CallData = CallData::new(|| assert!(NOTE.is_busy(), "a CPU is inside"));
    /// CALLS.open(Native::cpu());
    /// CALLS.queue(Native::cpu(), &NOTE).unwrap();
    /// hal::hosted::send_interrupt(Native::cpu(), || CALLS.serve(&sync::irq::disable())).unwrap();
    /// assert!(!NOTE.is_busy());
    /// ```
    #[doc(alias = "irq_work_is_busy")]
    pub fn is_busy(&self) -> bool {
        !self.state.is_idle()
    }

    /// The function's name, for reports: that of its type, which for a closure is the place where it was written.
    pub(super) fn name(&self) -> &'static str {
        core::any::type_name::<F>()
    }

    /// Claims it and pushes it. `Ok` says whether the CPU should be interrupted.
    ///
    /// # Safety
    /// The descriptor stays in place until it is dropped.
    pub(super) unsafe fn push(&self, queue: &CallQueue) -> Result<bool, Refusal> {
        if !self.state.claim() {
            return Err(Refusal::Pending);
        }
        P::chaos_point();
        // SAFETY: claimed by the line above; in place by the contract, and dropping waits.
        let pushed = unsafe { queue.push::<P>(NonNull::from(self).cast()) };
        pushed.map_err(|Closed| {
            self.state.unclaim();
            Refusal::Closed
        })
    }
}

/// Why a descriptor was not pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Pending,
    Closed,
}

/// What the descriptor's entry runs.
///
/// # Safety
/// `entry` is that of a `CallData<F, P>` and came out of a queue just now.
unsafe fn run<F: Fn() + Sync + 'static, P: Platform>(entry: NonNull<Entry>) {
    // SAFETY: the entry is the first field of a `repr(C)` structure, which is valid until it is dropped, and dropping waits
    // until the state says that we are through.
    let data = unsafe { entry.cast::<CallData<F, P>>().as_ref() };
    data.state.run(|| called::<P, _>(&data.function, core::any::type_name::<F>(), data.made_at));
}

/// Calls somebody's function, and finds out if it leaves the context other than it was.
pub(super) fn called<P: Platform, R>(
    function: impl FnOnce() -> R,
    name: &'static str,
    at: &'static Location<'static>,
) -> R {
    let balance = Balance::<P>::now();
    let result = function();
    if !balance.is_kept() {
        report_leak(balance, name, at);
    }
    result
}

#[cold]
#[inline(never)]
fn report_leak<P: Platform>(balance: Balance<P>, name: &'static str, at: &'static Location<'static>) {
    balance.check(format_args!("call: {name}"), at);
}

impl<F, P: Platform> Drop for CallData<F, P> {
    #[track_caller]
    fn drop(&mut self) {
        if self.state.is_idle() {
            return;
        }
        if P::irq_depth() != 0 {
            let _for_good = ForGood;
            let message = format_args!(
                "a call's descriptor is dropped while it is pending, with interrupts off: {}",
                self.name()
            );
            P::report(&Report { severity: Severity::Fatal, message, location: Location::caller() });
        }
        while !self.state.is_idle() {
            P::chaos_point();
            P::relax();
        }
    }
}

/// Keeps a fatal report from unwinding on a host: what unwinds would free memory that a queue points to. A panic on top of
/// the first ends the process.
struct ForGood;

impl Drop for ForGood {
    fn drop(&mut self) {
        panic!("a call's descriptor that is pending cannot be freed");
    }
}

impl<F, P: Platform> fmt::Debug for CallData<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallData")
            .field("function", &self.name())
            .field("made_at", &self.made_at)
            .field("is_pending", &self.is_pending())
            .field("is_busy", &self.is_busy())
            .finish()
    }
}
