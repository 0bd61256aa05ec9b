//! Counting what may be used at the same time.

use core::panic::Location;

use hal::{Native, Platform};

use crate::lockdep::{Level, Map, WaitType};
use crate::primitives::const_fn;
use crate::spin::{SpinLock, SpinLockGuard};
use crate::wait::{Limits, Request, WaitError, Waiters, sleep};
use crate::{Irq, TaskCx};

/// A number of permits: `down` takes one, waiting until there is one, `up` gives one back, from any context and by
/// anybody.
///
/// Nobody owns a permit; where the same task gives back what it took use a [`Mutex`](crate::Mutex), which knows its owner
/// and whose guard gives back by itself. Waiters get permits in order of arrival: one that is given back while somebody
/// waits goes to the first, whoever else comes by.
///
/// Linux: `struct semaphore`. Size: a lock and five words.
///
/// ```
/// use sync::{Semaphore, TaskCx};
/// let slots: Semaphore = Semaphore::new(2);
/// // SAFETY: this thread is a task, and this its only token.
/// let mut cx = unsafe { TaskCx::new() };
/// slots.down(&mut cx);
/// slots.down(&mut cx);
/// assert!(!slots.try_down());
/// slots.up();
/// assert!(slots.try_down());
/// ```
pub struct Semaphore<P: Platform = Native> {
    map: Map,
    state: SpinLock<State<P>, Irq<P>>,
}

struct State<P: Platform> {
    /// Greater than 0 only while nobody is in line.
    permits: u32,
    waiters: Waiters<P>,
}

impl<P: Platform> Semaphore<P> {
    const_fn! {
        /// A semaphore with `permits` permits to take.
        ///
        /// ```
        /// let slots: sync::Semaphore = sync::Semaphore::new(1);
        /// assert!(slots.try_down() && !slots.try_down());
        /// ```
        #[track_caller]
        pub fn new(permits: u32) -> Semaphore<P> {
            Semaphore {
                map: Map::named("semaphore", 0, WaitType::Sleep, Level::Task),
                state: SpinLock::new(State { permits, waiters: Waiters::new() }),
            }
        }
    }

    /// Takes a permit, waiting until there is one.
    ///
    /// Linux: `down`. Contexts: task, with nothing held that forbids sleeping. Cost without waiting: one lock.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let slots: sync::Semaphore = sync::Semaphore::new(1);
    /// slots.down(&mut cx);
    /// assert_eq!(slots.permits(), 0);
    /// slots.up();
    /// ```
    #[inline]
    #[track_caller]
    pub fn down(&self, cx: &mut TaskCx<P>) {
        let result = self.down_with(Limits::NONE, cx);
        debug_assert!(result.is_ok(), "there is no limit to end the wait");
    }

    /// Takes a permit, waiting until there is one or a limit is reached.
    ///
    /// Linux: `down_timeout`, `down_interruptible`. Contexts: as [`down`](Semaphore::down).
    ///
    /// # Errors
    /// [`WaitError`] if a limit was reached first; no permit was taken then.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::wait::{Limits, WaitError};
    /// let slots: sync::Semaphore = sync::Semaphore::new(0);
    /// assert_eq!(slots.down_with(Limits::NONE.until(0), &mut cx), Err(WaitError::TimedOut));
    /// ```
    #[inline]
    #[track_caller]
    pub fn down_with(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), WaitError> {
        cx.might_sleep();
        self.map.wait_for::<P>(Location::caller());
        let mut state = self.state.lock();
        if state.permits > 0 {
            state.permits -= 1;
            return Ok(());
        }
        self.down_slow(state, limits, cx)
    }

    #[cold]
    fn down_slow(
        &self,
        state: SpinLockGuard<'_, State<P>, Irq<P>>,
        limits: Limits,
        cx: &mut TaskCx<P>,
    ) -> Result<(), WaitError> {
        sleep(&self.state, state, |state| &mut state.waiters, Request::SIGNAL, limits, cx).1
    }

    /// Takes a permit if there is one. Linux: `down_trylock`, whose result is the other way round. Contexts: any but NMI.
    ///
    /// ```
    /// let slots: sync::Semaphore = sync::Semaphore::new(1);
    /// assert!(slots.try_down() && !slots.try_down());
    /// ```
    #[track_caller]
    pub fn try_down(&self) -> bool {
        let mut state = self.state.lock();
        let taken = state.permits > 0;
        state.permits -= u32::from(taken);
        taken
    }

    /// Gives a permit back, or one more than there were. Linux: `up`. Contexts: any but NMI.
    ///
    /// # Panics
    /// If there would be more than `u32::MAX` permits.
    ///
    /// ```
    /// let slots: sync::Semaphore = sync::Semaphore::new(0);
    /// slots.up(); // also by somebody who has taken none
    /// assert!(slots.try_down());
    /// ```
    #[inline]
    #[track_caller]
    pub fn up(&self) {
        self.map.bring_about::<P>(Location::caller());
        let mut state = self.state.lock();
        if !state.waiters.signal_front() {
            state.permits = state.permits.checked_add(1).expect("a semaphore has at most u32::MAX permits");
        }
    }

    /// How many permits there are to take; out of date at once. Contexts: any but NMI.
    ///
    /// ```
    /// assert_eq!(sync::Semaphore::<hal::Native>::new(3).permits(), 3);
    /// ```
    #[track_caller]
    pub fn permits(&self) -> u32 {
        self.state.lock().permits
    }
}

impl<P: Platform> core::fmt::Debug for Semaphore<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Semaphore").field("permits", &self.permits()).finish()
    }
}
