//! Telling a task that something has happened.

use core::panic::Location;

use hal::{Native, Platform};

use crate::faults::{Fault, is_planted};
use crate::lockdep::{Level, Map, WaitType};
use crate::primitives::const_fn;
use crate::spin::{SpinLock, SpinLockGuard};
use crate::wait::{Limits, Request, WaitError, Waiters, sleep};
use crate::{Irq, TaskCx};

/// An event that one side completes and the other waits for. Completing it before anybody waits is remembered.
///
/// This is what to use where one wishes for a lock that another task releases: the waiting task waits for the event, and
/// each lock stays with the task that took it.
///
/// The waiting side may free the completion as soon as its wait returns: [`complete`](Completion::complete) has by then
/// touched it for the last time. So it may live on the waiting task's stack.
///
/// The dependency checker knows of it: waiting under a lock that somebody needs in order to complete is reported as a
/// circle when both have been seen, at whatever time, if the completing side holds the lock when it completes.
///
/// Linux: `struct completion`. Size: a lock and five words.
///
/// ```
/// use std::sync::Arc;
/// use sync::{Completion, TaskCx};
///
/// let ready = Arc::new(Completion::new());
/// let worker = std::thread::spawn({
///     let ready = Arc::clone(&ready);
///     move || ready.complete()
/// });
/// // SAFETY: this thread is a task, and this its only token.
/// let mut cx = unsafe { TaskCx::new() };
/// ready.wait(&mut cx);
/// worker.join().unwrap();
/// ```
pub struct Completion<P: Platform = Native> {
    map: Map,
    state: SpinLock<State<P>, Irq<P>>,
}

struct State<P: Platform> {
    /// Completions that no wait has consumed; `ALL` if every wait succeeds.
    done: u32,
    waiters: Waiters<P>,
}

/// [`Completion::complete_all`] was called.
const ALL: u32 = u32::MAX;

impl<P: Platform> State<P> {
    fn try_consume(&mut self) -> bool {
        if self.done == 0 {
            return false;
        }
        if self.done != ALL {
            self.done -= 1;
        }
        true
    }
}

impl<P: Platform> Completion<P> {
    const_fn! {
        /// An event that has not happened.
        ///
        /// ```
        /// static READY: sync::Completion = sync::Completion::new();
        /// assert!(!READY.is_done());
        /// ```
        #[track_caller]
        pub fn new() -> Completion<P> {
            Completion {
                map: Map::named("completion", 0, WaitType::Sleep, Level::Task),
                state: SpinLock::new(State { done: 0, waiters: Waiters::new() }),
            }
        }
    }

    /// Lets one wait return: the longest waiting one, or the next that comes.
    ///
    /// Linux: `complete`. Contexts: any but NMI. Cost: one lock, and a wake-up if somebody waits. What the caller did
    /// before is visible to whoever it lets return.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let done: sync::Completion = sync::Completion::new();
    /// done.complete();
    /// done.complete();
    /// done.wait(&mut cx);
    /// done.wait(&mut cx);
    /// assert!(!done.is_done(), "each let one wait return");
    /// ```
    #[inline]
    #[track_caller]
    pub fn complete(&self) {
        self.map.bring_about::<P>(Location::caller());
        let mut state = self.state.lock();
        if is_planted(Fault::SignalWithoutLock) {
            let waiter = state.waiters.take_front();
            state.done += u32::from(waiter.is_none());
            drop(state);
            return waiter.into_iter().for_each(|waiter| waiter.signal());
        }
        if state.done != ALL && !state.waiters.signal_front() {
            // It sticks below `ALL`, which nobody reaches by waiting.
            state.done = (state.done + 1).min(ALL - 1);
        }
    }

    /// Lets every wait return, those to come included, until [`reset`](Completion::reset).
    ///
    /// Linux: `complete_all`. Contexts: any but NMI. Cost: one lock and a wake-up for each task that waits.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let done: sync::Completion = sync::Completion::new();
    /// done.complete_all();
    /// done.wait(&mut cx);
    /// done.wait(&mut cx);
    /// assert!(done.is_done());
    /// ```
    #[track_caller]
    pub fn complete_all(&self) {
        self.map.bring_about::<P>(Location::caller());
        let mut state = self.state.lock();
        state.done = ALL;
        state.waiters.signal_where(|_| true);
    }

    /// Waits until the event has been completed, and consumes one completion.
    ///
    /// Linux: `wait_for_completion`. Contexts: task, with nothing held that forbids sleeping.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let done: sync::Completion = sync::Completion::new();
    /// done.complete();
    /// done.wait(&mut cx); // at once
    /// assert!(!done.try_wait());
    /// ```
    #[inline]
    #[track_caller]
    pub fn wait(&self, cx: &mut TaskCx<P>) {
        let result = self.wait_with(Limits::NONE, cx);
        debug_assert!(result.is_ok(), "there is no limit to end the wait");
    }

    /// Waits likewise, or until a limit is reached.
    ///
    /// Linux: `wait_for_completion_timeout`, `wait_for_completion_interruptible`. Contexts: as
    /// [`wait`](Completion::wait).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first; nothing was consumed then.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let done: sync::Completion = sync::Completion::new();
    /// use sync::wait::{Limits, WaitError};
    /// assert_eq!(done.wait_with(Limits::NONE.until(0), &mut cx), Err(WaitError::TimedOut));
    /// done.complete();
    /// assert_eq!(done.wait_with(Limits::NONE.until(0), &mut cx), Ok(()));
    /// ```
    #[inline]
    #[track_caller]
    pub fn wait_with(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), WaitError> {
        cx.might_sleep();
        self.map.wait_for::<P>(Location::caller());
        let mut state = self.state.lock();
        if state.try_consume() {
            return Ok(());
        }
        self.wait_slow(state, limits, cx)
    }

    #[cold]
    fn wait_slow(
        &self,
        state: SpinLockGuard<'_, State<P>, Irq<P>>,
        limits: Limits,
        cx: &mut TaskCx<P>,
    ) -> Result<(), WaitError> {
        sleep(&self.state, state, |state| &mut state.waiters, Request::SIGNAL, limits, cx).1
    }

    /// Consumes one completion if there is one. Linux: `try_wait_for_completion`. Contexts: any but NMI.
    ///
    /// ```
    /// let done: sync::Completion = sync::Completion::new();
    /// done.complete();
    /// assert!(done.try_wait() && !done.try_wait());
    /// ```
    #[track_caller]
    pub fn try_wait(&self) -> bool {
        self.state.lock().try_consume()
    }

    /// Whether a wait would return at once. Linux: `completion_done`. Contexts: any but NMI.
    ///
    /// ```
    /// let done: sync::Completion = sync::Completion::new();
    /// assert!(!done.is_done());
    /// done.complete();
    /// assert!(done.is_done());
    /// ```
    #[track_caller]
    pub fn is_done(&self) -> bool {
        self.state.lock().done > 0
    }

    /// Forgets all completions that were not consumed. Linux: `reinit_completion`. Contexts: any but NMI.
    ///
    /// ```
    /// let done: sync::Completion = sync::Completion::new();
    /// done.complete_all();
    /// done.reset();
    /// assert!(!done.is_done());
    /// ```
    #[track_caller]
    pub fn reset(&self) {
        self.state.lock().done = 0;
    }
}

impl<P: Platform> Default for Completion<P> {
    #[track_caller]
    fn default() -> Completion<P> {
        Completion::new()
    }
}

impl<P: Platform> core::fmt::Debug for Completion<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Completion").field("is_done", &self.is_done()).finish()
    }
}
