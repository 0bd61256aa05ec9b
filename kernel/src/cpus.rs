//! The CPUs as the kernel knows them: who is possible, who is there, and who is online.

use core::sync::atomic::{AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::cpumask::AtomicCpuMask;
use hal::x86_64::smp;
use hal::{CpuId, Native, Platform, percpu};
use spin::Once;

use crate::trace;

static ONLINE: AtomicCpuMask = AtomicCpuMask::new();

/// The CPUs that are plugged in.
static PRESENT: AtomicCpuMask = AtomicCpuMask::new();

/// APIC ids by CPU number.
static APIC_IDS: Once<Vec<u32>> = Once::new();

/// Nanoseconds from the first clock reading to "all online", 0 before.
static ALL_ONLINE_AT: AtomicU64 = AtomicU64::new(0);

/// Whether `cpu` runs and takes interrupts.
pub fn is_online(cpu: CpuId) -> bool {
    ONLINE.test(cpu)
}

/// Whether `cpu` is plugged in. One that is not may come while the system runs, if it is possible.
pub fn is_present(cpu: CpuId) -> bool {
    PRESENT.test(cpu)
}

/// The CPUs that run, in order. May change while it is used only during boot.
pub fn online() -> impl Iterator<Item = CpuId> {
    percpu::cpus().filter(|cpu| is_online(*cpu))
}

/// How many CPUs run.
pub fn online_count() -> usize {
    online().count()
}

/// The hardware's name of `cpu`.
pub fn apic_id(cpu: CpuId) -> Option<u32> {
    APIC_IDS.get()?.get(cpu.index()).copied()
}

/// What `cpu` is doing at large, in a word.
pub fn state_name(cpu: CpuId) -> &'static str {
    if is_online(cpu) {
        return "online";
    }
    match smp::state(cpu) {
        _ if !is_present(cpu) => "absent",
        smp::State::Absent | smp::State::Parked | smp::State::Removed => "offline",
        smp::State::Starting | smp::State::Alive => "starting",
        smp::State::GivenUp => "did not answer",
    }
}

/// When all CPUs were online, in nanoseconds of the monotonic clock.
pub fn all_online_at_ns() -> u64 {
    ALL_ONLINE_AT.load(Ordering::Relaxed)
}

pub(crate) fn set_apic_ids(ids: Vec<u32>) {
    APIC_IDS.call_once(|| ids);
}

pub(crate) fn set_present(cpu: CpuId, present: bool) {
    if present {
        PRESENT.set(cpu);
    } else {
        PRESENT.clear(cpu);
    }
}

/// The possible CPU with this APIC id.
pub(crate) fn by_apic_id(apic_id: u32) -> Option<CpuId> {
    let number = APIC_IDS.get()?.iter().position(|id| *id == apic_id)?;
    CpuId::new(number as u32)
}

pub(crate) fn set_online(cpu: CpuId) {
    ONLINE.set(cpu);
    trace::hotplug(cpu, true);
}

pub(crate) fn set_offline(cpu: CpuId) {
    ONLINE.clear(cpu);
    trace::hotplug(cpu, false);
}

pub(crate) fn note_all_online() {
    ALL_ONLINE_AT.store(Native::now_ns(), Ordering::Relaxed);
}
