//! CPUs that do not tick, and who does their work.
//!
//! A CPU without a tick must still have its timers called in time, and should be woken as rarely as possible.
//!
//! 1. Timers that are **tied** to a CPU wake it. Those that are **deferrable** never do. All others, its *global* ones, may
//!    be called anywhere.
//! 2. As long as one CPU ticks, the CPUs that do not sleep past their global timers. Each publishes when its next one is
//!    due; `earliest` is at most the least of these. A CPU that ticks looks at that one word, and if the time has come
//!    it **pulls**: it calls what is due in the bases of those that sleep.
//! 3. The last CPU that stops its tick finds that it is the last (`ticking` counts), and **answers for all**: it wakes up for
//!    the earliest global timer of any CPU. It says so in `promise`. So does a sleeping CPU that looks again after an
//!    interrupt, if there is no promise that is early enough; otherwise it sleeps until its own tied ones only.
//! 4. Whoever makes a sleeping CPU's next tied timer earlier interrupts that CPU, which looks again. So does who makes its
//!    next global one earlier while nobody ticks and no promise is early enough.
//!
//! # Why nobody sleeps too long
//! Each time that a timer comes to a global base, or becomes earlier there, the CPU that did it either ticks or looks again
//! before it sleeps ([`Timers::stop_tick`], which the kernel calls after every interrupt of an idle CPU). Call the timer's
//! time `e`. There are two races:
//!
//! * It reads `ticking != 0` and relies on a CPU that is about to stop. It published `e` before it read, and who stops reads
//!   what is published after it counted itself out. With full fences between the two steps of each, one of them sees the other.
//! * It reads a promise that is early enough, of a CPU that is about to take it back. That one reads what is published after
//!   it took it back: the same argument.
//!
//! A pull exchanges `earliest` for "never" before it looks at the bases, and adds what it finds left. A base that was
//! published before the exchange is seen by the look, one that is published after it lowers the new value.
//!
//! That an entry which is being added is seen by the CPU that stops, or its adder sees that the CPU sleeps, follows from
//! the base's lock: the next expiry is read and the alarm set under it, in one step.

use hal::percpu::IrqsOff;
use hal::{CpuId, Platform};
use sync::Cpu;

use super::{CpuTimers, NEVER, Timers};
use crate::base::Base;
use crate::faults::{Fault, is_planted};
use crate::primitives::{Ordering, fence};
use crate::wheel::Wheel;

/// A timer that is tied to a sleeping CPU has become its next: it must look again.
pub(super) fn tell_owner<P: Platform>(base: &'static Base<Wheel, P>, _next: u64) {
    P::kick(base.cpu());
}

/// A global timer of a sleeping CPU has become its next: whoever ticks looks at this. If nobody does, the CPU itself must
/// look again: it may be one that works without a tick, and arms timers.
pub(super) fn tell_all<P: Platform>(base: &'static Base<Wheel, P>, next: u64) {
    if base.publish(next) {
        P::kick(base.cpu());
    }
}

impl<P: Platform> Timers<P> {
    /// The executing CPU's tick stops, or has stopped and the CPU has been interrupted since: returns the tick at which it
    /// must wake up for coarse timers and call [`tick`](Timers::tick), `u64::MAX` if never. From here on whoever arms a
    /// timer that cannot wait so long sees to it.
    ///
    /// Contexts: interrupts off, on `cpu`, which is idle. The kernel calls it again after each interrupt, before it sleeps.
    /// Linux: `get_next_timer_interrupt`, `timer_base_try_to_set_idle`. Cost: two locks; for the last CPU that stops one load
    /// for each CPU.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// TIMERS.after(Ticks(5), |_| ());
    /// let quiet = sync::irq::disable();
    /// // It is the last one that ticks, and so wakes up for all timers.
    /// assert_eq!(TIMERS.stop_tick(&quiet, Native::cpu()), 5);
    /// TIMERS.start_tick(&quiet, Native::cpu());
    /// ```
    pub fn stop_tick(&self, quiet: &impl IrqsOff, cpu: CpuId) -> u64 {
        let timers = self.on(cpu);
        let idle = &self.idle.0;
        let ticked = timers.ticks.swap(0, Ordering::Relaxed) != 0;
        // Of each that comes before the others of its base: others may have been called for this CPU by then, so that what
        // was published now is no bound.
        let next = timers.global.set_alarm_to_sleep(quiet, |_| NEVER);
        P::chaos_point();
        // Release: whoever pulls and finds this sees that the CPU does not tick, and its base.
        idle.earliest.fetch_min(next, Ordering::AcqRel);
        let tied = timers.local.set_alarm_to_sleep(quiet, |next| next);
        P::chaos_point();
        if ticked {
            idle.ticking.fetch_sub(1, Ordering::AcqRel);
        }
        self.take_back(timers);
        // What was published, or promised no more, comes before the looks. Pairs with itself on another CPU.
        if !is_planted(Fault::StopWithoutFence) {
            fence(Ordering::SeqCst);
        }
        P::chaos_point();
        if idle.ticking.load(Ordering::Relaxed) != 0 {
            return tied;
        }
        let first = self.all().map(|timers| timers.global.due()).min().unwrap_or(NEVER);
        if first >= idle.promise.load(Ordering::Relaxed) {
            return tied;
        }
        idle.promise.fetch_min(first, Ordering::AcqRel);
        timers.promised.store(first, Ordering::Relaxed);
        tied.min(first)
    }

    /// The executing CPU's tick runs again: it looks after itself, and after those that do not tick.
    ///
    /// Contexts: interrupts off, on `cpu`. Cost: two locks.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let quiet = sync::irq::disable();
    /// TIMERS.start_tick(&quiet, Native::cpu());
    /// assert_eq!(TIMERS.stop_tick(&quiet, Native::cpu()), u64::MAX, "nothing is armed");
    /// ```
    pub fn start_tick(&self, quiet: &impl IrqsOff, cpu: CpuId) {
        let timers = self.on(cpu);
        if timers.ticks.swap(1, Ordering::Relaxed) == 0 {
            self.idle.0.ticking.fetch_add(1, Ordering::AcqRel);
        }
        self.take_back(timers);
        timers.global.set_alarm(quiet, |_| 0);
        timers.local.set_alarm(quiet, |_| 0);
    }

    /// The promise of a CPU that looks anew. One that others made and that came later may go with it; they keep it all the
    /// same, and somebody may make one in vain.
    pub(super) fn take_back(&self, timers: &CpuTimers<P>) {
        let promised = timers.promised.swap(NEVER, Ordering::Relaxed);
        if promised != NEVER {
            let promise = &self.idle.0.promise;
            let _ = promise.compare_exchange(promised, NEVER, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// When `cpu` has something to do next that it is woken for by itself: `u64::MAX` if never. Deferrable timers do not
    /// count. Out of date at once, unless the caller is that CPU with interrupts off, and nobody else arms timers for it.
    ///
    /// Contexts: any but NMI. Cost: two locks.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    ///
    /// static TIMERS: Timers = Timers::new();
    /// static MINE: CpuTimers = CpuTimers::new();
    /// let here = Native::cpu();
    /// TIMERS.install(here, &MINE);
    ///
    /// let patient: Arc<Timer<_>> = Arc::new(Timer::new_in(TimerFlags::DEFERRABLE, |_| ()));
    /// TIMERS.add(&patient, Ticks(3));
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(8));
    /// assert_eq!(TIMERS.next_event(here), 8); // nobody wakes up for the other one
    ///
    /// // The same for a CPU that goes to sleep: nobody else ticks, so it answers for all.
    /// let quiet = sync::irq::disable();
    /// assert_eq!(TIMERS.stop_tick(&quiet, here), 8);
    /// // It was woken, and works.
    /// TIMERS.start_tick(&quiet, here);
    /// # drop(quiet);
    /// # (timer.delete(), patient.delete());
    /// ```
    pub fn next_event(&self, cpu: CpuId) -> u64 {
        let quiet = Cpu::<P>::disable_interrupts();
        let timers = self.on(cpu);
        timers.local.next(&quiet).min(timers.global.next(&quiet))
    }

    /// Calls what is due of CPUs that do not tick.
    pub(super) fn pull(&'static self) -> u32 {
        let earliest = &self.idle.0.earliest;
        if earliest.load(Ordering::Relaxed) > self.now().0 {
            return 0;
        }
        // Acquire: pairs with the Releases of those that lowered it, whose bases are so seen as they were then.
        if !is_planted(Fault::PullBackwards) {
            earliest.swap(NEVER, Ordering::AcqRel);
        }
        P::chaos_point();
        let (mut count, mut left) = (0, NEVER);
        for timers in self.all() {
            if timers.ticks.load(Ordering::Relaxed) != 0 {
                continue;
            }
            count += self.run_base(&timers.global);
            left = left.min(timers.global.due());
        }
        if is_planted(Fault::PullBackwards) {
            earliest.store(NEVER, Ordering::Relaxed);
        }
        earliest.fetch_min(left, Ordering::AcqRel);
        count
    }
}
