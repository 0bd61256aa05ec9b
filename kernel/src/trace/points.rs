//! The trace points, and the machine's rings.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use hal::{CpuId, Native, Platform};
use spin::Once;

use super::event::{Event, Record};
use super::merge::{Story, newest};
use super::ring::{Ring, Slot};

/// Whether points write.
static ON: AtomicBool = AtomicBool::new(false);
static RINGS: Once<Vec<Ring>> = Once::new();
/// Records of each CPU: 32 KiB.
const SLOTS: usize = 1024;

/// Switches tracing on, for all CPUs. The first time takes 32 KiB of memory for each CPU.
///
/// Task context. Linux: `tracing_on`.
pub fn start() {
    RINGS.call_once(|| {
        let slots = || (0..SLOTS).map(|_| Slot::new()).collect::<Vec<_>>().leak();
        (0..Native::cpu_count()).map(|_| Ring::new(slots())).collect()
    });
    // Relaxed: who sees it looks for the rings by an acquiring load of its own.
    ON.store(true, Ordering::Relaxed);
}

/// Switches tracing off. What has been written stays.
///
/// Contexts: any. Linux: `tracing_off`.
pub fn stop() {
    ON.store(false, Ordering::Relaxed);
}

/// Whether tracing is on.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The newest `count` records of all CPUs.
///
/// Contexts: those in which memory can be allocated.
pub fn tail(count: usize) -> Story {
    newest(RINGS.get().into_iter().flatten(), count)
}

/// A point: one load and one branch while tracing is off.
#[inline(always)]
fn point(event: Event) {
    if ON.load(Ordering::Relaxed) {
        // In registers: an event in memory would be prepared before the branch.
        let (kind, small, large) = event.encode();
        write(kind, small, large);
    }
}

#[cold]
#[inline(never)]
fn write(kind: u8, small: u32, large: u64) {
    let Some(event) = Event::decode(kind, small, large) else { return };
    // The task may be moved from here on, and write another CPU's ring, which rings allow. The record says where it was.
    let cpu = Native::cpu();
    if let Some(ring) = RINGS.get().and_then(|rings| rings.get(cpu.index())) {
        ring.push(Record { time_ns: Native::now_ns(), cpu: cpu.as_u32(), event });
    }
}

/// This CPU goes on with task `to` instead of `from`. Contexts: any. Linux: `trace_sched_switch`.
#[inline(always)]
pub fn switch(from: u32, to: u32) {
    point(Event::Switch { from, to });
}

/// Task `task` was woken and put on `cpu`. Contexts: any. Linux: `trace_sched_wakeup`.
#[inline(always)]
pub fn wakeup(task: u32, cpu: CpuId) {
    point(Event::Wakeup { task, cpu: cpu.as_u32() });
}

/// The handler of an interrupt begins. Contexts: any. Linux: `trace_irq_handler_entry`.
#[inline(always)]
pub fn irq_enter(vector: u8) {
    point(Event::IrqEnter(vector));
}

/// It has ended. Contexts: any. Linux: `trace_irq_handler_exit`.
#[inline(always)]
pub fn irq_exit(vector: u8) {
    point(Event::IrqExit(vector));
}

/// The handler of a softirq begins. Contexts: any. Linux: `trace_softirq_entry`.
#[inline(always)]
pub fn softirq_enter(vector: u32) {
    point(Event::SoftirqEnter(vector as u8));
}

/// It has ended. Contexts: any. Linux: `trace_softirq_exit`.
#[inline(always)]
pub fn softirq_exit(vector: u32) {
    point(Event::SoftirqExit(vector as u8));
}

/// `cpu` came on line, or went. Contexts: any. Linux: `trace_cpuhp_enter` and its kin.
#[inline(always)]
pub fn hotplug(cpu: CpuId, online: bool) {
    let cpu = cpu.as_u32();
    point(if online { Event::Online(cpu) } else { Event::Offline(cpu) });
}

/// A number for whoever reads the trace. Contexts: any, NMI included. Linux: `trace_printk`.
#[inline(always)]
pub fn mark(value: u64) {
    point(Event::Mark(value));
}
