//! CPUs that come and go while the system runs.
//!
//! 1. Who changes the set of CPUs holds `LOCK` for writing; who needs it unchanged holds it for reading (`hold`).
//! 2. A task on another CPU walks the `STEPS`, each of which may refuse; then those before it are taken back ([`steps`]).
//! 3. One of the steps is the CPU itself. Its stopper task, which nothing replaces, turns interrupts off, walks the
//!    `HERE` steps, which cannot refuse, and parks the CPU. It so goes in the middle of that task: what else was to run
//!    there has moved, or stands in the queue until the CPU is back.
//! 4. A CPU that comes back continues there: the same task walks the same steps in the other direction.
//!
//! Linux: `kernel/cpu.c`.

pub mod steps;

#[cfg(target_os = "none")]
mod live;
#[cfg(target_os = "none")]
pub use live::*;
