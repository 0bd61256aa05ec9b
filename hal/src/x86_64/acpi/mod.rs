//! What firmware says about the machine.
//!
//! 1. Find the root pointer, and through it the list of tables.
//! 2. Check every listed table: readable, as long as it says, adding up to zero.
//! 3. Decode three of them: MADT (processors, interrupt controllers), HPET, FADT (PM timer, power, events), and two
//!    objects of the DSDT: how to switch the machine off, and where QEMU's CPU hot-plug registers are.
//!
//! If one table lies, none is believed: [`discover`] returns an error that says which table and why, and the kernel runs
//! on the one CPU that it knows it has. No table, however broken, makes this module panic or read outside memory.
//! Layouts come from the `acpi` crate; `memory.rs` says how far it is trusted.

mod error;
mod events;
mod fadt;
mod madt;
mod memory;
mod power;
// The crate `acpi` reads beyond what its reference to a table's header covers, which Miri does not let pass.
#[cfg(all(test, not(miri)))]
mod tests;

use alloc::vec::Vec;

use ::acpi::rsdp::Rsdp;
use ::acpi::sdt::hpet::HpetTable;

pub use error::{AcpiError, Problem, Signature};
pub use fadt::{Events, PM_TIMER_HZ, PmTimerInfo, Power, Register, SoftOff};
pub use madt::{IoApicInfo, LocalNmi, Override, Polarity, Processor, ProcessorState, Trigger};
pub use memory::PhysicalMemory;
pub use power::{Unavailable, power_off, reset};

use memory::{HEADER, Table};

/// What firmware says about the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    /// The possible CPUs: the one at index `n` becomes CPU `n`. The boot CPU first, then those present, then those that
    /// may be added later.
    pub processors: Vec<Processor>,
    /// Processors beyond the number that this build can run. They stay as firmware left them.
    pub parked: Vec<Processor>,
    /// The physical address of the local APIC's registers (xAPIC).
    pub local_apic_address: u64,
    /// Whether a pair of 8259 controllers exists, which must be silenced.
    pub has_8259: bool,
    /// The I/O APICs.
    pub io_apics: Vec<IoApicInfo>,
    /// ISA interrupts that do not arrive where ISA's defaults say. See [`Topology::isa_route`].
    pub overrides: Vec<Override>,
    /// Local interrupt pins to which NMIs are wired.
    pub local_nmis: Vec<LocalNmi>,
    /// The HPET.
    pub hpet: Option<HpetInfo>,
    /// The PM timer.
    pub pm_timer: Option<PmTimerInfo>,
    /// Whether the machine lacks ACPI's fixed hardware (microvm).
    pub hardware_reduced: bool,
    /// How it is switched off and reset.
    pub power: Power,
    /// How it tells of events.
    pub events: Option<Events>,
    /// The first port of the CPU hot-plug registers ([`cpu_plug`](super::cpu_plug)).
    pub cpu_plug: Option<u16>,
    /// Every table that was found, in the firmware's order, for the curious.
    pub tables: Vec<TableInfo>,
}

/// Where the HPET is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HpetInfo {
    /// The physical address of its registers.
    pub address: u64,
    /// Its number among HPETs.
    pub number: u8,
}

/// One table that was found and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableInfo {
    /// Its name.
    pub signature: Signature,
    /// Its physical address.
    pub address: u64,
    /// Its bytes, header included.
    pub length: u32,
}

impl Topology {
    /// Where the ISA interrupt `irq` (0 to 15) arrives and in which form. Linux: `acpi_isa_irq_to_gsi`.
    pub fn isa_route(&self, irq: u8) -> Override {
        let default =
            Override { irq, gsi: u32::from(irq), polarity: Polarity::ActiveHigh, trigger: Trigger::Edge };
        self.overrides.iter().copied().find(|o| o.irq == irq).unwrap_or(default)
    }
}

/// Reads the firmware's tables. `rsdp` is the root pointer's physical address as the boot loader gave it; without it,
/// it is searched where a BIOS puts it. `boot_apic_id` is the APIC id of the CPU that calls. At most `max_cpus`
/// processors are used, the rest are [`parked`](Topology::parked).
///
/// Task context, early, on the boot CPU; allocates. Cost: a pass over all tables, some 10 to 100 KiB.
///
/// # Errors
/// Something is missing or lies: see [`AcpiError`]. The caller then runs one CPU.
pub fn discover(
    memory: &impl PhysicalMemory,
    rsdp: Option<u64>,
    boot_apic_id: u32,
    max_cpus: usize,
) -> Result<Topology, AcpiError> {
    let rsdp = match rsdp {
        Some(address) => address,
        None => search(memory).ok_or(AcpiError::NoRsdp)?,
    };
    let addresses = listed(memory, rsdp)?;

    let mut tables = Vec::new();
    for address in &addresses {
        let header = memory::verify(memory, *address)?;
        tables.push(TableInfo { signature: header.signature, address: *address, length: header.length });
    }
    let only = |signature: Signature| {
        let mut found = tables.iter().filter(|table| table.signature == signature);
        let first = found.next().copied();
        match found.next() {
            Some(second) => Err(AcpiError::table(signature, second.address, Problem::Duplicate)),
            None => Ok(first),
        }
    };

    let madt = only(Signature::MADT)?.ok_or(AcpiError::Missing(Signature::MADT))?;
    let madt = madt::decode(&Table::load(memory, madt.address, madt::FIXED)?)?;
    let hpet = match only(Signature::HPET)? {
        Some(table) => hpet(&Table::load(memory, table.address, size_of::<HpetTable>())?),
        None => None,
    };
    let fadt = match only(Signature::FADT)? {
        Some(table) => Some(fadt::decode(&Table::load(memory, table.address, fadt::FIXED)?)),
        None => None,
    };
    let mut power = Power::default();
    let mut cpu_plug = None;
    if let Some(fadt) = &fadt {
        power.reset = fadt.reset;
        if fadt.dsdt != 0 {
            let dsdt = Table::load(memory, fadt.dsdt, HEADER)?;
            if dsdt.signature != Signature::DSDT {
                return Err(dsdt.error(Problem::WrongSignature));
            }
            let length = dsdt.bytes().len() as u32;
            tables.push(TableInfo { signature: Signature::DSDT, address: fadt.dsdt, length });
            power.off = fadt::sleep_types(&dsdt).and_then(|types| fadt.soft_off(types));
            cpu_plug = fadt::cpu_plug(&dsdt);
        }
    }

    let (processors, parked) = order(madt.processors, boot_apic_id, max_cpus)?;
    Ok(Topology {
        processors,
        parked,
        local_apic_address: madt.local_apic_address,
        has_8259: madt.has_8259,
        io_apics: madt.io_apics,
        overrides: madt.overrides,
        local_nmis: madt.local_nmis,
        hpet,
        pm_timer: fadt.and_then(|fadt| fadt.pm_timer),
        hardware_reduced: fadt.is_some_and(|fadt| fadt.hardware_reduced),
        events: fadt.and_then(|fadt| fadt.events),
        power,
        cpu_plug,
        tables,
    })
}

/// Puts the boot CPU first and those that may come later last, and cuts at `max_cpus`.
fn order(
    mut processors: Vec<Processor>,
    boot_apic_id: u32,
    max_cpus: usize,
) -> Result<(Vec<Processor>, Vec<Processor>), AcpiError> {
    let rank = |processor: &Processor| match processor.state {
        _ if processor.apic_id == boot_apic_id => 0,
        ProcessorState::Enabled => 1,
        ProcessorState::OnlineCapable => 2,
    };
    processors.sort_by_key(rank);
    match processors.first_mut() {
        // It executes this, whatever its entry says.
        Some(boot) if boot.apic_id == boot_apic_id => boot.state = ProcessorState::Enabled,
        _ => return Err(AcpiError::BootCpuUnlisted { apic_id: boot_apic_id }),
    }
    let parked = processors.split_off(processors.len().min(max_cpus.max(1)));
    Ok((processors, parked))
}

/// Decodes a checked copy of the HPET table; an HPET outside memory space is none.
fn hpet(table: &Table) -> Option<HpetInfo> {
    let hpet: &HpetTable = table.view();
    let base = hpet.base_address;
    let usable = base.address_space == 0 && base.address != 0;
    usable.then_some(HpetInfo { address: base.address, number: hpet.hpet_number })
}

/// The physical addresses of all tables that the root pointer at `rsdp` leads to.
fn listed(memory: &impl PhysicalMemory, rsdp: u64) -> Result<Vec<u64>, AcpiError> {
    let root = root_pointer(memory, rsdp)?;
    // SAFETY: `Rsdp` is made of integers, has no alignment and is exactly as long as the array.
    let root: Rsdp = unsafe { core::mem::transmute(root) };
    let wide = root.revision >= 2 && { root.xsdt_address } != 0;
    let (list, signature, entry) = if wide {
        (root.xsdt_address, Signature::XSDT, 8)
    } else {
        (u64::from(root.rsdt_address), Signature::RSDT, 4)
    };
    let list = Table::load(memory, list, HEADER)?;
    if list.signature != signature {
        return Err(list.error(Problem::WrongSignature));
    }
    let entries = &list.bytes()[HEADER..];
    if entries.len() % entry != 0 {
        return Err(list.error(Problem::Length(list.bytes().len() as u32)));
    }
    let addresses = entries.chunks_exact(entry).map(|bytes| {
        let mut address = [0; 8];
        address[..entry].copy_from_slice(bytes);
        u64::from_le_bytes(address)
    });
    // Zero entries are holes that some firmware leaves.
    Ok(addresses.filter(|address| *address != 0).collect())
}

/// The bytes of a root pointer of ACPI 1.0, and of a later one.
const RSDP_V1: usize = 20;
const RSDP_V2: usize = size_of::<Rsdp>();

/// Reads and checks the root pointer. One of ACPI 1.0 comes back padded with zeros.
fn root_pointer(memory: &impl PhysicalMemory, address: u64) -> Result<[u8; RSDP_V2], AcpiError> {
    let fail = |problem| AcpiError::table(Signature::RSDP, address, problem);
    let mut bytes = [0; RSDP_V2];
    if !memory.read(address, &mut bytes[..RSDP_V1]) {
        return Err(fail(Problem::Unreadable));
    }
    if &bytes[..8] != b"RSD PTR " {
        return Err(fail(Problem::WrongSignature));
    }
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if sum(&bytes[..RSDP_V1]) != 0 {
        return Err(fail(Problem::Checksum(sum(&bytes[..RSDP_V1]))));
    }
    let revision = bytes[15];
    if revision >= 2 {
        let later = address.checked_add(RSDP_V1 as u64).ok_or(fail(Problem::Unreadable))?;
        if !memory.read(later, &mut bytes[RSDP_V1..]) {
            return Err(fail(Problem::Unreadable));
        }
        let length = u32::from_le_bytes([bytes[20], bytes[21], bytes[22], bytes[23]]);
        if (length as usize) < RSDP_V2 {
            return Err(fail(Problem::Length(length)));
        }
        if sum(&bytes) != 0 {
            return Err(fail(Problem::Checksum(sum(&bytes))));
        }
    }
    Ok(bytes)
}

/// Looks for the root pointer where a BIOS puts it: at a multiple of 16 in the first KiB of the extended BIOS data
/// area, or in the last 128 KiB below 1 MiB (ACPI 6.5, 5.2.5.1).
fn search(memory: &impl PhysicalMemory) -> Option<u64> {
    let mut segment = [0; 2];
    let ebda = memory.read(0x40e, &mut segment).then(|| u64::from(u16::from_le_bytes(segment)) << 4);
    let ebda = ebda.filter(|start| (0x400..0xa_0000).contains(start));
    let areas = [ebda.map(|start| start..start + 1024), Some(0xe_0000..0x10_0000)];
    areas.into_iter().flatten().flat_map(|area| area.step_by(16)).find(|address| {
        let mut name = [0; 8];
        memory.read(*address, &mut name) && &name == b"RSD PTR " && root_pointer(memory, *address).is_ok()
    })
}
