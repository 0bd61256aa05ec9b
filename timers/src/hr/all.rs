//! The machine's high-resolution timers: which CPU has which, and arming them.

use core::fmt;
use core::panic::Location;
use core::ptr;

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform};
use sync::Cpu;
use sync::context::SoftirqGuard;
#[cfg(feature = "alloc")]
use sync::lockdep::Level;

#[cfg(feature = "alloc")]
use super::HrEntry;
use super::{CpuHr, Due, HrQueue};
#[cfg(feature = "alloc")]
use crate::base::Flags;
use crate::base::{Armed, How, Reference, arm};
use crate::primitives::{AtomicPtr, Ordering, const_fn};
use crate::timer::Handle;
#[cfg(feature = "alloc")]
use crate::timer::{Fired, one_shot};

#[cfg(not(loom))]
const CPUS: usize = hal::MAX_CPUS;
#[cfg(loom)]
const CPUS: usize = 4;

/// The high-resolution timers of all CPUs of platform `P`: a value, of which a kernel has one. Times are nanoseconds on the
/// platform's clock ([`Platform::now_ns`]), absolute.
///
/// A timer is called on the CPU that armed it (or that it was armed for). When one comes that is due before all others, its
/// CPU's timer interrupt is programmed, by the function that [`CpuHr::new`] was given; a timer that is deleted leaves the
/// interrupt as it is, which then finds nothing to do.
///
/// | | called by |
/// |---|---|
/// | [`install`](HrTimers::install), [`online`](HrTimers::online), [`offline`](HrTimers::offline) | whoever starts and stops CPUs |
/// | [`interrupt`](HrTimers::interrupt) | the timer's interrupt |
/// | [`next`](HrTimers::next) | every other interrupt, before it programs the timer or lets the CPU sleep |
/// | [`run`](HrTimers::run) | the softirq |
/// | [`add`](HrTimers::add), [`modify`](HrTimers::modify), .. | everybody |
///
/// Linux: `hrtimer_bases` and the functions of `kernel/time/hrtimer.c`.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use hal::{CpuId, Native, Platform, hosted};
/// use timers::hr::{CpuHr, HrTimer, HrTimers};
///
/// static TIMERS: HrTimers = HrTimers::new();
/// static MINE: CpuHr = CpuHr::new(|by| PROGRAMMED.store(by, Ordering::Relaxed));
/// static PROGRAMMED: AtomicU64 = AtomicU64::new(u64::MAX);
///
/// let clock = hosted::TestClock::install();
/// let pinned = sync::preempt::disable();
/// TIMERS.install(Native::cpu(), &MINE);
///
/// // A beat of 250 us, which does not drift.
/// let ticks = Arc::new(AtomicU64::new(0));
/// let counted = Arc::clone(&ticks);
/// let metronome = Arc::new(HrTimer::hard(move |firing| {
///     counted.fetch_add(1 + firing.forward(250_000), Ordering::Relaxed);
/// }));
/// let begun = Native::now_ns();
/// TIMERS.add(&metronome, begun + 250_000);
/// assert_eq!(PROGRAMMED.load(Ordering::Relaxed), begun + 250_000);
///
/// // The interrupt comes late: three beats have passed.
/// clock.advance(800_000);
/// let quiet = sync::irq::disable();
/// let due = TIMERS.interrupt(&quiet, Native::now_ns());
/// assert_eq!((ticks.load(Ordering::Relaxed), due.next), (3, begun + 1_000_000));
/// metronome.delete();
/// ```
pub struct HrTimers<P: Platform = Native> {
    cpus: [AtomicPtr<CpuHr<P>>; CPUS],
}

impl HrTimers {
    const_fn! {
        /// No CPU has timers yet. On this build's platform.
        ///
        /// ```
        /// static TIMERS: timers::hr::HrTimers = timers::hr::HrTimers::new();
        /// assert!(TIMERS.of(hal::CpuId::BOOT).is_none());
        /// ```
        pub fn new() -> HrTimers {
            HrTimers::new_in()
        }
    }
}

impl<P: Platform> Default for HrTimers<P> {
    fn default() -> HrTimers<P> {
        HrTimers::new_in()
    }
}

impl<P: Platform> HrTimers<P> {
    const_fn! {
        /// No CPU has timers yet. On the platform `P`.
        ///
        /// ```
        /// use hal::Native;
        /// static TIMERS: timers::hr::HrTimers<Native> = timers::hr::HrTimers::new_in();
        /// assert!(TIMERS.of(hal::CpuId::BOOT).is_none());
        /// ```
        pub fn new_in() -> HrTimers<P> {
            HrTimers { cpus: no_cpus!() }
        }
    }

    /// Gives `cpu` its timers, which are nobody else's. Once for each CPU, before it arms any.
    ///
    /// # Panics
    /// If the CPU has some.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use timers::hr::{CpuHr, HrTimers};
    ///
    /// static TIMERS: HrTimers = HrTimers::new();
    /// // A kernel has its timer programmed here.
    /// static MINE: CpuHr = CpuHr::new(|at_ns| println!("an interrupt by {at_ns}"));
    /// # let pinned = sync::preempt::disable();
    /// TIMERS.install(Native::cpu(), &MINE);
    /// assert!(TIMERS.of(Native::cpu()).is_some());
    /// ```
    pub fn install(&'static self, cpu: CpuId, timers: &'static CpuHr<P>) {
        timers.belongs_to(cpu);
        timers.watch(&Cpu::<P>::disable_interrupts());
        let before = self.cpus[cpu.index()].swap(ptr::from_ref(timers).cast_mut(), Ordering::AcqRel);
        assert!(before.is_null(), "CPU {cpu} has high-resolution timers already");
    }

    /// What `cpu` was given, if it was given any.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::TimerFlags;
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// assert_eq!(TIMERS.of(Native::cpu()).unwrap().stats().hangs, 0);
    /// # let _ = (Arc::new(HrTimer::soft(|_| ())), TimerFlags::NONE);
    /// ```
    pub fn of(&self, cpu: CpuId) -> Option<&'static CpuHr<P>> {
        // SAFETY: null, or from a `&'static`. Acquire: pairs with the exchange in `install`.
        unsafe { self.cpus[cpu.index()].load(Ordering::Acquire).as_ref() }
    }

    #[inline(always)]
    fn on(&self, cpu: CpuId) -> &'static CpuHr<P> {
        match self.of(cpu) {
            Some(timers) => timers,
            None => not_installed(cpu),
        }
    }

    /// For the timer's interrupt on the executing CPU, at `now`: calls the hard timers that are due, and says whether there
    /// are soft ones, and when the next interrupt has to come. That may be later than the next timer: after a [hang](CpuHr::stats).
    ///
    /// Who is called here re-arms timers as it likes; the time to program is what this returns.
    ///
    /// Linux: `hrtimer_interrupt`. Contexts: hardirq. Cost: if nothing is armed, a few loads; else a lock or four, a
    /// reading of the clock, and the functions.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::TimerFlags;
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let _ = TimerFlags::NONE;
    /// let timer = Arc::new(HrTimer::hard(|fired| assert!(fired.now() >= fired.expired_at())));
    /// let now = Native::now_ns();
    /// TIMERS.add(&timer, now + 50_000);
    /// let quiet = sync::irq::disable();
    /// // The interrupt comes 10 us late.
    /// let due = TIMERS.interrupt(&quiet, now + 60_000);
    /// assert_eq!((due.softirq, due.next), (false, u64::MAX));
    /// assert!(!timer.is_pending());
    /// ```
    pub fn interrupt(&'static self, quiet: &impl IrqsOff, now: u64) -> Due {
        self.on(P::cpu()).interrupt(quiet, now)
    }

    /// When the executing CPU's timer interrupt has to come for these timers, in ns; `u64::MAX` if not at all. To be asked
    /// after an interrupt from another CPU, which may have armed a timer here, and before the CPU sleeps.
    ///
    /// Linux: `hrtimer_get_next_event`. Contexts: interrupts off. Cost: a few loads if nothing is armed, else two locks.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::TimerFlags;
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let _ = TimerFlags::NONE;
    /// let timer = Arc::new(HrTimer::soft(|_| ()));
    /// let hour = Native::now_ns() + 3_600_000_000_000;
    /// TIMERS.add(&timer, hour);
    /// assert_eq!(TIMERS.next(&sync::irq::disable()), hour);
    /// timer.delete();
    /// assert_eq!(TIMERS.next(&sync::irq::disable()), u64::MAX);
    /// ```
    pub fn next(&'static self, quiet: &impl IrqsOff) -> u64 {
        self.on(P::cpu()).next(quiet)
    }

    /// For the softirq: calls the executing CPU's soft timers that are due. Returns whether more have become so
    /// meanwhile, for which the softirq is to be raised again.
    ///
    /// Linux: `hrtimer_run_softirq`. Contexts: softirq.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::TimerFlags;
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let _ = TimerFlags::NONE;
    /// let timer = Arc::new(HrTimer::soft(|_| println!("in the softirq")));
    /// let now = Native::now_ns();
    /// TIMERS.add(&timer, now);
    /// let due = TIMERS.interrupt(&sync::irq::disable(), now);
    /// assert!(due.softirq && timer.is_pending(), "the interrupt leaves it to the softirq");
    /// // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// let serving = unsafe { sync::context::enter_softirq() };
    /// assert!(!TIMERS.run(&serving), "no more have become due");
    /// assert!(!timer.is_pending());
    /// ```
    #[must_use]
    pub fn run(&'static self, _serving: &SoftirqGuard<P>) -> bool {
        self.on(P::cpu()).run_soft()
    }

    /// `cpu` is on-line again: timers are armed there from here on. Contexts: on that CPU, interrupts off.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static CPUS: [CpuHr; 2] = [CpuHr::new(|_| ()), CpuHr::new(|_| ())];
    /// # let pinned = sync::preempt::disable();
    /// # let here = Native::cpu();
    /// # let goes = CpuId::new(here.as_u32() ^ 1).unwrap();
    /// # TIMERS.install(here, &CPUS[0]);
    /// # TIMERS.install(goes, &CPUS[1]);
    /// # let hour = Native::now_ns() + 3_600_000_000_000;
    /// TIMERS.offline(goes, here);
    /// // On `goes`, when it is back.
    /// TIMERS.online(&sync::irq::disable(), goes);
    /// let timer = Arc::new(HrTimer::soft(|_| ()));
    /// TIMERS.add_on(goes, &timer, hour);
    /// assert_eq!(TIMERS.next(&sync::irq::disable()), u64::MAX, "it is not here");
    /// # timer.delete();
    /// ```
    pub fn online(&'static self, quiet: &impl IrqsOff, cpu: CpuId) {
        let timers = self.on(cpu);
        for base in timers.bases() {
            base.reopen(quiet);
        }
        timers.watch(quiet);
    }

    /// `cpu` is off-line, and executes nothing any more: all its timers go to `heir`, which is on-line, and is interrupted so
    /// that it asks for the [next](HrTimers::next) time. Returns how many.
    ///
    /// Linux: `hrtimers_cpu_dying`. Contexts: any but NMI. Cost: two locks for each timer, interrupts off for one at a time.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static CPUS: [CpuHr; 2] = [CpuHr::new(|_| ()), CpuHr::new(|_| ())];
    /// # let pinned = sync::preempt::disable();
    /// # let here = Native::cpu();
    /// # let goes = CpuId::new(here.as_u32() ^ 1).unwrap();
    /// # TIMERS.install(here, &CPUS[0]);
    /// # TIMERS.install(goes, &CPUS[1]);
    /// # let hour = Native::now_ns() + 3_600_000_000_000;
    /// let timer = Arc::new(HrTimer::soft(|_| ()));
    /// TIMERS.add_on(goes, &timer, hour);
    /// assert_eq!(TIMERS.offline(goes, here), 1);
    /// assert_eq!(TIMERS.next(&sync::irq::disable()), hour);
    /// # timer.delete();
    /// ```
    pub fn offline(&'static self, cpu: CpuId, heir: CpuId) -> usize {
        let (from, to) = (self.on(cpu), self.on(heir));
        let moved = from.bases().into_iter().zip(to.bases()).map(|(from, to)| from.close(to)).sum();
        P::kick(heir);
        moved
    }

    /// Has the timer's function called at `at`, or as soon as possible if that has passed, on this CPU. Returns whether it is
    /// armed now: `false` if it is shut down. One that is armed already stays as it is, which is reported.
    ///
    /// Linux: `hrtimer_start`. Contexts: any but NMI. Cost: one lock, or two if it was armed on another CPU before.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(HrTimer::soft(|_| ()));
    /// let at = Native::now_ns() + 3_600_000_000_000;
    /// assert!(TIMERS.add(&timer, at));
    /// assert_eq!(timer.expires(), at);
    /// ```
    #[doc(alias = "hrtimer_start")]
    #[track_caller]
    pub fn add<T>(&'static self, timer: impl Handle<T, HrQueue, P>, at: u64) -> bool {
        self.arm(timer.into_reference(), at, How::Add, Location::caller(), P::cpu) == Armed::Now
    }

    /// The same, `ns` nanoseconds from now. Linux: `hrtimer_start` with `HRTIMER_MODE_REL`. Cost: a reading of the clock more.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(HrTimer::soft(|_| ()));
    /// let begun = Native::now_ns();
    /// assert!(TIMERS.add_in(&timer, 3_600_000_000_000));
    /// assert!(timer.expires() >= begun + 3_600_000_000_000);
    /// ```
    #[track_caller]
    pub fn add_in<T>(&'static self, timer: impl Handle<T, HrQueue, P>, ns: u64) -> bool {
        self.add(timer, P::now_ns().saturating_add(ns))
    }

    /// The same as [`add`](HrTimers::add), on the CPU `cpu`, which is interrupted if need be. Of a CPU that is off-line the
    /// timer goes where its others went.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(HrTimer::soft(|_| ()));
    /// // From any CPU, once that one has timers.
    /// assert!(TIMERS.add_on(Native::cpu(), &timer, Native::now_ns() + 3_600_000_000_000));
    /// ```
    #[track_caller]
    pub fn add_on<T>(&'static self, cpu: CpuId, timer: impl Handle<T, HrQueue, P>, at: u64) -> bool {
        self.arm(timer.into_reference(), at, How::Add, Location::caller(), || cpu) == Armed::Now
    }

    /// Has the timer's function called at `at`, whether or not it is armed for another time already. Returns whether it
    /// was. One that is shut down stays so. It moves to this CPU, unless it is running, or pinned and armed.
    ///
    /// Linux: `hrtimer_start` of one that is active. Contexts: any but NMI. Cost: one lock, two if it moves.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(HrTimer::soft(|_| ()));
    /// let hour = Native::now_ns() + 3_600_000_000_000;
    /// assert!(!TIMERS.modify(&timer, hour), "it was not armed, and is");
    /// assert!(TIMERS.modify(&timer, 2 * hour), "it was, and is later now");
    /// ```
    #[track_caller]
    pub fn modify<T>(&'static self, timer: impl Handle<T, HrQueue, P>, at: u64) -> bool {
        if timer.core().modify_in_place(at) {
            return true;
        }
        self.arm(timer.into_reference(), at, How::Modify, Location::caller(), P::cpu) == Armed::Before
    }

    /// The same, unless it is armed for an earlier time already.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(HrTimer::soft(|_| ()));
    /// let hour = Native::now_ns() + 3_600_000_000_000;
    /// TIMERS.add(&timer, hour);
    /// TIMERS.reduce(&timer, hour + 1);
    /// assert_eq!(timer.expires(), hour, "that would be later");
    /// ```
    #[track_caller]
    pub fn reduce<T>(&'static self, timer: impl Handle<T, HrQueue, P>, at: u64) -> bool {
        self.arm(timer.into_reference(), at, How::Reduce, Location::caller(), P::cpu) == Armed::Before
    }

    /// Calls `function` once, at `at` or as soon as possible if that has passed, in the softirq. The timer's memory is freed
    /// before the call, and nobody has to. Contexts: any but NMI. Cost: an allocation and one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let hour = Native::now_ns() + 3_600_000_000_000;
    /// TIMERS.after(hour, |fired| assert!(fired.now() >= fired.expired_at()));
    /// assert_eq!(TIMERS.next(&sync::irq::disable()), hour);
    /// ```
    #[cfg(feature = "alloc")]
    #[track_caller]
    pub fn after<F>(&'static self, at: u64, function: F)
    where
        F: FnOnce(&Fired<'_, HrQueue, P>) + Send + 'static,
    {
        let reference = one_shot(HrEntry::new(at), Flags::NONE, Level::Softirq, function);
        self.arm(reference, at, How::Add, Location::caller(), P::cpu);
    }

    /// The same, in the timer's interrupt.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::hr::{CpuHr, HrTimer, HrTimers};
    /// # static TIMERS: HrTimers = HrTimers::new();
    /// # static MINE: CpuHr = CpuHr::new(|_| ());
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let hour = Native::now_ns() + 3_600_000_000_000;
    /// TIMERS.after_hard(hour, |_| assert!(sync::context::irqs_disabled()));
    /// assert_eq!(TIMERS.next(&sync::irq::disable()), hour);
    /// ```
    #[cfg(feature = "alloc")]
    #[track_caller]
    pub fn after_hard<F>(&'static self, at: u64, function: F)
    where
        F: FnOnce(&Fired<'_, HrQueue, P>) + Send + 'static,
    {
        let reference = one_shot(HrEntry::new(at), Flags::IRQSAFE, Level::Hardirq, function);
        self.arm(reference, at, How::Add, Location::caller(), P::cpu);
    }

    #[inline]
    fn arm(
        &'static self,
        reference: Reference<HrQueue, P>,
        expires: u64,
        how: How,
        at: &'static Location<'static>,
        cpu: impl FnOnce() -> CpuId,
    ) -> Armed {
        // Before the CPU is asked for its number.
        let quiet = Cpu::<P>::disable_interrupts();
        // SAFETY: the reference keeps it alive.
        let flags = unsafe { reference.core.as_ref() }.word().flags();
        arm(quiet, reference, self.on(cpu()).base_for(flags), expires, how, at)
    }
}

#[cold]
fn not_installed(cpu: CpuId) -> ! {
    panic!("CPU {cpu} has no high-resolution timers: `HrTimers::install` gives it some");
}

/// An array of CPUs without timers.
macro_rules! no_cpus {
    () => {{
        #[cfg(not(loom))]
        {
            [const { AtomicPtr::new(ptr::null_mut()) }; CPUS]
        }
        #[cfg(loom)]
        {
            core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()))
        }
    }};
}
use no_cpus;

impl<P: Platform> fmt::Debug for HrTimers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HrTimers").finish_non_exhaustive()
    }
}
