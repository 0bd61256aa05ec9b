//! Where things are in the kernel's address space.
//!
//! ```text
//! 0000_0000_0000_0000 .. 0000_7fff_ffff_ffff   nothing (user space, some day); page 0 is never mapped
//! ffff_8000_0000_0000 .. ffff_bfff_ffff_ffff   direct map: physical address + DIRECT_MAP
//! ffff_c000_0000_0000 .. ffff_c0ff_ffff_ffff   dynamic: stacks with guard pages, device registers
//! ffff_ffff_8000_0000 .. ffff_ffff_ffff_ffff   the kernel image: physical address + IMAGE
//! ```

use core::ops::Range;

/// The size of a frame and of a small page, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Virtual minus physical address in the direct map of physical memory.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// The bytes of address space that the direct map may take: 64 TiB.
pub const DIRECT_MAP_SIZE: u64 = 1 << 46;
/// The region for mappings made at run time.
pub const DYNAMIC: Range<u64> = 0xffff_c000_0000_0000..0xffff_c100_0000_0000;
/// Virtual minus physical address of the kernel image.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// Where the direct map shows the physical address `physical`. Says nothing about whether it is mapped.
pub const fn phys_to_virt(physical: u64) -> *mut u8 {
    physical.wrapping_add(DIRECT_MAP) as *mut u8
}

/// The physical address behind a direct-map or image address, or `None` for any other.
pub const fn virt_to_phys(address: u64) -> Option<u64> {
    if address >= IMAGE {
        Some(address - IMAGE)
    } else if address >= DIRECT_MAP && address - DIRECT_MAP < DIRECT_MAP_SIZE {
        Some(address - DIRECT_MAP)
    } else {
        None
    }
}

/// What a part of the kernel image may be used for. Nothing is both written and executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permissions {
    /// Code.
    ReadExecute,
    /// Constants, and the template of per-CPU areas once they are made.
    Read,
    /// Data.
    ReadWrite,
}

/// A part of the kernel image: page-aligned virtual addresses.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name in reports.
    pub name: &'static str,
    /// Where it is.
    pub range: Range<u64>,
    /// What it may be used for.
    pub permissions: Permissions,
}

/// The parts of the running kernel's image, in order and without overlap.
#[cfg(target_os = "none")]
pub fn sections() -> [Section; 4] {
    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
        static __rodata_start: u8;
        static __rodata_end: u8;
        static __template_start: u8;
        static __template_end: u8;
        static __data_start: u8;
        static __data_end: u8;
    }
    let section = |name, start: *const u8, end: *const u8, permissions| Section {
        name,
        range: start as u64..end as u64,
        permissions,
    };
    [
        section("text", &raw const __text_start, &raw const __text_end, Permissions::ReadExecute),
        section("rodata", &raw const __rodata_start, &raw const __rodata_end, Permissions::Read),
        section(
            "per-CPU template",
            &raw const __template_start,
            &raw const __template_end,
            Permissions::Read,
        ),
        section("data", &raw const __data_start, &raw const __data_end, Permissions::ReadWrite),
    ]
}
