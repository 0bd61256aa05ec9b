//! Work that runs soon, in softirq context, on one CPU at a time.

use core::fmt;
use core::mem;
use core::panic::Location;
use core::ptr::NonNull;

use hal::{Native, Platform};

use super::tasklet_queue::TaskletQueue;
use super::tasklet_state::{Scheduled, State};
use crate::TaskCx;
use crate::context::{Balance, SoftirqGuard};
use crate::list::Owner;
use crate::llist::Link;
use crate::lockdep::{Acquire, Level, Map, WaitType};
use crate::primitives::{Cell, const_fn};
use crate::wait::WaitQueue;

/// An object with a function that an interrupt handler (or anybody) can have called soon, in softirq context.
///
/// 1. [`TaskletQueue::schedule`] puts the tasklet into the executing CPU's queue and raises the queue's softirq. While it
///    waits there, scheduling it again does nothing: there will be a run that begins after each call.
/// 2. The function is **serialised against itself**: however many CPUs schedule it, one at a time runs it, and each run
///    sees what the former ones did. Scheduled while it runs, also by itself ([`Running::again`]), it runs once more, on the
///    CPU that runs it.
/// 3. The queue **owns** what is in it: an `Arc` or a `Box` of the tasklet, or a `&'static` one. So nobody can free a
///    tasklet that will run; when the function is through with, the queue gives its pointer up, in softirq context.
///
/// The function gets a [`Running`], which shows that bottom halves are off, so that it takes `BottomHalf` locks without
/// switching them off again. It must not sleep. What it switches off and forgets to switch on is reported under the
/// tasklet's place.
///
/// Linux: `struct tasklet_struct`. Size: a lock and eleven words, and the function.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use sync::softirq::{Tasklet, TaskletQueue, Vector};
/// # use sync::context::enter_softirq;
///
/// static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet); // a kernel has one for each CPU
/// static RUNS: AtomicU32 = AtomicU32::new(0);
/// let tasklet = Arc::new(Tasklet::new(|running| {
///     if RUNS.fetch_add(1, Ordering::Relaxed) == 0 {
///         running.again();
///     }
/// }));
/// assert!(QUEUE.schedule(tasklet.clone()));
/// assert!(!QUEUE.schedule(tasklet.clone())); // it waits already
///
/// // What the softirq does. SAFETY: a task that serves softirqs itself; the guard goes before it goes on.
/// let serving = unsafe { enter_softirq() };
/// assert_eq!(QUEUE.run(&serving), 1);
/// assert_eq!(QUEUE.run(&serving), 1); // once more, as it asked for
/// drop(serving);
/// assert!(!tasklet.is_scheduled());
/// ```
#[repr(C)]
pub struct Tasklet<F, P: Platform = Native> {
    pub(super) core: Core<P>,
    function: F,
}

/// What all tasklets have, whatever their function is.
///
/// # Invariants
/// It is the first field of a `Tasklet<F, P>`, and `call` is `call::<F, P>`.
#[repr(C)]
pub(super) struct Core<P: Platform> {
    pub(super) link: Link<P>,
    pub(super) state: State,
    call: unsafe fn(NonNull<Core<P>>, &Running<'_, P>),
    /// The reference of invariant T1, if there is one. Written by whoever set `QUEUED` in an idle tasklet, before it
    /// queues it.
    pub(super) reference: Reference<P>,
    pub(super) changed: WaitQueue<P>,
    map: Map,
    made: &'static Location<'static>,
}

/// Puts a pointer to a tasklet that was taken apart together again, and drops it.
///
/// # Safety
/// The reference is the caller's, who does this once; the argument is what the pointer pointed to.
pub(super) type Release<P> = unsafe fn(NonNull<Core<P>>);

/// A pointer to a tasklet that was taken apart, and what drops it if that does anything.
pub(super) struct Reference<P: Platform> {
    object: Cell<Option<NonNull<Core<P>>>>,
    release: Cell<Option<Release<P>>>,
}

impl<P: Platform> Reference<P> {
    const_fn! {
        fn none() -> Reference<P> {
            Reference { object: Cell::new(None), release: Cell::new(None) }
        }
    }

    /// Remembers a pointer that was taken apart: `object` is what `O` pointed to.
    #[inline(always)]
    pub(super) fn keep<F, O: Owner<Object = Tasklet<F, P>>>(&self, object: NonNull<Tasklet<F, P>>) {
        self.object.set(Some(object.cast()));
        self.release.set(if mem::needs_drop::<O>() { Some(release::<F, P, O>) } else { None });
    }

    /// What it was remembered with. `None` if there never was one.
    pub(super) fn object(&self) -> Option<NonNull<Core<P>>> {
        self.object.get()
    }

    /// `None` if letting go takes nothing.
    #[inline(always)]
    pub(super) fn release(&self) -> Option<Release<P>> {
        self.release.get()
    }
}

// SAFETY: `reference` is accessed by one execution at a time: whoever set `QUEUED` in an idle tasklet, then whoever took it
// out of the queue, then whoever has unparked it (T1); the queue, or the state, orders them. All else is atomic or locked.
unsafe impl<P: Platform> Sync for Core<P> {}

// SAFETY: sharing a tasklet is sharing its function, which is called on any CPU, one at a time.
unsafe impl<F: Send + Sync, P: Platform> Sync for Tasklet<F, P> {}
// SAFETY: a tasklet that is moved is in no queue.
unsafe impl<F: Send, P: Platform> Send for Tasklet<F, P> {}

impl<F: Fn(&Running<'_>) + Send + Sync> Tasklet<F> {
    const_fn! {
        /// A tasklet that calls `function`, on this build's platform.
        ///
        /// ```
        /// # use sync::softirq::{Running, Tasklet};
        /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
        /// assert!(!TASKLET.is_scheduled() && !TASKLET.is_disabled() && !TASKLET.is_killed());
        /// ```
        #[track_caller]
        pub fn new(function: F) -> Tasklet<F> {
            Tasklet::new_in(function)
        }
    }
}

impl<F: Fn(&Running<'_, P>) + Send + Sync, P: Platform> Tasklet<F, P> {
    const_fn! {
        /// A tasklet that calls `function`, on the platform `P`.
        ///
        /// ```
        /// # use sync::softirq::{Running, Tasklet};
        /// static TASKLET: Tasklet<fn(&Running<'_>), hal::Native> = Tasklet::new_in(|_| ());
        /// assert!(!TASKLET.is_scheduled());
        /// ```
        #[track_caller]
        pub fn new_in(function: F) -> Tasklet<F, P> {
            let core = Core {
                link: Link::new_in(),
                state: State::new(),
                call: call::<F, P>,
                reference: Reference::none(),
                changed: WaitQueue::new(),
                map: Map::new(WaitType::Spin, Level::Softirq),
                made: Location::caller(),
            };
            // INVARIANT: `core` is the first field, and calls this type's function.
            Tasklet { core, function }
        }
    }
}

impl<F, P: Platform> Tasklet<F, P> {
    /// Whether it is to run: it waits in a queue, or for being enabled. Out of date at once.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// QUEUE.schedule(&TASKLET);
    /// assert!(TASKLET.is_scheduled());
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// QUEUE.run(&serving); // what the softirq does
    /// # drop(serving);
    /// assert!(!TASKLET.is_scheduled());
    /// ```
    pub fn is_scheduled(&self) -> bool {
        self.core.state.is_queued()
    }

    /// Whether its function runs. Out of date at once.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| assert!(TASKLET.is_running()));
    /// QUEUE.schedule(&TASKLET);
    /// assert!(!TASKLET.is_running());
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// assert_eq!(QUEUE.run(&serving), 1);
    /// # drop(serving);
    /// assert!(!TASKLET.is_running());
    /// ```
    pub fn is_running(&self) -> bool {
        self.core.state.is_running()
    }

    /// Keeps the function from being called until [`Disabled::enable`]; waits until it does not run. Nests. If it is
    /// scheduled meanwhile, or was before, it runs when it is enabled.
    ///
    /// Linux: `tasklet_disable`, under which a scheduled tasklet keeps the softirq busy; here it waits aside.
    /// Contexts: task, with nothing held that forbids sleeping.
    ///
    /// ```
    /// use sync::TaskCx;
    /// use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # use sync::context::enter_softirq;
    /// static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// # // SAFETY: this thread is a task, and this its only token.
    /// # let mut cx = unsafe { TaskCx::new() };
    /// let off = TASKLET.disable(&mut cx);
    /// QUEUE.schedule(&TASKLET);
    /// # let serving = unsafe { enter_softirq() };
    /// assert_eq!(QUEUE.run(&serving), 0);
    /// # drop(serving);
    /// off.enable(&QUEUE);
    /// # let serving = unsafe { enter_softirq() };
    /// assert_eq!(QUEUE.run(&serving), 1);
    /// # drop(serving);
    /// ```
    #[track_caller]
    pub fn disable(&self, cx: &mut TaskCx<P>) -> Disabled<'_, P> {
        cx.might_sleep();
        let disabled = self.disable_no_wait();
        self.core.expect_to_wait();
        self.core.changed.wait(cx, || self.core.state.is_still());
        disabled
    }

    /// The same without waiting: the function may be running, but does not begin from here on.
    ///
    /// Linux: `tasklet_disable_nosync`. Contexts: any.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// let off = TASKLET.disable_no_wait();
    /// QUEUE.schedule(&TASKLET);
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// assert_eq!(QUEUE.run(&serving), 0);
    /// off.enable(&QUEUE);
    /// assert_eq!(QUEUE.run(&serving), 1);
    /// # drop(serving);
    /// ```
    pub fn disable_no_wait(&self) -> Disabled<'_, P> {
        self.core.state.disable();
        Disabled { core: &self.core }
    }

    /// Whether somebody has [disabled](Tasklet::disable) it. Out of date at once.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// let (one, other) = (TASKLET.disable_no_wait(), TASKLET.disable_no_wait());
    /// one.enable(&QUEUE);
    /// assert!(TASKLET.is_disabled(), "by the other one");
    /// other.enable(&QUEUE);
    /// assert!(!TASKLET.is_disabled());
    /// ```
    pub fn is_disabled(&self) -> bool {
        self.core.state.is_disabled()
    }

    /// Ends the tasklet: it is not begun from here on, and cannot be scheduled; waits until it neither runs nor waits in
    /// a queue. What was scheduled and has not begun does not run.
    ///
    /// Linux: `tasklet_kill`, after which it can be scheduled again. Contexts: task, with nothing held that forbids
    /// sleeping, and nothing that the function waits for.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// TASKLET.kill(&mut cx);
    /// assert!(!QUEUE.schedule(&TASKLET), "it has ended");
    /// ```
    #[track_caller]
    pub fn kill(&self, cx: &mut TaskCx<P>) {
        cx.might_sleep();
        if self.core.state.kill()
            && let (Some(object), Some(release)) =
                (self.core.reference.object(), self.core.reference.release())
        {
            // SAFETY: it was parked, and is ours to let go of (T1). The caller has another one.
            unsafe { release(object) };
        }
        self.core.expect_to_wait();
        self.core.changed.wait(cx, || self.core.state.is_over());
    }

    /// Whether it was [killed](Tasklet::kill).
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet};
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// assert!(!TASKLET.is_killed());
    /// TASKLET.kill(&mut cx);
    /// assert!(TASKLET.is_killed());
    /// ```
    pub fn is_killed(&self) -> bool {
        self.core.state.is_killed()
    }
}

impl<P: Platform> Core<P> {
    /// Calls the function of the tasklet that this is the core of.
    #[inline(always)]
    pub(super) fn call(&self, whole: NonNull<Core<P>>, serving: &SoftirqGuard<P>) {
        self.map.acquire::<P>(Acquire::TRY_WRITE, self.made);
        let balance = Balance::<P>::now();
        // SAFETY: by the type's invariant.
        unsafe { (self.call)(whole, &Running { core: self, serving }) };
        if !balance.is_kept() {
            balance.check(format_args!("tasklet"), self.made);
        }
        self.map.release::<P>(self.made);
    }

    /// Tells the dependency checker that the end of a run is waited for.
    #[track_caller]
    fn expect_to_wait(&self) {
        let at = Location::caller();
        self.map.acquire::<P>(Acquire::WRITE, at);
        self.map.release::<P>(at);
    }
}

/// Calls the function of the tasklet around `core`.
///
/// # Safety
/// `core` is the core of a `Tasklet<F, P>`.
unsafe fn call<F: Fn(&Running<'_, P>), P: Platform>(core: NonNull<Core<P>>, running: &Running<'_, P>) {
    // SAFETY: by the contract; the core is the first field, so the addresses are the same.
    let tasklet = unsafe { core.cast::<Tasklet<F, P>>().as_ref() };
    (tasklet.function)(running);
}

/// Drops the pointer that [`TaskletQueue::schedule`] was given.
///
/// # Safety
/// `core` is the core of the object of such a pointer, which was taken apart and not put together since.
unsafe fn release<F, P: Platform, O: Owner<Object = Tasklet<F, P>>>(core: NonNull<Core<P>>) {
    // SAFETY: by the contract; the core is the first field.
    drop(unsafe { O::from_raw(core.cast()) });
}

impl<F, P: Platform> fmt::Debug for Tasklet<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasklet")
            .field("made", &format_args!("{}", self.core.made))
            .field("is_scheduled", &self.is_scheduled())
            .field("is_running", &self.is_running())
            .finish_non_exhaustive()
    }
}

/// The function of a [`Tasklet`] runs, on this CPU, in softirq context.
///
/// ```
/// use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
/// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
/// static SEEN: sync::BhSpinLock<u32> = sync::BhSpinLock::new(0);
///
/// fn count(running: &Running<'_>) {
///     *SEEN.lock_with(running.softirq()) += 1;
/// }
/// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(count);
/// QUEUE.schedule(&TASKLET);
/// # let serving = unsafe { sync::context::enter_softirq() };
/// # QUEUE.run(&serving);
/// # drop(serving);
/// assert_eq!(*SEEN.lock(), 1);
/// ```
pub struct Running<'a, P: Platform = Native> {
    core: &'a Core<P>,
    serving: &'a SoftirqGuard<P>,
}

impl<'a, P: Platform> Running<'a, P> {
    /// Has the function called once more, after it has returned and what is queued behind it has run. Returns `false` if
    /// that was settled already, or the tasklet is killed.
    ///
    /// Linux: `tasklet_schedule` from the function itself. Contexts: where the value is.
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|running| {
    ///     assert!(running.again() && !running.again());
    /// });
    /// QUEUE.schedule(&TASKLET);
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// assert_eq!(QUEUE.run(&serving), 1);
    /// assert_eq!(QUEUE.run(&serving), 1, "as it asked for");
    /// # drop(serving);
    /// ```
    pub fn again(&self) -> bool {
        matches!(self.core.state.schedule(), Scheduled::Again)
    }

    /// The proof that a softirq is being served here, for [`lock_with`](crate::SpinLock::lock_with) and per-CPU data.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// hal::percpu! {
    ///     static RUNS: AtomicU32 = AtomicU32::new(0);
    /// }
    /// static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|running| {
    ///     RUNS.get(running.softirq()).store(7, Relaxed); // this CPU's, which the function stays on
    /// });
    /// QUEUE.schedule(&TASKLET);
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # QUEUE.run(&serving);
    /// # drop(serving);
    /// assert_eq!(RUNS.get(&sync::preempt::disable()).load(Relaxed), 7);
    /// ```
    pub fn softirq(&self) -> &'a SoftirqGuard<P> {
        self.serving
    }
}

impl<P: Platform> fmt::Debug for Running<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("made", &format_args!("{}", self.core.made)).finish_non_exhaustive()
    }
}

/// A tasklet's function does not begin while this value lives. Made by [`Tasklet::disable`].
///
/// A value that is dropped without [`enable`](Disabled::enable) leaves it disabled for ever, and the queue's reference to
/// it, if it was to run, in place.
///
/// ```
/// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
/// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
/// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
/// let off = TASKLET.disable_no_wait();
/// assert!(TASKLET.is_disabled());
/// off.enable(&QUEUE);
/// assert!(!TASKLET.is_disabled());
/// ```
#[must_use = "the tasklet stays disabled until `enable` is called"]
pub struct Disabled<'a, P: Platform = Native> {
    core: &'a Core<P>,
}

impl<P: Platform> Disabled<'_, P> {
    /// Lets the function begin again. If it was to run meanwhile, the tasklet is put into `queue`, the executing CPU's.
    ///
    /// Linux: `tasklet_enable`. Contexts: any but NMI; the caller stays on its CPU meanwhile, as for
    /// [`TaskletQueue::schedule`].
    ///
    /// ```
    /// # use sync::softirq::{Running, Tasklet, TaskletQueue, Vector};
    /// # static QUEUE: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
    /// # static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
    /// let off = TASKLET.disable_no_wait();
    /// QUEUE.schedule(&TASKLET);
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// QUEUE.run(&serving); // finds it disabled, and takes it out
    /// assert!(QUEUE.is_empty());
    /// off.enable(&QUEUE);
    /// assert!(!QUEUE.is_empty());
    /// # QUEUE.run(&serving);
    /// # drop(serving);
    /// ```
    pub fn enable(self, queue: &TaskletQueue<P>) {
        if self.core.state.enable()
            && let Some(object) = self.core.reference.object()
        {
            // It was parked, and is ours to queue (T1).
            queue.push(object);
        }
    }
}

impl<P: Platform> fmt::Debug for Disabled<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disabled").field("made", &format_args!("{}", self.core.made)).finish_non_exhaustive()
    }
}
