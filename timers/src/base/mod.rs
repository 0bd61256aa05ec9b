//! One lock, one queue, and the timer that is being called: the part of all timers that outlives them.
//!
//! A timer's function may free the timer, or arm it again. So nothing may be done with a timer after its function was
//! called, and a lock inside of it cannot protect it: held over the call, it is released in memory that is gone, and a
//! delete from inside waits for itself; released before the call, it is what another CPU's delete is about to take when
//! the function frees it. The lock is therefore in something else, a **base**, which is never freed:
//!
//! 1. A base takes a few timers that are due out of the queue under its lock, and keeps their addresses in **slots** of its
//!    own (`batch.rs`). Then it lets go of the lock.
//! 2. It **detaches** one after the other from its slot, by one atomic step, copies out what is to be called, and calls it.
//!    Of the timer's memory it reads nothing from the call on. (The function does, and may, as long as it has not freed it.)
//! 3. It marks the slot as *over*. When all are, it takes the lock again and looks for more.
//!
//! A lock in the base does not keep alive what a deleter points to. References do: while a timer is armed, its base
//! has one of its own (`Reference`), which the detach hands to the call, and which is let go when the call is over.
//!
//! # Invariants
//! * **B1** (*who owns the entry*): a timer's `word` says which base it belongs to. While it names a base and is not marked
//!   as moving, the entry, `ops` and the word are written under that base's lock only. While it is marked, they belong to
//!   the one who set the mark; who finds it waits. A timer that was never armed is marked by an exchange. So whoever waited
//!   for a base's lock reads the word again: the timer may have left meanwhile.
//! * **B2** (*armed*): exactly while it is linked in its base's queue, waiting in one of its slots, or moving while it was.
//!   The armed state has one reference, whose release is `ops`.
//! * **B3** (*running*): a timer is running while it is claimed in a slot of its base, from the detach to the end of the call.
//!   A base is run by one at a time, who has set [`busy`](Inner::busy) and calls one timer at a time. Who finds it set
//!   leaves, because the one at work looks for due timers, with a fresh look at the time, until there are none.
//! * **B4**: a running timer keeps its base. It may be armed meanwhile, in that base's queue only: then it is both, and its
//!   next call comes after the present one, because the same runner makes it. The call has a reference of its own, so that
//!   the memory stays until it is over even if the timer is armed, deleted and let go of meanwhile. If the function itself
//!   arms it, the armed state has the call's reference, and [`handed`](Inner::handed) says so: a delete then lets go of
//!   nothing, and the end of the call of nothing if it is still set.
//! * **B5** (*deleted synchronously*): a timer that, under its base's lock, is neither armed nor running has no call under
//!   way, and what its calls did happened before. `delete_sync` looks until it finds that, taking it out whenever it was
//!   armed again.
//! * **B6** (*shut down*): the flag is set under the lock (B1) and never cleared; who arms looks at it under the same lock.
//!   So no call begins that was not detached before the flag was set and the timer taken out.

mod arm;
mod batch;
mod delete;
mod look;
mod parts;
mod run;
mod stats;

#[cfg(all(test, loom))]
mod drafts_models;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, shuttle))]
#[path = "schedules.rs"]
mod models;

use self::arm::move_one;
pub(crate) use self::arm::{Armed, How, arm};
pub use self::delete::Deletion;
pub(crate) use self::delete::Waiting;
pub use self::look::{HrLook, WheelLook};
#[cfg(any(feature = "alloc", all(test, any(loom, shuttle))))]
pub(crate) use self::parts::Call;
pub(crate) use self::parts::{Core, Flags, Kinds, Ops, Reference};
pub use self::stats::{FunctionName, SLOWEST, Slow, Stats};

use core::fmt;
use core::ptr;

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform};
use sync::spin::SpinLockWithGuard;
use sync::{Irq, SpinLock};

use crate::cpus::Idle;
use crate::faults::{Fault, is_planted};
use crate::primitives::{AtomicPtr, AtomicU32, AtomicU64, Ordering, const_fn, fence};
use crate::queue::{Entry, Queue};
use batch::Slots;
use parts::nothing;
use stats::{Recorder, Slowest};

/// Armed timers of one kind, of one CPU: a queue under a lock, and what is being called.
///
/// A base lives for ever. It is made by those who know which CPU it belongs to and what time it is: [`CpuTimers`] has three
/// for coarse timers.
///
/// Linux: `struct timer_base`, `struct hrtimer_clock_base`.
///
/// [`CpuTimers`]: crate::CpuTimers
#[repr(C, align(64))]
pub struct Base<Q: Queue, P: Platform = Native> {
    /// A bound from below for when the queue has something due; for looks without the lock.
    due: AtomicU64,
    /// Where to look what time it is; one that stands still if the queue is told otherwise.
    clock: AtomicPtr<AtomicU64>,
    /// What is lowered when the next expiry of a sleeping CPU becomes earlier; null if nothing is.
    idle: AtomicPtr<Idle>,
    cpu: AtomicU32,
    /// Called when an entry comes that is due before `alarm`, with the lock released and interrupts off.
    tell: fn(&'static Base<Q, P>, u64),
    /// Calls that take longer are counted as slow.
    slow_ns: AtomicU64,
    /// What has been called.
    stats: Recorder,
    /// Timers that were taken out of the queue to be called.
    slots: Slots,
    inner: SpinLock<Inner<Q, P>, Irq<P>>,
}

/// What the lock protects.
pub(crate) struct Inner<Q: Queue, P: Platform> {
    pub(crate) queue: Q,
    /// Somebody runs this base: takes out what is due, and calls it.
    busy: bool,
    /// Who does, or did last.
    runner: CpuId,
    /// The slot of the running timer, if that was put into the queue since its call began.
    requeued: usize,
    /// The running timer is armed, and the armed state has the call's reference.
    handed: bool,
    /// Somebody sleeps until this time and wants to know of entries that are due before it; 0 if nobody does.
    pub(crate) alarm: u64,
    /// The CPU is off-line: where its timers are now.
    pub(crate) heir: Option<&'static Base<Q, P>>,
    /// The latest time that anybody gave.
    now: u64,
    slowest: Slowest,
}

/// The lock is held.
pub(crate) type Locked<'a, Q, P> = SpinLockWithGuard<'a, Inner<Q, P>, Irq<P>>;

/// The clock of who has none.
#[cfg(not(any(loom, shuttle)))]
const fn still() -> *mut AtomicU64 {
    static STILL: AtomicU64 = AtomicU64::new(0);
    ptr::from_ref(&STILL).cast_mut()
}

/// Atomics of models cannot be in statics: here it is null.
#[cfg(any(loom, shuttle))]
const fn still() -> *mut AtomicU64 {
    ptr::null_mut()
}

/// How many timers a CPU looks at before it sleeps, to find out whether they are due as early as their place says.
const SETTLED: usize = 16;

/// No callback is slow unless a limit is set.
const NO_LIMIT: u64 = u64::MAX;

impl<Q: Queue, P: Platform> Base<Q, P> {
    const_fn! {
        /// `tell` is called when an entry comes that is due before the alarm, with the lock released and interrupts off.
        #[track_caller]
        pub(crate) fn new(queue: Q, tell: fn(&'static Base<Q, P>, u64)) -> Base<Q, P> {
            Base {
                due: AtomicU64::new(u64::MAX),
                clock: AtomicPtr::new(still()),
                idle: AtomicPtr::new(ptr::null_mut()),
                cpu: AtomicU32::new(0),
                tell,
                slow_ns: AtomicU64::new(NO_LIMIT),
                stats: Recorder::new(),
                slots: Slots::new(),
                inner: SpinLock::new(Inner {
                    queue,
                    busy: false,
                    runner: CpuId::BOOT,
                    requeued: 0,
                    handed: false,
                    alarm: 0,
                    heir: None,
                    now: 0,
                    slowest: Slowest::new(),
                }),
            }
        }
    }

    /// From here on the time is what `clock` says, `idle` is what `publish` lowers, and the base is `cpu`'s.
    pub(crate) fn set_clock(&self, clock: &'static AtomicU64, idle: &'static Idle, cpu: CpuId) {
        self.cpu.store(cpu.as_u32(), Ordering::Relaxed);
        self.idle.store(ptr::from_ref(idle).cast_mut(), Ordering::Release);
        // Release: pairs with the Acquire in `now`.
        self.clock.store(ptr::from_ref(clock).cast_mut(), Ordering::Release);
    }

    /// Whose base it is.
    pub(crate) fn cpu(&self) -> CpuId {
        CpuId::new(self.cpu.load(Ordering::Relaxed)).expect("it was the number of a CPU")
    }

    /// Makes known that something is due at `next`. Returns whether nobody may be awake to see to it.
    pub(crate) fn publish(&self, next: u64) -> bool {
        // SAFETY: null, or from a `&'static`. Acquire: pairs with the Release in `set_clock`.
        let Some(idle) = (unsafe { self.idle.load(Ordering::Acquire).as_ref() }) else { return false };
        // Release: pairs with the Acquire of who finds it, and then looks at the base.
        idle.earliest.fetch_min(next, Ordering::AcqRel);
        // Pairs with the fence in `stop_tick`: who stops ticking after this look sees what was made known.
        fence(Ordering::SeqCst);
        idle.ticking.load(Ordering::Relaxed) == 0 && idle.promise.load(Ordering::Relaxed) > next
    }

    /// Takes the lock.
    #[inline(always)]
    pub(crate) fn lock<'a>(&'a self, quiet: &'a impl IrqsOff) -> Locked<'a, Q, P> {
        self.inner.lock_with(quiet)
    }

    /// Takes the lock if it is free. Where dependencies are checked it waits, so that this one is seen.
    #[inline(always)]
    pub(crate) fn try_lock<'a>(&'a self, quiet: &'a impl IrqsOff) -> Option<Locked<'a, Q, P>> {
        if sync::lockdep::ENABLED { Some(self.lock(quiet)) } else { self.inner.try_lock_with(quiet) }
    }

    /// What time it is, for the queue: never behind what it was told before.
    #[inline(always)]
    pub(crate) fn now(&self, inner: &mut Inner<Q, P>) -> u64 {
        // Acquire: pairs with the Release in `set_clock`.
        let clock = self.clock.load(Ordering::Acquire);
        // SAFETY: a clock, which lives for ever, or else what `still` returns.
        let clock = unsafe { if cfg!(any(loom, shuttle)) { clock.as_ref() } else { Some(&*clock) } };
        let now = clock.map_or(inner.now, |clock| clock.load(Ordering::Relaxed).max(inner.now));
        inner.now = now;
        now
    }

    /// A bound from below for when something is due, without the lock; `u64::MAX` if nothing is. Out of date at once.
    #[inline(always)]
    pub(crate) fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// The queue's next is `next`. Under the lock.
    #[inline(always)]
    fn set_due(&self, next: u64) {
        self.due.store(next, Ordering::Relaxed);
    }

    /// The queue's next has become earlier. Returns whether somebody must be [told](Base::tell).
    #[inline]
    fn note_earlier(&self, inner: &mut Inner<Q, P>) -> Option<u64> {
        let next = inner.next();
        self.set_due(next);
        (next < inner.alarm).then_some(next)
    }

    /// Tells whoever sleeps that `next` comes before the end of its sleep. The lock is not held, interrupts are off.
    #[cold]
    fn tell(&'static self, next: u64) {
        (self.tell)(self, next);
    }

    /// Sets until when somebody sleeps (0: nobody does) and returns when the queue has something to do, both in one step:
    /// an entry that comes later is told of.
    pub(crate) fn set_alarm(&self, quiet: &impl IrqsOff, alarm: impl FnOnce(u64) -> u64) -> u64 {
        self.alarm_after(quiet, |_| (), alarm)
    }

    /// The same for who is about to sleep, and does some work first to find out whether what comes next really does.
    pub(crate) fn set_alarm_to_sleep(&self, quiet: &impl IrqsOff, alarm: impl FnOnce(u64) -> u64) -> u64 {
        let settle = |inner: &mut Inner<Q, P>| {
            let now = self.now(inner);
            inner.queue.settle(now, SETTLED);
        };
        self.alarm_after(quiet, settle, alarm)
    }

    fn alarm_after(
        &self,
        quiet: &impl IrqsOff,
        before: impl FnOnce(&mut Inner<Q, P>),
        alarm: impl FnOnce(u64) -> u64,
    ) -> u64 {
        let mut locked = self.lock(quiet);
        before(&mut locked);
        let next = locked.next();
        self.set_due(next);
        locked.alarm = alarm(next);
        next
    }

    /// When the queue has something to do, `u64::MAX` if never. Cost: one lock.
    pub(crate) fn next(&self, quiet: &impl IrqsOff) -> u64 {
        self.lock(quiet).next()
    }

    /// From here on what comes here goes to `heir`; what is here goes there now, or, if another CPU is calling what is due
    /// here, when that is done. Returns how many timers have gone.
    pub(crate) fn close(&'static self, heir: &'static Base<Q, P>) -> usize {
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let mut locked = self.lock(&quiet);
        locked.heir = Some(heir);
        locked.alarm = 0;
        drop(locked);
        drop(quiet);
        self.hand_over()
    }

    /// Moves what is here to the heir, if there is one, and unless somebody runs this base: a running timer may be in the
    /// queue, and stays (B4). Returns how many timers have gone.
    fn hand_over(&'static self) -> usize {
        let mut moved = 0;
        loop {
            let quiet = sync::Cpu::<P>::disable_interrupts();
            let locked = self.lock(&quiet);
            let Some(heir) = locked.heir else { return moved };
            if locked.busy && !is_planted(Fault::CloseBusy) || !move_one(&quiet, self, locked, heir) {
                return moved;
            }
            moved += 1;
        }
    }

    /// Timers come here again.
    pub(crate) fn reopen(&self, quiet: &impl IrqsOff) {
        self.lock(quiet).heir = None;
    }

    /// What has happened so far.
    ///
    /// Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// TIMERS.after(Ticks(3), |_| ());
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// let stats = MINE.global().stats();
    /// assert_eq!((stats.called, stats.latest), (1, 2));
    /// # let _ = (Arc::new(Timer::new(|_| ())), TimerFlags::NONE);
    /// ```
    pub fn stats(&self) -> Stats {
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let slowest = self.lock(&quiet).slowest;
        self.stats.read(slowest)
    }

    /// Calls that take longer than `ns` nanoseconds are counted as slow from here on, and the slowest ones are remembered;
    /// `None` (how it begins) leaves the clock alone. Contexts: any.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use hal::{Native, Platform};
    /// use timers::{CpuTimers, Ticks, Timers};
    ///
    /// static TIMERS: Timers = Timers::new();
    /// static MINE: CpuTimers = CpuTimers::new();
    /// TIMERS.install(Native::cpu(), &MINE);
    /// MINE.global().set_slow_limit(Some(1_000_000));
    ///
    /// TIMERS.after(Ticks(1), |_| std::thread::sleep(Duration::from_millis(2)));
    /// TIMERS.tick(Native::cpu(), Ticks(1));
    /// // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// let serving = unsafe { sync::context::enter_softirq() };
    /// TIMERS.run(&serving);
    ///
    /// let stats = MINE.global().stats();
    /// assert_eq!((stats.called, stats.slow, stats.latest), (1, 1, 0));
    /// let slowest = stats.slowest[0].unwrap();
    /// println!("{} took {} us", slowest.function, slowest.ns / 1_000);
    /// assert!(slowest.ns >= 2_000_000);
    /// ```
    pub fn set_slow_limit(&self, ns: Option<u64>) {
        self.slow_ns.store(ns.unwrap_or(NO_LIMIT), Ordering::Relaxed);
    }
}

impl<Q: Queue, P: Platform> Inner<Q, P> {
    /// When there is something to do, `u64::MAX` if never.
    pub(crate) fn next(&mut self) -> u64 {
        self.queue.next()
    }
}

impl<Q: Queue, P: Platform> fmt::Debug for Base<Q, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("due", &self.due()).finish_non_exhaustive()
    }
}

/// Looks at an entry's time in one step with regard to changes without the lock: those that come later see that it is not
/// linked any more. For whoever has just taken it out.
#[inline(always)]
fn settled_expires<E: Entry>(entry: &E) -> u64 {
    match entry.expires_word() {
        // Release: pairs with the Acquire in `modify_in_place`, which then sees that the entry was taken out. Acquire:
        // pairs with the Release there: the call sees what was done before a change that it takes into account.
        Some(word) if !is_planted(Fault::ReadPlainly) => word.fetch_add(0, Ordering::AcqRel),
        _ => entry.expires(),
    }
}
