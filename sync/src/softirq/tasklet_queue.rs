//! The tasklets of one CPU that are to run.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use hal::{Native, Platform};

use super::Vector;
use super::tasklet::{Core, Release, Running, Tasklet};
use super::tasklet_state::{Begin, Scheduled};
use crate::context::SoftirqGuard;
use crate::list::Owner;
use crate::llist::{LList, Link};
use crate::primitives::const_fn;

/// A reference of T1: a pointer to a tasklet that its `release` lets go of.
struct Queued<P: Platform>(NonNull<Core<P>>);

// SAFETY: it keeps the tasklet where it is until it is released. The object is the pointer's; T1 says that there is one.
unsafe impl<P: Platform> Owner for Queued<P> {
    type Object = Core<P>;
    const SHARED: bool = false;

    fn into_raw(self) -> NonNull<Core<P>> {
        self.0
    }

    unsafe fn from_raw(object: NonNull<Core<P>>) -> Queued<P> {
        Queued(object)
    }
}

crate::link_field! {
    struct InQueue<P: Platform> = Core<P> => link: Link<P>;
}

/// One CPU's tasklets that are to run, in the order in which they were scheduled.
///
/// Scheduling takes no lock. Linux: `struct tasklet_head`. Size: two words.
///
/// ```
/// # use sync::softirq::{Running, Tasklet};
/// use sync::softirq::{TaskletQueue, Vector};
/// static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
/// static RAN: sync::BhSpinLock<Vec<u32>> = sync::BhSpinLock::new(Vec::new());
/// static ONE: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| RAN.lock().push(1));
/// static TWO: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| RAN.lock().push(2));
/// QUEUE.schedule(&ONE);
/// QUEUE.schedule(&TWO);
/// # let serving = unsafe { sync::context::enter_softirq() };
/// assert_eq!(QUEUE.run(&serving), 2);
/// # drop(serving);
/// assert_eq!(*RAN.lock(), [1, 2]);
/// ```
pub struct TaskletQueue<P: Platform = Native> {
    waiting: LList<Queued<P>, InQueue<P>>,
    vector: Vector,
    platform: PhantomData<fn() -> P>,
}

// SAFETY: a queue passes tasklets between CPUs, which `schedule` asks them to bear.
unsafe impl<P: Platform> Sync for TaskletQueue<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Send for TaskletQueue<P> {}

impl<P: Platform> TaskletQueue<P> {
    const_fn! {
        /// An empty queue, whose tasklets are run by the handler of `vector`.
        ///
        /// ```
        /// # use hal::{Native, Platform};
        /// # use sync::softirq::{Running, Tasklet};
        /// use sync::softirq::{TaskletQueue, Vector};
        /// static URGENT: TaskletQueue = TaskletQueue::new(Vector::High);
        /// assert!(URGENT.is_empty());
        /// ```
        pub fn new(vector: Vector) -> TaskletQueue<P> {
            TaskletQueue { waiting: LList::new(), vector, platform: PhantomData }
        }
    }

    /// Has the tasklet's function called soon on this CPU. Returns `false`, and drops the pointer, if it was to run
    /// already (then that run is still to begin, and will see what the caller did before), or is killed.
    ///
    /// The queue is the executing CPU's, and the caller stays on this CPU meanwhile (preemption is off, say).
    ///
    /// Linux: `tasklet_schedule`, `tasklet_hi_schedule`, by the queue. Contexts: any but NMI. Cost: two atomic
    /// read-modify-writes and raising a softirq, if the queue was empty; in a task with nothing switched off the function
    /// runs before this returns.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// assert!(QUEUE.schedule(&TASKLET));
    /// assert!(!QUEUE.schedule(&TASKLET), "one run serves both");
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # QUEUE.run(&serving);
    /// ```
    #[inline(always)]
    pub fn schedule<F, O>(&self, tasklet: O) -> bool
    where
        O: Owner<Object = Tasklet<F, P>> + 'static,
        F: Fn(&Running<'_, P>) + Send + Sync + 'static,
    {
        let object = tasklet.into_raw();
        // SAFETY: `tasklet` pointed to it, and keeps it until it is put together again below or by `release`.
        let core = &unsafe { object.as_ref() }.core;
        match core.state.schedule() {
            Scheduled::Queue => {
                core.reference.keep::<F, O>(object);
                self.push(object.cast());
                true
            }
            outcome => {
                // SAFETY: taken apart above.
                drop(unsafe { O::from_raw(object) });
                outcome == Scheduled::Again
            }
        }
    }

    /// Puts a tasklet into the queue. The reference of T1 is the caller's, and becomes the queue's.
    #[inline(always)]
    pub(super) fn push(&self, core: NonNull<Core<P>>) {
        P::chaos_point();
        // SAFETY: T1 has one reference to each tasklet, whose holder puts it into one queue.
        if unsafe { self.waiting.push_free(Queued(core)) } {
            P::raise_softirq(self.vector.index());
        }
    }

    /// Runs the tasklets that wait in the queue at this moment, and returns how many functions were called. Those that
    /// are scheduled meanwhile wait for the next call, for which the softirq is raised.
    ///
    /// For the handler of the queue's vector. Contexts: softirq, on the queue's CPU.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static TASKLET: Tasklet<fn(&Running<'_>)> =
    ///     Tasklet::new(|_| assert!(sync::context::in_serving_softirq()));
    /// QUEUE.schedule(&TASKLET);
    /// // SAFETY: a task that serves softirqs itself; the guard goes before it goes on.
    /// let serving = unsafe { sync::context::enter_softirq() };
    /// assert_eq!((QUEUE.run(&serving), QUEUE.run(&serving)), (1, 0));
    /// ```
    #[inline(always)]
    pub fn run(&self, serving: &SoftirqGuard<P>) -> usize {
        let mut called = 0;
        // The vector was raised when something came, and nobody else takes it.
        for queued in self.waiting.take_fifo_at_once() {
            called += usize::from(self.run_one(queued.0, serving));
        }
        called
    }

    /// Whether nothing waits in it. Out of date at once.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// assert!(QUEUE.is_empty());
    /// QUEUE.schedule(&TASKLET);
    /// assert!(!QUEUE.is_empty());
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # QUEUE.run(&serving);
    /// ```
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Moves what waits in `other`, the queue of a CPU that has gone off-line, to this one. Returns how many.
    ///
    /// Linux: `takeover_tasklets`. Contexts: as for [`schedule`](TaskletQueue::schedule).
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// static HERE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static GONE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// GONE.schedule(&TASKLET);
    /// assert_eq!(HERE.inherit(&GONE), 1);
    /// assert!(GONE.is_empty() && !HERE.is_empty());
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # HERE.run(&serving);
    /// ```
    pub fn inherit(&self, other: &TaskletQueue<P>) -> usize {
        // Pushed one by one, so that they stay in order.
        other.waiting.take_fifo().map(|queued| self.push(queued.0)).count()
    }

    #[inline(always)]
    fn run_one(&self, core: NonNull<Core<P>>, serving: &SoftirqGuard<P>) -> bool {
        // SAFETY: the reference of T1 is ours since we took it out of the queue.
        let tasklet = unsafe { core.as_ref() };
        P::chaos_point();
        let begin = tasklet.state.begin();
        if begin != Begin::Run {
            self.pass_over(core, begin);
            return false;
        }
        tasklet.call(core, serving);
        P::chaos_point();
        // Before the run ends, after which another one may begin that has another reference.
        let release = tasklet.reference.release();
        if !tasklet.state.finish() {
            self.finish_unusually(core, release);
        } else if let Some(release) = release {
            // SAFETY: the reference is ours, as it is in no queue any more.
            unsafe { release(core) };
        }
        true
    }

    /// Ends a run that somebody waits for, or during which the tasklet was scheduled or disabled.
    #[cold]
    #[inline(never)]
    fn finish_unusually(&self, core: NonNull<Core<P>>, release: Option<Release<P>>) {
        // SAFETY: the reference of T1 is ours since it was taken out of the queue.
        let tasklet = unsafe { core.as_ref() };
        let finish = tasklet.state.finish_unusually();
        if finish.wake {
            tasklet.changed.wake_all();
        }
        if finish.again {
            // The reference goes back into the queue.
            self.push(core);
        } else if let Some(release) = release {
            // SAFETY: the reference is ours, as it is in no queue any more.
            unsafe { release(core) };
        }
    }

    /// Does with a tasklet that is not to run what [`State::begin`](super::tasklet_state::State::begin) says.
    #[cold]
    #[inline(never)]
    fn pass_over(&self, core: NonNull<Core<P>>, begin: Begin) {
        // The reference is kept for whoever clears `PARKED`, who may have let go of it by now.
        let Begin::LetGo { wake } = begin else { return };
        // SAFETY: the reference of T1 is ours since we took it out of the queue.
        let tasklet = unsafe { core.as_ref() };
        let release = tasklet.reference.release();
        if wake {
            tasklet.changed.wake_all();
        }
        if let Some(release) = release {
            // SAFETY: ours, and it is in no queue any more.
            unsafe { release(core) };
        }
    }
}

impl<P: Platform> fmt::Debug for TaskletQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskletQueue")
            .field("vector", &self.vector)
            .field("is_empty", &self.is_empty())
            .finish()
    }
}
