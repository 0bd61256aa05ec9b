//! What happened at each CPU's APIC.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ipi::STUCK;
use super::registers::Register;
use super::try_local;
use crate::{CpuId, percpu};

percpu! {
    /// Interrupt commands sent by this CPU.
    pub(super) static SENT: AtomicU64 = AtomicU64::new(0);
    static SPURIOUS: AtomicU64 = AtomicU64::new(0);
    static ERRORS: AtomicU64 = AtomicU64::new(0);
    static LAST_ERROR: AtomicU32 = AtomicU32::new(0);
}

/// One CPU's counts since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Interrupt commands that it sent (a broadcast counts once).
    pub sent: u64,
    /// Interrupts that its APIC withdrew in the last moment.
    pub spurious: u64,
    /// Error interrupts.
    pub errors: u64,
    /// All error bits ever seen, as in the error status register (Intel SDM volume 3, 11.5.3).
    pub error_bits: u32,
}

/// The counts of `cpu`. Any context; approximate while that CPU counts on.
pub fn counters(cpu: CpuId) -> Counters {
    Counters {
        sent: SENT.on(cpu).load(Ordering::Relaxed),
        spurious: SPURIOUS.on(cpu).load(Ordering::Relaxed),
        errors: ERRORS.on(cpu).load(Ordering::Relaxed),
        error_bits: LAST_ERROR.on(cpu).load(Ordering::Relaxed),
    }
}

/// How many interrupt commands got stuck in an xAPIC, on all CPUs together. A healthy machine has none.
pub fn stuck_commands() -> u64 {
    STUCK.load(Ordering::Relaxed)
}

/// For the handler of [`vectors::SPURIOUS`](crate::x86_64::vectors::SPURIOUS): counts. Such an interrupt gets no
/// end-of-interrupt (Intel SDM volume 3, 11.9).
pub fn on_spurious() {
    SPURIOUS.inc();
}

/// For the handler of [`vectors::APIC_ERROR`](crate::x86_64::vectors::APIC_ERROR), which sends the end-of-interrupt
/// itself: counts, and returns the error bits.
pub fn on_error() -> u32 {
    let Some(apic) = try_local() else { return 0 };
    // Writing latches the errors collected since the last write into what reads return.
    apic.access.write(Register::ERROR_STATUS, 0);
    let bits = apic.access.read(Register::ERROR_STATUS);
    ERRORS.inc();
    LAST_ERROR.or(bits);
    bits
}
