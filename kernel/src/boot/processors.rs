//! How CPUs start: all at once at boot, or one that the host has plugged in.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;

use hal::cpumask::CpuMask;
use hal::x86_64::acpi::{Processor, ProcessorState};
use hal::x86_64::clock::WarpTest;
use hal::x86_64::cpuid::Features;
use hal::x86_64::smp::Preparation;
use hal::x86_64::tables::IstStack;
use hal::x86_64::{apic, clock, fpu, smp, tables, traps};
use hal::{CpuId, Native, Platform, percpu};
use log::{error, info, warn};
use sync::TaskCx;

use super::{features, topology};
use crate::hotplug::steps::Refusal;
use crate::memory::stacks::{GuardedStack, Owner, StackError};
use crate::{calls, cpus, memory, rcu, sched, services, task, tick, timer};

/// Prepares, starts and lets on all CPUs that are present.
pub(super) fn start_other_cpus() {
    let Some(topology) = topology() else { return };
    cpus::set_apic_ids(topology.processors.iter().map(|p| p.apic_id).collect());
    if topology.processors.iter().any(|p| p.state == ProcessorState::OnlineCapable) {
        // While there is one: those that come later need it too.
        let _ = memory::start_page();
    }
    let mut prepared = Vec::new();
    let mut unreachable = CpuMask::new();
    for (number, processor) in topology.processors.iter().enumerate().skip(1) {
        let cpu = CpuId::new(number as u32).expect("discovery stops at MAX_CPUS");
        let Some(base) = install_area(cpu) else { break };
        if processor.state == ProcessorState::Enabled {
            cpus::set_present(cpu, true);
            if apic::local().can_reach(processor.apic_id) {
                prepared.push(prepare(cpu, processor, base));
            } else {
                unreachable.insert(cpu);
            }
        }
    }
    if !unreachable.is_empty() {
        warn!("CPUs {unreachable} have APIC ids that an xAPIC cannot reach; they stay off");
    }
    if prepared.is_empty() {
        return;
    }
    let page = match memory::start_page() {
        Ok(page) => page,
        Err(error) => {
            warn!("no page below 1 MiB to start other CPUs from ({error}); running on one CPU");
            return;
        }
    };
    // While CPUs come up, theirs and this one's time stamp counters are compared.
    let compare = || WARP_TEST.look_as_starter(clock::read_tsc);
    // SAFETY: the preparations are these CPUs' own; the start page is free and mapped at its own address in its tables,
    // which are below 4 GiB.
    unsafe {
        smp::start(&prepared, page.page, page.root, memory::root(), other_cpu, clock::delay_ns, compare)
    };
    let mut silent = CpuMask::new();
    for Preparation { cpu, .. } in prepared {
        if smp::state(cpu) == smp::State::GivenUp {
            silent.insert(cpu);
            continue;
        }
        while !cpus::is_online(cpu) {
            compare();
            Native::relax();
        }
    }
    if !silent.is_empty() {
        warn!("CPUs {silent} did not answer their start-up in time; going on without them");
    }
    match UNCOMPARED.load(Ordering::Relaxed) {
        0 => {}
        count => {
            info!("the host is busy: {count} CPUs' time stamp counters could not be compared and are trusted")
        }
    }
    if WARP_TEST.worst() > 0 {
        clock::distrust_tsc(WARP_TEST.worst());
    }
}

/// Finds time stamp counters that disagree while CPUs start.
static WARP_TEST: WarpTest = WarpTest::new();
/// CPUs that came up while the host had no time for a comparison.
static UNCOMPARED: AtomicU32 = AtomicU32::new(0);

/// The area of a possible CPU: it exists even while the CPU does not.
fn install_area(cpu: CpuId) -> Option<usize> {
    let layout =
        Layout::from_size_align(percpu::area_size(), percpu::AREA_ALIGN).expect("a small power of two");
    // SAFETY: the size is not zero. The memory is never freed.
    let Some(memory) = NonNull::new(unsafe { alloc::alloc::alloc(layout) }) else {
        error!("no memory for the area of CPU {cpu}; it and those behind it stay off");
        return None;
    };
    // SAFETY: fresh memory of the right size and alignment that is never freed; the CPU is not running.
    match unsafe { percpu::install(cpu, memory) } {
        Ok(base) => Some(base),
        Err(error) => panic!("the area of CPU {cpu}: {error}"),
    }
}

fn prepare(cpu: CpuId, processor: &Processor, base: usize) -> Preparation {
    apic::set_id(cpu, processor.apic_id);
    Preparation { cpu, apic_id: processor.apic_id, stack_top: give_stacks(cpu), base }
}

percpu! {
    /// The top of the stack on which this CPU starts for the first time, from when it has one.
    static FIRST_STACK: AtomicU64 = AtomicU64::new(0);
}

/// Starts `cpu`, which the host has plugged in while the system runs: one that was never there goes the way of all at boot, one
/// in the place of another goes on where that one was parked. Returns when it is online.
///
/// Contexts: task, one at a time.
///
/// # Errors
/// Why it does not come. It may be tried again.
pub(crate) fn start_added(cpu: CpuId, cx: &mut TaskCx) -> Result<(), Refusal> {
    let apic_id = cpus::apic_id(cpu).ok_or("firmware has not listed it")?;
    if !apic::local().can_reach(apic_id) {
        return Err("an xAPIC cannot reach its APIC id");
    }
    let area = percpu::area_of(cpu).ok_or("there was no memory for its area")?;
    let page = memory::start_page().map_err(|_| "there is no page below 1 MiB to start it from")?;
    let replaces = smp::state(cpu) == smp::State::Removed;
    let (stack_top, entry) = if replaces {
        (smp::parked_stack(cpu), replacement as extern "C" fn() -> !)
    } else {
        services::start_for(cpu).map_err(|_| "there is no memory for its tasks")?;
        let first = FIRST_STACK.on(cpu);
        if first.load(Ordering::Relaxed) == 0 {
            let top = find_stacks(cpu).map_err(|_| "there is no memory for its stacks")?;
            first.store(top, Ordering::Relaxed);
        }
        (first.load(Ordering::Relaxed), other_cpu as extern "C" fn() -> !)
    };
    apic::set_id(cpu, apic_id);
    let base = area.wrapping_sub(percpu::template_address());
    let prepared = [Preparation { cpu, apic_id, stack_top, base }];
    let sleep = |ns| {
        let until = Native::now_ns() + ns;
        while Native::now_ns() < until {
            Native::block(Some(until));
        }
    };
    let compare = || WARP_TEST.look_as_starter(clock::read_tsc);
    // SAFETY: the preparation is this CPU's own, which does not run: it has not started, or was reset. The start page is
    // kept for this, and mapped at its own address in its tables, which are below 4 GiB.
    unsafe { smp::start(&prepared, page.page, page.root, memory::root(), entry, sleep, compare) };
    if smp::state(cpu) == smp::State::GivenUp {
        return Err("it does not answer its start-up");
    }
    while !cpus::is_online(cpu) {
        compare();
        cx.cond_resched();
        Native::relax();
    }
    Ok(())
}

/// The first kernel function of every other CPU.
extern "C" fn other_cpu() -> ! {
    let cpu = Native::cpu();
    prepare_registers(cpu);
    bring_up_this_cpu(cpu);
    Native::irq_enable();
    sched::idle()
}

/// That of a CPU in the place of one that was pulled out while it was parked.
extern "C" fn replacement() -> ! {
    prepare_registers(Native::cpu());
    // SAFETY: started by `start_added` for this; interrupts are off, and the APIC is as after a reset.
    unsafe { smp::resume() }
}

/// Puts a CPU's registers into the state that all have.
fn prepare_registers(cpu: CpuId) {
    memory::enable_on_this_cpu();
    let features = Features::detect();
    let boot_features = boot_features_of(cpu, &features);
    // SAFETY: ring 0, and no task has run on this CPU. Every CPU has what the boot CPU has, checked above.
    unsafe { fpu::enable(boot_features) };
    match WARP_TEST.check(clock::read_tsc) {
        clock::Sync::InStep => {}
        // Before this CPU goes online and anybody compares its times with others'.
        clock::Sync::Warped(cycles) => {
            clock::distrust_tsc(cycles);
        }
        clock::Sync::Unchecked => {
            UNCOMPARED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The features that all CPUs switch on, after a check that this CPU has them.
fn boot_features_of(cpu: CpuId, mine: &Features) -> &'static Features {
    let boot = features().expect("detected before other CPUs start");
    if let Some(feature) = boot.lacks(mine) {
        panic!("CPU {cpu} lacks a feature that the boot CPU has: {feature}");
    }
    boot
}

/// What every CPU does for itself, the boot CPU included. Interrupts are off.
pub(super) fn bring_up_this_cpu(cpu: CpuId) {
    // SAFETY: this CPU, interrupts off, its tables are loaded.
    unsafe { apic::enable_this_cpu(cpu) };
    let idle = task::adopt_boot_context();
    rcu::cpu_comes();
    #[cfg(any(feature = "lockdep", debug_assertions))]
    crate::lockdep::install_on_this_cpu(idle);
    sched::start_on_this_cpu(idle);
    let quiet = sync::irq::disable();
    timer::install_here(&quiet);
    tick::start(&quiet);
    calls::open_here(&quiet);
    drop(quiet);
    // Before anybody counts on it: it may come while the system runs. What it has touched until here is never unmapped.
    memory::shootdown::arrive_here();
    cpus::set_online(cpu);
}

/// Pages of a CPU's own stack, on which it starts and then idles.
const IDLE_STACK: usize = 4;
const INTERRUPT_STACK: usize = 4;
const FAULT_STACK: usize = 2;

/// Gives `cpu` all its stacks, for good. Those for interrupts and faults are used from now on; the top of its own is
/// returned.
pub(super) fn give_stacks(cpu: CpuId) -> u64 {
    match find_stacks(cpu) {
        Ok(top) => top,
        Err(error) => panic!("the stacks of CPU {cpu}: {error}"),
    }
}

/// As [`give_stacks`]; if there is no memory for one of them, those that were found are given back.
fn find_stacks(cpu: CpuId) -> Result<u64, StackError> {
    const FAULTS: [IstStack; 4] =
        [IstStack::DoubleFault, IstStack::Nmi, IstStack::MachineCheck, IstStack::Debug];
    let interrupts = GuardedStack::new(INTERRUPT_STACK, Owner::Interrupt(cpu))?;
    let nmis = GuardedStack::new(INTERRUPT_STACK, Owner::Nmi(cpu))?;
    let mut faults = [const { None }; FAULTS.len()];
    for (ist, stack) in FAULTS.into_iter().zip(&mut faults) {
        let owner = match ist {
            IstStack::DoubleFault => Owner::DoubleFault(cpu),
            IstStack::Nmi => Owner::Nmi(cpu),
            IstStack::MachineCheck => Owner::MachineCheck(cpu),
            IstStack::Debug => Owner::Debug(cpu),
        };
        *stack = Some(GuardedStack::new(FAULT_STACK, owner)?);
    }
    let own = GuardedStack::new(IDLE_STACK, Owner::Idle(cpu))?;
    traps::set_stacks(cpu, interrupts.leak(), nmis.leak());
    for (ist, stack) in FAULTS.into_iter().zip(faults) {
        tables::set_ist_stack(cpu, ist, stack.map_or(0, GuardedStack::leak));
    }
    Ok(own.leak())
}
