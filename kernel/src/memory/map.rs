//! The machine's memory map, made believable.
//!
//! What a boot loader hands over is a list that firmware wrote: it may be unsorted, have holes, overlap itself, end in
//! the middle of a page, or wrap around the end of the address space. Everything above wants a sorted list of whole
//! pages in which each page has one [`Kind`].
//!
//! 1. Every entry is rounded to pages so that nobody is promised too much: usable memory inwards, all else outwards.
//! 2. Where entries overlap, the most restrictive kind wins ([`Kind`] is ordered by it).
//! 3. Neighbours of one kind are joined; pages that no entry names are in no region.
//!
//! There is no heap yet, so the result has a fixed [`CAPACITY`]. Regions beyond it, the highest ones, are left out and
//! counted: a page that is in no region is never used, so leaving one out loses memory but is always safe.

use core::ops::Range;

use hal::x86_64::layout::PAGE_SIZE;

/// The most regions that a [`MemoryMap`] holds. The classic firmware interface ends at 128 entries.
pub const CAPACITY: usize = 160;

/// What a page may be used for, from the least to the most restrictive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Memory to allocate from.
    Usable,
    /// Memory that holds what is needed for ever: the kernel's image, boot information, page frame records.
    Kernel,
    /// ACPI tables; ordinary memory otherwise.
    AcpiReclaimable,
    /// The firmware's own while ACPI is in use.
    AcpiNvs,
    /// Not memory, or not ours.
    Reserved,
    /// Memory that the firmware found broken.
    Bad,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 6] =
        [Kind::Usable, Kind::Kernel, Kind::AcpiReclaimable, Kind::AcpiNvs, Kind::Reserved, Kind::Bad];

    /// The kind's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Usable => "usable",
            Kind::Kernel => "kernel",
            Kind::AcpiReclaimable => "ACPI tables",
            Kind::AcpiNvs => "ACPI storage",
            Kind::Reserved => "reserved",
            Kind::Bad => "bad",
        }
    }
}

/// An entry of the map as the boot loader gave it: `length` bytes from the physical address `start`, not aligned to
/// anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawRegion {
    /// The first byte.
    pub start: u64,
    /// How many bytes; 0 is allowed and means nothing.
    pub length: u64,
    /// What they are.
    pub kind: Kind,
}

/// A run of pages of one kind.
///
/// # Invariants
/// In a [`MemoryMap`], both bounds are multiples of the page size and `start < end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The physical address of the first byte.
    pub start: u64,
    /// The physical address after the last byte.
    pub end: u64,
    /// What the pages are.
    pub kind: Kind,
}

impl Region {
    /// The size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The physical addresses.
    pub const fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// A sorted list of page-aligned, disjoint regions.
///
/// ```
/// use kernel::memory::map::{Kind, MemoryMap, RawRegion};
/// let raw = [
///     RawRegion { start: 0x10_0000, length: 0x70_0123, kind: Kind::Usable },
///     RawRegion { start: 0x20_0800, length: 0x10_0000, kind: Kind::Kernel },
/// ];
/// let map = MemoryMap::normalise(raw.iter().copied(), 1 << 46);
/// let regions: Vec<_> = map.regions().iter().map(|r| (r.start, r.end, r.kind)).collect();
/// assert_eq!(regions, [
///     (0x10_0000, 0x20_0000, Kind::Usable),
///     (0x20_0000, 0x30_1000, Kind::Kernel),
///     (0x30_1000, 0x80_0000, Kind::Usable),
/// ]);
/// ```
#[derive(Clone, Debug)]
pub struct MemoryMap {
    regions: [Region; CAPACITY],
    count: usize,
    dropped_regions: usize,
    dropped_usable_bytes: u64,
    ignored_entries: usize,
}

impl MemoryMap {
    /// A map without regions.
    pub const fn empty() -> MemoryMap {
        MemoryMap {
            regions: [Region { start: 0, end: 0, kind: Kind::Bad }; CAPACITY],
            count: 0,
            dropped_regions: 0,
            dropped_usable_bytes: 0,
            ignored_entries: 0,
        }
    }

    /// Builds the map from `entries`, in any order. Nothing at or above `limit`, rounded down to a page, is taken in.
    ///
    /// A usable entry whose end does not fit into 64 bits is a lie and is ignored; any other kind is believed up to the
    /// end of the address space.
    ///
    /// Cost: quadratic in the number of entries, which are few; no memory but the result.
    pub fn normalise(entries: impl Iterator<Item = RawRegion> + Clone, limit: u64) -> MemoryMap {
        let mut map = MemoryMap::empty();
        map.ignored_entries = entries.clone().filter(|e| e.length != 0 && is_lie(e)).count();
        let limit = limit / PAGE_SIZE * PAGE_SIZE;
        let ranges = entries.filter_map(|entry| pages(entry, limit));

        // Sweep upwards. At `cursor` the kind is the most restrictive of all entries that cover it, and it cannot
        // change before the nearest bound above, so each turn settles the stretch between the two.
        let mut cursor = 0;
        loop {
            let (mut kind, mut next) = (None, u64::MAX);
            for region in ranges.clone() {
                if region.end > cursor {
                    if region.start <= cursor {
                        kind = kind.max(Some(region.kind));
                        next = next.min(region.end);
                    } else {
                        next = next.min(region.start);
                    }
                }
            }
            if next == u64::MAX {
                return map;
            }
            if let Some(kind) = kind {
                map.push(Region { start: cursor, end: next, kind });
            }
            cursor = next;
        }
    }

    /// This map with more entries laid over it by the same rules.
    pub fn overlay(&self, entries: impl Iterator<Item = RawRegion> + Clone) -> MemoryMap {
        let own =
            self.regions().iter().map(|r| RawRegion { start: r.start, length: r.bytes(), kind: r.kind });
        let mut map = MemoryMap::normalise(own.chain(entries), u64::MAX);
        map.dropped_regions += self.dropped_regions;
        map.dropped_usable_bytes += self.dropped_usable_bytes;
        map.ignored_entries += self.ignored_entries;
        map
    }

    /// The regions, in ascending order.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.count]
    }

    /// The usable regions, in ascending order.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = &Region> + Clone {
        self.regions().iter().filter(|region| region.kind == Kind::Usable)
    }

    /// How many bytes are of this kind.
    pub fn bytes(&self, kind: Kind) -> u64 {
        self.regions().iter().filter(|region| region.kind == kind).map(Region::bytes).sum()
    }

    /// The kind of the page at this physical address, if any region has it.
    pub fn kind_of(&self, address: u64) -> Option<Kind> {
        self.regions().iter().find(|r| r.range().contains(&address)).map(|r| r.kind)
    }

    /// How many regions found no room, and how many usable bytes were lost with them.
    pub fn dropped(&self) -> (usize, u64) {
        (self.dropped_regions, self.dropped_usable_bytes)
    }

    /// How many entries were not believed.
    pub fn ignored_entries(&self) -> usize {
        self.ignored_entries
    }

    /// Appends a region that begins at or after the end of the last one.
    fn push(&mut self, region: Region) {
        if self.dropped_regions == 0
            && let Some(last) = self.regions[..self.count].last_mut()
            && last.end == region.start
            && last.kind == region.kind
        {
            last.end = region.end;
        } else if self.count < CAPACITY {
            self.regions[self.count] = region;
            self.count += 1;
        } else {
            self.dropped_regions += 1;
            if region.kind == Kind::Usable {
                self.dropped_usable_bytes += region.bytes();
            }
        }
    }
}

fn is_lie(entry: &RawRegion) -> bool {
    entry.kind == Kind::Usable && entry.start.checked_add(entry.length).is_none()
}

/// The whole pages below `limit` (a multiple of the page size) that an entry stands for, if there are any.
fn pages(entry: RawRegion, limit: u64) -> Option<Region> {
    if entry.length == 0 || is_lie(&entry) {
        return None;
    }
    let end = entry.start.saturating_add(entry.length);
    let (start, end) = if entry.kind == Kind::Usable {
        (entry.start.checked_next_multiple_of(PAGE_SIZE)?, end / PAGE_SIZE * PAGE_SIZE)
    } else {
        (entry.start / PAGE_SIZE * PAGE_SIZE, end.checked_next_multiple_of(PAGE_SIZE).unwrap_or(limit))
    };
    let end = end.min(limit);
    (start < end).then_some(Region { start, end, kind: entry.kind })
}

#[cfg(test)]
mod tests;
