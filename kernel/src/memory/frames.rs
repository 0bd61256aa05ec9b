//! Physical memory by the frame: a buddy allocator.
//!
//! 1. Each usable region of the memory map is a *zone*. A zone knows, for each order, which aligned blocks of
//!    `1 << order` frames are free.
//! 2. Allocating takes the smallest free block that suffices and splits it; freeing joins a block with its *buddy*, the
//!    other half of the next larger block, as long as that is free too.
//! 3. What is free is recorded in bitmaps beside the memory, never in it. Free pages are not touched, and a frame that is
//!    freed twice, or was never ours, is noticed.
//!
//! The bitmaps take a little more than 2 bits a frame: 64 KiB for each GiB. Those of a gibibyte that has never been
//! broken up are not even cleared, so that a machine with a tebibyte of memory starts as quickly as a small one.
//!
//! A [`FrameAllocator`] is a plain value; the kernel's one is in [`memory`](super), behind a lock.

mod bitmap;
#[cfg(test)]
mod tests;
mod zone;

use core::fmt;
use core::ops::Range;

use hal::x86_64::layout::PAGE_SIZE;
use zone::Zone;

/// The largest order: blocks of 1 GiB.
pub const MAX_ORDER: usize = 18;
/// How many orders there are.
pub const ORDERS: usize = MAX_ORDER + 1;
/// The most regions that one allocator manages.
pub const MAX_ZONES: usize = 64;

/// The smallest order whose blocks have room for `bytes`.
pub const fn order_for(bytes: u64) -> usize {
    bytes.div_ceil(PAGE_SIZE).next_power_of_two().ilog2() as usize
}

/// Hands out physical memory. Addresses are physical, in bytes.
///
/// ```
/// use kernel::memory::frames::FrameAllocator;
/// let region = 0x10_0000..0x100_0000;
/// let mut words = vec![0; FrameAllocator::words_needed([region.clone()])];
/// let mut frames = FrameAllocator::new();
/// frames.add(region, &mut words).unwrap();
///
/// let block = frames.allocate(3).unwrap();
/// assert_eq!(block % (8 * 4096), 0);
/// frames.free(block, 3).unwrap();
/// assert!(frames.free(block, 3).is_err());
/// ```
#[derive(Debug)]
pub struct FrameAllocator<'m> {
    /// In ascending order of addresses.
    zones: [Option<Zone<'m>>; MAX_ZONES],
    zone_count: usize,
    total: u64,
    free: u64,
    least_free: u64,
    allocations: u64,
    frees: u64,
    failures: u64,
}

/// Why a block was not taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The address is not a multiple of the block's size.
    Misaligned,
    /// Some of the block is not memory that this allocator hands out.
    Foreign,
    /// Some of the block is free already.
    DoubleFree,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Misaligned => {
                "the block is not aligned to its size: free it with the order it was allocated with"
            }
            FrameError::Foreign => "the block is not memory that the frame allocator handed out",
            FrameError::DoubleFree => "the block, or a part of it, is free already",
        })
    }
}

impl core::error::Error for FrameError {}

/// Why a region was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// There are [`MAX_ZONES`] already.
    TooManyZones,
    /// Regions must be page-aligned, not empty, and added in ascending order.
    BadRegion,
    /// Fewer words than [`FrameAllocator::words_needed`] says.
    TooFewWords,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddError::TooManyZones => "the frame allocator has its 64 zones already",
            AddError::BadRegion => "regions must be page-aligned, not empty, and added in ascending order",
            AddError::TooFewWords => "the region's records need more words",
        })
    }
}

impl core::error::Error for AddError {}

/// A reading of an allocator's state. Frames are of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameStats {
    /// Frames that the allocator manages.
    pub total: u64,
    /// Frames that are free.
    pub free: u64,
    /// The fewest that were ever free.
    pub least_free: u64,
    /// Blocks handed out since boot.
    pub allocations: u64,
    /// Blocks taken back since boot.
    pub frees: u64,
    /// Requests that could not be met.
    pub failures: u64,
    /// Free blocks by order.
    pub free_blocks: [u64; ORDERS],
    /// Bytes of bitmaps.
    pub metadata_bytes: u64,
}

impl<'m> FrameAllocator<'m> {
    /// An allocator without memory.
    pub const fn new() -> FrameAllocator<'m> {
        FrameAllocator {
            zones: [const { None }; MAX_ZONES],
            zone_count: 0,
            total: 0,
            free: 0,
            least_free: 0,
            allocations: 0,
            frees: 0,
            failures: 0,
        }
    }

    /// How many words the records of these page-aligned regions take in all.
    pub fn words_needed(regions: impl IntoIterator<Item = Range<u64>>) -> usize {
        regions.into_iter().take(MAX_ZONES).map(|region| Zone::words_needed(&frames_of(&region))).sum()
    }

    /// Adds a region above all earlier ones, all of it free. Its records go to the beginning of `words`, whatever these
    /// contain; the rest is returned for the next region.
    ///
    /// # Errors
    /// See [`AddError`]. Nothing has changed then.
    pub fn add(&mut self, region: Range<u64>, words: &'m mut [u64]) -> Result<&'m mut [u64], AddError> {
        let aligned = region.start.is_multiple_of(PAGE_SIZE) && region.end.is_multiple_of(PAGE_SIZE);
        let frames = frames_of(&region);
        let above = self.zones().next_back().is_none_or(|last| last.end <= frames.start);
        if !aligned || region.is_empty() || !above {
            return Err(AddError::BadRegion);
        }
        if self.zone_count == MAX_ZONES {
            return Err(AddError::TooManyZones);
        }
        let (mine, rest) =
            words.split_at_mut_checked(Zone::words_needed(&frames)).ok_or(AddError::TooFewWords)?;
        let count = frames.end - frames.start;
        self.zones[self.zone_count] = Some(Zone::new(frames, mine));
        self.zone_count += 1;
        self.total += count;
        self.free += count;
        self.least_free = self.free;
        Ok(rest)
    }

    /// Takes `1 << order` contiguous frames, aligned to that size, preferably from high memory. The content is whatever
    /// it was. Linux: `alloc_pages`.
    ///
    /// Cost: O([`ORDERS`] · log64 of the zone's frames), times the number of zones that are too full.
    pub fn allocate(&mut self, order: usize) -> Option<u64> {
        let frame = self.zones_mut().rev().find_map(|zone| zone.allocate(order));
        self.account(frame, order)
    }

    /// Takes the lowest `1 << order` contiguous frames, aligned to that size, if they end at or below the physical
    /// address `limit`. Linux: `GFP_DMA`, for any limit.
    pub fn allocate_below(&mut self, order: usize, limit: u64) -> Option<u64> {
        let limit = limit / PAGE_SIZE;
        let frame = self
            .zones_mut()
            .take_while(|zone| zone.start < limit)
            .find_map(|zone| zone.allocate_below(order, limit));
        self.account(frame, order)
    }

    /// Takes back `1 << order` frames from the physical address `block`. Several parts of an allocated block may be given
    /// back one by one. Linux: `__free_pages`.
    ///
    /// # Errors
    /// See [`FrameError`]. Nothing has changed then.
    ///
    /// Cost: O([`ORDERS`] · log64 of the zone's frames + `1 << order` / 32).
    pub fn free(&mut self, block: u64, order: usize) -> Result<(), FrameError> {
        if order > MAX_ORDER || !block.is_multiple_of(PAGE_SIZE << order) {
            return Err(FrameError::Misaligned);
        }
        let frame = block / PAGE_SIZE;
        let zone = self.zones_mut().find(|zone| zone.contains(frame)).ok_or(FrameError::Foreign)?;
        zone.free(frame, order)?;
        self.free += 1 << order;
        self.frees += 1;
        Ok(())
    }

    /// Whether `address` is in memory that this allocator hands out, free or not.
    pub fn manages(&self, address: u64) -> bool {
        self.zones().any(|zone| zone.contains(address / PAGE_SIZE))
    }

    /// The present state.
    pub fn stats(&self) -> FrameStats {
        let mut free_blocks = [0; ORDERS];
        for zone in self.zones() {
            for (sum, count) in free_blocks.iter_mut().zip(zone.free_blocks) {
                *sum += count;
            }
        }
        FrameStats {
            total: self.total,
            free: self.free,
            least_free: self.least_free,
            allocations: self.allocations,
            frees: self.frees,
            failures: self.failures,
            free_blocks,
            metadata_bytes: self.zones().map(Zone::metadata_bytes).sum(),
        }
    }

    fn account(&mut self, frame: Option<u64>, order: usize) -> Option<u64> {
        let Some(frame) = frame else {
            self.failures += 1;
            return None;
        };
        self.allocations += 1;
        self.free -= 1 << order;
        self.least_free = self.least_free.min(self.free);
        Some(frame * PAGE_SIZE)
    }

    fn zones(&self) -> impl DoubleEndedIterator<Item = &Zone<'m>> {
        self.zones[..self.zone_count].iter().flatten()
    }

    fn zones_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Zone<'m>> {
        self.zones[..self.zone_count].iter_mut().flatten()
    }
}

impl Default for FrameAllocator<'_> {
    fn default() -> Self {
        FrameAllocator::new()
    }
}

fn frames_of(region: &Range<u64>) -> Range<u64> {
    region.start / PAGE_SIZE..region.end / PAGE_SIZE
}
