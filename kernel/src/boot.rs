//! The boot CPU's way from the loader to the console.
//!
//! 1. Something to print with, memory, guarded stacks.
//! 2. What firmware says; interrupt controllers; clocks.
//! 3. The other CPUs, all at once.
//! 4. What the command line asks for: tests, commands, a crash, or the console.
//!
//! A machine without usable firmware tables gets as far, with one CPU.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use alloc::vec::Vec;

use hal::cpumask::CpuMask;
use hal::x86_64::acpi::{self, PhysicalMemory, Processor, ProcessorState, Topology};
use hal::x86_64::apic::{self, IoApics, LocalApic};
use hal::x86_64::boot::{BootInfo, PvhError};
use hal::x86_64::clock::WarpTest;
use hal::x86_64::cpuid::Features;
use hal::x86_64::layout::phys_to_virt;
use hal::x86_64::power::ExitStatus;
use hal::x86_64::smp::Preparation;
use hal::x86_64::tables::IstStack;
use hal::x86_64::traps::probe;
use hal::x86_64::{clock, fpu, native, smp, start, tables, traps, upcalls, vectors};
use hal::{CpuId, MAX_CPUS, Native, Platform, percpu};
use log::{error, info, warn};
use spin::Once;
use sync::{IrqSpinLock, TaskCx};

use crate::cmdline::{Options, TestFilter};
use crate::hotplug::steps::Refusal;
use crate::memory::stacks::{GuardedStack, Owner, StackError};
use crate::task::{Builder, Task};
use crate::this_machine::ThisMachine;
use crate::{
    calls, console, cpus, crash, machine, memory, panic, rcu, sched, serial, services, shutdown, task,
    testing, tick, timer, watchdog,
};

/// What firmware said, if it could be believed.
static TOPOLOGY: Once<Topology> = Once::new();
/// What the boot CPU can do; the others are checked against it.
static FEATURES: Once<Features> = Once::new();
static IO_APICS: Once<IrqSpinLock<IoApics>> = Once::new();
static BOOT: Once<&'static BootInfo> = Once::new();

/// What firmware said, or `None` if it said nothing usable.
pub fn topology() -> Option<&'static Topology> {
    TOPOLOGY.get()
}

/// The boot CPU's features.
pub fn features() -> Option<&'static Features> {
    FEATURES.get()
}

/// The I/O APICs, once they are set up.
pub fn io_apics() -> Option<&'static IrqSpinLock<IoApics>> {
    IO_APICS.get()
}

/// What the boot loader said.
pub fn boot_info() -> Option<&'static BootInfo> {
    BOOT.get().copied()
}

/// The kernel's entry, on the boot CPU: interrupts off, boot tables' mappings.
pub fn main(boot: Result<&'static BootInfo, PvhError>) -> ! {
    upcalls::install(&machine::UPCALLS);
    serial::init();
    crate::log::init(log::LevelFilter::Info);
    let boot = match boot {
        Ok(boot) => *BOOT.call_once(|| boot),
        Err(problem) => panic!("the boot loader's data cannot be used: {problem:?}"),
    };
    let options = Options::parse(boot.command_line, |problem| warn!("command line: {problem}"));
    OPTIONS.call_once(|| options);
    if let Some(level) = options.loglevel {
        crate::log::set_level(level);
    }
    shutdown::set_debug_exit(options.debugexit);
    #[cfg(feature = "chaos")]
    if let Some(seed) = options.seed {
        hal::chaos::seed(seed);
    }
    info!("Quiesce {} booted by {}", env!("CARGO_PKG_VERSION"), boot.protocol);
    FEATURES.call_once(Features::detect);
    memory::init(boot);
    let top = give_stacks(CpuId::BOOT);
    // SAFETY: the new stack is mapped, ours, and never freed; nothing on the old one is used again.
    unsafe { start::continue_on(top, on_own_stack) }
}

static OPTIONS: Once<Options<'static>> = Once::new();

/// The command line's options.
pub fn options() -> Options<'static> {
    OPTIONS.get().copied().unwrap_or_default()
}

extern "C" fn on_own_stack() -> ! {
    let features = *features().expect("detected in main");
    // SAFETY: ring 0, this CPU's features, and no task has run.
    let fpu = unsafe { fpu::enable(&features) };
    info!("vector state: {} bytes by {:?}", fpu.area_size, fpu.method);
    let constant = memory::check::remember_image();
    info!("{constant} pages of the image are summed ({})", crate::vector::Width::best().name());

    let topology = read_firmware(&features);
    start_interrupt_controllers(&features, topology.as_ref());
    start_clock(&features, topology.as_ref());
    let processors = topology.as_ref().map_or(&[][..], |t| &t.processors);
    native::set_cpu_count(processors.len().max(1) as u32);
    crate::log::give_rings(Native::cpu_count());
    if let Some(topology) = topology {
        TOPOLOGY.call_once(|| topology);
    }
    shutdown::prepare();
    rcu::prepare();
    cpus::set_present(CpuId::BOOT, true);
    bring_up_this_cpu(CpuId::BOOT);
    route_serial_input();
    #[cfg(quiesce_sanitize = "thread")]
    crate::sanitize::watch(clock::tsc_hz());
    start_other_cpus();
    if options().notsc {
        clock::distrust_tsc(0);
    }
    Native::irq_enable();
    cpus::note_all_online();
    info!("all {} CPUs online at {} us", cpus::online_count(), cpus::all_online_at_ns() / 1_000);
    crate::log::set_deferred(true);
    sched::set_preemption(options().preempt);
    tick::set_mode(options().tick);
    watchdog::set_by_options(&options());
    services::start();
    // What follows is for one person at a time, and the boot CPU is as good as any.
    let main = Builder::new("main").on(CpuId::BOOT).stack_pages(MAIN_STACK).spawn(run);
    match main {
        Ok(task) => MAIN.store(core::ptr::from_ref::<Task>(task.task()) as usize, Ordering::Release),
        Err(error) => panic!("no task for the console: {error}"),
    }
    sched::idle()
}

/// Pages of the stack on which the console's commands and the tests run.
const MAIN_STACK: usize = 8;

/// The task of [`run`].
static MAIN: AtomicUsize = AtomicUsize::new(0);

/// Something may have been typed. Contexts: any but NMI.
pub(crate) fn wake_console() {
    // Acquire: pairs with the Release in `on_own_stack`.
    // SAFETY: null, or the record of a task that never ends.
    if let Some(main) = unsafe { (MAIN.load(Ordering::Acquire) as *const Task).as_ref() } {
        main.unpark();
    }
}

/// What the command line asks for.
fn run(cx: &mut TaskCx) {
    let options = options();
    let finish = |good| {
        crate::log::drain();
        panic::end(if good { ExitStatus::Success } else { ExitStatus::Failure })
    };
    if let Some(kind) = options.crash {
        crash::crash(kind);
        let known: Vec<_> = crash::KINDS.iter().map(|kind| kind.name).collect();
        error!("no way to crash is called `{kind}`; there are: {}", known.join(" "));
        finish(false)
    }
    if let Some(filter) = options.test {
        let filter = match filter {
            TestFilter::All => "",
            TestFilter::Matching(part) => part,
        };
        finish(testing::run_all(filter, cx))
    }
    if let Some(commands) = options.exec {
        finish(console::execute(&ThisMachine, cx, &alloc::format!("{commands}")))
    }
    console::run(&ThisMachine, cx, wait_for_input)
}

/// How often the port is looked at where its interrupt does not arrive, in nanoseconds.
const POLL_NS: u64 = 50_000_000;

/// Blocks until something may have been typed.
fn wait_for_input(task: &mut TaskCx) {
    if !serial::has_input() {
        let polled = !INPUT_INTERRUPTS.load(Ordering::Relaxed);
        task.block(polled.then(|| Native::now_ns() + POLL_NS));
    }
}

fn read_firmware(features: &Features) -> Option<Topology> {
    let rsdp = boot_info().and_then(|boot| boot.rsdp);
    match acpi::discover(&DirectMap, rsdp, features.apic_id, rcu::MAX_CPUS) {
        Ok(topology) => {
            let present = topology.processors.iter().filter(|p| p.state == ProcessorState::Enabled).count();
            info!("ACPI: {present} CPUs present, {} possible", topology.processors.len());
            if !topology.parked.is_empty() {
                let how = if rcu::MAX_CPUS < MAX_CPUS { "out `rcu-tiny`" } else { " QUIESCE_MAX_CPUS" };
                warn!(
                    "this build runs at most {} CPUs; {} more stay parked (build with{how})",
                    rcu::MAX_CPUS,
                    topology.parked.len()
                );
            }
            Some(topology)
        }
        Err(error) => {
            warn!("ACPI: {error}; running on one CPU");
            None
        }
    }
}

fn start_interrupt_controllers(features: &Features, topology: Option<&Topology>) {
    let address = topology.map_or(apic::DEFAULT_ADDRESS, |t| t.local_apic_address);
    // SAFETY: `map_mmio` maps device registers uncached and for good; ring 0.
    match unsafe { LocalApic::new(features, false, address, map_mmio) } {
        Ok(local) => {
            info!("local APIC: {}", local.form());
            apic::init(local);
        }
        Err(error) => panic!("no interrupts without a local APIC: {error}"),
    }
    if topology.is_none_or(|t| t.has_8259) {
        // SAFETY: the PC's interrupt controllers are at their fixed ports, and nothing uses them.
        unsafe { apic::pic::silence() };
    }
    if let Some(topology) = topology {
        // SAFETY: as for the local APIC; the addresses are the firmware's.
        let io_apics = unsafe { IoApics::new(topology, map_mmio) };
        IO_APICS.call_once(|| IrqSpinLock::new(io_apics));
    }
}

fn start_clock(features: &Features, topology: Option<&Topology>) {
    // SAFETY: ring 0, the firmware's tables, device registers mapped uncached and for good.
    let clock = unsafe { clock::init(features, topology, map_mmio, start::boot_tsc()) };
    if let Err(error) = clock {
        panic!("no clock: {error}");
    }
    match apic::timer::Timer::calibrate(apic::local(), features) {
        Ok((timer, rate)) => {
            info!("APIC timer: {}, {}", clock::Mhz(timer.hz()), timer.mode());
            apic::timer::init(timer, rate);
        }
        Err(error) => panic!("no timer: {error}"),
    }
}

/// The serial port's interrupt, to the boot CPU.
fn route_serial_input() {
    let (Some(topology), Some(io_apics)) = (topology(), io_apics()) else { return };
    let vector = vectors::ISA + serial::ISA_IRQ;
    let target = apic::local().id();
    match io_apics.lock().route_isa(topology.isa_route(serial::ISA_IRQ), vector, target) {
        Ok(()) => INPUT_INTERRUPTS.store(true, Ordering::Relaxed),
        Err(error) => warn!("serial input is polled: {error}"),
    }
}

/// Whether the serial port's interrupt arrives.
static INPUT_INTERRUPTS: AtomicBool = AtomicBool::new(false);

/// What every CPU does for itself, the boot CPU included. Interrupts are off.
fn bring_up_this_cpu(cpu: CpuId) {
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
fn give_stacks(cpu: CpuId) -> u64 {
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

/// Firmware's tables, read through the direct map. What is not mapped reads as "not there".
struct DirectMap;

impl PhysicalMemory for DirectMap {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        buffer.iter_mut().zip(address..).all(|(byte, at)| {
            let word = probe::read_u64(phys_to_virt(at & !7) as u64);
            word.map(|word| *byte = word.to_le_bytes()[(at & 7) as usize]).is_some()
        })
    }
}

fn map_mmio(physical: u64, length: usize) -> Option<NonNull<u8>> {
    memory::map_mmio(physical, length)
        .inspect_err(|error| warn!("device registers at {physical:#x} cannot be mapped: {error}"))
        .ok()
}

/// Prepares, starts and lets on all CPUs that are present.
fn start_other_cpus() {
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
