//! The boot CPU's way from the loader to the console.
//!
//! 1. Something to print with, memory, guarded stacks.
//! 2. What firmware says; interrupt controllers; clocks.
//! 3. The other CPUs, all at once.
//! 4. What the command line asks for: tests, commands, a crash, or the console.
//!
//! A machine without usable firmware tables gets as far, with one CPU.

mod processors;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use alloc::vec::Vec;

use hal::x86_64::acpi::{self, PhysicalMemory, ProcessorState, Topology};
use hal::x86_64::apic::{self, IoApics, LocalApic};
use hal::x86_64::boot::{BootInfo, PvhError};
use hal::x86_64::cpuid::Features;
use hal::x86_64::layout::phys_to_virt;
use hal::x86_64::power::ExitStatus;
use hal::x86_64::traps::probe;
use hal::x86_64::{clock, fpu, native, start, upcalls, vectors};
use hal::{CpuId, MAX_CPUS, Native, Platform};
use log::{error, info, warn};
use spin::Once;
use sync::{IrqSpinLock, TaskCx};

pub(crate) use self::processors::start_added;
use self::processors::{bring_up_this_cpu, give_stacks, start_other_cpus};
use crate::cmdline::{Options, TestFilter};
use crate::task::{Builder, Task};
use crate::this_machine::ThisMachine;
use crate::{
    console, cpus, crash, machine, memory, panic, rcu, sched, serial, services, shutdown, testing, tick,
    watchdog,
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
