//! The machine's coarse timers: which CPU has which, what time it is, and who wakes up for whom.

mod arm;
mod hotplug;
mod idle;
#[cfg(all(test, loom))]
mod models;

use core::fmt;
use core::mem::offset_of;
use core::ptr;

use hal::{CpuId, Native, Platform};
use sync::context::SoftirqGuard;

use crate::Ticks;
use crate::base::{Base, Flags};
use crate::primitives::{AtomicPtr, AtomicU32, AtomicU64, Ordering, const_fn};
use crate::wheel::Wheel;

#[cfg(not(loom))]
const CPUS: usize = hal::MAX_CPUS;
/// As many as models have.
#[cfg(loom)]
const CPUS: usize = 4;

/// "Never", as a tick.
const NEVER: u64 = u64::MAX;

/// The coarse timers of all CPUs of platform `P`: a value, of which a kernel has one.
///
/// It has no clock: whoever ticks says what time it is ([`tick`](Timers::tick)), and raises the softirq that calls
/// [`run`](Timers::run) if that says so. Time is in [`Ticks`], absolute, and begins with 0.
///
/// | | called by |
/// |---|---|
/// | [`install`](Timers::install), [`online`](Timers::online), [`offline`](Timers::offline) | whoever starts and stops CPUs |
/// | [`tick`](Timers::tick) | the tick's interrupt |
/// | [`run`](Timers::run) | the timer softirq |
/// | [`start_tick`](Timers::start_tick), [`stop_tick`](Timers::stop_tick) | the idle loop |
/// | [`add`](Timers::add), [`modify`](Timers::modify), .. | everybody |
///
/// Linux: `timer_bases`, `jiffies_64` and the functions of `kernel/time/timer.c`. Size: 8 bytes for each possible CPU, and
/// what the CPUs bring with them ([`CpuTimers`]).
pub struct Timers<P: Platform = Native> {
    /// What time it is. Read by all, and written once a tick.
    now: OwnLine<AtomicU64>,
    /// The rest of the machine's state; see `idle.rs`.
    idle: OwnLine<Idle>,
    cpus: [AtomicPtr<CpuTimers<P>>; CPUS],
}

/// On a cache line of its own.
#[repr(align(64))]
struct OwnLine<T>(T);

/// Who is idle, and what the others do for them. The words are explained in `idle.rs`.
pub(crate) struct Idle {
    pub(crate) ticking: AtomicU32,
    pub(crate) earliest: AtomicU64,
    pub(crate) promise: AtomicU64,
}

/// One CPU's coarse timers: those that are tied to it, those that others may call for it, and those that do not wake it.
///
/// It lives for ever, and is given to [`Timers::install`].
///
/// Linux: `timer_bases[NR_BASES]`, with `BASE_LOCAL`, `BASE_GLOBAL` and `BASE_DEF`.
#[repr(C)]
pub struct CpuTimers<P: Platform = Native> {
    local: Base<Wheel, P>,
    global: Base<Wheel, P>,
    deferrable: Base<Wheel, P>,
    /// Whether its tick runs, which `Idle::ticking` counts. Written by the CPU itself, or for it when it is off-line.
    ticks: AtomicU32,
    /// What it has promised; see `idle.rs`. Written likewise.
    promised: AtomicU64,
}

impl CpuTimers {
    const_fn! {
        /// No timers, on this build's platform.
        ///
        /// ```
        /// static MINE: timers::CpuTimers = timers::CpuTimers::new();
        /// assert_eq!(MINE.global().stats().called, 0);
        /// ```
        #[track_caller]
        #[inline]
        pub fn new() -> CpuTimers {
            CpuTimers::new_in()
        }
    }
}

impl<P: Platform> Default for CpuTimers<P> {
    fn default() -> CpuTimers<P> {
        CpuTimers::new_in()
    }
}

impl<P: Platform> CpuTimers<P> {
    const_fn! {
        /// No timers, on the platform `P`.
        ///
        /// ```
        /// use hal::Native;
        /// static MINE: timers::CpuTimers<Native> = timers::CpuTimers::new_in();
        /// assert_eq!(MINE.local().stats().called, 0);
        /// ```
        #[track_caller]
        pub fn new_in() -> CpuTimers<P> {
            CpuTimers {
                local: Base::new(Wheel::new(), idle::tell_owner::<P>),
                global: Base::new(Wheel::new(), idle::tell_all::<P>),
                // Nobody sleeps until one of these: nobody is told.
                deferrable: Base::new(Wheel::new(), idle::tell_owner::<P>),
                ticks: AtomicU32::new(0),
                promised: AtomicU64::new(NEVER),
            }
        }
    }

    /// The timers that are tied to the CPU, for statistics and limits.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let tied = Arc::new(Timer::new_in(TimerFlags::PINNED, |_| ()));
    /// TIMERS.add(&tied, Ticks(5));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert_eq!(MINE.local().stats().called, 1);
    /// ```
    pub fn local(&self) -> &Base<Wheel, P> {
        &self.local
    }

    /// Those that another CPU may call while this one is idle.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert_eq!(MINE.global().stats().called, 1);
    /// ```
    pub fn global(&self) -> &Base<Wheel, P> {
        &self.global
    }

    /// Those that do not wake the CPU.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new_in(TimerFlags::DEFERRABLE, |_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert_eq!(MINE.deferrable().stats().called, 1);
    /// ```
    pub fn deferrable(&self) -> &Base<Wheel, P> {
        &self.deferrable
    }

    fn bases(&self) -> [&Base<Wheel, P>; 3] {
        [&self.local, &self.global, &self.deferrable]
    }

    /// Where a timer with these flags goes.
    #[inline(always)]
    fn base_for(&'static self, flags: Flags) -> &'static Base<Wheel, P> {
        let base = ptr::from_ref(self).wrapping_byte_add(Self::BASES[flags.ties()]).cast();
        // SAFETY: the table has the offsets of bases.
        unsafe { &*base }
    }

    /// Where in here the base is for timers with these [ties](Flags::ties).
    const BASES: [usize; 4] = {
        let deferrable = offset_of!(Self, deferrable);
        [offset_of!(Self, global), offset_of!(Self, local), deferrable, deferrable]
    };
}

impl<P: Platform> fmt::Debug for CpuTimers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuTimers")
            .field("local", &self.local)
            .field("global", &self.global)
            .field("deferrable", &self.deferrable)
            .finish_non_exhaustive()
    }
}

impl Timers {
    const_fn! {
        /// No CPU has timers yet; it is tick 0. On this build's platform.
        ///
        /// ```
        /// static TIMERS: timers::Timers = timers::Timers::new();
        /// assert_eq!(TIMERS.now(), timers::Ticks(0));
        /// ```
        pub fn new() -> Timers {
            Timers::new_in()
        }
    }
}

impl<P: Platform> Default for Timers<P> {
    fn default() -> Timers<P> {
        Timers::new_in()
    }
}

impl<P: Platform> Timers<P> {
    const_fn! {
        /// No CPU has timers yet; it is tick 0. On the platform `P`.
        ///
        /// ```
        /// use hal::Native;
        /// static TIMERS: timers::Timers<Native> = timers::Timers::new_in();
        /// assert_eq!(TIMERS.now(), timers::Ticks(0));
        /// ```
        pub fn new_in() -> Timers<P> {
            Timers {
                now: OwnLine(AtomicU64::new(0)),
                idle: OwnLine(Idle {
                    ticking: AtomicU32::new(0),
                    earliest: AtomicU64::new(NEVER),
                    promise: AtomicU64::new(NEVER),
                }),
                cpus: no_cpus!(),
            }
        }
    }

    /// Gives `cpu` its timers, which are nobody else's. Once for each CPU, before it arms any.
    ///
    /// # Panics
    /// If the CPU has some.
    ///
    /// ```
    /// use hal::CpuId;
    /// use timers::{CpuTimers, Timers};
    ///
    /// static TIMERS: Timers = Timers::new();
    /// static CPUS: [CpuTimers; 2] = [CpuTimers::new(), CpuTimers::new()];
    /// for (number, timers) in CPUS.iter().enumerate() {
    ///     TIMERS.install(CpuId::new(number as u32).unwrap(), timers);
    /// }
    /// assert!(TIMERS.of(CpuId::BOOT).is_some());
    /// ```
    pub fn install(&'static self, cpu: CpuId, timers: &'static CpuTimers<P>) {
        for base in timers.bases() {
            base.set_clock(&self.now.0, &self.idle.0, cpu);
        }
        let before = self.cpus[cpu.index()].swap(ptr::from_ref(timers).cast_mut(), Ordering::AcqRel);
        assert!(before.is_null(), "CPU {cpu} has timers already");
    }

    /// What `cpu` was given, if it was given any.
    ///
    /// ```
    /// use hal::CpuId;
    /// static TIMERS: timers::Timers = timers::Timers::new();
    /// assert!(TIMERS.of(CpuId::BOOT).is_none(), "it was not given any yet");
    /// ```
    pub fn of(&self, cpu: CpuId) -> Option<&'static CpuTimers<P>> {
        // SAFETY: null, or from a `&'static`. Acquire: pairs with the exchange in `install`.
        unsafe { self.cpus[cpu.index()].load(Ordering::Acquire).as_ref() }
    }

    #[inline(always)]
    fn on(&self, cpu: CpuId) -> &'static CpuTimers<P> {
        match self.of(cpu) {
            Some(timers) => timers,
            None => not_installed(cpu),
        }
    }

    /// All CPUs that have timers.
    fn all(&self) -> impl Iterator<Item = &'static CpuTimers<P>> {
        // Not the places of CPUs that this machine cannot have: whoever stops to tick looks at all.
        let cpus = self.cpus.iter().take(P::cpu_count() as usize);
        // SAFETY: as in `of`.
        cpus.filter_map(|cpu| unsafe { cpu.load(Ordering::Acquire).as_ref() })
    }

    /// What tick it is. Linux: `jiffies_64`. Contexts: any. Cost: one load.
    ///
    /// ```
    /// static TIMERS: timers::Timers = timers::Timers::new();
    /// TIMERS.advance_to(timers::Ticks(7));
    /// let in_a_second = TIMERS.now() + timers::Ticks(timers::HZ);
    /// assert_eq!(in_a_second.0, 7 + timers::HZ);
    /// ```
    #[inline(always)]
    pub fn now(&self) -> Ticks {
        Ticks(self.now.0.load(Ordering::Relaxed))
    }

    /// It is `now` at least. Time does not go back. Contexts: any.
    ///
    /// ```
    /// static TIMERS: timers::Timers = timers::Timers::new();
    /// TIMERS.advance_to(timers::Ticks(7));
    /// TIMERS.advance_to(timers::Ticks(5));
    /// assert_eq!(TIMERS.now(), timers::Ticks(7));
    /// ```
    #[inline]
    pub fn advance_to(&self, now: Ticks) {
        if self.now.0.load(Ordering::Relaxed) < now.0 {
            self.now.0.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    /// For the tick's interrupt on `cpu`: it is `now` at least. Returns whether there is something to do, for which the
    /// timer softirq is to be raised on this CPU.
    ///
    /// Contexts: any. Cost: five loads if there is nothing.
    ///
    /// ```
    /// # use hal::{Native, Platform};
    /// use timers::{CpuTimers, Ticks, Timers};
    ///
    /// static TIMERS: Timers = Timers::new();
    /// static MINE: CpuTimers = CpuTimers::new();
    /// TIMERS.install(Native::cpu(), &MINE);
    /// TIMERS.after(Ticks(2), |_| println!("two ticks later"));
    ///
    /// assert!(!TIMERS.tick(Native::cpu(), Ticks(1)));
    /// assert!(TIMERS.tick(Native::cpu(), Ticks(2)), "the softirq has something to do");
    /// // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// let serving = unsafe { sync::context::enter_softirq() };
    /// assert_eq!(TIMERS.run(&serving), 1);
    /// assert_eq!(TIMERS.now(), Ticks(2));
    /// ```
    #[inline]
    pub fn tick(&self, cpu: CpuId, now: Ticks) -> bool {
        self.advance_to(now);
        let timers = self.on(cpu);
        let now = self.now().0;
        timers.local.due() <= now
            || timers.global.due() <= now
            || timers.deferrable.due() <= now
            || self.idle.0.earliest.load(Ordering::Relaxed) <= now
    }

    /// For the timer softirq: calls this CPU's timers that are due, and those of idle CPUs that others call. Returns how many.
    ///
    /// Contexts: softirq. Cost: what the functions take, and some 40 instructions for each; one lock for 192 of them.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// for at in [2, 3] {
    ///     TIMERS.after(Ticks(at), |_| ());
    /// }
    /// assert!(TIMERS.tick(Native::cpu(), Ticks(5)), "the softirq is to be raised");
    /// // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// let serving = unsafe { sync::context::enter_softirq() };
    /// assert_eq!(TIMERS.run(&serving), 2);
    /// ```
    pub fn run(&'static self, _serving: &SoftirqGuard<P>) -> u32 {
        let timers = self.on(P::cpu());
        let mut count = 0;
        for base in timers.static_bases() {
            count += self.run_base(base);
        }
        count + self.pull()
    }

    fn run_base(&self, base: &'static Base<Wheel, P>) -> u32 {
        if base.due() > self.now().0 {
            return 0;
        }
        base.run(|| self.now().0)
    }
}

impl<P: Platform> CpuTimers<P> {
    fn static_bases(&'static self) -> [&'static Base<Wheel, P>; 3] {
        [&self.local, &self.global, &self.deferrable]
    }
}

#[cold]
fn not_installed(cpu: CpuId) -> ! {
    panic!("CPU {cpu} has no timers: `Timers::install` gives it some");
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

impl<P: Platform> fmt::Debug for Timers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("now", &self.now()).finish_non_exhaustive()
    }
}
