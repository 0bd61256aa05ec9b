//! CPUs that come and go while the system runs.
//!
//! 1. Who changes the set of CPUs holds `LOCK` for writing; who needs it unchanged holds it for reading (`hold`).
//! 2. A task on another CPU walks the `STEPS`, each of which may refuse; then those before it are taken back ([`steps`]).
//! 3. One of the steps is the CPU itself. Its stopper task, which nothing replaces, turns interrupts off, walks the
//!    `HERE` steps, which cannot refuse, and parks the CPU. It so goes in the middle of that task: what else was to run
//!    there has moved, or stands in the queue until the CPU is back.
//! 4. A CPU that comes back continues there: the same task walks the same steps in the other direction.
//!
//! 5. A host may plug CPUs in and pull them out (`plug`). That changes which CPUs are *present*; of those it is decided
//!    as above who is online.
//!
//! Linux: `kernel/cpu.c`.

pub mod steps;

/// What becomes of a CPU that the host plugs in while the system runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HotAdd {
    /// It is brought online.
    #[default]
    Online,
    /// It is present, until somebody brings it online.
    Present,
}

impl HotAdd {
    /// The values by the names that the boot option `hotadd=` knows.
    pub const NAMES: [(&str, HotAdd); 2] = [("online", HotAdd::Online), ("present", HotAdd::Present)];
}

#[cfg(target_os = "none")]
pub mod plug;

#[cfg(target_os = "none")]
mod live;
#[cfg(target_os = "none")]
pub use live::*;
