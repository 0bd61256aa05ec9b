//! What can be wrong with firmware tables, in words for a report.

use core::fmt;

/// A table's four-letter name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 4]);

impl Signature {
    /// Processors and interrupt controllers.
    pub const MADT: Signature = Signature(*b"APIC");
    /// Fixed hardware: power, the PM timer, where the DSDT is.
    pub const FADT: Signature = Signature(*b"FACP");
    /// The high precision event timer.
    pub const HPET: Signature = Signature(*b"HPET");
    /// The main table of byte code.
    pub const DSDT: Signature = Signature(*b"DSDT");
    /// The list of tables, 32-bit addresses.
    pub const RSDT: Signature = Signature(*b"RSDT");
    /// The list of tables, 64-bit addresses.
    pub const XSDT: Signature = Signature(*b"XSDT");
    /// The root pointer (whose real signature is longer).
    pub const RSDP: Signature = Signature(*b"RSDP");
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", byte.escape_ascii()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Why the firmware's description of the machine is not used. Its `Display` form is one line for the boot log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AcpiError {
    /// There is no root pointer, neither in the boot information nor where a BIOS puts it.
    NoRsdp,
    /// A table does not hold what it promises.
    Table {
        /// Which one.
        signature: Signature,
        /// Its physical address.
        address: u64,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A table without which nothing is known of the machine's processors does not exist.
    Missing(Signature),
    /// The processor that executes this is not among those in the MADT.
    BootCpuUnlisted {
        /// Its APIC id.
        apic_id: u32,
    },
}

/// What is wrong with one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Problem {
    /// Its address is not in readable memory.
    Unreadable,
    /// It has another signature than the one that its place calls for.
    WrongSignature,
    /// It claims to be this many bytes long, which cannot be.
    Length(u32),
    /// It claims `length` bytes, of which only the first `readable` are in readable memory.
    Truncated {
        /// The claim.
        length: u32,
        /// What there is, roughly.
        readable: u32,
    },
    /// Its bytes add up to this instead of 0.
    Checksum(u8),
    /// The entry at this offset has a length that does not fit its kind or the table.
    Entry {
        /// Bytes from the start of the table.
        offset: u32,
        /// The entry's type byte.
        kind: u8,
        /// The entry's length byte.
        length: u8,
    },
    /// The entry at this offset has a field with a reserved value.
    Reserved {
        /// Bytes from the start of the table.
        offset: u32,
    },
    /// There is more than one table of a kind that exists once.
    Duplicate,
    /// The kernel heap has no room for a copy.
    NoMemory,
}

impl AcpiError {
    pub(super) fn table(signature: Signature, address: u64, problem: Problem) -> AcpiError {
        AcpiError::Table { signature, address, problem }
    }
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcpiError::NoRsdp => {
                f.write_str("no ACPI root pointer found; start the machine with ACPI to use all its CPUs")
            }
            AcpiError::Table { signature, address, problem } => {
                write!(f, "ACPI table {signature} at {address:#x} {problem}")
            }
            AcpiError::Missing(signature) => {
                write!(f, "ACPI table {signature} is missing; without it the CPUs cannot be found")
            }
            AcpiError::BootCpuUnlisted { apic_id } => {
                write!(f, "ACPI table APIC does not list the boot CPU (APIC id {apic_id})")
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unreadable => f.write_str("is not in readable memory"),
            Problem::WrongSignature => f.write_str("is not the table that belongs there"),
            Problem::Length(length) => write!(f, "claims an impossible length of {length} bytes"),
            Problem::Truncated { length, readable } => {
                write!(f, "claims {length} bytes, of which memory ends after about {readable}")
            }
            Problem::Checksum(sum) => {
                write!(f, "has a wrong checksum: its bytes add up to {sum:#04x}, not 0")
            }
            Problem::Entry { offset, kind, length } => {
                write!(
                    f,
                    "has an entry of type {kind} at offset {offset} with an impossible length of {length}"
                )
            }
            Problem::Reserved { offset } => {
                write!(f, "has an entry at offset {offset} that uses a reserved value")
            }
            Problem::Duplicate => f.write_str("exists more than once; remove the extra one (-acpitable?)"),
            Problem::NoMemory => {
                f.write_str("does not fit into the kernel heap; give the machine more memory")
            }
        }
    }
}

impl core::error::Error for AcpiError {}
