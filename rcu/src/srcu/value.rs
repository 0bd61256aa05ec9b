//! A domain as a value: waiting, calling, working.

use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;

use hal::percpu::{Counters, DynamicPerCpu, OutOfPerCpuSpace};
use hal::{Native, Platform};
use sync::TaskCx;

use super::core::{Core, Turn};
use super::machine::COUNTERS;
use super::{Driver, Next, Visitors, stall};
use crate::domain::{stop_if, what_forbids_waiting};
use crate::head::{Callback, Head};
use crate::pause::Pause;
use crate::primitives::{AtomicU32, AtomicU64, Ordering};
use crate::seq::Cookie;

/// The counters of each CPU: the beginnings in two ranks, and the ends.
pub(super) type PerCpuCounters = DynamicPerCpu<[AtomicUsize; COUNTERS]>;

/// A grace period that has waited so long for its readers is reported, unless `Srcu::set_stall_ns` says otherwise.
const STALL_NS: u64 = 21_000_000_000;
/// The shortest and the longest time that [`Next::After`] names.
const AFTER_NS: (u64, u64) = (50_000, 10_000_000);

/// A domain of readers that may sleep.
///
/// Readers: any context, NMI included. They nest, may be preempted, moved to another CPU, and sleep; a section may end in
/// another task than it began in. What one costs is two additions without a `lock` prefix to counters of the executing
/// CPU, and two light fences, which on x86_64 are none.
///
/// Waiting inside of a section of the same domain would wait for ever. Nothing stops that; it is reported as a stall.
///
/// It takes 32 bytes of each CPU's room for dynamic variables ([`DynamicPerCpu`]).
///
/// Linux: `struct srcu_struct`.
///
/// | Linux | here |
/// |---|---|
/// | `init_srcu_struct`, `cleanup_srcu_struct` | [`new`](Srcu::new), the drop |
/// | `srcu_read_lock`, `srcu_read_unlock` | [`read`](Srcu::read), the guard's drop |
/// | `srcu_down_read`, `srcu_up_read` | the same guard, sent to another task |
/// | `call_srcu`, `srcu_barrier` | [`call`](Srcu::call), [`barrier`](Srcu::barrier) |
/// | `synchronize_srcu`, `synchronize_srcu_expedited` | [`synchronize`](Srcu::synchronize), [`synchronize_expedited`](Srcu::synchronize_expedited) |
/// | `get_state_synchronize_srcu`, `start_poll_synchronize_srcu` | [`get_state`](Srcu::get_state), [`start_poll`](Srcu::start_poll) |
/// | `poll_state_synchronize_srcu` | [`poll`](Srcu::poll) |
///
/// ```
/// use std::sync::atomic::{AtomicPtr, Ordering};
/// use rcu::Srcu;
///
/// let _cpu = hal::hosted::bind()?;
/// let plugins: Srcu = Srcu::new("plugins")?;
/// let hook: AtomicPtr<fn() -> u32> = AtomicPtr::new(Box::into_raw(Box::new(|| 1)));
///
/// let section = plugins.read();
/// // SAFETY: who replaces the hook waits for this section before it frees the former one.
/// let answer = unsafe { (*hook.load(Ordering::Acquire))() }; // the hook may sleep
/// assert_eq!(answer, 1);
/// drop(section);
///
/// let old = hook.swap(Box::into_raw(Box::new(|| 2)), Ordering::AcqRel);
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// plugins.synchronize(&mut cx);
/// // SAFETY: it came from a box, and nobody uses it any more.
/// drop(unsafe { Box::from_raw(old) });
/// # drop(unsafe { Box::from_raw(hook.into_inner()) });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
/// `counters` are good as long as `owned` is here, and whoever adds to them has a reference to the domain.
pub struct Srcu<P: Platform = Native, D: Driver = Visitors> {
    pub(super) core: Core<P>,
    pub(super) counters: Counters<'static, COUNTERS>,
    pub(super) owned: Option<PerCpuCounters>,
    /// How many want the grace period in a hurry.
    hurried: AtomicU32,
    pub(super) stall_ns: AtomicU64,
    /// How often that was reported.
    pub(super) stalls: AtomicU32,
    pub(super) driver: D,
    pub(super) name: &'static str,
    pub(super) made: &'static Location<'static>,
}

impl<P: Platform> Srcu<P> {
    /// A domain without a driver: whoever waits for it does its work. `name` is for reports.
    ///
    /// Contexts: task.
    ///
    /// # Errors
    /// [`OutOfPerCpuSpace`].
    ///
    /// ```
    /// let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// assert_eq!(plugins.readers(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn new(name: &'static str) -> Result<Srcu<P>, OutOfPerCpuSpace> {
        Srcu::with_driver(name, Visitors)
    }
}

impl<P: Platform, D: Driver> Srcu<P, D> {
    /// A domain with a driver. See [`Driver`].
    ///
    /// Contexts: task.
    ///
    /// # Errors
    /// [`OutOfPerCpuSpace`].
    #[track_caller]
    pub fn with_driver(name: &'static str, driver: D) -> Result<Srcu<P, D>, OutOfPerCpuSpace> {
        let owned = PerCpuCounters::new(|_cpu| [const { AtomicUsize::new(0) }; COUNTERS])?;
        // SAFETY: the type's invariant: `owned` stays as long as the domain, and what counts borrows the domain.
        let counters = unsafe { owned.counters().unbound() };
        // SAFETY: they were made just now, for this domain.
        let mut srcu = unsafe { Srcu::in_static(name, driver, counters) };
        srcu.owned = Some(owned);
        Ok(srcu)
    }

    /// A domain on counters that are somewhere else.
    ///
    /// # Safety
    /// They begin as zeros, and nobody else adds to them.
    #[doc(hidden)]
    #[track_caller]
    pub const unsafe fn in_static(
        name: &'static str,
        driver: D,
        counters: Counters<'static, COUNTERS>,
    ) -> Srcu<P, D> {
        Srcu {
            core: Core::new(),
            counters,
            owned: None,
            hurried: AtomicU32::new(0),
            stall_ns: AtomicU64::new(STALL_NS),
            stalls: AtomicU32::new(0),
            driver,
            name,
            made: Location::caller(),
        }
    }

    pub(super) fn sum(&self, counter: usize) -> usize {
        let of_cpu = |counters: &[AtomicUsize; COUNTERS]| counters[counter].load(Ordering::Relaxed);
        self.counters.iter().map(of_cpu).fold(0, usize::wrapping_add)
    }

    /// Has `function` called with `head` after a grace period, with bottom halves off.
    ///
    /// By whom: see [`Driver`]. Callbacks of one domain are called in the order in which they were queued, one at a time.
    ///
    /// Linux: `call_srcu`. Contexts: any but NMI, also read sections and callbacks. Does not allocate, never fails. Cost: the
    /// domain's lock, with interrupts off.
    ///
    /// # Safety
    /// `head` is valid and in no queue, and stays so, in place, until `function` is called. It may be called in that
    /// way, by another task.
    #[track_caller]
    pub unsafe fn call(&self, head: NonNull<Head>, function: Callback) {
        // SAFETY: the contract.
        if unsafe { self.core.call(head, function) } {
            self.driver.wanted();
        }
    }

    /// Waits for a grace period: until every section has ended that began before the call. A full memory barrier.
    ///
    /// Linux: `synchronize_srcu`. Contexts: task, where sleeping is allowed, outside of the domain's read sections.
    /// Where preemption, bottom halves or interrupts are off the machine stops with `Illegal synchronize`. Cost: without
    /// readers, twice the sum over all CPUs' counters, and one heavy fence.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// plugins.synchronize(&mut cx);
    /// assert_eq!(plugins.grace_periods(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn synchronize(&self, cx: &mut TaskCx<P>) {
        self.check("synchronize");
        self.wait(self.core.machine.snapshot(), Pause::new(), cx);
    }

    /// As [`synchronize`](Srcu::synchronize), and burns time rather than come late.
    ///
    /// Linux: `synchronize_srcu_expedited`.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// plugins.synchronize_expedited(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn synchronize_expedited(&self, cx: &mut TaskCx<P>) {
        self.check("synchronize_expedited");
        self.hurried.fetch_add(1, Ordering::Relaxed);
        self.wait(self.core.machine.snapshot(), Pause::hurried(), cx);
        self.hurried.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until the callbacks that were queued before have been called.
    ///
    /// Linux: `srcu_barrier`. Contexts: as for [`synchronize`](Srcu::synchronize), and not in a callback.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// plugins.barrier(&mut cx); // there are none
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn barrier(&self, cx: &mut TaskCx<P>) {
        self.check("barrier");
        let queued = self.core.queued();
        let mut pause = Pause::new();
        while !self.core.have_called(queued) {
            if self.work(cx) != Next::Again {
                pause.once(cx);
            }
        }
    }

    /// Names this moment, for [`poll`](Srcu::poll). A full memory barrier. Starts nothing.
    ///
    /// Linux: `get_state_synchronize_srcu`. Contexts: any.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// let state = plugins.get_state();
    /// plugins.synchronize(&mut cx);
    /// assert!(plugins.poll(state));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_state(&self) -> Cookie {
        self.core.machine.snapshot()
    }

    /// As [`get_state`](Srcu::get_state), and asks for the grace period.
    ///
    /// Linux: `start_poll_synchronize_srcu`. Contexts: any but NMI.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// let state = plugins.start_poll();
    /// assert_eq!(plugins.work(&mut cx), rcu::srcu::Next::Idle); // what a driver has done
    /// assert!(plugins.poll(state));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_poll(&self) -> Cookie {
        let cookie = self.get_state();
        if self.core.request(cookie) {
            self.driver.wanted();
        }
        cookie
    }

    /// Whether a grace period has passed since `state` was named. If so, a full memory barrier.
    ///
    /// Linux: `poll_state_synchronize_srcu`. Contexts: any.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// assert!(!plugins.poll(plugins.get_state()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll(&self, state: Cookie) -> bool {
        self.core.machine.done(state)
    }

    /// Does what there is to be done without waiting: takes the grace period on if one is wanted, and calls callbacks that
    /// are ready. For [drivers](Driver), and where there is none, for quiet moments.
    ///
    /// Contexts: task. Where preemption, bottom halves or interrupts are off no callbacks are called.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use rcu::srcu::Next;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// let section = plugins.read();
    /// plugins.start_poll();
    /// assert!(matches!(plugins.work(&mut cx), Next::After(_)), "there is a reader");
    /// drop(section);
    /// assert_eq!(plugins.work(&mut cx), Next::Idle);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn work(&self, _cx: &mut TaskCx<P>) -> Next {
        let Some(mut seat) = self.core.sit() else {
            return Next::After(AFTER_NS.0);
        };
        let may_call = what_forbids_waiting::<P>().is_none();
        loop {
            let turn = seat.turn(|counter| self.sum(counter));
            self.mind_stalls(turn, |waited_ns, limit_ns| seat.is_stalled(waited_ns, limit_ns));
            // SAFETY: nothing is off.
            let is_more = may_call && unsafe { seat.call_ready() };
            match turn {
                _ if is_more => return Next::Again,
                Turn::Ended => {}
                Turn::Idle if self.core.is_wanted() => {} // for callbacks that could not be sorted in before
                Turn::Idle => return Next::Idle,
                Turn::Waits(_) if self.hurried.load(Ordering::Relaxed) != 0 => return Next::Again,
                Turn::Waits(ns) => return Next::After((ns / 4).clamp(AFTER_NS.0, AFTER_NS.1)),
            }
        }
    }

    /// Waits for the grace period, and drives it meanwhile.
    fn wait(&self, cookie: Cookie, mut pause: Pause, cx: &mut TaskCx<P>) {
        self.core.request(cookie);
        while !self.core.machine.done(cookie) {
            let Some(mut seat) = self.core.sit() else {
                pause.once(cx);
                continue;
            };
            let turn = seat.turn(|counter| self.sum(counter));
            self.mind_stalls(turn, |waited_ns, limit_ns| seat.is_stalled(waited_ns, limit_ns));
            drop(seat);
            if turn != Turn::Ended && !self.core.machine.done(cookie) {
                pause.once(cx);
            }
        }
        if self.core.waiting() != 0 {
            if D::COMES { self.driver.wanted() } else { _ = self.work(cx) }
        }
    }

    fn mind_stalls(&self, turn: Turn, is_stalled: impl FnOnce(u64, u64) -> bool) {
        if let Turn::Waits(waited_ns) = turn
            && is_stalled(waited_ns, self.stall_ns.load(Ordering::Relaxed))
        {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            stall::report(self, waited_ns);
        }
    }

    #[track_caller]
    fn check(&self, operation: &str) {
        stop_if::<P>(what_forbids_waiting::<P>(), operation, self.name);
    }
}
