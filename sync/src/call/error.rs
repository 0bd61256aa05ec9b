//! What can be wrong with a call.

use core::fmt;

use hal::CpuId;

/// Why a function was not called, or its descriptor not sent.
///
/// ```
/// # use hal::{Native, Platform};
/// use sync::call::{CallData, CallError, Calls};
/// # static CALLS: Calls = Calls::new(|_| ());
/// static NOTE: CallData = CallData::new(|| ());
/// let here = Native::cpu();
/// assert_eq!(CALLS.queue(here, &NOTE), Err(CallError::Offline(here)));
/// CALLS.open(here);
/// CALLS.queue(here, &NOTE).unwrap();
/// assert_eq!(CALLS.queue(here, &NOTE), Err(CallError::Pending));
/// # CALLS.close(&sync::irq::disable());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The CPU is off-line, or does not exist. Of several CPUs it is the first such; the others were called.
    Offline(CpuId),
    /// The descriptor is pending already, or somebody else is sending it at this moment.
    Pending,
    /// In an NMI nobody may wait: it may have interrupted whoever is to answer. Nothing was called.
    InNmi,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Offline(cpu) => write!(f, "CPU {cpu} is off-line and takes no calls"),
            CallError::Pending => f.write_str("the descriptor is pending already; it will run"),
            CallError::InNmi => f.write_str("an NMI handler cannot wait for a call; let it send a CallData"),
        }
    }
}

impl core::error::Error for CallError {}
