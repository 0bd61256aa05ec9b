//! How a guest ended, from QEMU's exit status.
//!
//! The guest writes a number v to the debug-exit port and QEMU exits with `v << 1 | 1`. Without that write, and with
//! `-no-reboot`, status 0 means that the guest reset: a triple fault, or a reboot.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The guest wrote 0x10.
const SUCCESS: i32 = 0x10 << 1 | 1;
/// The guest wrote 0x11.
const FAILURE: i32 = 0x11 << 1 | 1;

/// What became of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The guest says that all is well.
    Success,
    /// The guest says that something failed.
    Failure,
    /// The guest reset or powered off without saying how it went.
    Reset,
    /// QEMU gave up: a bad argument, or an error of its own.
    QemuError(i32),
    /// QEMU was ended by a signal.
    Signal(i32),
    /// xtask ended QEMU because its time was up.
    TimedOut,
}

impl Ending {
    pub(crate) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(SUCCESS), _) => Self::Success,
            (Some(FAILURE), _) => Self::Failure,
            (Some(0), _) => Self::Reset,
            (Some(code), _) => Self::QemuError(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => write!(f, "the guest reported success"),
            Self::Failure => write!(f, "the guest reported failure"),
            Self::Reset => write!(f, "the guest reset without a report (a triple fault or a reboot)"),
            Self::QemuError(code) => write!(f, "QEMU ended with status {code}"),
            Self::Signal(signal) => write!(f, "QEMU was ended by signal {signal}"),
            Self::TimedOut => write!(f, "the time was up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let exit = |code: i32| Ending::of(ExitStatus::from_raw(code << 8));
        assert_eq!(exit(33), Ending::Success);
        assert_eq!(exit(35), Ending::Failure);
        assert_eq!(exit(0), Ending::Reset);
        assert_eq!(exit(1), Ending::QemuError(1));
        assert_eq!(Ending::of(ExitStatus::from_raw(6)), Ending::Signal(6));
    }
}
