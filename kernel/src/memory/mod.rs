//! Memory: what there is, who has it, and where it is mapped.
//!
//! In the order of a boot:
//! 1. [`map`] makes the boot loader's list believable.
//! 2. [`frames`] hands out what is usable, by the frame.
//! 3. [`space`] builds the final page tables: nothing both written and executed, nothing at address 0.
//! 4. [`heap`] serves `alloc` from frames, in the direct map.
//! 5. [`stacks`] are mapped with nothing below them.
//! 6. [`shootdown`] makes all CPUs forget what is no longer mapped.
//! 7. [`check`] looks whether memory keeps what it should.
//!
//! Each of these is a plain value and is tested on the host. The machine's one of each is in `instance`, which exists on
//! bare metal only, and whose functions are re-exported here.

pub mod check;
pub mod frames;
pub mod heap;
#[cfg(target_os = "none")]
mod instance;
pub mod map;
#[cfg(target_os = "none")]
pub(crate) mod refusals;
pub mod shootdown;
pub mod space;
pub mod stacks;

#[cfg(target_os = "none")]
pub use instance::{
    StartPage, allocate_frames, allocate_frames_below, enable_on_this_cpu, free_frames, init, map_mmio,
    map_of_memory, protect, root, start_page, stats, view,
};

use hal::x86_64::layout::PAGE_SIZE;

use frames::FrameStats;
use heap::HeapStats;
use map::Kind;
use shootdown::ShootdownStats;

/// The state of all memory, in bytes unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryStats {
    /// Physical address space by kind, as the memory map says.
    pub kinds: [(Kind, u64); Kind::ALL.len()],
    /// The frame allocator, which manages what is usable. Counts frames.
    pub frames: FrameStats,
    /// The heap, which is a part of the allocated frames.
    pub heap: HeapStats,
    /// Page tables.
    pub table_bytes: u64,
    /// Memory of stacks.
    pub stack_bytes: u64,
    /// The number of stacks.
    pub stacks: u64,
    /// Device registers that are mapped; no memory.
    pub device_bytes: u64,
    /// Flushes on all CPUs.
    pub shootdown: ShootdownStats,
}

impl MemoryStats {
    /// The memory that the kernel can use at all: its own image, and what can be allocated.
    pub fn total(&self) -> u64 {
        self.of(Kind::Kernel) + self.of(Kind::Usable)
    }

    /// The memory that is in use: the image, records, and all that is allocated.
    pub fn used(&self) -> u64 {
        self.total() - self.free()
    }

    /// The memory that is free.
    pub fn free(&self) -> u64 {
        self.frames.free * PAGE_SIZE
    }

    /// The bytes of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.kinds.iter().find(|(k, _)| *k == kind).map_or(0, |(_, bytes)| *bytes)
    }
}
