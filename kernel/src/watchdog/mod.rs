//! Watchdogs: CPUs that get nowhere are named while there is still somebody to name them.
//!
//! * **Soft lock-up**: a CPU should have switched to another task long ago, and still runs the same one, which keeps
//!   preemption off. Its own timer interrupt notices, and shows what it interrupted.
//! * **Hard lock-up**: a CPU takes no interrupts any more, not even its timer's. So nothing on that CPU can notice; the
//!   next CPU does, in its own tick, and asks the stuck one by NMI where it is.
//! * **Hung task** (`hung`): a task has been blocked for long, and waits for somebody who must do something. A task of its
//!   own looks now and then.
//! * **Long hold** (`holds`): a spin lock, interrupts off, bottom halves off, or a handler lasted longer than somebody
//!   wants. Off unless asked for.
//!
//! A CPU whose tick rests looks round now and then all the same, at two fifths of the limit, and so shows that it lives.
//!
//! The first two count time in ticks that the *watching* CPU has had ([`Stall`]), and not on a clock: a guest that its host has
//! stopped for a minute has lost a minute and no tick. Each stall is reported once, when it has lasted as long as the
//! limit, and the machine goes on.

#[cfg(target_os = "none")]
pub mod holds;
#[cfg(target_os = "none")]
pub mod hung;
mod limiter;
mod patience;
mod stall;

#[cfg(target_os = "none")]
mod live;
pub use limiter::{Limiter, Turn};
#[cfg(target_os = "none")]
pub use live::{Limits, counts, set_limits};
#[cfg(target_os = "none")]
pub(crate) use live::{on_tick, patrol_ns, set_by_options};
pub use patience::Patience;
pub use stall::Stall;
