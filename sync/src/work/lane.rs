//! Lanes: the way of a queue's items into a pool, and what is true of an item under the pool's lock.
//!
//! An item is *pending* from the moment it is queued until a worker takes it: it is in the list of the pool, from which
//! workers take, or, if its lane has as many items there and in calls as its limit allows, in the list of the lane. Then
//! it is *called*, and may meanwhile be pending again; workers pass over an item that is being called.
//!
//! To flush a queue is to wait for what was queued before, and not for what comes after. Each lane has two counts of its
//! items, and a *colour* that says in which of the two an item is counted that is queued now. Who flushes changes the
//! colour, and waits until the count of the old one is 0. Flushes follow each other, so that it is 0 when the colour comes
//! back.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use hal::{Native, Platform};

use super::item::{Core, Reference};
use super::pool::{Pool, PoolState};
use crate::faults::{Fault, is_planted};
use crate::list::{List, Owner};
use crate::lockdep::{Level, Map, WaitType};
use crate::primitives::const_fn;
use crate::spin::SpinLockGuard;
use crate::wait::{Limits, Request, sleep};
use crate::{Irq, TaskCx};

/// The way of a [`WorkQueue`](super::WorkQueue)'s items into a [`Pool`].
///
/// It lives for ever: items that were once queued in it remember it.
///
/// ```
/// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// # static POOL: Pool = Pool::new(1);
/// # static LANE: Lane = Lane::new(&POOL, 1);
/// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
/// static RAN: sync::SpinLock<Vec<u32>> = sync::SpinLock::new(Vec::new());
/// static ONE: Work<fn(&mut Running<'_>)> = Work::new(|_| RAN.lock().push(1));
/// static TWO: Work<fn(&mut Running<'_>)> = Work::new(|_| RAN.lock().push(2));
/// QUEUE.queue(&TWO);
/// QUEUE.queue(&ONE);
/// # assert!(POOL.reserve());
/// # POOL.stop();
/// # POOL.serve(&mut cx, &mut || false);
/// assert_eq!(*RAN.lock(), [2, 1], "a lane keeps the order");
/// ```
pub struct Lane<P: Platform = Native> {
    pool: &'static Pool<P>,
    /// The most items that are in the pool or called at one time.
    limit: u32,
    /// Where items go instead while the pool is closed.
    heir: Option<&'static Lane<P>>,
    map: Map,
    /// Accessed under the lock of `pool`, through `Locked` (L1).
    state: UnsafeCell<LaneState<P>>,
}

pub(super) struct LaneState<P: Platform> {
    colour: usize,
    /// Items that are pending, or in a call that began from that colour.
    counts: [u32; 2],
    /// Items in the pool or called.
    active: u32,
    /// Pending items that the limit keeps back.
    held: List<Queued<P>, InPlace<P>>,
    /// Items that are called.
    running: List<Called<P>, InBusy<P>>,
}

// SAFETY: the state is accessed under the pool's lock (L1).
unsafe impl<P: Platform> Sync for Lane<P> {}
// SAFETY: as above; what is in its lists may be sent.
unsafe impl<P: Platform> Send for Lane<P> {}

/// A pending item; K3 keeps it in place.
pub(super) struct Queued<P: Platform>(pub(super) NonNull<Core<P>>);
/// An item that is called; the caller's reference keeps it in place.
pub(super) struct Called<P: Platform>(NonNull<Core<P>>);

// SAFETY: what they point to is accessed under a lock (K2).
unsafe impl<P: Platform> Send for Queued<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Send for Called<P> {}

macro_rules! owners {
    ($($Name:ident)*) => {$(
        // SAFETY: the item stays in place while it is in the list, by what is said at the type. It is put into one list by
        // whoever changes its state under the lock.
        unsafe impl<P: Platform> Owner for $Name<P> {
            type Object = Core<P>;
            const SHARED: bool = false;

            fn into_raw(self) -> NonNull<Core<P>> {
                self.0
            }

            unsafe fn from_raw(object: NonNull<Core<P>>) -> $Name<P> {
                $Name(object)
            }
        }
    )*};
}
owners! { Queued Called }

crate::link_field! {
    pub(super) struct InPlace<P: Platform> = Core<P> => place: crate::list::Link<P>;
    pub(super) struct InBusy<P: Platform> = Core<P> => busy: crate::list::Link<P>;
}

impl<P: Platform> Lane<P> {
    const_fn! {
        /// A lane into `pool`, with at most `limit` items there and in calls at one time; 1 calls them in order, one
        /// after the other, and `u32::MAX` is no limit. Linux: `max_active`.
        ///
        /// ```
        /// use sync::work::{Lane, Pool};
        /// static POOL: Pool = Pool::new(4);
        /// static ORDERED: Lane = Lane::new(&POOL, 1);
        /// static UNLIMITED: Lane = Lane::new(&POOL, u32::MAX);
        /// assert!(core::ptr::eq(ORDERED.pool(), UNLIMITED.pool()), "lanes share pools");
        /// ```
        #[track_caller]
        pub fn new(pool: &'static Pool<P>, limit: u32) -> Lane<P> {
            Lane {
                pool,
                limit,
                heir: None,
                map: Map::new(WaitType::Sleep, Level::Task),
                state: UnsafeCell::new(LaneState {
                    colour: 0,
                    counts: [0; 2],
                    active: 0,
                    held: List::new(),
                    running: List::new(),
                }),
            }
        }
    }

    /// The same lane, whose items go to `heir` while its pool is [closed](Pool::close). The heir's pool does not close, and
    /// is the first lane of the same queue.
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
    /// queue.queue_on(hal::CpuId::new(1).unwrap(), &WORK);
    /// CPU1.close();
    /// assert_eq!((CPU1.stats().pending, ANY_CPU.stats().pending), (0, 1));
    /// # WORK.cancel();
    /// ```
    #[must_use]
    pub fn with_heir(self, heir: &'static Lane<P>) -> Lane<P> {
        Lane { heir: Some(heir), ..self }
    }

    /// The pool.
    ///
    /// ```
    /// use sync::work::{Lane, Pool};
    /// static POOL: Pool = Pool::new(4);
    /// static LANE: Lane = Lane::new(&POOL, 1);
    /// assert!(core::ptr::eq(LANE.pool(), &POOL));
    /// ```
    pub fn pool(&self) -> &'static Pool<P> {
        self.pool
    }

    pub(super) fn heir(&self) -> Option<&'static Lane<P>> {
        self.heir
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    #[inline]
    pub(super) fn lock(&self) -> Locked<P> {
        Locked { pool: self.pool, state: self.pool.state.lock() }
    }
}

impl<P: Platform> core::fmt::Debug for Lane<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Lane").field("pool", &self.pool).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A pool's lock is held, and with it the states of its lanes and of the items at home in them.
pub(super) struct Locked<P: Platform> {
    pub(super) pool: &'static Pool<P>,
    pub(super) state: SpinLockGuard<'static, PoolState<P>, Irq<P>>,
}

/// A call that has begun.
pub(super) struct Call<P: Platform> {
    pub(super) reference: Reference<P>,
    pub(super) lane: &'static Lane<P>,
    colour: usize,
    /// How often the item had been queued.
    queued: u64,
}

impl<P: Platform> Locked<P> {
    /// The state of one of the pool's lanes.
    fn lane<'a>(&'a mut self, lane: &'a Lane<P>) -> &'a mut LaneState<P> {
        assert!(core::ptr::eq(lane.pool, self.pool), "a lane of another pool");
        // SAFETY: the lock is held, and borrowed for as long as the reference lives (L1).
        unsafe { &mut *lane.state.get() }
    }

    /// The item has been asked for: it is pending, and counted.
    pub(super) fn count_in(&mut self, home: &Lane<P>, core: &Core<P>) {
        let lane = self.lane(home);
        let colour = lane.colour;
        lane.counts[colour] += 1;
        core.colour.set(colour);
        core.pending.set(true);
        core.queued.set(core.queued.get() + 1);
    }

    /// Puts a pending item into a list.
    pub(super) fn put(&mut self, home: &Lane<P>, reference: Reference<P>) {
        // SAFETY: the reference keeps it valid.
        let core = unsafe { reference.object.as_ref() };
        core.reference.set(Some(reference));
        let lane = self.lane(home);
        if lane.active < home.limit {
            lane.active += 1;
            self.state.push(Queued(reference.object));
        } else {
            core.held.set(true);
            lane.held.push_back(Queued(reference.object));
        }
    }

    /// One item less is in the pool or called: the next may come.
    fn leave_room(&mut self, home: &Lane<P>) {
        let lane = self.lane(home);
        match lane.held.pop_front() {
            None => lane.active -= 1,
            Some(next) => {
                // SAFETY: pending, so valid (K3).
                unsafe { next.0.as_ref() }.held.set(false);
                self.state.push(next);
            }
        }
    }

    fn count_out(&mut self, home: &Lane<P>, colour: usize) {
        self.lane(home).counts[colour] -= 1;
        self.state.signal_flushers();
    }

    /// Takes the item back if it is pending. Returns whether it was.
    pub(super) fn cancel(mut self, home: &Lane<P>, core: &Core<P>) -> bool {
        if !core.pending.replace(false) {
            return false;
        }
        let reference = if core.again.replace(false) {
            // The worker's.
            None
        } else {
            self.take_out(home, core)
        };
        if core.runner.get().is_none() {
            core.done.set(core.queued.get());
        }
        self.count_out(home, core.colour.get());
        drop(self);
        if let Some(reference) = reference {
            // SAFETY: the item's, which is pending no more. The caller has another pointer.
            unsafe { reference.let_go() };
        }
        true
    }

    /// Takes an item out of the list in which it waits.
    pub(super) fn take_out(&mut self, home: &Lane<P>, core: &Core<P>) -> Option<Reference<P>> {
        if core.held.replace(false) {
            // SAFETY: held items are in this list (K3).
            unsafe { self.lane(home).held.remove(core) };
        } else {
            // SAFETY: pending and not held, so in this list (K3).
            unsafe { self.state.pending.remove(core) };
            self.leave_room(home);
        }
        core.reference.take()
    }

    /// Moves an item that waits to the lane's heir, whose pool is locked.
    pub(super) fn move_to(
        &mut self,
        home: &Lane<P>,
        core: &Core<P>,
        heir: &'static Lane<P>,
        there: &mut Locked<P>,
    ) {
        let Some(reference) = self.take_out(home, core) else { return };
        let colour = core.colour.get();
        // Counted there before it is not here any more: a flush waits for the heir last.
        there.lane(heir).counts[colour] += 1;
        core.move_home(heir);
        there.put(heir, reference);
        self.count_out(home, colour);
    }

    /// Takes the first item that is not being called, and begins to call it.
    pub(super) fn begin(&mut self, cx: &TaskCx<P>) -> Option<Call<P>> {
        let may_call = |core: &Core<P>| core.runner.get().is_none() || is_planted(Fault::CallTwice);
        let queued = self.state.pending.extract_if(may_call).next()?;
        // SAFETY: pending, so valid (K3), and at home in a lane of this pool.
        let core = unsafe { queued.0.as_ref() };
        let reference = core.reference.take()?;
        core.pending.set(false);
        core.runner.set(Some(cx.task()));
        let lane = core.home()?;
        self.lane(lane).running.push_back(Called(queued.0));
        self.state.busy += 1;
        Some(Call { reference, lane, colour: core.colour.get(), queued: core.queued.get() })
    }

    /// Ends a call. Returns the reference, unless the item was queued again with it.
    pub(super) fn finish(&mut self, call: Call<P>) -> Option<Reference<P>> {
        // SAFETY: ours.
        let core = unsafe { call.reference.object.as_ref() };
        core.runner.set(None);
        core.done.set(call.queued);
        // SAFETY: `begin` put it there.
        unsafe { self.lane(call.lane).running.remove(core) };
        self.state.busy -= 1;
        self.state.executed += 1;
        self.leave_room(call.lane);
        self.count_out(call.lane, call.colour);
        if !core.again.replace(false) {
            return Some(call.reference);
        }
        self.put(call.lane, call.reference);
        None
    }

    /// Changes the lane's colour, and returns what it was.
    pub(super) fn turn(&mut self, lane: &Lane<P>) -> usize {
        let state = self.lane(lane);
        let old = state.colour;
        state.colour = 1 - old;
        old
    }

    /// How many items of a colour are pending or called.
    pub(super) fn count(&mut self, lane: &Lane<P>, colour: usize) -> u32 {
        self.lane(lane).counts[colour]
    }

    /// Whether this task calls an item of the lane.
    pub(super) fn is_own(&mut self, lane: &Lane<P>, cx: &TaskCx<P>) -> bool {
        self.lane(lane).running.iter().any(|core| core.runner.get() == Some(cx.task()))
    }

    /// Sleeps until a call has ended or an item was taken back, in this pool.
    pub(super) fn sleep(self, cx: &mut TaskCx<P>) {
        drop(sleep(&self.pool.state, self.state, PoolState::flushers, Request::SIGNAL, Limits::NONE, cx));
    }
}

/// Queues an item in `lane`. Returns the reference if it is pending already, or refused.
pub(super) fn enqueue<P: Platform>(lane: &'static Lane<P>, reference: Reference<P>) -> Option<Reference<P>> {
    // SAFETY: the reference keeps it valid.
    let core = unsafe { reference.object.as_ref() };
    let mut target = lane;
    loop {
        let Some((mut locked, home)) = core.lock_home() else {
            core.find_home(target);
            continue;
        };
        if core.pending.get() || core.refused.get() != 0 {
            return Some(reference);
        }
        // What is called stays where it is, or another pool's worker would call it too.
        if core.runner.get().is_none() {
            if !core::ptr::eq(home, target) {
                core.move_home(target);
                continue;
            }
            if let (true, Some(heir)) = (locked.state.closed, home.heir) {
                target = heir;
                continue;
            }
        }
        locked.count_in(home, core);
        locked.put(home, reference);
        return None;
    }
}
