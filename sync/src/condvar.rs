//! Waiting, with a mutex let go meanwhile, until somebody says that what it protects has changed.

use core::panic::Location;

use hal::{Native, Platform};

use crate::lockdep::{Level, Map, WaitType};
use crate::mutex::MutexGuard;
use crate::primitives::const_fn;
use crate::spin::SpinLock;
use crate::wait::{Limits, Request, WaitError, Waiters, Woken, itself, sleep_once, with_place};
use crate::{Irq, TaskCx};

/// Where tasks wait for a change of what a [`Mutex`](crate::Mutex) protects.
///
/// A wait may return although nobody notified; whoever waits tests its condition in a loop, or uses
/// [`wait_while`](Condvar::wait_while), which does.
///
/// Linux has none; `wait_event` with a lock retaken in the condition comes nearest.
///
/// ```
/// use sync::{Condvar, Mutex, TaskCx};
/// static QUEUE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
/// static ADDED: Condvar = Condvar::new();
///
/// # let producer = std::thread::spawn(|| {
/// # let mut cx = unsafe { TaskCx::new() };
/// QUEUE.lock(&mut cx).push(7);
/// ADDED.notify_one();
/// # });
/// # let mut cx = unsafe { TaskCx::new() };
/// let queue = QUEUE.lock(&mut cx);
/// let mut queue = ADDED.wait_while(queue, &mut cx, |queue| queue.is_empty());
/// assert_eq!(queue.pop(), Some(7));
/// # drop(queue);
/// # producer.join().unwrap();
/// ```
pub struct Condvar<P: Platform = Native> {
    map: Map,
    line: SpinLock<Waiters<P>, Irq<P>>,
}

impl<P: Platform> Condvar<P> {
    const_fn! {
        /// One on which nobody waits.
        ///
        /// ```
        /// static CHANGED: sync::Condvar = sync::Condvar::new();
        /// CHANGED.notify_one(); // nobody waits, and it is not remembered
        /// ```
        #[track_caller]
        pub fn new() -> Condvar<P> {
            Condvar {
                map: Map::named("condition variable", 0, WaitType::Sleep, Level::Task),
                line: SpinLock::new(Waiters::new()),
            }
        }
    }

    /// Unlocks the mutex, waits to be notified, and locks it again. A notification that comes after the mutex is unlocked
    /// is not missed.
    ///
    /// Contexts: task, with nothing but the mutex held.
    ///
    /// ```
    /// use sync::{Condvar, Mutex, TaskCx};
    /// static STAGE: Mutex<u32> = Mutex::new(0);
    /// static CHANGED: Condvar = Condvar::new();
    ///
    /// # let other = std::thread::spawn(|| {
    /// # let mut cx = unsafe { TaskCx::new() };
    /// *STAGE.lock(&mut cx) += 1; // another task
    /// CHANGED.notify_all();
    /// # });
    /// # let mut cx = unsafe { TaskCx::new() };
    /// let mut stage = STAGE.lock(&mut cx);
    /// while *stage == 0 {
    ///     stage = CHANGED.wait(stage, &mut cx);
    /// }
    /// assert_eq!(*stage, 1);
    /// # drop(stage);
    /// # other.join().unwrap();
    /// ```
    #[track_caller]
    pub fn wait<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T, P>,
        cx: &mut TaskCx<P>,
    ) -> MutexGuard<'a, T, P> {
        self.wait_with(Limits::NONE, guard, cx).0
    }

    /// Waits while `condition` says so of what the mutex protects.
    ///
    /// Contexts: as [`wait`](Condvar::wait).
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::{Condvar, Mutex};
    /// let (stage, changed): (Mutex<u32>, Condvar) = (Mutex::new(3), Condvar::new());
    /// let guard = stage.lock(&mut cx);
    /// // It is tested first, so that this does not wait.
    /// let guard = changed.wait_while(guard, &mut cx, |stage| *stage < 3);
    /// assert_eq!(*guard, 3);
    /// ```
    #[track_caller]
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T, P>,
        cx: &mut TaskCx<P>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T, P> {
        while condition(&mut guard) {
            guard = self.wait(guard, cx);
        }
        guard
    }

    /// Unlocks the mutex, waits to be notified or until a limit is reached, and locks it again, which no limit ends.
    ///
    /// Contexts: as [`wait`](Condvar::wait). The result is [`WaitError`] if a limit was reached first; then the task
    /// consumed no notification.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::{Condvar, Mutex, wait::{Limits, WaitError}};
    /// let (mutex, changed) = (Mutex::<u32>::new(1), Condvar::<hal::Native>::new());
    /// let guard = mutex.lock(&mut cx);
    /// let (guard, result) = changed.wait_with(Limits::NONE.until(0), guard, &mut cx);
    /// assert_eq!((*guard, result), (1, Err(WaitError::TimedOut)));
    /// ```
    #[track_caller]
    pub fn wait_with<'a, T: ?Sized>(
        &self,
        limits: Limits,
        guard: MutexGuard<'a, T, P>,
        cx: &mut TaskCx<P>,
    ) -> (MutexGuard<'a, T, P>, Result<(), WaitError>) {
        let at = Location::caller();
        let mutex = guard.mutex();
        let result = with_place(&self.line, itself, Request::SIGNAL, |place| {
            // In line before the mutex is free: who changes what it protects afterwards finds us.
            place.join(&mut self.line.lock());
            drop(guard);
            // Under what this task still holds.
            self.map.wait_for::<P>(at);
            loop {
                match sleep_once(place, limits, cx).1 {
                    Woken::Signalled => return Ok(()),
                    Woken::GaveUp(error) => return Err(error),
                    Woken::Look => (),
                }
            }
        });
        (mutex.lock(cx), result)
    }

    /// Lets the longest waiting task go on. Returns whether there was one. Contexts: any but NMI.
    ///
    /// ```
    /// assert!(!sync::Condvar::<hal::Native>::new().notify_one(), "nobody waits");
    /// ```
    #[track_caller]
    pub fn notify_one(&self) -> bool {
        self.map.bring_about::<P>(Location::caller());
        self.line.lock().signal_front()
    }

    /// Lets all that wait go on. Returns how many. Contexts: any but NMI.
    ///
    /// ```
    /// assert_eq!(sync::Condvar::<hal::Native>::new().notify_all(), 0);
    /// ```
    #[track_caller]
    pub fn notify_all(&self) -> usize {
        self.map.bring_about::<P>(Location::caller());
        self.line.lock().signal_where(|_| true)
    }
}

impl<P: Platform> Default for Condvar<P> {
    #[track_caller]
    fn default() -> Condvar<P> {
        Condvar::new()
    }
}

impl<P: Platform> core::fmt::Debug for Condvar<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
