//! What is done with a timer that one has, wherever it is armed.

use core::panic::Location;

use hal::Platform;
use hal::percpu::IrqsOff;
use sync::{Cpu, TaskCx};

use super::Timer;
use crate::base::{Deletion, Flags, Waiting};
use crate::queue::{Entry, Unit};

impl<T, Q: Unit, P: Platform> Timer<T, Q, P> {
    /// Whether it is armed: its function is to be called. Out of date at once, unless the caller keeps others from it.
    ///
    /// Linux: `timer_pending`. Contexts: any but NMI. Cost: one load if it is, otherwise one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// assert!(!timer.is_pending());
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(timer.is_pending());
    /// ```
    #[doc(alias = "timer_pending")]
    pub fn is_pending(&self) -> bool {
        self.core.is_armed()
    }

    /// Whether its function is being called. Out of date at once. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let _ = Arc::new(());
    /// static TIMER: Timer<()> = Timer::with_state(TimerFlags::NONE, (), |timer, _| assert!(timer.is_running()));
    /// TIMERS.add(&TIMER, Ticks(5));
    /// assert!(!TIMER.is_running());
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// assert!(!TIMER.is_running());
    /// ```
    pub fn is_running(&self) -> bool {
        self.core.is_running()
    }

    /// When it is due, or was due last, or is to be due when it is armed without a time. Cost: one load.
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
    /// assert_eq!(timer.expires(), Ticks(0), "it was never armed");
    /// TIMERS.add(&timer, Ticks(5));
    /// timer.delete();
    /// assert_eq!(timer.expires(), Ticks(5));
    /// ```
    pub fn expires(&self) -> Q::Time {
        Q::Time::from(self.core.expires())
    }

    /// Sets when it is due when it is armed next, without a time: by [`add_as_set`](crate::Timers::add_as_set). Of one that
    /// is armed it changes nothing and returns `false`: that is what `modify` is for.
    ///
    /// Linux: writing `timer->expires`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// assert!(timer.set_expires(Ticks(5)));
    /// TIMERS.add_as_set(&timer);
    /// assert!(!timer.set_expires(Ticks(9)), "it is armed");
    /// ```
    pub fn set_expires(&self, at: Q::Time) -> bool {
        self.core.set_expires(at.into())
    }

    /// How much later than it is due its function may be called, at most, as far as the queue can tell. Without this it is
    /// what the queue does by itself. Holds from the next time that it is armed or modified.
    ///
    /// Linux: `set_timer_slack` had it; `hrtimer_set_expires_range`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// // Buckets that far away are 64 ticks long: it could be called at 1,024.
    /// let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(1_000));
    /// assert_eq!(TIMERS.next_event(Native::cpu()), 1_024);
    /// timer.set_slack(Ticks(8));
    /// TIMERS.modify(&timer, Ticks(999));
    /// assert!(TIMERS.next_event(Native::cpu()) < 999, "looked at once more before, and filed more exactly");
    /// ```
    pub fn set_slack(&self, slack: Q::Time) {
        let quiet = Cpu::<P>::disable_interrupts();
        let locked = self.core.lock_base(&quiet);
        self.core.entry().set_slack(slack.into());
        drop(locked);
    }

    /// Changes when it is due, if it is armed. Returns whether it is.
    ///
    /// Linux: `mod_timer_pending`. Contexts: any but NMI. Cost: an atomic exchange if the queue leaves it where it is, else
    /// one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// assert!(!timer.modify_pending(Ticks(9)), "it is not armed, and stays so");
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(timer.modify_pending(Ticks(9)));
    /// ```
    #[doc(alias = "mod_timer_pending")]
    #[inline]
    pub fn modify_pending(&self, at: Q::Time) -> bool {
        let at = at.into();
        if self.core.modify_in_place(at) {
            return true;
        }
        let quiet = Cpu::<P>::disable_interrupts();
        self.core.modify_armed(&quiet, at)
    }

    /// Disarms it. Returns whether it was armed. Its function may be running at this moment, and may go on to.
    ///
    /// Linux: `timer_delete`, `del_timer`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(timer.delete() && !timer.delete());
    /// ```
    #[doc(alias("timer_delete", "del_timer"))]
    pub fn delete(&self) -> bool {
        self.core.delete()
    }

    /// Disarms it, if its function is not being called; does nothing otherwise. Says which.
    ///
    /// Linux: `try_to_del_timer_sync`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// assert_eq!(timer.try_delete_sync(), Deletion::Deleted);
    /// assert_eq!(timer.try_delete_sync(), Deletion::Idle);
    /// ```
    #[doc(alias = "try_to_del_timer_sync")]
    pub fn try_delete_sync(&self) -> Deletion {
        self.core.try_delete_sync()
    }

    /// Disarms it and waits until its function is not being called, on any CPU. Returns whether it was armed.
    ///
    /// If the function arms the timer again meanwhile, that is undone. When this returns, no call is under way and, unless
    /// somebody else arms it, none will be; everything that its calls did has happened before.
    ///
    /// It waits by looking again: calls are short. The caller must hold no lock that the function takes, which the dependency
    /// checker reports. From the function itself, or from what interrupted it, it would wait for itself; that is reported,
    /// and `false` is returned at once.
    ///
    /// Linux: `timer_delete_sync`, `del_timer_sync`. Contexts: task.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// # drop(pinned);
    /// # // SAFETY: this thread is a task, and nobody uses another token at the same time.
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # let cx = &mut cx;
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(timer.delete_sync(cx));
    /// // What its function uses may be freed now.
    /// ```
    #[doc(alias("timer_delete_sync", "del_timer_sync"))]
    #[track_caller]
    pub fn delete_sync(&self, _cx: &mut TaskCx<P>) -> bool {
        self.core.delete_sync(Waiting::Task, Location::caller())
    }

    /// The same, with interrupts off, for timers that were made [`IRQSAFE`](super::TimerFlags::IRQSAFE). With others it could
    /// deadlock: that is reported, and it does not wait.
    ///
    /// Contexts: any but NMI.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::new_in(TimerFlags::IRQSAFE, |_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// let quiet = sync::irq::disable();
    /// assert!(timer.delete_sync_irqs_off(&quiet));
    /// ```
    #[track_caller]
    pub fn delete_sync_irqs_off(&self, _quiet: &impl IrqsOff) -> bool {
        self.core.delete_sync(Waiting::IrqsOff, Location::caller())
    }

    /// Ends it: it is disarmed, and arming it does nothing from here on. Returns whether it was armed. Its function may be
    /// running at this moment.
    ///
    /// Linux: `timer_shutdown`. Contexts: any but NMI. Cost: one lock.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{CpuId, Native, Platform};
    /// # use timers::{CpuTimers, Deletion, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(timer.shutdown());
    /// assert!(!TIMERS.add(&timer, Ticks(9)) && !timer.is_pending());
    /// ```
    #[doc(alias = "timer_shutdown")]
    pub fn shutdown(&self) -> bool {
        self.core.shut()
    }

    /// Ends it, and waits until its function is not being called. Returns whether it was armed.
    ///
    /// Linux: `timer_shutdown_sync`. Contexts: as for [`delete_sync`](Timer::delete_sync).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// # let timer = Arc::new(Timer::new(|_| ()));
    /// # drop(pinned);
    /// # // SAFETY: this thread is a task, and nobody uses another token at the same time.
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// # let cx = &mut cx;
    /// TIMERS.add(&timer, Ticks(5));
    /// assert!(timer.shutdown_sync(cx));
    /// // What its function uses may be freed now, whoever tries to arm it.
    /// assert!(!TIMERS.add(&timer, Ticks(9)));
    /// ```
    #[doc(alias = "timer_shutdown_sync")]
    #[track_caller]
    pub fn shutdown_sync(&self, cx: &mut TaskCx<P>) -> bool {
        let was_armed = self.core.shut();
        self.delete_sync(cx) || was_armed
    }

    /// Whether it was [shut down](Timer::shutdown).
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
    /// assert!(!timer.is_shut_down());
    /// timer.shutdown();
    /// assert!(timer.is_shut_down());
    /// ```
    pub fn is_shut_down(&self) -> bool {
        self.core.word().has(Flags::SHUT)
    }
}
