//! A timer with an owner.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

use hal::{Native, Platform};

use super::{Timer, handle};
use crate::base::{Core, Reference};
use crate::queue::Unit;
use crate::wheel::Wheel;

/// The owner of a timer: when it is dropped, the timer is shut down.
///
/// No call begins after the drop. One that is under way may go on: the timer's memory and state stay until it is over. So
/// the owner never waits, and may be dropped in every context but NMI. It is armed by `&Owned`.
///
/// Linux has none; there the owner calls `timer_shutdown_sync` before it frees.
pub struct Owned<T, Q: Unit = Wheel, P: Platform = Native> {
    timer: Arc<Timer<T, Q, P>>,
}

impl<T, Q: Unit, P: Platform> Owned<T, Q, P> {
    /// Puts a timer into memory of its own.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// use timers::Owned;
    ///
    /// struct Connection {
    ///     timeout: Owned<fn(&timers::Firing<'_>)>,
    /// }
    ///
    /// let connection = Connection { timeout: Owned::new(Timer::new(|_| println!("nobody answers"))) };
    /// TIMERS.add(&connection.timeout, Ticks(5));
    /// // Its end is the timer's, too.
    /// drop(connection);
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// ```
    pub fn new(timer: Timer<T, Q, P>) -> Owned<T, Q, P> {
        Owned { timer: Arc::new(timer) }
    }
}

impl<T, Q: Unit, P: Platform> Deref for Owned<T, Q, P> {
    type Target = Timer<T, Q, P>;

    fn deref(&self) -> &Timer<T, Q, P> {
        &self.timer
    }
}

impl<T, Q: Unit, P: Platform> Drop for Owned<T, Q, P> {
    fn drop(&mut self) {
        self.timer.shutdown();
    }
}

#[expect(private_interfaces, reason = "nobody outside can call it")]
impl<T: Send + Sync + 'static, Q: Unit, P: Platform> handle::sealed::Handle<T, Q, P> for &Owned<T, Q, P> {
    #[inline(always)]
    fn core(&self) -> &Core<Q, P> {
        &self.timer.core
    }

    #[inline(always)]
    fn into_reference(self) -> Reference<Q, P> {
        handle::sealed::Handle::into_reference(&self.timer)
    }
}

impl<T: fmt::Debug, Q: Unit, P: Platform> fmt::Debug for Owned<T, Q, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owned").field(&self.timer).finish()
    }
}
