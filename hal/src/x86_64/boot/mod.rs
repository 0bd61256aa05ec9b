//! From the boot loader's hands to Rust.
//!
//! The kernel is entered in 32-bit protected mode by the PVH protocol ([`pvh`]), builds tables that map the first 4 GiB
//! three times (at 0, in the direct map, and at the image's address), enters 64-bit mode, gives the boot CPU its per-CPU
//! area and calls the kernel with a [`BootInfo`].

mod pvh;

use core::ops::Range;

use spin::Once;

pub use pvh::PvhError;

/// What the boot loader said, in one form for every boot protocol. Addresses are physical.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// The kernel's command line.
    pub command_line: &'static str,
    /// The ACPI root pointer, if the loader gave one.
    pub rsdp: Option<u64>,
    /// The memory map as the loader gave it: any order, possibly with overlaps and holes.
    pub memory: &'static [MemoryRegion],
    /// What the kernel and the loader's data occupy inside usable memory: the image, then what this structure refers to.
    pub reserved: [(u64, u64); 2],
    /// How the kernel was booted, for the log.
    pub protocol: &'static str,
}

impl BootInfo {
    /// The occupied ranges as ranges.
    pub fn reserved_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.reserved.into_iter().map(|(start, end)| start..end)
    }
}

/// A piece of physical address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// What a piece of physical address space is, as firmware tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MemoryKind {
    /// Free RAM.
    Usable,
    /// ACPI tables in RAM that could be freed after reading.
    AcpiReclaimable,
    /// RAM that firmware wants left alone.
    AcpiNvs,
    /// Anything else that is not to be touched.
    Reserved,
    /// RAM found bad.
    Bad,
}

/// The most memory map entries that are taken over; more are dropped (the memory is then not used).
pub const MAX_REGIONS: usize = 256;

static BOOT_INFO: Once<BootInfo> = Once::new();

/// What the boot loader said. `None` before the kernel's entry.
pub fn info() -> Option<&'static BootInfo> {
    BOOT_INFO.get()
}
