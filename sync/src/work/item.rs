//! Items: a function, and where it is.

use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

use hal::platform::{Report, Severity, TaskId};
use hal::{Native, Platform};

use super::lane::{Lane, Locked};
use crate::TaskCx;
use crate::context::Balance;
use crate::faults::{Fault, is_planted};
use crate::list::{Link, Owner};
use crate::lockdep::{Acquire, Level, Map, WaitType};
use crate::primitives::{AtomicPtr, Cell, Ordering, const_fn};

/// Something to be done by a worker task: a function that may sleep, to be called soon after it is queued.
///
/// It is queued by [`WorkQueue::queue`](super::WorkQueue::queue), to which goes a pointer that keeps it alive: an `Arc`, a
/// `Box` (called once, then dropped) or a `&'static`. The function gets a [`Running`], with the right to sleep and the
/// means to be queued again. What it leaves switched off is reported under the item's place.
///
/// Each queueing that returns `true` is followed by one call, which begins after it and sees what the caller did before,
/// unless it is cancelled. Calls of one item never overlap.
///
/// Linux: `struct work_struct`. Size: 16 words and the function; more where the dependency checker is built in.
///
/// ```
/// # use hal::hosted;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use sync::TaskCx;
/// use sync::work::{Lane, Pool, Work, WorkQueue};
///
/// static POOL: Pool = Pool::new(1);
/// static LANE: Lane = Lane::new(&POOL, 1);
/// static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
///
/// // A worker. A kernel starts tasks for it, here it is a thread.
/// assert!(POOL.reserve());
/// let worker = std::thread::spawn(|| {
///     // SAFETY: this thread is a task, and this its only token.
///     let mut cx = unsafe { TaskCx::new() };
///     POOL.serve(&mut cx, &mut || false);
/// });
///
/// let total = Arc::new(AtomicU32::new(0));
/// let work = Arc::new(Work::new({
///     let total = Arc::clone(&total);
///     move |_| _ = total.fetch_add(1, Ordering::Relaxed)
/// }));
/// assert!(QUEUE.queue(work.clone()));
/// // SAFETY: as above.
/// let mut cx = unsafe { TaskCx::new() };
/// work.flush(&mut cx);
/// assert_eq!(total.load(Ordering::Relaxed), 1);
/// POOL.stop();
/// worker.join().unwrap();
/// ```
#[repr(C)]
pub struct Work<F, P: Platform = Native> {
    core: Core<P>,
    function: F,
}

/// What all items have, whatever their function is.
///
/// # Invariants
/// * It is the first field of a `Work<F, P>`, and `call` is `call::<F, P>`.
/// * **K1**: `lane` is the item's home. It changes under the lock of the old home's pool, while the item is in no list and
///   not called; or, from null, by an exchange.
/// * **K2**: the cells are accessed under the lock of the home's pool.
/// * **K3**: while the item is pending and not `again`, `place` is in a list of the home, and `reference` is the pointer
///   that was queued.
#[repr(C)]
pub(super) struct Core<P: Platform> {
    /// In the list of the pool, or of the lane if `held`.
    pub(super) place: Link<P>,
    /// In the lane's list of those that are called.
    pub(super) busy: Link<P>,
    lane: AtomicPtr<Lane<P>>,
    /// It is to be called.
    pub(super) pending: Cell<bool>,
    /// The lane's limit keeps it back.
    pub(super) held: Cell<bool>,
    /// The function has asked for itself: whoever calls it queues it again.
    pub(super) again: Cell<bool>,
    /// The task that calls the function.
    pub(super) runner: Cell<Option<TaskId>>,
    /// How many keep it from being queued.
    pub(super) refused: Cell<u32>,
    /// Which of the lane's two counts it is in while it is pending.
    pub(super) colour: Cell<usize>,
    /// How often it was queued, and how many of these are over.
    pub(super) queued: Cell<u64>,
    pub(super) done: Cell<u64>,
    pub(super) reference: Cell<Option<Reference<P>>>,
    call: unsafe fn(NonNull<Core<P>>, &mut Running<'_, P>),
    map: Map,
    made: &'static Location<'static>,
}

// SAFETY: the cells are accessed under a lock (K2).
unsafe impl<P: Platform> Sync for Core<P> {}

// SAFETY: sharing an item is sharing its function, which any task calls.
unsafe impl<F: Send + Sync, P: Platform> Sync for Work<F, P> {}
// SAFETY: an item that is moved is in no queue.
unsafe impl<F: Send, P: Platform> Send for Work<F, P> {}

/// A pointer to an item that was taken apart, and what puts it together to drop it.
pub(super) struct Reference<P: Platform> {
    pub(super) object: NonNull<Core<P>>,
    release: unsafe fn(NonNull<Core<P>>),
}

impl<P: Platform> Clone for Reference<P> {
    fn clone(&self) -> Reference<P> {
        *self
    }
}
impl<P: Platform> Copy for Reference<P> {}

impl<P: Platform> Reference<P> {
    /// Takes a pointer apart.
    pub(super) fn new<F, O: Owner<Object = Work<F, P>>>(owner: O) -> Reference<P> {
        Reference { object: owner.into_raw().cast(), release: release::<F, P, O> }
    }

    /// Drops the pointer. Without the lock: the item may end here, and its function with it.
    ///
    /// # Safety
    /// The reference is the caller's, who does this once.
    pub(super) unsafe fn let_go(self) {
        // SAFETY: `release` belongs to the pointer that `object` was made from.
        unsafe { (self.release)(self.object) };
    }
}

/// Drops the pointer that a reference was made from.
///
/// # Safety
/// `core` is the core of the object of such a pointer, which was taken apart and not put together since.
unsafe fn release<F, P: Platform, O: Owner<Object = Work<F, P>>>(core: NonNull<Core<P>>) {
    // SAFETY: by the contract; the core is the first field.
    drop(unsafe { O::from_raw(core.cast()) });
}

/// Calls the function of the item around `core`.
///
/// # Safety
/// `core` is the core of a `Work<F, P>`.
unsafe fn call<F: Fn(&mut Running<'_, P>), P: Platform>(
    core: NonNull<Core<P>>,
    running: &mut Running<'_, P>,
) {
    // SAFETY: by the contract; the core is the first field, so the addresses are the same.
    let work = unsafe { core.cast::<Work<F, P>>().as_ref() };
    (work.function)(running);
}

impl<F: Fn(&mut Running<'_>) + Send + Sync> Work<F> {
    const_fn! {
        /// An item that calls `function`, on this build's platform.
        ///
        /// ```
        /// # use sync::work::{Running, Work};
        /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
        /// assert!(!WORK.is_pending() && !WORK.is_running());
        /// ```
        #[track_caller]
        pub fn new(function: F) -> Work<F> {
            Work::new_in(function)
        }
    }
}

impl<F: Fn(&mut Running<'_, P>) + Send + Sync, P: Platform> Work<F, P> {
    const_fn! {
        /// An item that calls `function`, on the platform `P`.
        ///
        /// ```
        /// # use sync::work::{Running, Work};
        /// static WORK: Work<fn(&mut Running<'_>), hal::Native> = Work::new_in(|_| ());
        /// assert!(!WORK.is_pending());
        /// ```
        #[track_caller]
        pub fn new_in(function: F) -> Work<F, P> {
            let core = Core {
                place: Link::new_in(),
                busy: Link::new_in(),
                lane: AtomicPtr::new(core::ptr::null_mut()),
                pending: Cell::new(false),
                held: Cell::new(false),
                again: Cell::new(false),
                runner: Cell::new(None),
                refused: Cell::new(0),
                colour: Cell::new(0),
                queued: Cell::new(0),
                done: Cell::new(0),
                reference: Cell::new(None),
                call: call::<F, P>,
                map: Map::new(WaitType::Sleep, Level::Task),
                made: Location::caller(),
            };
            // INVARIANT: `core` is the first field, and calls this type's function.
            Work { core, function }
        }
    }
}

impl<F, P: Platform> Work<F, P> {
    /// Whether it waits to be called. Out of date at once. Linux: `work_pending`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| assert!(!WORK.is_pending(), "it has begun"));
    /// QUEUE.queue(&WORK);
    /// assert!(WORK.is_pending());
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!(POOL.stats().executed, 1);
    /// ```
    pub fn is_pending(&self) -> bool {
        self.core.look(|core| core.pending.get())
    }

    /// Whether its function is being called. Out of date at once. Linux: part of `work_busy`. Contexts: any but NMI.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| assert!(WORK.is_running()));
    /// QUEUE.queue(&WORK);
    /// assert!(!WORK.is_running());
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!((POOL.stats().executed, WORK.is_running()), (1, false));
    /// ```
    pub fn is_running(&self) -> bool {
        self.core.look(|core| core.runner.get().is_some())
    }

    /// Waits until the calls that were asked for before are over. Returns whether there was anything to wait for.
    ///
    /// From the function itself it would wait for ever: that is reported, and it returns `false` at once.
    ///
    /// Linux: `flush_work`. Contexts: task, with nothing held that forbids sleeping or that the function waits for.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// assert!(!WORK.flush(&mut cx), "nobody asked for a call");
    /// QUEUE.queue(&WORK);
    /// # assert!(POOL.reserve());
    /// # let worker = std::thread::spawn(|| POOL.serve(&mut unsafe { sync::TaskCx::new() }, &mut || false));
    /// WORK.flush(&mut cx);
    /// assert_eq!(POOL.stats().executed, 1);
    /// # POOL.stop();
    /// # worker.join().unwrap();
    /// ```
    #[track_caller]
    pub fn flush(&self, cx: &mut TaskCx<P>) -> bool {
        cx.might_sleep();
        self.core.flush(cx, Location::caller())
    }

    /// Takes it back if it waits to be called. Returns whether it did. It may be running.
    ///
    /// Linux: `cancel_work`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| unreachable!("it was taken back"));
    /// QUEUE.queue(&WORK);
    /// assert!(WORK.cancel() && !WORK.cancel());
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!(POOL.stats().executed, 0);
    /// ```
    pub fn cancel(&self) -> bool {
        self.core.cancel()
    }

    /// Takes it back if it waits to be called, keeps it from being queued meanwhile, also by its own function, and waits
    /// until its function is not being called. Returns whether it had waited. Afterwards it can be queued again.
    ///
    /// From the function itself it would wait for ever: that is reported, and it does not wait.
    ///
    /// Linux: `cancel_work_sync`. Contexts: as for [`flush`](Work::flush).
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// QUEUE.queue(&WORK);
    /// assert!(WORK.cancel_sync(&mut cx));
    /// assert!(!WORK.is_pending() && !WORK.is_running());
    /// assert!(QUEUE.queue(&WORK), "it can be queued again");
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// ```
    #[track_caller]
    pub fn cancel_sync(&self, cx: &mut TaskCx<P>) -> bool {
        cx.might_sleep();
        self.core.cancel_sync(cx, Location::caller())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
impl<F, P: Platform> Work<F, P> {
    /// What its function would get.
    pub(super) fn running<'a>(&'a self, cx: &'a mut TaskCx<P>) -> Running<'a, P> {
        Running { core: &self.core, cx }
    }
}

impl<F, P: Platform> fmt::Debug for Work<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("made", &format_args!("{}", self.core.made))
            .field("is_pending", &self.is_pending())
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}

/// The function of a [`Work`] item is being called by this task.
///
/// ```
/// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// # static POOL: Pool = Pool::new(1);
/// # static LANE: Lane = Lane::new(&POOL, 1);
/// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
/// fn twice(running: &mut Running<'_>) {
///     if POOL.stats().executed == 0 {
///         running.again();
///     }
/// }
/// static WORK: Work<fn(&mut Running<'_>)> = Work::new(twice);
/// QUEUE.queue(&WORK);
/// # assert!(POOL.reserve());
/// # POOL.stop();
/// # POOL.serve(&mut cx, &mut || false);
/// assert_eq!(POOL.stats().executed, 2);
/// ```
pub struct Running<'a, P: Platform = Native> {
    core: &'a Core<P>,
    cx: &'a mut TaskCx<P>,
}

impl<P: Platform> Running<'_, P> {
    /// The worker's right to sleep.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static LIMIT: sync::Mutex<u32> = sync::Mutex::new(1);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|running| *LIMIT.lock(running.cx()) += 1);
    /// QUEUE.queue(&WORK);
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!(*LIMIT.lock(&mut cx), 2);
    /// ```
    pub fn cx(&mut self) -> &mut TaskCx<P> {
        self.cx
    }

    /// Has the function called once more: the item is queued again, behind the others, when the function has returned.
    /// Returns `false` if it is queued already, or is being cancelled.
    ///
    /// Linux: `queue_work` from the function itself. Contexts: task. Cost: one lock.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|running| {
    ///     let first = POOL.stats().executed == 0;
    ///     assert!(!first || running.again() && !running.again());
    /// });
    /// QUEUE.queue(&WORK);
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!(POOL.stats().executed, 2);
    /// ```
    pub fn again(&self) -> bool {
        let Some((mut locked, home)) = self.core.lock_home() else { return false };
        if self.core.pending.get() || self.core.refused.get() != 0 {
            return false;
        }
        self.core.again.set(true);
        locked.count_in(home, self.core);
        true
    }
}

impl<P: Platform> fmt::Debug for Running<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("made", &format_args!("{}", self.core.made)).finish_non_exhaustive()
    }
}

impl<P: Platform> Core<P> {
    /// Locks the pool of the item's home. `None` if it was never queued.
    pub(super) fn lock_home(&self) -> Option<(Locked<P>, &'static Lane<P>)> {
        loop {
            let home = self.home()?;
            P::chaos_point();
            let locked = home.lock();
            // It may have changed while we waited. Under the lock it cannot (K1).
            if core::ptr::eq(self.lane.load(Ordering::Relaxed), home) {
                return Some((locked, home));
            }
            P::relax();
        }
    }

    /// The item's home. Under its pool's lock, or out of date at once.
    pub(super) fn home(&self) -> Option<&'static Lane<P>> {
        // SAFETY: null, or a lane, which lives for ever. Acquire: pairs with the Release in `move_home`.
        unsafe { self.lane.load(Ordering::Acquire).as_ref() }
    }

    /// Gives an idle item another home. The caller holds the lock of the old one's pool (K1).
    pub(super) fn move_home(&self, to: &'static Lane<P>) {
        // Release: pairs with the Acquire in `lock_home`.
        self.lane.store(core::ptr::from_ref(to).cast_mut(), Ordering::Release);
    }

    /// Gives an item its first home, unless somebody else does.
    pub(super) fn find_home(&self, home: &'static Lane<P>) {
        let home = core::ptr::from_ref(home).cast_mut();
        // Release: pairs with the Acquire in `lock_home`. If it fails, somebody else was first.
        let _ = self.lane.compare_exchange(core::ptr::null_mut(), home, Ordering::Release, Ordering::Relaxed);
    }

    fn look(&self, look: impl FnOnce(&Core<P>) -> bool) -> bool {
        self.lock_home().is_some_and(|_locked| look(self))
    }

    /// Calls the function, for a worker.
    ///
    /// # Safety
    /// `this` is the pointer of a reference to the item that the caller has.
    pub(super) unsafe fn call(this: NonNull<Core<P>>, lane: &Lane<P>, cx: &mut TaskCx<P>) {
        // SAFETY: the reference keeps it valid.
        let core = unsafe { this.as_ref() };
        lane.map().acquire::<P>(Acquire::TRY_WRITE, core.made);
        core.map.acquire::<P>(Acquire::TRY_WRITE, core.made);
        let balance = Balance::<P>::now();
        // SAFETY: by the type's invariant.
        unsafe { (core.call)(this, &mut Running { core, cx }) };
        balance.check(format_args!("work"), core.made);
        core.map.release::<P>(core.made);
        lane.map().release::<P>(core.made);
    }

    /// Tells the dependency checker that the end of a call is waited for. Not if it is certain that the wait would have no
    /// end: that is reported once.
    fn expect_to_wait(&self, at: &'static Location<'static>) {
        self.map.acquire::<P>(Acquire::WRITE, at);
        self.map.release::<P>(at);
    }

    /// Whether this task is the one that calls the function; reports it.
    fn is_own(&self, what: &str, cx: &TaskCx<P>, at: &'static Location<'static>) -> bool {
        let own = self.look(|core| core.runner.get() == Some(cx.task()));
        if own {
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!(
                    "work {what} from its own function (made at {}): it would wait for itself",
                    self.made
                ),
                location: at,
            });
        }
        own
    }

    fn flush(&self, cx: &mut TaskCx<P>, at: &'static Location<'static>) -> bool {
        if self.is_own("flushed", cx, at) {
            return false;
        }
        self.expect_to_wait(at);
        let (mut last, mut had_to_wait) = (None, false);
        loop {
            // Anew each time: once it was idle it may have gone elsewhere.
            let Some((locked, _)) = self.lock_home() else { return false };
            let last = *last.get_or_insert(self.queued.get());
            let is_idle = !self.pending.get() && self.runner.get().is_none();
            if is_idle || self.done.get() >= last {
                return had_to_wait;
            }
            had_to_wait = true;
            locked.sleep(cx);
        }
    }

    fn cancel(&self) -> bool {
        let Some((locked, home)) = self.lock_home() else { return false };
        locked.cancel(home, self)
    }

    fn cancel_sync(&self, cx: &mut TaskCx<P>, at: &'static Location<'static>) -> bool {
        let own = self.is_own("cancelled", cx, at);
        if !own {
            self.expect_to_wait(at);
        }
        let Some((locked, home)) = self.lock_home() else { return false };
        self.refused.set(self.refused.get() + 1);
        let was_pending = locked.cancel(home, self);
        loop {
            // It keeps its home while it is refused.
            let locked = home.lock();
            if own || self.runner.get().is_none() || is_planted(Fault::CancelAndGo) {
                self.refused.set(self.refused.get() - 1);
                return was_pending;
            }
            locked.sleep(cx);
        }
    }
}
