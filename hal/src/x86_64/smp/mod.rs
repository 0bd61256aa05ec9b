//! Starting the other CPUs.
//!
//! 1. Whoever starts them ([`Starter`]) prepares for each an area, a stack, fault stacks, and an entry in a table.
//! 2. The trampoline is copied to a free page below 1 MiB. All CPUs get INIT, then start-up interrupts: they come up in
//!    parallel, each finds itself in the table by its APIC id, takes its stack and base, and calls Rust.
//! 3. A CPU that does not answer in time is given up: the state word decides between "here I am" and "given up", so that
//!    one that answers late stays parked.
//! 4. A CPU that goes off-line parks itself ([`park`]): it halts with interrupts off, and [`unpark`] wakes it where it
//!    stands. Its stack, its area and its registers stay.
//! 5. A host may pull a parked CPU out ([`note_removed`]). What comes into its place is a CPU after reset: it is started
//!    as at boot, on the stack of the one that parked, puts its registers in order, and goes on where that one stood
//!    ([`resume`]). For the kernel above nothing has happened but that a CPU was parked for a while.
//!
//! Parking could also end in a reset (INIT, and a start-up interrupt to come back), as firmware leaves CPUs. In a guest
//! that buys nothing: to the host a halted virtual CPU costs as little as one that waits for its start-up. And it costs: 10 ms
//! for each return, the page below 1 MiB for ever, and a way of starting that confidential guests do not have. So the way
//! back is an NMI, the one interrupt that reaches a CPU with interrupts off.

mod trampoline;

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{apic, clock};
use crate::platform::Platform;
use crate::{CpuId, MAX_CPUS, Native, percpu};

/// Where a CPU is on its way up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    /// Possible, and never started.
    Absent = 0,
    /// Told to start.
    Starting = 1,
    /// Runs Rust code.
    Alive = 2,
    /// Did not answer in time. Stays parked if it does later.
    GivenUp = 3,
    /// Halted by [`park`], until somebody calls [`unpark`].
    Parked = 4,
    /// Pulled out by the host while it was parked. Another one in its place is started like one that never was.
    Removed = 5,
}

/// Written by the starting CPU (Absent, GivenUp and Removed to Starting, Starting to GivenUp, Parked to Starting and back),
/// by whoever learns of a removal (Parked to Removed), and by the started one (Starting to Alive, Alive to Parked).
static STATES: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(State::Absent as u32) }; MAX_CPUS];

/// What a CPU needs to come up.
#[derive(Clone, Copy, Debug)]
pub struct Preparation {
    /// Its number.
    pub cpu: CpuId,
    /// Its hardware name.
    pub apic_id: u32,
    /// The top of its first stack.
    pub stack_top: u64,
    /// Its per-CPU base, from [`percpu::install`].
    pub base: usize,
}

/// How long a CPU may take from its start-up interrupt to Rust code. Generous, because 64 virtual CPUs may share two.
pub const START_TIMEOUT_NS: u64 = 10_000_000_000;

/// The state of a CPU.
pub fn state(cpu: CpuId) -> State {
    // Acquire: pairs with the Release of the started CPU's exchange; who sees it alive sees what it set up.
    match STATES[cpu.index()].load(Ordering::Acquire) {
        1 => State::Starting,
        2 => State::Alive,
        3 => State::GivenUp,
        4 => State::Parked,
        5 => State::Removed,
        _ => State::Absent,
    }
}

/// Starts all `cpus` in parallel and waits until each is alive or given up. `entry` is the first kernel function that
/// each runs, with interrupts off (depth 1), its own tables, area and stack, and the translations of `root`.
///
/// `page` is a free physical page below 1 MiB, mapped at its own address in the tables at `start_root` (which lie below
/// 4 GiB and map the kernel too).
///
/// `pause` passes at least so many nanoseconds; `waiting` is called all the time while CPUs are awaited.
///
/// Task context, one at a time; at boot on the boot CPU, later on any with a `pause` that may sleep. Takes about 10 ms plus
/// what the slowest CPU takes, at most [`START_TIMEOUT_NS`].
///
/// # Safety
/// The stacks and bases belong to these CPUs, which do not run; `page` is free, or was used for this only, with the same `start_root`; `start_root` and
/// `root` map the kernel.
pub unsafe fn start(
    cpus: &[Preparation],
    page: u64,
    start_root: u64,
    root: u64,
    entry: extern "C" fn() -> !,
    mut pause: impl FnMut(u64),
    mut waiting: impl FnMut(),
) {
    if cpus.is_empty() {
        return;
    }
    for prepared in cpus {
        STATES[prepared.cpu.index()].store(State::Starting as u32, Ordering::Relaxed);
    }
    // SAFETY: the caller's promises, passed on.
    unsafe { trampoline::write(cpus, page, start_root, root, entry) };
    for prepared in cpus {
        apic::send_init(prepared.apic_id);
    }
    // Intel SDM volume 3, 9.4.4: 10 ms between INIT and the first start-up interrupt, 200 us to a second one, which a
    // CPU that has started ignores.
    pause(10_000_000);
    for prepared in cpus {
        apic::send_startup(prepared.apic_id, (page >> 12) as u8);
    }
    pause(200_000);
    for prepared in cpus.iter().filter(|p| state(p.cpu) == State::Starting) {
        apic::send_startup(prepared.apic_id, (page >> 12) as u8);
    }
    let deadline = clock::now_ns() + START_TIMEOUT_NS;
    while cpus.iter().any(|p| state(p.cpu) == State::Starting) && clock::now_ns() < deadline {
        waiting();
        Native::relax();
    }
    for prepared in cpus {
        // Relaxed: a CPU that is given up has done nothing that anybody would look at.
        let _ = STATES[prepared.cpu.index()].compare_exchange(
            State::Starting as u32,
            State::GivenUp as u32,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

/// How often a parked CPU is nudged until it answers.
const NUDGE_EVERY_NS: u64 = 100_000;

percpu! {
    /// Where this CPU stands in [`park`]: the stack pointer with which it goes on.
    static STANDS: AtomicU64 = AtomicU64::new(0);
}

/// Halts the executing CPU until somebody calls [`unpark`] for it, or [`resume`] on the CPU that replaces it. The APIC takes
/// no interrupts meanwhile but NMIs; those that come run their handler, and the CPU halts again. On return the APIC is off.
///
/// Contexts: interrupts off, depth 1, and nobody who could miss the CPU. It is not the boot CPU.
pub fn park() {
    debug_assert_eq!(Native::irq_depth(), 1, "whoever has turned interrupts off is about to miss them");
    let cpu = Native::cpu();
    apic::local().disable();
    // SAFETY: this CPU's own place; interrupts are off. `stand` returns once, either because `halt` has returned, or by
    // `resume`, for which its frame and all below this point are there: this CPU executes nothing else.
    unsafe { stand(STANDS.on(cpu).as_ptr()) };
    // Release: as in `halt`.
    STATES[cpu.index()].store(State::Alive as u32, Ordering::Release);
}

/// Puts what a caller expects to find again on the stack, and where that is into `*place`; then halts.
#[unsafe(naked)]
unsafe extern "C" fn stand(place: *mut u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        // The stack pointer is a multiple of 16 at a call.
        "sub rsp, 8",
        "call {halt}",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        halt = sym halt,
    )
}

/// Halts until told to go on.
extern "C" fn halt() {
    let state = &STATES[percpu::current_cpu_number() as usize];
    // Release: pairs with the Acquire in `state`; who sees it parked sees all that it did before, where it stands included.
    state.store(State::Parked as u32, Ordering::Release);
    // An NMI that comes between the look and the halt is lost, so `unpark` sends more than one.
    // Acquire: pairs with the Release in `unpark`; the CPU sees what was prepared for its return.
    while state.load(Ordering::Acquire) != State::Starting as u32 {
        x86_64::instructions::hlt();
    }
}

/// Records that the host has pulled `cpu` out while it was parked. `false` if it is not parked.
///
/// Contexts: any. The caller keeps others from waking it at the same time.
pub fn note_removed(cpu: CpuId) -> bool {
    let (from, to) = (State::Parked as u32, State::Removed as u32);
    // Acquire: pairs with the Release in `halt`; Release: with the Acquire in `state`.
    STATES[cpu.index()].compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// The top of the free part of the stack on which `cpu`, which was [`Removed`](State::Removed), had parked: the
/// [`Preparation::stack_top`] of the CPU that replaces it.
pub fn parked_stack(cpu: CpuId) -> u64 {
    // As far below as `halt` was called.
    STANDS.on(cpu).load(Ordering::Relaxed) & !15
}

/// Goes on where the CPU stood that the executing one replaces: in [`park`], which returns.
///
/// # Safety
/// This CPU was [started](start) on [`parked_stack`] in the place of one that was [`Removed`](State::Removed). Its registers
/// are as all CPUs have them, its APIC is off, interrupts are off, and nothing on the stack is needed any more.
pub unsafe fn resume() -> ! {
    let at = STANDS.read();
    // SAFETY: `at` is what `stand` stored on this CPU's behalf. Below it is only what was used since the start, and above it
    // what its caller expects; by the contract nobody else uses this stack.
    unsafe {
        core::arch::asm!(
            "mov rsp, {at}",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbx",
            "pop rbp",
            "ret",
            at = in(reg) at,
            options(noreturn)
        )
    }
}

/// Wakes a CPU that is parked, and returns when it has come out of [`park`]. `false` if it is not parked or does not answer
/// within [`START_TIMEOUT_NS`]; it is parked then, or will be.
///
/// Contexts: task. Takes some microseconds, and spins.
pub fn unpark(cpu: CpuId) -> bool {
    let state = &STATES[cpu.index()];
    let change = |from: State, to: State| {
        // Release: pairs with the Acquire in `halt`. Acquire: pairs with the Release there.
        state.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    if !change(State::Parked, State::Starting) {
        return false;
    }
    let begun = clock::now_ns();
    let mut nudged = None;
    while state.load(Ordering::Acquire) == State::Starting as u32 {
        let now = clock::now_ns();
        if nudged.is_none_or(|last| now - last >= NUDGE_EVERY_NS) {
            apic::send_nmi_to_cpu(cpu);
            nudged = Some(now);
        }
        if now - begun > START_TIMEOUT_NS && change(State::Starting, State::Parked) {
            return false;
        }
        Native::relax();
    }
    true
}

/// The first Rust code of a started CPU, on its own stack.
extern "C" fn started(entry: extern "C" fn() -> !) -> ! {
    super::tables::load();
    let number = percpu::current_cpu_number() as usize;
    // Release: pairs with the Acquire in `state`.
    let known = STATES[number].compare_exchange(
        State::Starting as u32,
        State::Alive as u32,
        Ordering::Release,
        Ordering::Relaxed,
    );
    if known.is_err() {
        super::power::halt_for_ever();
    }
    entry()
}
