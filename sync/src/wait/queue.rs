//! Waiting for a condition that others make true.

use core::panic::Location;

use hal::{Native, Platform};

use super::waiters::{Place, Request, Waiters, Woken, itself, sleep_once, with_place};
use super::{Limits, WaitError};
use crate::faults::{Fault, is_planted};
use crate::lockdep::{Level, Map, WaitType};
use crate::primitives::const_fn;
use crate::spin::SpinLock;
use crate::{Irq, TaskCx};

/// Waiters of this kind are woken together.
const SHARED: u8 = 0;
/// Waiters of this kind are woken one at a time.
const EXCLUSIVE: u8 = 1;

/// A line of tasks that wait until a condition holds, which is theirs to test and others' to make true.
///
/// Whoever may have made it true calls [`wake_one`](WaitQueue::wake_one) or [`wake_all`](WaitQueue::wake_all)
/// *afterwards*. The condition is tested by the waiting task only, without any lock: what it looks at is atomic or takes
/// a lock of its own.
///
/// Linux: `wait_queue_head_t`, `wait_event`. Size: a lock and four words.
///
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use sync::{TaskCx, wait::WaitQueue};
///
/// static ITEMS: AtomicU32 = AtomicU32::new(0);
/// static MORE: WaitQueue = WaitQueue::new();
///
/// let consumer = std::thread::spawn(|| {
///     // SAFETY: this thread is a task, and this its only token.
///     let mut cx = unsafe { TaskCx::new() };
///     MORE.wait(&mut cx, || ITEMS.load(Ordering::Acquire) > 0);
/// });
/// ITEMS.store(1, Ordering::Release);
/// MORE.wake_one();
/// consumer.join().unwrap();
/// ```
pub struct WaitQueue<P: Platform = Native> {
    map: Map,
    waiters: SpinLock<Waiters<P>, Irq<P>>,
}

impl<P: Platform> WaitQueue<P> {
    const_fn! {
        /// A queue in which nobody waits.
        ///
        /// ```
        /// # let mut cx = unsafe { sync::TaskCx::new() };
        /// static QUEUE: sync::wait::WaitQueue = sync::wait::WaitQueue::new();
        /// assert_eq!(QUEUE.wake_all(), 0);
        /// QUEUE.wait(&mut cx, || true); // returns at once
        /// ```
        #[track_caller]
        pub fn new() -> WaitQueue<P> {
            WaitQueue {
                map: Map::named("wait queue", 0, WaitType::Sleep, Level::Task),
                waiters: SpinLock::new(Waiters::new()),
            }
        }
    }

    /// Blocks until `condition` holds. Whoever waits like this is woken by every wake-up.
    ///
    /// Linux: `wait_event`. Contexts: task, with nothing held that forbids sleeping.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let queue: sync::wait::WaitQueue = sync::wait::WaitQueue::new();
    /// queue.wait(&mut cx, || true); // nothing to wait for
    /// ```
    #[track_caller]
    pub fn wait(&self, cx: &mut TaskCx<P>, condition: impl FnMut() -> bool) {
        let result = self.wait_as(SHARED, Limits::NONE, cx, condition);
        debug_assert!(result.is_ok(), "there is no limit to end the wait");
    }

    /// Blocks until `condition` holds or a limit is reached.
    ///
    /// Linux: `wait_event_timeout`, `wait_event_interruptible`. Contexts: as [`wait`](WaitQueue::wait).
    ///
    /// # Errors
    /// [`WaitError`] if the condition still did not hold when a limit was reached.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::wait::{Limits, WaitError, WaitQueue};
    /// let queue: WaitQueue = WaitQueue::new();
    /// assert_eq!(queue.wait_with(Limits::NONE.until(0), &mut cx, || false), Err(WaitError::TimedOut));
    /// ```
    #[track_caller]
    pub fn wait_with(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        self.wait_as(SHARED, limits, cx, condition)
    }

    /// The same for tasks of which one is enough for each wake-up, such as those that take work from a queue: a wake-up
    /// goes to one of them. If it reaches one that has found its condition true without it, it goes on to the next.
    ///
    /// Linux: `wait_event_exclusive`. Contexts and errors: as [`wait_with`](WaitQueue::wait_with).
    ///
    /// # Errors
    /// [`WaitError`] if the condition still did not hold when a limit was reached.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use core::cell::Cell;
    /// use sync::wait::{Limits, WaitQueue};
    /// let (queue, items): (WaitQueue, _) = (WaitQueue::new(), Cell::new(1));
    /// // The condition takes what it was waiting for.
    /// let take = || items.get() > 0 && { items.set(items.get() - 1); true };
    /// assert_eq!(queue.wait_exclusive(Limits::NONE, &mut cx, take), Ok(()));
    /// assert_eq!(items.get(), 0);
    /// ```
    #[track_caller]
    pub fn wait_exclusive(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        self.wait_as(EXCLUSIVE, limits, cx, condition)
    }

    #[track_caller]
    fn wait_as(
        &self,
        kind: u8,
        limits: Limits,
        cx: &mut TaskCx<P>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        cx.might_sleep();
        self.map.wait_for::<P>(Location::caller());
        if condition() {
            return Ok(());
        }
        with_place(&self.waiters, itself, Request::of_kind(kind), |place| {
            loop {
                // In line before the test. Whoever makes the condition true takes the lock afterwards, to wake: if that
                // is before we join, its unlocking and our locking carry the news to the test; if later, it finds us.
                let joins_late = is_planted(Fault::TestBeforeJoining);
                if !joins_late {
                    place.join(&mut self.waiters.lock());
                }
                if condition() {
                    self.finish(place, kind);
                    return Ok(());
                }
                if joins_late {
                    place.join(&mut self.waiters.lock());
                }
                let (guard, woken) = sleep_once(place, limits, cx);
                drop(guard);
                match woken {
                    // Tested before joining again: in line we could be given a second wake-up, which is another's.
                    Woken::Signalled if condition() => return Ok(()),
                    Woken::GaveUp(_) if condition() => return Ok(()),
                    Woken::GaveUp(error) => return Err(error),
                    Woken::Signalled | Woken::Look => (),
                }
            }
        })
    }

    /// Leaves the line of a task that had no need to sleep. If it was signalled meanwhile, the wake-up was perhaps the
    /// only one for another task: it goes on to the next. One too many does no harm.
    fn finish(&self, place: &Place<'_, Waiters<P>, Irq<P>>, kind: u8) {
        let mut waiters = self.waiters.lock();
        let was_signalled = !place.leave(&mut waiters) && place.is_signalled(&mut waiters);
        if kind == EXCLUSIVE && was_signalled {
            waiters.wake(1);
        }
    }

    /// Wakes every task that waits without exclusiveness, and the first of those that wait exclusively. Returns how many
    /// were woken.
    ///
    /// Linux: `wake_up`. Contexts: any but NMI.
    ///
    /// ```
    /// assert_eq!(sync::wait::WaitQueue::<hal::Native>::new().wake_one(), 0, "nobody waits");
    /// ```
    #[inline]
    #[track_caller]
    pub fn wake_one(&self) -> usize {
        self.wake(1)
    }

    /// Wakes every task that waits without exclusiveness, and the first `exclusive` of the others. Returns how many were
    /// woken.
    ///
    /// Linux: `wake_up_nr`. Contexts: any but NMI.
    ///
    /// ```
    /// assert_eq!(sync::wait::WaitQueue::<hal::Native>::new().wake(2), 0, "nobody waits");
    /// ```
    #[inline]
    #[track_caller]
    pub fn wake(&self, exclusive: usize) -> usize {
        self.map.bring_about::<P>(Location::caller());
        self.waiters.lock().wake(exclusive)
    }

    /// Wakes every task in line. Returns how many.
    ///
    /// Linux: `wake_up_all`. Contexts: any but NMI.
    ///
    /// ```
    /// assert_eq!(sync::wait::WaitQueue::<hal::Native>::new().wake_all(), 0, "nobody waits");
    /// ```
    #[track_caller]
    pub fn wake_all(&self) -> usize {
        self.wake(usize::MAX)
    }

    /// Whether anybody waits, to skip the wake-up where that is rare. It includes the full barrier without which the
    /// answer would be worthless: what the caller did before is visible to a waiter that this does not see.
    ///
    /// Linux: `wq_has_sleeper`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// assert!(!sync::wait::WaitQueue::<hal::Native>::new().has_waiters());
    /// ```
    pub fn has_waiters(&self) -> bool {
        // Taking the lock is the barrier: a waiter that joins later sees what was done before the lock was free again.
        !self.waiters.lock().is_empty()
    }
}

impl<P: Platform> Waiters<P> {
    /// Wakes the shared ones, and `exclusive` of the exclusive ones, in order.
    fn wake(&mut self, mut exclusive: usize) -> usize {
        self.signal_where(|kind| {
            if kind == SHARED {
                return true;
            }
            let chosen = exclusive > 0;
            exclusive -= usize::from(chosen);
            chosen
        })
    }
}

impl<P: Platform> Default for WaitQueue<P> {
    #[track_caller]
    fn default() -> WaitQueue<P> {
        WaitQueue::new()
    }
}

impl<P: Platform> core::fmt::Debug for WaitQueue<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WaitQueue").field("waited_for", &self.has_waiters()).finish()
    }
}
