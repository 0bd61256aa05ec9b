//! The MADT: which processors and interrupt controllers there are, and how legacy interrupts reach them.

use alloc::vec::Vec;
use core::pin::Pin;

use acpi::sdt::madt::{
    self, IoApicEntry, LocalApicEntry, LocalApicNmiEntry, LocalX2ApicEntry, Madt, MadtEntry, X2ApicNmiEntry,
};

use super::memory::{HEADER, Table};
use super::{AcpiError, Problem};

/// One processor as firmware lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processor {
    /// The hardware's name of it, the destination of its interrupts.
    pub apic_id: u32,
    /// Its number in ACPI's own objects.
    pub uid: u32,
    /// Whether it is there now.
    pub state: ProcessorState,
}

/// Whether a listed processor can be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessorState {
    /// Present: start it.
    Enabled,
    /// Not present, may be added while the system runs.
    OnlineCapable,
}

/// One I/O APIC. How many inputs it has, only its registers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApicInfo {
    /// Its APIC id.
    pub id: u8,
    /// The physical address of its registers.
    pub address: u64,
    /// The global system interrupt of its input 0.
    pub gsi_base: u32,
}

/// The level that means "active".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// ISA's, and the default.
    ActiveHigh,
    /// PCI's.
    ActiveLow,
}

/// What makes an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// The change to the active level. ISA's, and the default.
    Edge,
    /// The active level itself.
    Level,
}

/// Where an ISA interrupt arrives when it is not input `irq` with ISA's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Override {
    /// The ISA interrupt, 0 to 15.
    pub irq: u8,
    /// The global system interrupt at which it arrives.
    pub gsi: u32,
    /// Its polarity.
    pub polarity: Polarity,
    /// Its trigger mode.
    pub trigger: Trigger,
}

/// A processor's local interrupt pin to which NMIs are wired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalNmi {
    /// The processor, or `None` for all of them.
    pub uid: Option<u32>,
    /// LINT0 or LINT1.
    pub lint: u8,
}

/// What the MADT says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Decoded {
    pub(super) local_apic_address: u64,
    pub(super) has_8259: bool,
    pub(super) processors: Vec<Processor>,
    pub(super) io_apics: Vec<IoApicInfo>,
    pub(super) overrides: Vec<Override>,
    pub(super) local_nmis: Vec<LocalNmi>,
}

/// The bytes before the first entry.
pub(super) const FIXED: usize = HEADER + 8;
/// From this revision on (ACPI 6.3) the online-capable flag exists; before, any disabled processor could be added.
const ONLINE_CAPABLE_REVISION: u8 = 5;

/// Decodes a checked copy of the MADT.
pub(super) fn decode(table: &Table) -> Result<Decoded, AcpiError> {
    walk(table)?;
    let madt: &Madt = table.view();
    // SAFETY: the table's copy is not moved while it is borrowed.
    let madt = unsafe { Pin::new_unchecked(madt) };
    let revision = madt.header.revision;
    let mut decoded = Decoded {
        local_apic_address: u64::from(madt.local_apic_address),
        has_8259: madt.supports_8259(),
        ..Decoded::default()
    };
    // The iterator stays inside the copy: `walk` found every entry whole, not empty, and as long as its kind.
    for entry in madt.entries() {
        match entry {
            MadtEntry::LocalApic(e) if e.apic_id != 0xff => {
                decoded.processor(u32::from(e.apic_id), u32::from(e.processor_id), e.flags, revision);
            }
            MadtEntry::LocalX2Apic(e) if e.x2apic_id != u32::MAX => {
                decoded.processor(e.x2apic_id, e.processor_uid, e.flags, revision);
            }
            MadtEntry::IoApic(e) => decoded.io_apics.push(IoApicInfo {
                id: e.io_apic_id,
                address: u64::from(e.io_apic_address),
                gsi_base: e.global_system_interrupt_base,
            }),
            MadtEntry::InterruptSourceOverride(e) => {
                let offset = offset_of(table, e);
                let (polarity, trigger) =
                    inti(e.flags).ok_or_else(|| table.error(Problem::Reserved { offset }))?;
                if e.bus == 0 && e.irq < 16 {
                    let gsi = e.global_system_interrupt;
                    decoded.overrides.push(Override { irq: e.irq, gsi, polarity, trigger });
                }
            }
            MadtEntry::LocalApicNmi(e) => decoded.local_nmis.push(LocalNmi {
                uid: (e.processor_id != 0xff).then_some(u32::from(e.processor_id)),
                lint: e.nmi_line,
            }),
            MadtEntry::X2ApicNmi(e) => decoded.local_nmis.push(LocalNmi {
                uid: (e.processor_uid != u32::MAX).then_some(e.processor_uid),
                lint: e.nmi_line,
            }),
            MadtEntry::LocalApicAddressOverride(e) => decoded.local_apic_address = e.local_apic_address,
            _ => {}
        }
    }
    Ok(decoded)
}

impl Decoded {
    /// Adds a processor, unless it can never run or was listed already (small ids may appear in both forms).
    fn processor(&mut self, apic_id: u32, uid: u32, flags: u32, revision: u8) {
        let state = if flags & 1 != 0 {
            ProcessorState::Enabled
        } else if flags & 2 != 0 || revision < ONLINE_CAPABLE_REVISION {
            ProcessorState::OnlineCapable
        } else {
            return;
        };
        if !self.processors.iter().any(|known| known.apic_id == apic_id) {
            self.processors.push(Processor { apic_id, uid, state });
        }
    }
}

/// Visits every entry once: each must lie inside the table and be no shorter than the crate's layout for its kind.
fn walk(table: &Table) -> Result<(), AcpiError> {
    let bytes = table.bytes();
    let mut offset = FIXED;
    while offset < bytes.len() {
        let kind = bytes[offset];
        let length = bytes.get(offset + 1).copied().unwrap_or(0);
        if usize::from(length) < layout(kind) || offset + usize::from(length) > bytes.len() {
            return Err(table.error(Problem::Entry { offset: offset as u32, kind, length }));
        }
        offset += usize::from(length);
    }
    Ok(())
}

/// The bytes that the crate's type for entries of this kind has.
fn layout(kind: u8) -> usize {
    match kind {
        0x0 => size_of::<LocalApicEntry>(),
        0x1 => size_of::<IoApicEntry>(),
        0x2 => size_of::<madt::InterruptSourceOverrideEntry>(),
        0x3 => size_of::<madt::NmiSourceEntry>(),
        0x4 => size_of::<LocalApicNmiEntry>(),
        0x5 => size_of::<madt::LocalApicAddressOverrideEntry>(),
        0x6 => size_of::<madt::IoSapicEntry>(),
        0x7 => size_of::<madt::LocalSapicEntry>(),
        0x8 => size_of::<madt::PlatformInterruptSourceEntry>(),
        0x9 => size_of::<LocalX2ApicEntry>(),
        0xa => size_of::<X2ApicNmiEntry>(),
        0xb => size_of::<madt::GiccEntry>(),
        0xc => size_of::<madt::GicdEntry>(),
        0xd => size_of::<madt::GicMsiFrameEntry>(),
        0xe => size_of::<madt::GicRedistributorEntry>(),
        0xf => size_of::<madt::GicInterruptTranslationServiceEntry>(),
        0x10 => size_of::<madt::MultiprocessorWakeupEntry>(),
        _ => size_of::<madt::EntryHeader>(),
    }
}

/// Polarity and trigger of an ISA interrupt (ACPI 6.5, table 5.26), or `None` for a reserved value.
fn inti(flags: u16) -> Option<(Polarity, Trigger)> {
    let (polarity, trigger) = madt::parse_mps_inti_flags(flags).ok()?;
    let polarity = match polarity {
        madt::Polarity::ActiveLow => Polarity::ActiveLow,
        madt::Polarity::ActiveHigh | madt::Polarity::SameAsBus => Polarity::ActiveHigh,
    };
    let trigger = match trigger {
        madt::TriggerMode::Level => Trigger::Level,
        madt::TriggerMode::Edge | madt::TriggerMode::SameAsBus => Trigger::Edge,
    };
    Some((polarity, trigger))
}

/// Where in the table an entry lies.
fn offset_of<T>(table: &Table, entry: &T) -> u32 {
    (core::ptr::from_ref(entry).addr() - table.bytes().as_ptr().addr()) as u32
}
