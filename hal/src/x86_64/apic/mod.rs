//! Interrupt controllers: the local APIC of each CPU, the I/O APICs, and the 8259s to be silenced.
//!
//! [`LocalApic`] is one type for both forms of the local APIC. It is a way of access, not a device: the same value, used
//! on any CPU, acts on that CPU's APIC. The kernel makes one at boot ([`init`]), calls [`enable_this_cpu`] on every CPU, and
//! from then on uses the free functions here, which act on the executing CPU's APIC.

mod counters;
mod io_apic;
mod ipi;
pub mod pic;
mod registers;
pub mod timer;

use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use x86_64::registers::model_specific::Msr;

use super::cpuid::Features;
use super::vectors;
use crate::{CpuId, MAX_CPUS};
pub use counters::{Counters, counters, on_error, on_spurious, stuck_commands};
pub use io_apic::{IoApics, RouteError};
use ipi::{Kind, To};
use registers::{Access, Page, Register};

/// The local APIC of whichever CPU executes.
///
/// # Invariants
/// The access form is the one that the APICs of all CPUs are in, once [`enable`](LocalApic::enable) ran on them.
#[derive(Clone, Copy, Debug)]
pub struct LocalApic {
    access: Access,
}

/// Why there is no local APIC to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ApicError {
    /// CPUID shows none.
    Absent,
    /// Its registers at this physical address could not be mapped.
    Unmapped(u64),
}

impl fmt::Display for ApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApicError::Absent => f.write_str("the CPU has no local APIC; choose another CPU model"),
            ApicError::Unmapped(address) => write!(f, "no room to map the local APIC at {address:#x}"),
        }
    }
}

impl core::error::Error for ApicError {}

/// The two forms of a local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Registers in memory, ids of 8 bits.
    XApic,
    /// Registers in MSRs, ids of 32 bits.
    X2Apic,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Form::X2Apic { "x2APIC" } else { "xAPIC" })
    }
}

/// IA32_APIC_BASE (Intel SDM volume 3, 11.4.4).
const APIC_BASE: u32 = 0x1b;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
/// The default place of the registers.
pub const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

/// In a local vector table entry.
const MASKED: u32 = 1 << 16;
const DELIVER_NMI: u32 = 0b100 << 8;
/// In the spurious vector register.
const SOFTWARE_ENABLED: u32 = 1 << 8;

impl LocalApic {
    /// Chooses the form: x2APIC if the CPU has it and `force_xapic` is not set, or if firmware has switched it on already,
    /// which cannot be undone. `address` is the registers' physical address, mapped by `map_mmio` for the other form. The
    /// executing CPU's APIC is in that form afterwards, and otherwise as it was.
    ///
    /// # Errors
    /// See [`ApicError`].
    ///
    /// # Safety
    /// `map_mmio` returns where the given device registers are mapped, uncached, for as long as the kernel runs. Ring 0.
    pub unsafe fn new(
        features: &Features,
        force_xapic: bool,
        address: u64,
        map_mmio: impl FnOnce(u64, usize) -> Option<NonNull<u8>>,
    ) -> Result<LocalApic, ApicError> {
        if !features.apic {
            return Err(ApicError::Absent);
        }
        // SAFETY: ring 0 by contract; a CPU with a local APIC has this MSR.
        let already = unsafe { Msr::new(APIC_BASE).read() } & BASE_X2APIC != 0;
        if already || (features.x2apic && !force_xapic) {
            let apic = LocalApic { access: Access::Msr };
            apic.enter_form();
            return Ok(apic);
        }
        let page = map_mmio(address, 4096).ok_or(ApicError::Unmapped(address))?;
        // SAFETY: the caller's promise about `map_mmio`.
        let apic = LocalApic { access: unsafe { Access::memory(page) } };
        apic.enter_form();
        Ok(apic)
    }

    /// Brings the executing CPU's APIC into this form, so that its registers can be reached.
    fn enter_form(&self) {
        let mut base = Msr::new(APIC_BASE);
        // SAFETY: ring 0, the MSR exists. Setting the enable bit before the x2APIC bit is the only legal order.
        unsafe {
            let value = base.read();
            if value & BASE_ENABLED == 0 {
                base.write(value | BASE_ENABLED);
            }
            if self.form() == Form::X2Apic && value & BASE_X2APIC == 0 {
                base.write(value | BASE_ENABLED | BASE_X2APIC);
            }
        }
    }

    /// The form in use.
    pub fn form(&self) -> Form {
        match self.access {
            Access::Memory(_) => Form::XApic,
            Access::Msr => Form::X2Apic,
        }
    }

    /// Prepares the executing CPU's APIC: in the chosen form, all local sources masked but LINT1, which delivers NMIs,
    /// and errors; every priority accepted; nothing left in service.
    ///
    /// # Safety
    /// Whenever the CPU comes up, interrupts off, its per-CPU area and descriptor tables in place, with handlers for NMI,
    /// [`vectors::APIC_ERROR`] and [`vectors::SPURIOUS`].
    pub unsafe fn enable(&self) {
        self.enter_form();
        let access = self.access;
        if self.form() == Form::XApic {
            // Flat model, one logical id: nothing here sends to logical destinations, but these must hold legal values.
            access.write(Register::DESTINATION_FORMAT, u32::MAX);
            access.write(Register::LOGICAL_DESTINATION, 1 << 24);
        }
        access.write(Register::SPURIOUS, SOFTWARE_ENABLED | u32::from(vectors::SPURIOUS));
        access.write(Register::TASK_PRIORITY, 0);
        access.write(Register::LVT_TIMER, MASKED | u32::from(vectors::TIMER));
        timer::forget_entry();
        access.write(Register::LVT_LINT0, MASKED);
        access.write(Register::LVT_LINT1, DELIVER_NMI);
        let highest_entry = access.read(Register::VERSION) >> 16 & 0xff;
        if highest_entry >= 4 {
            access.write(Register::LVT_COUNTERS, MASKED);
        }
        if highest_entry >= 5 {
            access.write(Register::LVT_THERMAL, MASKED);
        }
        access.write(Register::ERROR_STATUS, 0);
        access.write(Register::LVT_ERROR, u32::from(vectors::APIC_ERROR));
        // Whoever ran before may have left interrupts unacknowledged, which would hold back all below them.
        for _ in 0..MOST_IN_SERVICE {
            if (0..8).all(|n| access.read(Register::IN_SERVICE.nth(n)) == 0) {
                break;
            }
            self.end_of_interrupt();
        }
    }

    /// Stops the executing CPU's APIC from accepting interrupts, all local sources masked: the CPU is about to be parked.
    pub fn disable(&self) {
        for entry in [Register::LVT_TIMER, Register::LVT_LINT0, Register::LVT_ERROR] {
            self.access.write(entry, self.access.read(entry) | MASKED);
        }
        self.access.write(Register::SPURIOUS, u32::from(vectors::SPURIOUS));
    }

    /// Whether interrupts can be sent to the CPU with this APIC id. An xAPIC has 8 bits for it, and all ones mean
    /// everybody.
    pub fn can_reach(&self, apic_id: u32) -> bool {
        apic_id < if self.form() == Form::XApic { 0xff } else { u32::MAX }
    }

    /// The executing CPU's APIC id.
    pub fn id(&self) -> u32 {
        match self.access {
            Access::Memory(_) => self.access.read(Register::ID) >> 24,
            Access::Msr => self.access.read(Register::ID),
        }
    }

    /// The version and number of local vectors, as the register has them.
    pub fn version(&self) -> u32 {
        self.access.read(Register::VERSION)
    }

    /// Says that the interrupt being served is done, so that those of its priority and below may come. One register
    /// write.
    #[inline]
    pub fn end_of_interrupt(&self) {
        self.access.write(Register::END_OF_INTERRUPT, 0);
    }

    /// Interrupts the executing CPU, as soon as it takes interrupts. Any context.
    #[inline]
    pub fn interrupt_self(&self, vector: u8) {
        self.command(Kind::Fixed(vector), To::Myself);
    }

    /// The same in xAPIC mode. A shorthand has no destination, so that the other half of the command stays as it is, in
    /// the middle of another one too.
    #[inline(always)]
    fn interrupt_self_in_memory(&self, vector: u8) {
        counters::SENT.inc();
        if !self.is_handed_on() {
            self.wait_until_handed_on();
        }
        self.access.write(Register::COMMAND_LOW, ipi::low(Kind::Fixed(vector), To::Myself));
    }

    /// Whether the pin LINT1 delivers NMIs, as [`enable`](LocalApic::enable) set it.
    pub fn lint1_is_nmi(&self) -> bool {
        let entry = self.access.read(Register::LVT_LINT1);
        entry & (0b111 << 8) == DELIVER_NMI && entry & MASKED == 0
    }

    /// Whether `vector` has arrived and waits to be served.
    pub fn is_requested(&self, vector: u8) -> bool {
        self.access.read(Register::REQUEST.nth(vector / 32)) >> (vector % 32) & 1 != 0
    }

    /// Whether `vector` is being served.
    pub fn is_in_service(&self, vector: u8) -> bool {
        self.access.read(Register::IN_SERVICE.nth(vector / 32)) >> (vector % 32) & 1 != 0
    }
}

/// One interrupt of each priority class above the exceptions' can be in service.
const MOST_IN_SERVICE: u32 = 240;

/// The installed APIC, in one word: null before there is one, [`MSRS`], or where its registers are.
pub(super) static LOCAL: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());
/// The APIC is reached by MSRs. No page begins at this address.
const MSRS: *mut Page = ptr::without_provenance_mut(BY_MSR);
/// The greatest value of [`LOCAL`] that is not the address of the registers.
pub(super) const BY_MSR: usize = 1;
/// Where in the page a write of 0 says that the interrupt being served is over.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "for the entries of interrupts"))]
pub(super) const END_OF_INTERRUPT_OFFSET: usize = Register::END_OF_INTERRUPT.offset();

/// APIC ids by CPU number. Written at boot and when a CPU is added, before anything is sent to it.
static IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(NO_ID) }; MAX_CPUS];
const NO_ID: u32 = u32::MAX;

/// Makes `apic` the one that the functions below use. Once, at boot; a later call changes nothing.
pub fn init(apic: LocalApic) {
    let word = match apic.access {
        Access::Memory(page) => page.as_ptr(),
        Access::Msr => MSRS,
    };
    // Relaxed: the word says all.
    let _ = LOCAL.compare_exchange(ptr::null_mut(), word, Ordering::Relaxed, Ordering::Relaxed);
}

/// The installed APIC.
///
/// # Panics
/// Before [`init`].
#[inline]
pub fn local() -> LocalApic {
    try_local().expect("no local APIC yet: call apic::init first")
}

/// The installed APIC, if there is one yet: for paths that may run early, such as a panic.
#[inline]
pub fn try_local() -> Option<LocalApic> {
    let page = NonNull::new(LOCAL.load(Ordering::Relaxed))?;
    let access = if page.as_ptr() == MSRS { Access::Msr } else { Access::Memory(page) };
    // INVARIANT: what `init` was given.
    Some(LocalApic { access })
}

/// Prepares the executing CPU's APIC, and records its id as that of CPU `cpu`.
///
/// # Safety
/// As for [`LocalApic::enable`]; `cpu` is the executing CPU.
pub unsafe fn enable_this_cpu(cpu: CpuId) {
    let apic = local();
    // SAFETY: passed on.
    unsafe { apic.enable() };
    set_id(cpu, apic.id());
}

/// Records that CPU `cpu` has this APIC id.
pub fn set_id(cpu: CpuId, apic_id: u32) {
    // Relaxed: the id alone; whoever sends to a CPU learnt of it by something ordered.
    IDS[cpu.index()].store(apic_id, Ordering::Relaxed);
}

/// The APIC id of CPU `cpu`, if one was recorded.
pub fn id_of(cpu: CpuId) -> Option<u32> {
    let id = IDS[cpu.index()].load(Ordering::Relaxed);
    (id != NO_ID).then_some(id)
}

/// Says that the interrupt being served is done. Linux: `apic_eoi`.
#[inline]
pub fn end_of_interrupt() {
    local().end_of_interrupt();
}

/// Interrupts CPU `cpu` with `vector`. What the caller stored before is visible to the handler. Does nothing for a CPU
/// without a recorded id.
///
/// Any context, NMI included. Cost: one MSR write, or in xAPIC mode three register accesses, six in an NMI; in a guest as many
/// exits.
pub fn send_ipi_to_cpu(cpu: CpuId, vector: u8) {
    if let (Some(apic), Some(id)) = (try_local(), id_of(cpu)) {
        apic.command(Kind::Fixed(vector), To::One(id));
    }
}

/// Interrupts the CPU with this APIC id. As [`send_ipi_to_cpu`].
pub fn send_ipi(apic_id: u32, vector: u8) {
    local().command(Kind::Fixed(vector), To::One(apic_id));
}

/// Interrupts every other CPU whose APIC is enabled, in one command. CPUs that were never started ignore it.
pub fn send_ipi_all_but_self(vector: u8) {
    local().command(Kind::Fixed(vector), To::AllButMyself);
}

/// Interrupts the executing CPU, as soon as it takes interrupts. Any context.
///
/// Cost: one MSR write, or in xAPIC mode one register read and one write.
#[inline(always)]
pub fn send_ipi_self(vector: u8) {
    let page = LOCAL.load(Ordering::Relaxed);
    match NonNull::new(page) {
        Some(page) if page.addr().get() > BY_MSR => {
            // INVARIANT: what `init` was given.
            LocalApic { access: Access::Memory(page) }.interrupt_self_in_memory(vector);
        }
        _ => send_ipi_self_by_msr(vector),
    }
}

#[cold]
fn send_ipi_self_by_msr(vector: u8) {
    local().interrupt_self(vector);
}

/// Sends an NMI to CPU `cpu`. Any context, NMI included.
pub fn send_nmi_to_cpu(cpu: CpuId) {
    if let (Some(apic), Some(id)) = (try_local(), id_of(cpu)) {
        apic.command(Kind::Nmi, To::One(id));
    }
}

/// Sends an NMI to the CPU with this APIC id.
pub fn send_nmi(apic_id: u32) {
    local().command(Kind::Nmi, To::One(apic_id));
}

/// Sends an NMI to all other CPUs in one command. Any context; does nothing before [`init`]. CPUs that were parked, or
/// never started by this kernel, may get it too.
pub fn send_nmi_all_but_self() {
    if let Some(apic) = try_local() {
        apic.command(Kind::Nmi, To::AllButMyself);
    }
}

/// Resets the CPU with this APIC id and makes it wait for a start-up interrupt.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "CPUs are started on bare metal only"))]
pub(super) fn send_init(apic_id: u32) {
    local().command(Kind::Init, To::One(apic_id));
}

/// Starts the waiting CPU with this APIC id in real mode at the page numbered `page`.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "CPUs are started on bare metal only"))]
pub(super) fn send_startup(apic_id: u32, page: u8) {
    local().command(Kind::Startup(page), To::One(apic_id));
}
