//! Queues: what users of work see.

use core::fmt;
use core::panic::Location;

use hal::platform::{Report, Severity};
use hal::{CpuId, Native, Platform};

use super::item::{Reference, Running, Work};
use super::lane::{Lane, enqueue};
use crate::faults::{Fault, is_planted};
use crate::list::Owner;
use crate::lockdep::Acquire;
use crate::mutex::Mutex;
use crate::primitives::const_fn;
use crate::{Cpu, TaskCx};

/// A named queue of [`Work`] items, for those who queue and who wait.
///
/// | wanted | lanes |
/// |---|---|
/// | items run on the CPU that queues them | one for each CPU, in the order of their numbers |
/// | items run wherever there is room | one, into a pool whose workers are on any CPU |
/// | items run one after the other | one whose limit is 1 |
///
/// Linux: `struct workqueue_struct`; `alloc_workqueue` and `alloc_ordered_workqueue` by the lanes.
///
/// ```
/// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// # static POOL: Pool = Pool::new(1);
/// # static LANE: Lane = Lane::new(&POOL, 1);
/// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
/// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
/// assert!(QUEUE.queue(&WORK));
/// # assert!(POOL.reserve());
/// # POOL.stop();
/// # POOL.serve(&mut cx, &mut || false);
/// assert_eq!(POOL.stats().executed, 1);
/// ```
pub struct WorkQueue<P: Platform = Native> {
    name: &'static str,
    lanes: &'static [&'static Lane<P>],
    /// Flushes follow each other.
    flushing: Mutex<(), P>,
}

impl<P: Platform> WorkQueue<P> {
    const_fn! {
        /// A queue of these lanes, of which there is at least one. No lane is in two queues. If lanes have heirs, that is
        /// the first one.
        ///
        /// ```
        /// use sync::work::{Lane, Pool, WorkQueue};
        /// static POOL: Pool = Pool::new(4);
        /// static LANE: Lane = Lane::new(&POOL, 1);
        /// static QUEUE: WorkQueue = WorkQueue::new("writeback", &[&LANE]);
        /// assert_eq!(QUEUE.lanes().len(), 1);
        /// ```
        #[track_caller]
        pub fn new(name: &'static str, lanes: &'static [&'static Lane<P>]) -> WorkQueue<P> {
            assert!(!lanes.is_empty(), "a queue has a lane");
            WorkQueue { name, lanes, flushing: Mutex::new(()) }
        }
    }

    /// Its name, for reports and tables.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, WorkQueue};
    /// # static POOL: Pool = Pool::new(4);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// static QUEUE: WorkQueue = WorkQueue::new("writeback", &[&LANE]);
    /// assert_eq!(QUEUE.name(), "writeback");
    /// ```
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its lanes.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, WorkQueue};
    /// # static POOL: Pool = Pool::new(4);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// static QUEUE: WorkQueue = WorkQueue::new("writeback", &[&LANE]);
    /// assert!(core::ptr::eq(QUEUE.lanes()[0], &LANE));
    /// ```
    pub fn lanes(&self) -> &'static [&'static Lane<P>] {
        self.lanes
    }

    /// Has the item's function called by a worker: on this CPU, if the queue has a lane for each. Returns `false`, and drops
    /// the pointer, if it waits to be called already (then that call is still to begin, and will see what the caller did
    /// before), or is being cancelled.
    ///
    /// An item whose function is being called stays with that lane, so that the calls do not overlap.
    ///
    /// Linux: `queue_work`. Contexts: any but NMI. Cost: one lock, and waking a worker if none is on its way.
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static POOL: Pool = Pool::new(1);
    /// # static LANE: Lane = Lane::new(&POOL, 1);
    /// # static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// assert!(QUEUE.queue(&WORK));
    /// assert!(!QUEUE.queue(&WORK), "one call serves both");
    /// # assert!(POOL.reserve());
    /// # POOL.stop();
    /// # POOL.serve(&mut cx, &mut || false);
    /// assert_eq!(POOL.stats().executed, 1);
    /// ```
    #[inline]
    pub fn queue<F, O>(&self, work: O) -> bool
    where
        O: Owner<Object = Work<F, P>> + 'static,
        F: Fn(&mut Running<'_, P>) + Send + Sync + 'static,
    {
        let here = Cpu::<P>::disable_preemption();
        self.queue_on(here.cpu(), work)
    }

    /// The same on `cpu`, if the queue has a lane for each, and on the first CPU while that one is off-line.
    ///
    /// Linux: `queue_work_on`. Contexts and cost: as for [`queue`](WorkQueue::queue).
    ///
    /// ```
    /// # use sync::work::{Lane, Pool, Running, Work, WorkQueue};
    /// static CPU0: Pool = Pool::new(1);
    /// static CPU1: Pool = Pool::new(1);
    /// static LANE0: Lane = Lane::new(&CPU0, 1);
    /// static LANE1: Lane = Lane::new(&CPU1, 1);
    /// static QUEUE: WorkQueue = WorkQueue::new("doc", &[&LANE0, &LANE1]);
    /// static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| ());
    /// assert!(QUEUE.queue_on(hal::CpuId::new(1).unwrap(), &WORK));
    /// assert_eq!((CPU0.stats().pending, CPU1.stats().pending), (0, 1));
    /// # WORK.cancel();
    /// ```
    pub fn queue_on<F, O>(&self, cpu: CpuId, work: O) -> bool
    where
        O: Owner<Object = Work<F, P>> + 'static,
        F: Fn(&mut Running<'_, P>) + Send + Sync + 'static,
    {
        let lane = self.lanes.get(cpu.index()).unwrap_or(&self.lanes[0]);
        match enqueue(lane, Reference::new(work)) {
            None => true,
            Some(reference) => {
                // SAFETY: given back.
                unsafe { reference.let_go() };
                false
            }
        }
    }

    /// Waits until everything that was queued before is over; what is queued later is not waited for.
    ///
    /// From the function of one of its items it would wait for ever: that is reported, and it returns at once.
    ///
    /// Linux: `flush_workqueue`. Contexts: task, with nothing held that forbids sleeping or that an item waits for. Several
    /// at once follow each other.
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
    /// QUEUE.flush(&mut cx);
    /// assert_eq!(POOL.stats().executed, 1);
    /// # POOL.stop();
    /// # worker.join().unwrap();
    /// ```
    #[track_caller]
    pub fn flush(&self, cx: &mut TaskCx<P>) {
        let at = Location::caller();
        cx.might_sleep();
        if self.lanes.iter().any(|lane| lane.lock().is_own(lane, cx)) {
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!(
                    "work queue `{}` flushed from one of its items: it would wait for itself",
                    self.name
                ),
                location: at,
            });
            return;
        }
        // What is certain has been told; the checker would tell it again.
        for lane in self.lanes {
            lane.map().acquire::<P>(Acquire::WRITE, at);
            lane.map().release::<P>(at);
        }
        let flushing = self.flushing.lock(cx);
        let mut old = 0;
        for lane in self.lanes {
            // All lanes have the same colour but here in between.
            old = lane.lock().turn(lane);
        }
        let wait = |lane: &'static Lane<P>, cx: &mut TaskCx<P>| {
            loop {
                let mut locked = lane.lock();
                if locked.count(lane, old) == 0 {
                    return;
                }
                locked.sleep(cx);
            }
        };
        // The first one last: it inherits from the others.
        if is_planted(Fault::FlushHeirFirst) {
            self.lanes.iter().for_each(|lane| wait(lane, cx));
        } else {
            self.lanes.iter().rev().for_each(|lane| wait(lane, cx));
        }
        drop(flushing);
    }
}

impl<P: Platform> fmt::Debug for WorkQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").field("name", &self.name).field("lanes", &self.lanes.len()).finish()
    }
}
