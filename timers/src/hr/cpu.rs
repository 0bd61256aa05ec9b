//! The high-resolution timers of one CPU, and the interrupt that calls them.

use core::fmt;
use core::mem::offset_of;
use core::ptr;

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform};

use super::HrQueue;
use crate::base::{Base, Flags};
use crate::primitives::{AtomicU32, AtomicU64, Ordering, const_fn};

/// How often an interrupt looks again because something became due meanwhile, before that counts as a hang.
const ROUNDS: u32 = 3;
/// After a hang the next interrupt comes this much later at most.
const LONGEST_PENANCE_NS: u64 = 100_000_000;
const NEVER: u64 = u64::MAX;

/// The bases' places in `bases`.
const HARD: usize = 0;
const SOFT: usize = 1;

/// One CPU's high-resolution timers: a base for those that are called in the timer's interrupt (*hard*), and one for those
/// that the interrupt leaves to the softirq (*soft*).
///
/// It lives for ever, and is given to [`HrTimers::install`](super::HrTimers::install).
///
/// Linux: `struct hrtimer_cpu_base`.
#[repr(C)]
pub struct CpuHr<P: Platform = Native> {
    hard: Base<HrQueue, P>,
    soft: Base<HrQueue, P>,
    /// Has the CPU's timer interrupt by that time. On that CPU, with interrupts off.
    program: fn(u64),
    cpu: AtomicU32,
    /// Written by the CPU itself, with interrupts off.
    state: State,
    counts: Counts,
}

/// What the executing CPU is about. Each is 0 or 1, or a time.
struct State {
    /// Its interrupt is being handled, or it does penance: nobody need have the timer programmed, because it will be.
    busy: AtomicU32,
    /// The softirq was raised for soft timers, and has not ended: it looks after them.
    raised: AtomicU32,
    /// The alarms that were set, hard and soft: who arms a timer that comes before has this CPU hear of it.
    alarms: [AtomicU64; 2],
    /// Until then nothing is called in the interrupt, so that something else gets on.
    penance: AtomicU64,
}

struct Counts {
    events: AtomicU64,
    retries: AtomicU64,
    hangs: AtomicU64,
    longest_hang: AtomicU64,
}

/// What a CPU's interrupts have met with so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HrStats {
    /// Interrupts that looked for timers.
    pub events: u64,
    /// How often one of them looked again, because something had become due meanwhile.
    pub retries: u64,
    /// How often it gave up on that.
    pub hangs: u64,
    /// The longest time that one of those had taken by then, in ns.
    pub longest_hang_ns: u64,
}

/// What an interrupt leaves to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Due {
    /// The softirq of high-resolution timers is to be raised on this CPU.
    pub softirq: bool,
    /// When the next interrupt has to come, in ns; `u64::MAX` if none.
    pub next: u64,
}

impl CpuHr {
    const_fn! {
        /// No timers, on this build's platform.
        ///
        /// `program` has the CPU's timer interrupt come by the given time, if it would not come before. It is called on that
        /// CPU, with interrupts off and no lock held.
        ///
        /// ```
        /// static MINE: timers::hr::CpuHr = timers::hr::CpuHr::new(|_| ());
        /// assert_eq!(MINE.stats().events, 0);
        /// ```
        #[track_caller]
        #[inline]
        pub fn new(program: fn(u64)) -> CpuHr {
            CpuHr::new_in(program)
        }
    }
}

impl<P: Platform> CpuHr<P> {
    const_fn! {
        /// No timers, on the platform `P`. See [`new`](CpuHr::new).
        ///
        /// ```
        /// use hal::Native;
        /// static MINE: timers::hr::CpuHr<Native> = timers::hr::CpuHr::new_in(|_| ());
        /// assert_eq!(MINE.stats().events, 0);
        /// ```
        #[track_caller]
        pub fn new_in(program: fn(u64)) -> CpuHr<P> {
            CpuHr {
                hard: Base::new(HrQueue::new(), tell_of_hard::<P>),
                soft: Base::new(HrQueue::new(), tell_of_soft::<P>),
                program,
                cpu: AtomicU32::new(0),
                state: State {
                    busy: AtomicU32::new(0),
                    raised: AtomicU32::new(0),
                    alarms: [AtomicU64::new(0), AtomicU64::new(0)],
                    penance: AtomicU64::new(0),
                },
                counts: Counts {
                    events: AtomicU64::new(0),
                    retries: AtomicU64::new(0),
                    hangs: AtomicU64::new(0),
                    longest_hang: AtomicU64::new(0),
                },
            }
        }
    }

    /// The timers that are called in the interrupt, for statistics and limits.
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
    /// let timer = Arc::new(HrTimer::hard(|_| ()));
    /// let now = Native::now_ns();
    /// TIMERS.add(&timer, now);
    /// let _ = TIMERS.interrupt(&sync::irq::disable(), now);
    /// assert_eq!((MINE.hard().stats().called, MINE.soft().stats().called), (1, 0));
    /// ```
    pub fn hard(&self) -> &Base<HrQueue, P> {
        &self.hard
    }

    /// Those that are called in the softirq.
    ///
    /// ```
    /// static MINE: timers::hr::CpuHr = timers::hr::CpuHr::new(|_| ());
    /// // Calls that take longer than 20 us are counted from here on.
    /// MINE.soft().set_slow_limit(Some(20_000));
    /// assert_eq!(MINE.soft().stats().slow, 0);
    /// ```
    pub fn soft(&self) -> &Base<HrQueue, P> {
        &self.soft
    }

    /// What its interrupts have met with. Contexts: any.
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
    /// # let _ = (Arc::new(HrTimer::soft(|_| ())), TimerFlags::NONE);
    /// let _ = TIMERS.interrupt(&sync::irq::disable(), Native::now_ns());
    /// println!("{} interrupts, {} hangs", MINE.stats().events, MINE.stats().hangs);
    /// ```
    pub fn stats(&self) -> HrStats {
        let counts = &self.counts;
        HrStats {
            events: counts.events.load(Ordering::Relaxed),
            retries: counts.retries.load(Ordering::Relaxed),
            hangs: counts.hangs.load(Ordering::Relaxed),
            longest_hang_ns: counts.longest_hang.load(Ordering::Relaxed),
        }
    }

    /// Where a timer with these flags goes.
    #[inline(always)]
    pub(super) fn base_for(&'static self, flags: Flags) -> &'static Base<HrQueue, P> {
        if flags.has(Flags::IRQSAFE) { &self.hard } else { &self.soft }
    }

    pub(super) fn bases(&'static self) -> [&'static Base<HrQueue, P>; 2] {
        [&self.hard, &self.soft]
    }

    /// It belongs to `cpu` from here on.
    pub(super) fn belongs_to(&'static self, cpu: CpuId) {
        let _ = ptr::from_ref(self).expose_provenance();
        self.cpu.store(cpu.as_u32(), Ordering::Relaxed);
    }

    /// From here on whoever arms a timer that comes before the others has the interrupt programmed.
    pub(super) fn watch(&'static self, quiet: &impl IrqsOff) {
        for word in [&self.state.busy, &self.state.raised] {
            word.store(0, Ordering::Relaxed);
        }
        self.state.penance.store(0, Ordering::Relaxed);
        self.set_alarm(quiet, HARD, |next| next);
        self.set_alarm(quiet, SOFT, |next| next);
    }

    /// Sets one base's alarm, and returns when it has something to do.
    fn set_alarm(&'static self, quiet: &impl IrqsOff, which: usize, alarm: impl FnOnce(u64) -> u64) -> u64 {
        let set = &self.state.alarms[which];
        self.bases()[which].set_alarm(quiet, |next| {
            let alarm = alarm(next);
            set.store(alarm, Ordering::Relaxed);
            alarm
        })
    }

    /// For [`HrTimers::interrupt`](super::HrTimers::interrupt).
    pub(super) fn interrupt(&'static self, quiet: &impl IrqsOff, now: u64) -> Due {
        let penance = self.state.penance.load(Ordering::Relaxed);
        if now < penance {
            return Due { softirq: false, next: penance };
        }
        self.state.busy.store(1, Ordering::Relaxed);
        add(&self.counts.events, 1);
        let (mut at, mut softirq) = (now, false);
        for _ in 0..ROUNDS {
            // `due` is a bound for when something must be called; what has slack may be due before.
            if self.hard.due() != NEVER {
                self.hard.run(|| at);
            }
            softirq |= self.take_soft(quiet, at);
            let next = self.next_alarm(quiet);
            if next == NEVER || next > P::now_ns() {
                self.state.busy.store(0, Ordering::Relaxed);
                return Due { softirq, next };
            }
            add(&self.counts.retries, 1);
            at = P::now_ns();
        }
        // What is called here takes longer than it waits. Everything else gets as much time as this took.
        let spent = at - now;
        add(&self.counts.hangs, 1);
        let longest = &self.counts.longest_hang;
        longest.store(longest.load(Ordering::Relaxed).max(spent), Ordering::Relaxed);
        let next = at.saturating_add(spent.min(LONGEST_PENANCE_NS));
        self.state.penance.store(next, Ordering::Relaxed);
        Due { softirq, next }
    }

    /// Whether the softirq is to be raised: soft timers are due, and it was not raised for them already.
    fn take_soft(&'static self, quiet: &impl IrqsOff, now: u64) -> bool {
        if self.soft.due() == NEVER || self.state.raised.load(Ordering::Relaxed) != 0 {
            return false;
        }
        if self.soft.lock(quiet).queue.first_expiry() > now {
            return false;
        }
        self.state.raised.store(1, Ordering::Relaxed);
        // Nobody is told until the softirq has looked.
        self.set_alarm(quiet, SOFT, |_| 0);
        true
    }

    /// When the interrupt has to come; from here on whoever arms a timer that comes before is heard.
    fn next_alarm(&'static self, quiet: &impl IrqsOff) -> u64 {
        let look = |which: usize| {
            let set = self.state.alarms[which].load(Ordering::Relaxed);
            if set == NEVER && self.bases()[which].due() == NEVER {
                // What comes now is heard.
                return NEVER;
            }
            self.set_alarm(quiet, which, |next| next)
        };
        let hard = look(HARD);
        if self.state.raised.load(Ordering::Relaxed) != 0 { hard } else { hard.min(look(SOFT)) }
    }

    /// When the interrupt has to come.
    pub(super) fn next(&'static self, quiet: &impl IrqsOff) -> u64 {
        let next = self.next_alarm(quiet);
        next.max(self.state.penance.load(Ordering::Relaxed))
    }

    /// For [`HrTimers::run`](super::HrTimers::run).
    pub(super) fn run_soft(&'static self) -> bool {
        let now = P::now_ns();
        // What becomes due meanwhile waits for the next time: others want this softirq too.
        self.soft.run(|| now);
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let next = self.set_alarm(&quiet, SOFT, |next| next);
        let again = next != NEVER && next <= P::now_ns();
        self.state.raised.store(again.into(), Ordering::Relaxed);
        if !again && next != NEVER {
            (self.program)(next);
        }
        again
    }

    /// A timer has come that is due at `next`, before the interrupt that is programmed.
    fn hear(&'static self, next: u64) {
        if self.cpu.load(Ordering::Relaxed) != P::cpu().as_u32() {
            // The CPU asks for the next time after every interrupt.
            P::kick(CpuId::new(self.cpu.load(Ordering::Relaxed)).expect("it was a CPU's number"));
        } else if self.state.busy.load(Ordering::Relaxed) == 0 {
            (self.program)(next);
        }
    }
}

fn add(count: &AtomicU64, n: u64) {
    // By its own CPU only, with interrupts off.
    count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// The CPU's timers around one of its bases.
///
/// # Safety
/// The base is at `offset` in a `CpuHr<P>` that [belongs to](CpuHr::belongs_to) a CPU.
unsafe fn around<P: Platform>(base: &'static Base<HrQueue, P>, offset: usize) -> &'static CpuHr<P> {
    let address = ptr::from_ref(base).addr() - offset;
    // SAFETY: it is there, by the contract, for ever, and its address was exposed when it came to its CPU.
    unsafe { &*ptr::with_exposed_provenance(address) }
}

/// With the lock released and interrupts off.
fn tell_of_hard<P: Platform>(base: &'static Base<HrQueue, P>, next: u64) {
    // SAFETY: only `CpuHr`s make bases with this function, and nobody is told before there is an alarm (`watch`).
    unsafe { around(base, offset_of!(CpuHr<P>, hard)) }.hear(next);
}

/// The same for the other base.
fn tell_of_soft<P: Platform>(base: &'static Base<HrQueue, P>, next: u64) {
    // SAFETY: as above.
    unsafe { around(base, offset_of!(CpuHr<P>, soft)) }.hear(next);
}

impl<P: Platform> fmt::Debug for CpuHr<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuHr")
            .field("hard", &self.hard)
            .field("soft", &self.soft)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "cpu_tests.rs"]
mod tests;
