//! The choice of when a tick rests.

use core::fmt;

/// When a CPU's tick rests. The boot option `tick=` chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u32)]
pub enum TickMode {
    /// While the CPU idles, and while it has one task and nothing else needs a tick.
    #[default]
    Auto = 0,
    /// While the CPU idles.
    Idle = 1,
    /// Never.
    Always = 2,
}

impl TickMode {
    /// What the boot option may say, with what it means.
    pub const NAMES: [(&'static str, TickMode); 3] =
        [("auto", TickMode::Auto), ("idle", TickMode::Idle), ("always", TickMode::Always)];
}

impl fmt::Display for TickMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TickMode::NAMES.iter().filter(|(_, mode)| mode == self).try_for_each(|(name, _)| f.pad(name))
    }
}
