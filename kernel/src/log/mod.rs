//! The kernel's log, behind the `log` crate's macros.
//!
//! 1. `log::info!(..)` formats onto the stack and appends a record to its CPU's [`ring`]. That takes no lock, waits for
//!    nobody and never reschedules, so it works in every context: in NMI handlers, under any lock, in the scheduler.
//! 2. [`drain`] takes the records of all CPUs, oldest first, and shows them as whole lines. Whoever has time calls it:
//!    idle CPUs, the console. One drains at a time, nobody waits for the one, and it looks again before it leaves
//!    (`claim` says why nothing stays behind).
//! 3. Until [`set_deferred`] each message is drained by its writer: in early boot nobody else would.
//! 4. A panic stops the other CPUs and calls [`flush_for_panic`], which shows what is still in the rings by itself.
//!
//! Records of one CPU are shown in the order in which they were begun. Records of several CPUs are shown in the order of
//! time as far as they are there when somebody drains; a record that an interrupted writer has not finished holds back
//! those behind it on its CPU, and no others.
//!
//! Read `ring` (how records are kept), `claim` (who shows them), `terminal` (how), `line` (what they look like).

#[cfg(not(loom))]
mod api;
mod claim;
#[cfg(not(loom))]
mod history;
#[cfg(not(loom))]
mod line;
mod primitives;
pub mod ring;
#[cfg(not(loom))]
mod terminal;

#[cfg(not(loom))]
pub use api::{
    drain, edit, flush_for_panic, give_rings, has_pending, history, init, level, raw_line, set_deferred,
    set_level, with_drain_held,
};
#[cfg(not(loom))]
pub use line::{StackText, level_name, short_target};
// In the crate's root `log` is this module: its macros are here too.
#[cfg(not(loom))]
pub use ::log::{debug, error, info, trace, warn};
#[cfg(not(loom))]
pub use terminal::Port;
