//! CPUs that the host plugs in and pulls out.
//!
//! 1. Firmware lists which CPUs are possible. Each has its place in masks and its per-CPU area from boot on, also while it is
//!    not there.
//! 2. The host changes something in the [register block](CpuPlug) and raises event 2, for which the ACPI interrupt (SCI)
//!    comes. Its handler takes the note away and wakes the task `plug`, which reads the registers.
//! 3. A CPU that was plugged in is present from then on, and by the boot option `hotadd=` online. One that the host wants is
//!    taken off-line like any other. It may refuse, as the boot CPU does; then it stays, and the host is told.
//! 4. What was off-line is given back by a register. Whatever comes into its place is a CPU after reset, which goes on where
//!    the other one was parked ([`smp`]).
//!
//! There is no interpreter of the firmware's byte code: where the registers are is looked up in the code's encoding, and what
//! they mean is known. Where the SCI cannot be routed, the task looks each second.
//!
//! Linux: `drivers/acpi/acpi_processor.c`, `acpi_hotplug_work_fn`.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hal::x86_64::acpi::{Events, Override, Polarity, Topology, Trigger};
use hal::x86_64::cpu_plug::{Answer, CpuPlug, IoPorts, Notice, Request};
use hal::x86_64::{apic, smp, vectors};
use hal::{CpuId, Native, Platform};
use log::{info, warn};
use spin::Once;
use sync::TaskCx;

use super::{HotAdd, HotplugError};
use crate::task::{self, Builder, Task};
use crate::{boot, cpus};

/// The event that tells of CPUs (QEMU, "ACPI CPU hotplug interface": GPE.2).
const EVENT: u8 = 2;
/// How often the registers are looked at where no interrupt comes, in nanoseconds.
const POLL_NS: u64 = 1_000_000_000;

/// The events, once they interrupt.
static EVENTS: Once<Events> = Once::new();
/// The vector of their interrupt, or 0.
static VECTOR: AtomicU32 = AtomicU32::new(0);
/// The task, once there is one. It never ends.
static TASK: AtomicUsize = AtomicUsize::new(0);
static POLLED: AtomicBool = AtomicBool::new(true);
static PLUGGED: AtomicU64 = AtomicU64::new(0);
static UNPLUGGED: AtomicU64 = AtomicU64::new(0);

/// How many CPUs were plugged in, and how many pulled out, since boot.
pub fn counts() -> (u64, u64) {
    (PLUGGED.load(Ordering::Relaxed), UNPLUGGED.load(Ordering::Relaxed))
}

/// Whether the machine has the registers.
pub fn is_there() -> bool {
    TASK.load(Ordering::Relaxed) != 0
}

/// Looks for the registers, and serves them from then on. On the boot CPU, at boot.
pub(crate) fn start() {
    let Some((topology, base)) = boot::topology().and_then(|topology| Some((topology, topology.cpu_plug?)))
    else {
        return;
    };
    let possible = (topology.processors.len() + topology.parked.len()) as u32;
    // SAFETY: firmware has said that these are the registers, in a name that only this kind has, and nobody else looks for
    // them.
    let Some(block) = CpuPlug::detect(unsafe { IoPorts::new(base) }, possible) else {
        return;
    };
    let task = match Builder::new("plug").spawn(move |cx| serve(block, cx)) {
        Ok(handle) => handle,
        Err(error) => return warn!("CPUs cannot be plugged in: no task for it: {error}"),
    };
    // Release: pairs with the Acquire in `wake`.
    TASK.store(core::ptr::from_ref::<Task>(task.task()) as usize, Ordering::Release);
    match topology.events.filter(|events| route(topology, *events)) {
        Some(_) => POLLED.store(false, Ordering::Relaxed),
        None => warn!("no interrupt tells of CPUs that are plugged in: looking each second"),
    }
    // What came before the interrupt was there.
    wake();
}

/// Has the SCI come to this CPU.
fn route(topology: &Topology, events: Events) -> bool {
    let Some(io_apics) = boot::io_apics() else { return false };
    let Ok(irq) = u8::try_from(events.interrupt) else { return false };
    if irq >= 16 {
        return false;
    }
    // Without a word from firmware it is a level, and active low (ACPI 6.5, 5.2.9).
    let told = topology.overrides.iter().copied().find(|route| route.irq == irq);
    let gsi = u32::from(irq);
    let route = told.unwrap_or(Override { irq, gsi, polarity: Polarity::ActiveLow, trigger: Trigger::Level });
    let vector = vectors::ISA + irq;
    EVENTS.call_once(|| events);
    VECTOR.store(vector.into(), Ordering::Relaxed);
    let routed = io_apics.lock().route_isa(route, vector, apic::local().id());
    if let Err(error) = routed {
        warn!("the ACPI interrupt does not arrive: {error}");
        return false;
    }
    // SAFETY: firmware has described the registers, and this is the only user.
    unsafe { events.begin(EVENT) }
}

/// A device has interrupted. Whether it was this one. Contexts: hardirq.
pub(crate) fn on_interrupt(vector: u8) -> bool {
    if VECTOR.load(Ordering::Relaxed) != u32::from(vector) {
        return false;
    }
    // SAFETY: `route` stores the vector before the interrupt can come, which it does only when the events were begun.
    if EVENTS.get().is_some_and(|events| unsafe { events.take(EVENT) }) {
        wake();
    }
    true
}

fn wake() {
    // Acquire: pairs with the Release in `start`.
    // SAFETY: null, or the record of a task that never ends.
    if let Some(task) = unsafe { (TASK.load(Ordering::Acquire) as *const Task).as_ref() } {
        task.unpark();
    }
}

/// The task.
fn serve(mut block: CpuPlug<IoPorts>, cx: &mut TaskCx) {
    loop {
        block.serve(|apic_id, notice| match cpus::by_apic_id(apic_id) {
            Some(cpu) => act(cpu, notice, cx),
            None => {
                warn!("a CPU with APIC id {apic_id} was plugged in, for which this build has no place");
                Answer::Refused
            }
        });
        if POLLED.load(Ordering::Relaxed) {
            cx.block(Some(Native::now_ns() + POLL_NS));
        } else {
            task::park(cx);
        }
    }
}

/// Does what is noted about a CPU.
fn act(cpu: CpuId, notice: Notice, cx: &mut TaskCx) -> Answer {
    match notice {
        Notice::Request(Request::Inserted) => inserted(cpu, cx),
        Notice::Request(Request::Wanted) => match super::give_up(cpu, cx) {
            Ok(()) => Answer::Done,
            // It goes twice: there is nothing to take out of use.
            Err(HotplugError::Absent(_)) => Answer::Done,
            Err(error) => {
                warn!("the host wants CPU {cpu} back, but: {error}");
                Answer::Refused
            }
        },
        Notice::Ejected { stays: true } => {
            warn!("CPU {cpu} was given back, but the host has not taken it");
            cpus::set_present(cpu, true);
            Answer::Refused
        }
        Notice::Ejected { stays: false } => {
            // One that never ran is not parked.
            smp::note_removed(cpu);
            UNPLUGGED.fetch_add(1, Ordering::Relaxed);
            info!("CPU {cpu} was pulled out");
            Answer::Done
        }
    }
}

fn inserted(cpu: CpuId, cx: &mut TaskCx) -> Answer {
    cpus::set_present(cpu, true);
    PLUGGED.fetch_add(1, Ordering::Relaxed);
    if boot::options().hotadd == HotAdd::Present {
        info!("CPU {cpu} was plugged in; `cpu {cpu} online` brings it online");
        return Answer::Done;
    }
    match super::bring_online(cpu, cx) {
        Ok(()) | Err(HotplugError::Unchanged(_, true)) => {
            info!("CPU {cpu} was plugged in, and is online");
            Answer::Done
        }
        Err(error) => {
            warn!("CPU {cpu} was plugged in, but: {error}");
            Answer::Refused
        }
    }
}
