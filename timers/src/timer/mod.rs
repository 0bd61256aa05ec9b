//! Timers, as their users have them.
//!
//! A [`Timer`] is a value with a function and a state. What it is armed through says who keeps it alive meanwhile, and so
//! in which form it is used ([`Handle`]):
//!
//! | form | armed through | ends |
//! |---|---|---|
//! | shared | `Arc` (or `&Arc`) | with the last `Arc`, of which the armed state and a call have one each |
//! | owned and counted | [`Owned`] | its drop shuts the timer down: none starts afterwards, a running call may finish |
//! | owns itself | `Box` | when it was called and has not been armed again by its function |
//! | owns itself, once | [`Timers::after`](crate::Timers::after) with a closure | before the closure is called |
//! | for ever | `&'static` | never |
//! | embedded in something | `Pin<&Timer>` | after `shutdown_sync`; dropped armed or running, it stops the machine |

mod controls;
mod firing;
mod forms;
mod handle;
#[cfg(feature = "alloc")]
mod one_shot;
#[cfg(feature = "alloc")]
mod owned;

pub use firing::{Fired, Firing};
pub use forms::Periodic;
pub(crate) use forms::{call_closure, call_periodic};
pub use handle::Handle;
#[cfg(all(test, any(loom, shuttle)))]
pub(crate) use handle::sealed;
#[cfg(feature = "alloc")]
pub(crate) use one_shot::one_shot;
#[cfg(feature = "alloc")]
pub use owned::Owned;

use core::fmt;
use core::marker::PhantomPinned;

use hal::{Native, Platform};
use sync::lockdep::Level;

use crate::base::{Core, Flags};
use crate::primitives::const_fn;
use crate::queue::{Queue, Unit};
use crate::wheel::Wheel;

/// What a timer calls.
pub type Function<T, Q = Wheel, P = Native> = fn(&Timer<T, Q, P>, &Firing<'_, Q, P>);

/// What a timer is for, beside calling a function at a time. Given when it is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TimerFlags(Flags);

impl TimerFlags {
    /// Nothing else.
    pub const NONE: TimerFlags = TimerFlags(Flags::NONE);
    /// It is called on the CPU that it was armed on (or for), also if that one is idle. Linux: `TIMER_PINNED`.
    pub const PINNED: TimerFlags = TimerFlags(Flags::PINNED);
    /// It does not wake an idle CPU: it is called when its CPU does something anyway. Linux: `TIMER_DEFERRABLE`.
    pub const DEFERRABLE: TimerFlags = TimerFlags(Flags::DEFERRABLE);
    /// Its function is called with interrupts off, so that its end may be waited for with interrupts off.
    /// Linux: `TIMER_IRQSAFE`.
    pub const IRQSAFE: TimerFlags = TimerFlags(Flags::IRQSAFE);

    /// Both.
    ///
    /// ```
    /// use timers::TimerFlags;
    /// let flags = TimerFlags::PINNED.and(TimerFlags::IRQSAFE);
    /// assert_eq!(format!("{flags:?}"), r#"{"PINNED", "IRQSAFE"}"#);
    /// ```
    pub const fn and(self, other: TimerFlags) -> TimerFlags {
        TimerFlags(self.0.and(other.0))
    }

    #[cfg(feature = "alloc")]
    pub(crate) const fn flags(self) -> Flags {
        self.0
    }

    /// Whether all of `other`'s are among these.
    ///
    /// ```
    /// use timers::TimerFlags;
    /// assert!(TimerFlags::PINNED.contains(TimerFlags::NONE));
    /// assert!(!TimerFlags::PINNED.contains(TimerFlags::PINNED.and(TimerFlags::IRQSAFE)));
    /// ```
    pub const fn contains(self, other: TimerFlags) -> bool {
        self.0.contains(other.0)
    }
}

impl fmt::Debug for TimerFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (TimerFlags::PINNED, "PINNED"),
            (TimerFlags::DEFERRABLE, "DEFERRABLE"),
            (TimerFlags::IRQSAFE, "IRQSAFE"),
        ];
        f.debug_set()
            .entries(names.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name))
            .finish()
    }
}

// What it costs in memory is promised; the kernel is built so.
#[cfg(not(any(loom, shuttle, debug_assertions, feature = "lockdep")))]
const _: () = assert!(size_of::<Timer<()>>() == 48 + 8 && size_of::<Timer<[u64; 3]>>() == 48 + 8 + 24);

/// A function to be called at a time.
///
/// See the [crate's documentation](crate) for the forms that it is used in, and `Timers` for arming coarse ones.
///
/// The function gets the timer itself, whose [`state`](Timer::state) it may use, and a [`Firing`], by which it can arm the
/// timer again. It is called in softirq context (high-resolution timers in hard mode: in hardirq context), by one CPU at a
/// time, and must not sleep. A closure is a state that is its own function.
///
/// Linux: `struct timer_list`, `struct hrtimer`. Size: 48 bytes, the function (8), and the state, in an `Arc` its two
/// counts (16); more where the dependency checker is built in.
#[repr(C)]
pub struct Timer<T, Q: Queue = Wheel, P: Platform = Native> {
    /// Its function is a `Function<T, Q, P>`.
    pub(crate) core: Core<Q, P>,
    state: T,
    _pinned: PhantomPinned,
}

// SAFETY: sharing a timer is sharing its state, which its function uses on any CPU. All else is atomic or behind a base's
// lock.
unsafe impl<T: Send + Sync, Q: Queue, P: Platform> Sync for Timer<T, Q, P> {}
// SAFETY: a timer that is moved is not armed.
unsafe impl<T: Send, Q: Queue, P: Platform> Send for Timer<T, Q, P> {}

impl<T, Q: Queue, P: Platform> Timer<T, Q, P> {
    const_fn! {
        /// A timer of any kind.
        #[track_caller]
        pub(crate) fn from_parts(
            entry: Q::Entry,
            level: Level,
            flags: TimerFlags,
            state: T,
            function: Function<T, Q, P>,
        ) -> Timer<T, Q, P> {
            Timer {
                core: Core::new(entry, flags.0, level, function as *mut ()),
                state,
                _pinned: PhantomPinned,
            }
        }
    }

    /// What was given when the timer was made.
    ///
    /// ```
    /// use timers::{Timer, TimerFlags};
    /// static NAMED: Timer<&str> = Timer::with_state(TimerFlags::NONE, "a name", |timer, _| println!("{}", timer.state()));
    /// assert_eq!(*NAMED.state(), "a name");
    /// ```
    pub fn state(&self) -> &T {
        &self.state
    }

    /// The same, of a timer that nobody else has.
    ///
    /// ```
    /// use timers::{Timer, TimerFlags};
    /// let mut timer: Timer<u32> = Timer::with_state(TimerFlags::NONE, 1, |_, _| ());
    /// *timer.state_mut() += 1;
    /// assert_eq!(*timer.state(), 2);
    /// ```
    pub fn state_mut(&mut self) -> &mut T {
        &mut self.state
    }

    /// Has another function called from the next call on. A call that is due at this moment may still be the old one's.
    ///
    /// Linux: writing `timer->function`. Contexts: any. Cost: one store.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use hal::{Native, Platform};
    /// # use timers::{CpuTimers, Ticks, Timer, TimerFlags, Timers};
    /// # static TIMERS: Timers = Timers::new();
    /// # static MINE: CpuTimers = CpuTimers::new();
    /// # let pinned = sync::preempt::disable();
    /// # TIMERS.install(Native::cpu(), &MINE);
    /// let timer = Arc::new(Timer::with_state(TimerFlags::NONE, (), |_, _| panic!("the former one")));
    /// TIMERS.add(&timer, Ticks(5));
    /// timer.set_function(|_, firing| assert_eq!(firing.now(), Ticks(5)));
    /// # TIMERS.tick(Native::cpu(), Ticks(5));
    /// # // SAFETY: this thread serves softirqs itself; the guard goes before it goes on.
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// # TIMERS.run(&serving);
    /// # assert!(!timer.is_pending());
    /// ```
    pub fn set_function(&self, function: Function<T, Q, P>) {
        self.core.set_function(function as *mut ());
    }
}

impl<T, Q: Queue, P: Platform> Drop for Timer<T, Q, P> {
    fn drop(&mut self) {
        self.core.check_gone();
    }
}

impl<T: fmt::Debug, Q: Unit, P: Platform> fmt::Debug for Timer<T, Q, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer")
            .field("state", &self.state)
            .field("is_pending", &self.is_pending())
            .field("expires", &self.core.expires())
            .finish_non_exhaustive()
    }
}
