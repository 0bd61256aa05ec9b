//! Page tables: building, changing and reading them, and what the CPU has to be told about it.
//!
//! 1. [`PageTables`] is a plain value around the physical address of a root table. It reaches tables through a
//!    [`Window`], the place where physical memory is visible: the direct map in the kernel, a buffer in a test.
//! 2. Mappings are asked for as ranges. The largest pages that fit are used, and split again when a part changes.
//! 3. What a page may be used for is a [`Permissions`], in which no value means both written and executed.
//!
//! Tables are never freed while they are in use: an emptied one stays, and the next mapping there uses it. It costs
//! 4 KiB for each 2 MiB of address space that was ever mapped by small pages, and it means that neither another CPU's
//! cache of upper-level entries nor a reader without a lock can meet a table that has become something else.
//!
//! Nothing here flushes a TLB on its own: whoever unmaps or narrows must, on every CPU that uses the tables, before
//! relying on it; see [`flush`]. The constants are those of the Intel SDM, volume 3, section 5.5 (4-level paging).

mod cpu;
mod flags;
mod tables;
#[cfg(test)]
mod tests;
mod view;

use core::fmt;

pub use cpu::{FLUSH_ALL_ABOVE, current_root, enable, flush, flush_all, switch_to};
pub use flags::{Attributes, Cache, Features, PageSize};
pub use tables::{FrameSource, PageTables};
pub use view::{Leaf, View, Window};

pub use super::layout::Permissions;

/// Why a mapping was not made or changed. The tables translate as they did before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// A bound is not a multiple of the page size.
    Misaligned,
    /// The range is empty, backwards, or not within one half of the canonical address space, or the physical range is
    /// beyond 52 bits.
    BadRange,
    /// Something is mapped at this address already.
    Occupied(u64),
    /// Nothing is mapped at this address.
    NotMapped(u64),
    /// A table was needed and the source of frames had none.
    OutOfFrames,
    /// The part of the address space that is set aside for this is used up.
    OutOfAddresses,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::Misaligned => f.write_str("page mappings begin and end at multiples of 4096 bytes"),
            MapError::BadRange => f.write_str(
                "the range must be ascending, not empty, and within one half of the address space",
            ),
            MapError::Occupied(address) => write!(f, "{address:#x} is mapped already: unmap it first"),
            MapError::NotMapped(address) => write!(f, "{address:#x} is not mapped"),
            MapError::OutOfFrames => f.write_str("no memory for page tables is left"),
            MapError::OutOfAddresses => f.write_str("no address space for such mappings is left"),
        }
    }
}

impl core::error::Error for MapError {}
