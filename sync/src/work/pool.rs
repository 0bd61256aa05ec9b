//! Pools: items that wait, and the workers that call them.

use core::fmt;

use hal::{Native, Platform};

use super::item::Core;
use super::lane::{InPlace, Locked, Queued};
use crate::faults::{Fault, is_planted};
use crate::list::List;
use crate::lockdep::Subclass;
use crate::primitives::const_fn;
use crate::spin::SpinLock;
use crate::wait::{Limits, Request, Waiters, sleep};
use crate::{Irq, TaskCx};

/// Items that wait to be called, in order, and the worker tasks that call them.
///
/// 1. Queueing an item wakes an idle worker, unless one is on its way already: a worker that arrives and leaves more items
///    behind wakes the next.
/// 2. A worker that goes to call a function and leaves nobody idle **starts another worker first**, until there are as many
///    as the pool may have. So there is somebody for the next item even if the function sleeps.
///    Who is idle longest is called last, and a worker that finds another one idle waits for a bounded time
///    ([`with_idle_ns`](Pool::with_idle_ns)), and ends: after a crowd the pool is small again, and never without an idle
///    worker for it.
/// 3. Workers of one CPU's pool share its CPU as the scheduler sees fit: two functions that compute take turns there, and
///    do not run one after the other.
///
/// The bound is the most functions that can sleep at the same time without holding up the others, and so the longest
/// chain of items that wait for each other. If there is no memory for another worker, those that exist go on.
///
/// Linux: `struct worker_pool`, which watches its workers sleep and wake. Size: a lock and sixteen words.
///
/// ```
/// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// # static POOL: Pool = Pool::new(1);
/// # static LANE: Lane = Lane::new(&POOL, 1);
/// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
/// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
/// QUEUE.queue(&WORK);
/// assert_eq!(POOL.stats().pending, 1, "until a worker comes");
/// # assert!(POOL.reserve());
/// # POOL.stop();
/// # POOL.serve(&mut cx, &mut || false);
/// assert_eq!((POOL.stats().pending, POOL.stats().executed), (0, 1));
/// ```
pub struct Pool<P: Platform = Native> {
    pub(super) state: SpinLock<PoolState<P>, Irq<P>>,
    limit: u32,
    idle_ns: u64,
}

pub(super) struct PoolState<P: Platform> {
    pub(super) pending: List<Queued<P>, InPlace<P>>,
    idle: Waiters<P>,
    flushers: Waiters<P>,
    /// Workers that exist or are being started.
    workers: u32,
    /// One is being started.
    starting: bool,
    /// Workers that were woken and have not arrived.
    called: u32,
    /// Workers that call a function.
    pub(super) busy: u32,
    pub(super) executed: u64,
    pub(super) closed: bool,
    stopping: bool,
}

impl<P: Platform> PoolState<P> {
    /// Adds an item that workers may take.
    pub(super) fn push(&mut self, item: Queued<P>) {
        self.pending.push_back(item);
        self.call_worker();
    }

    fn call_worker(&mut self) {
        // The one that came last: its stack is still in the cache, and the others get to the end of their patience.
        if self.called == 0 && self.idle.signal_back() {
            self.called += 1;
        }
    }

    /// The line of workers that have nothing to do.
    fn idle(&mut self) -> &mut Waiters<P> {
        &mut self.idle
    }

    /// The line of those who wait for an end.
    pub(super) fn flushers(&mut self) -> &mut Waiters<P> {
        &mut self.flushers
    }

    pub(super) fn signal_flushers(&mut self) {
        if !self.flushers.is_empty() {
            self.flushers.signal_where(|_| true);
        }
    }
}

/// What a [`Pool`] is doing.
///
/// ```
/// use sync::work::{Pool, Stats};
/// static POOL: Pool = Pool::new(4);
/// POOL.reserve();
/// assert_eq!(POOL.stats(), Stats { workers: 1, ..Stats::default() });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Items that workers may take.
    pub pending: usize,
    /// Worker tasks.
    pub workers: u32,
    /// Workers that call a function.
    pub busy: u32,
    /// Calls that are over.
    pub executed: u64,
}

impl<P: Platform> Pool<P> {
    const_fn! {
        /// A pool without items and workers, which is to have at most `limit` workers.
        ///
        /// ```
        /// use sync::work::{Pool, Stats};
        /// static POOL: Pool = Pool::new(1);
        /// assert_eq!(POOL.stats(), Stats::default());
        /// assert!(POOL.reserve() && !POOL.reserve(), "one worker and no more");
        /// ```
        #[track_caller]
        pub fn new(limit: u32) -> Pool<P> {
            Pool {
                state: SpinLock::new(PoolState {
                    pending: List::new(),
                    idle: Waiters::new(),
                    flushers: Waiters::new(),
                    workers: 0,
                    starting: false,
                    called: 0,
                    busy: 0,
                    executed: 0,
                    closed: false,
                    stopping: false,
                }),
                limit,
                idle_ns: u64::MAX,
            }
        }
    }

    /// The pool with workers that end when they have had nothing to do for so many nanoseconds, as long as another one is
    /// idle too. Without this they stay.
    ///
    /// ```
    /// use sync::work::Pool;
    /// static POOL: Pool = Pool::new(8).with_idle_ns(300_000_000_000);
    /// assert!(POOL.reserve());
    /// ```
    pub const fn with_idle_ns(mut self, ns: u64) -> Pool<P> {
        self.idle_ns = ns;
        self
    }

    /// Makes room for the pool's first worker, which the caller starts: a task that calls [`serve`](Pool::serve). Returns
    /// `false` if the pool has as many as it may have.
    ///
    /// Contexts: any but NMI.
    ///
    /// ```
    /// static POOL: sync::work::Pool = sync::work::Pool::new(2);
    /// assert!(POOL.reserve() && POOL.reserve());
    /// assert!(!POOL.reserve());
    /// ```
    pub fn reserve(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.workers < self.limit && !state.stopping;
        state.workers += u32::from(room);
        room
    }

    /// What a worker does, after [`reserve`](Pool::reserve): calls the functions of items until the pool is
    /// [stopped](Pool::stop) and empty, or the worker is [not needed](Pool::with_idle_ns) any more. `start_another` starts another task that does the same, for which there is room,
    /// and returns whether it could.
    ///
    /// Linux: `worker_thread`. Contexts: task, with nothing held that forbids sleeping.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// QUEUE.queue(&WORK);
    /// assert!(POOL.reserve());
    /// POOL.stop(); // so that it returns
    /// POOL.serve(&mut cx, &mut || false);
    /// assert_eq!((POOL.stats().executed, POOL.stats().workers), (1, 0));
    /// ```
    pub fn serve(&'static self, cx: &mut TaskCx<P>, start_another: &mut dyn FnMut() -> bool) {
        let mut locked = self.lock();
        locked.state.starting = false;
        loop {
            if let Some(call) = locked.begin(cx) {
                let start = locked.provide_for_the_next(self.limit);
                drop(locked);
                if start && !start_another() {
                    self.start_failed();
                }
                // SAFETY: `begin` gave us the reference.
                unsafe { Core::call(call.reference.object, call.lane, cx) };
                P::chaos_point();
                locked = self.lock();
                if let Some(reference) = locked.finish(call) {
                    drop(locked);
                    // SAFETY: `finish` says that it is still ours.
                    unsafe { reference.let_go() };
                    locked = self.lock();
                }
                continue;
            }
            if locked.state.stopping {
                break;
            }
            // Who waits alone waits without end: somebody is to be there, and a CPU that has nothing to do is not woken.
            let limits = if locked.state.idle.is_empty() || self.idle_ns == u64::MAX {
                Limits::NONE.idle()
            } else {
                Limits::NONE.idle().until(P::now_ns().saturating_add(self.idle_ns))
            };
            let (state, called) =
                sleep(&self.state, locked.state, PoolState::idle, Request::SIGNAL, limits, cx);
            locked = Locked { pool: self, state };
            if called.is_err() {
                // Nobody has called this one, so an item that has come has another worker on its way. Those who waited
                // may all have been called since.
                if !locked.state.idle.is_empty() {
                    break;
                }
            } else if !is_planted(Fault::StayCalled) {
                locked.state.called -= 1;
            }
        }
        locked.state.workers -= 1;
    }

    /// Lets the workers end when nothing is left to be called.
    ///
    /// Contexts: any but NMI.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// static POOL: sync::work::Pool = sync::work::Pool::new(2);
    /// assert!(POOL.reserve());
    /// POOL.stop();
    /// POOL.serve(&mut cx, &mut || false); // returns
    /// assert!(!POOL.reserve(), "no more workers");
    /// ```
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        let called = state.idle.signal_where(|_| true);
        state.called += called as u32;
    }

    /// Sends items elsewhere from here on, and those that wait: each to its lane's heir; items of lanes without heir stay.
    /// What is being called goes on, and is waited for by [`drain`](Pool::drain).
    ///
    /// For a CPU that goes off-line. Contexts: any but NMI; the heirs' pools are not closed.
    ///
    /// ```
    /// use sync::work::{Lane, Pool};
    /// # use sync::work::{Running, Work, WorkQueue};
    /// static POOL: Pool = Pool::new(1);
    /// static LANE: Lane = Lane::new(&POOL, 1); // it has no heir
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// # static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// QUEUE.queue(&WORK);
    /// POOL.close();
    /// assert_eq!(POOL.stats().pending, 1, "so the item stays");
    /// # WORK.cancel();
    /// ```
    pub fn close(&'static self) {
        let mut locked = self.lock();
        locked.state.closed = true;
        loop {
            let movable = |core: &&Core<P>| {
                core.runner.get().is_none() && core.home().is_some_and(|lane| lane.heir().is_some())
            };
            let Some(core) = locked.state.pending.iter().find(movable).map(core::ptr::NonNull::from) else {
                return;
            };
            // SAFETY: pending, so valid (K3) until it is taken out under the lock.
            let core = unsafe { core.as_ref() };
            let Some((home, heir)) = core.home().and_then(|home| Some((home, home.heir()?))) else { return };
            // The lock of a pool that closes, then that of one that does not: always in this order.
            let state = heir.pool().state.lock_nested(Subclass::NESTED);
            locked.move_to(home, core, heir, &mut Locked { pool: heir.pool(), state });
        }
    }

    /// Takes items again.
    ///
    /// ```
    /// use sync::work::{Lane, Pool};
    /// # use sync::work::{Running, Work, WorkQueue};
    /// static ANY_CPU: Pool = Pool::new(1);
    /// static HEIR: Lane = Lane::new(&ANY_CPU, 1);
    /// static CPU1: Pool = Pool::new(1);
    /// let lane: &Lane = Box::leak(Box::new(Lane::new(&CPU1, 1).with_heir(&HEIR)));
    /// # let queue = WorkQueue::new("doc", Box::leak(Box::new([&HEIR, lane])));
    /// # static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// CPU1.close();
    /// CPU1.open();
    /// queue.queue_on(hal::CpuId::new(1).unwrap(), &WORK);
    /// assert_eq!((CPU1.stats().pending, ANY_CPU.stats().pending), (1, 0));
    /// # WORK.cancel();
    /// ```
    pub fn open(&self) {
        self.state.lock().closed = false;
    }

    /// Waits until nothing waits here and nothing is being called.
    ///
    /// Contexts: task, with nothing held that forbids sleeping; not a worker of this pool.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// QUEUE.queue(&WORK);
    /// # assert!(POOL.reserve());
    /// # let worker = std::thread::spawn(|| POOL.serve(&mut unsafe { sync::TaskCx::new() }, &mut || false));
    /// POOL.drain(&mut cx);
    /// assert_eq!((POOL.stats().pending, POOL.stats().busy), (0, 0));
    /// # POOL.stop();
    /// # worker.join().unwrap();
    /// ```
    #[track_caller]
    pub fn drain(&'static self, cx: &mut TaskCx<P>) {
        cx.might_sleep();
        loop {
            let locked = self.lock();
            if locked.state.busy == 0 && locked.state.pending.is_empty() {
                return;
            }
            locked.sleep(cx);
        }
    }

    /// What it is doing. Contexts: any but NMI. Cost: one lock, and a step for each item that waits.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| assert_eq!(POOL.stats().busy, 1));
    /// QUEUE.queue(&WORK);
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!((POOL.stats().executed, POOL.stats().busy), (1, 0));
    /// ```
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            pending: state.pending.count(),
            workers: state.workers,
            busy: state.busy,
            executed: state.executed,
        }
    }

    pub(super) fn lock(&'static self) -> Locked<P> {
        Locked { pool: self, state: self.state.lock() }
    }

    fn start_failed(&self) {
        let mut state = self.state.lock();
        state.starting = false;
        state.workers -= 1;
    }
}

impl<P: Platform> Locked<P> {
    /// Sees to it that somebody is there for the next item. Returns whether another worker is to be started.
    fn provide_for_the_next(&mut self, limit: u32) -> bool {
        let state = &mut *self.state;
        if !state.pending.is_empty() {
            state.call_worker();
        }
        let start = state.idle.is_empty()
            && state.called == 0
            && !state.starting
            && !state.stopping
            && state.workers < limit;
        if start {
            state.starting = true;
            state.workers += 1;
        }
        start
    }
}

impl<P: Platform> fmt::Debug for Pool<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limit", &self.limit).field("stats", &self.stats()).finish()
    }
}
