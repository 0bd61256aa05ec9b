//! The choice of preemption points.

use core::fmt;

/// At which points a task is replaced that did not ask. The boot option `preempt=` chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum Preemption {
    /// Everywhere: where an interrupt returns and where preemption is enabled.
    #[default]
    Full = 0,
    /// Where a function is called that may sleep, and where the task asks.
    Voluntary = 1,
    /// Where the task asks.
    None = 2,
}

impl Preemption {
    /// What the boot option may say, with what it means.
    pub const NAMES: [(&'static str, Preemption); 3] =
        [("full", Preemption::Full), ("voluntary", Preemption::Voluntary), ("none", Preemption::None)];
}

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Preemption::NAMES.iter().filter(|(_, mode)| mode == self).try_for_each(|(name, _)| f.pad(name))
    }
}
