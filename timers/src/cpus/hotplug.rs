//! CPUs that come and go.

use hal::percpu::IrqsOff;
use hal::{CpuId, Platform};
use sync::Cpu;

use super::Timers;
use crate::primitives::Ordering;

impl<P: Platform> Timers<P> {
    /// `cpu` is on-line: timers are armed there from here on. Its tick does not run yet.
    ///
    /// Contexts: any but NMI. Of a CPU that was never [`offline`](Timers::offline) nothing changes.
    ///
    /// ```
    /// # use hal::CpuId;
    /// # use timers::{CpuTimers, Ticks, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static CPUS: [CpuTimers; 2] = [CpuTimers::new(), CpuTimers::new()];
    /// # let [stays, goes] = [0, 1].map(|number| CpuId::new(number).unwrap());
    /// # TIMERS.install(stays, &CPUS[0]);
    /// # TIMERS.install(goes, &CPUS[1]);
    /// TIMERS.offline(goes, stays);
    /// TIMERS.online(goes);
    /// let timer = std::sync::Arc::new(timers::Timer::new(|_| ()));
    /// TIMERS.add_on(goes, &timer, Ticks(5));
    /// assert_eq!((TIMERS.next_event(stays), TIMERS.next_event(goes)), (u64::MAX, 5));
    /// # timer.delete();
    /// ```
    pub fn online(&self, cpu: CpuId) {
        let quiet = Cpu::<P>::disable_interrupts();
        for base in self.on(cpu).static_bases() {
            base.reopen(&quiet);
        }
    }

    /// `cpu` is off-line, and executes nothing any more: all its timers, tied ones included, go to `heir`, which is on-line.
    /// Returns how many. One that is being called for it on another CPU follows when its call is over. The heir is
    /// interrupted, so that it looks for how long it may sleep.
    ///
    /// Linux: `timers_dead_cpu`. Contexts: any but NMI. Cost: two locks for each timer, interrupts off for one at a time.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::CpuId;
    /// use timers::{CpuTimers, Ticks, Timer, Timers};
    ///
    /// static TIMERS: Timers = Timers::new();
    /// static CPUS: [CpuTimers; 2] = [CpuTimers::new(), CpuTimers::new()];
    /// let [stays, goes] = [0, 1].map(|number| CpuId::new(number).unwrap());
    /// TIMERS.install(stays, &CPUS[0]);
    /// TIMERS.install(goes, &CPUS[1]);
    ///
    /// let timer = Arc::new(Timer::new(|_| println!("called where it is")));
    /// TIMERS.add_on(goes, &timer, Ticks(5));
    /// assert_eq!(TIMERS.next_event(stays), u64::MAX);
    ///
    /// assert_eq!(TIMERS.offline(goes, stays), 1);
    /// assert_eq!(TIMERS.next_event(stays), 5);
    /// assert!(timer.is_pending());
    ///
    /// // And back: what was moved stays where it is.
    /// TIMERS.online(goes);
    /// assert_eq!(TIMERS.next_event(goes), u64::MAX);
    /// assert!(timer.delete());
    /// ```
    pub fn offline(&'static self, cpu: CpuId, heir: CpuId) -> usize {
        let (from, to) = (self.on(cpu), self.on(heir));
        if from.ticks.swap(0, Ordering::Relaxed) != 0 {
            self.idle.0.ticking.fetch_sub(1, Ordering::AcqRel);
        }
        self.take_back(from);
        let moved =
            from.static_bases().into_iter().zip(to.static_bases()).map(|(from, to)| from.close(to)).sum();
        P::kick(heir);
        moved
    }

    /// The same for the executing CPU itself, as the last that it does with timers, with interrupts off.
    ///
    /// ```
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static CPUS: [CpuTimers; 2] = [CpuTimers::new(), CpuTimers::new()];
    /// # let pinned = sync::preempt::disable();
    /// # let here = Native::cpu();
    /// # let other = CpuId::new(here.as_u32() ^ 1).unwrap();
    /// # TIMERS.install(here, &CPUS[0]);
    /// # TIMERS.install(other, &CPUS[1]);
    /// TIMERS.after(Ticks(5), |_| ());
    /// let quiet = sync::irq::disable();
    /// assert_eq!(TIMERS.leave(&quiet, other), 1);
    /// drop(quiet);
    /// assert_eq!(TIMERS.next_event(other), 5);
    /// ```
    pub fn leave(&'static self, _quiet: &impl IrqsOff, heir: CpuId) -> usize {
        self.offline(P::cpu(), heir)
    }
}
