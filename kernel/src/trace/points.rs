//! The trace points, and the machine's rings.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};

use hal::x86_64::native;
use hal::{CpuId, Native, Platform};
use spin::Once;

use super::event::{Event, Record};
use super::merge::{Few, Story, newest, newest_few};
use super::ring::{Ring, Slot};
use crate::watchdog::holds;

/// Who wants to know of points, a bit each.
static ON: AtomicU8 = AtomicU8::new(0);
/// The trace.
const TRACE: u8 = 1;
/// The watchdog for handlers that run for long.
const HOLDS: u8 = 2;
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
    ON.fetch_or(TRACE, Ordering::Relaxed);
    native::set_contention_noted(true);
}

/// Switches tracing off. What has been written stays.
///
/// Contexts: any. Linux: `tracing_off`.
pub fn stop() {
    native::set_contention_noted(false);
    ON.fetch_and(!TRACE, Ordering::Relaxed);
}

/// Whether tracing is on.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed) & TRACE != 0
}

/// Whether anybody wants to know of points. One load, for code with two of them that are next to each other.
#[inline(always)]
pub(crate) fn is_told() -> bool {
    ON.load(Ordering::Relaxed) != 0
}

/// Has [`holds`] told of the points at which handlers begin and end, or no longer.
pub(crate) fn tell_holds(on: bool) {
    // Relaxed, both: a handler whose beginning or end is missed is not measured.
    if on {
        ON.fetch_or(HOLDS, Ordering::Relaxed)
    } else {
        ON.fetch_and(!HOLDS, Ordering::Relaxed)
    };
}

/// The newest `count` records of all CPUs.
///
/// Contexts: those in which memory can be allocated.
pub fn tail(count: usize) -> Story {
    newest(RINGS.get().into_iter().flatten(), count)
}

/// The newest records, if there ever were any. Contexts: any; nothing is allocated.
pub fn last() -> Option<Few> {
    RINGS.get().map(|rings| newest_few(rings.iter()))
}

/// A point: one load and one branch while tracing is off.
#[inline(always)]
fn point(event: Event) {
    if ON.load(Ordering::Relaxed) != 0 {
        // In registers: an event in memory would be prepared before the branch.
        let (kind, small, large) = event.encode();
        write(kind, small, large);
    }
}

#[cold]
#[inline(never)]
fn write(kind: u8, small: u32, large: u64) {
    let Some(event) = Event::decode(kind, small, large) else { return };
    let wanted = ON.load(Ordering::Relaxed);
    if wanted & HOLDS != 0 {
        holds::on_event(event);
    }
    if wanted & TRACE == 0 {
        return;
    }
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

/// Grace period `number` since boot has ended. Contexts: any. Linux: `trace_rcu_grace_period`.
#[inline(always)]
pub(crate) fn grace_period(number: u64) {
    point(Event::GracePeriod(number));
}

/// Callbacks of `cpu` were called after their grace period; `left` says how many it has still, and is asked while tracing is
/// on. Contexts: any in which `left` can be asked. Linux: `trace_rcu_batch_end`.
#[inline(always)]
pub(crate) fn callbacks(called: usize, cpu: u32, left: impl FnOnce() -> usize) {
    if is_told() {
        point(Event::Callbacks { called: called as u32, cpu, left: left() as u32 });
    }
}

/// A grace period lasts too long. Contexts: any. Linux: `trace_rcu_stall_warning`.
#[cfg_attr(feature = "rcu-tiny", expect(dead_code, reason = "one CPU's grace periods wait for nobody"))]
#[inline(always)]
pub(crate) fn stall(number: u64) {
    point(Event::Stall(number));
}

/// `cpu` has this many callbacks, too many, and another one was queued by somebody who waits, or cannot. Contexts: any.
#[cfg_attr(feature = "rcu-tiny", expect(dead_code, reason = "one CPU's callbacks are not held back"))]
#[inline(always)]
pub(crate) fn flood(waiting: usize, cpu: u32, waits: bool) {
    point(Event::Flood { waiting: waiting as u32, cpu, waits });
}

/// A lock was found taken and will be waited for. Returns the moment for [`lock_waited`]; 0 while tracing is off.
/// Contexts: any. Linux: `trace_contention_begin`.
pub(crate) fn lock_contended(lock: usize) -> u64 {
    if !is_on() {
        return 0;
    }
    point(Event::LockContended(lock as u64));
    Native::now_ns().max(1)
}

/// That wait, begun at `begun`, is over. Contexts: any. Linux: `trace_contention_end`.
pub(crate) fn lock_waited(lock: usize, begun: u64) {
    let ns = Native::now_ns().saturating_sub(begun);
    point(Event::LockWaited { lock: lock as u64, ns: u32::try_from(ns).unwrap_or(u32::MAX) });
}

/// A number for whoever reads the trace. Contexts: any, NMI included. Linux: `trace_printk`.
#[inline(always)]
pub fn mark(value: u64) {
    point(Event::Mark(value));
}
