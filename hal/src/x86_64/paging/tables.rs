//! Changing page tables.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use ::x86_64::structures::paging::PageTableFlags;

use super::flags::{PERMISSION_FLAGS, permission_flags};
use super::view::{Entry, LEVELS, View, Window, index, next};
use super::{Attributes, Features, MapError, PageSize, Permissions};
use crate::x86_64::layout::PAGE_SIZE;

/// Gives frames for new tables.
pub trait FrameSource {
    /// The physical address of a frame, with any content, that is the page tables' from now on. It lies in the
    /// [`Window`] of the tables that it is for.
    fn frame(&mut self) -> Option<u64>;
}

impl<F: FnMut() -> Option<u64>> FrameSource for F {
    fn frame(&mut self) -> Option<u64> {
        self()
    }
}

/// A root table and everything below it. Ranges are virtual addresses, page-aligned.
///
/// Dropping the value leaves the tables as they are.
///
/// # Invariants
/// Entries above the leaves allow the kernel everything, so that a leaf alone decides.
#[derive(Debug)]
pub struct PageTables {
    view: View,
    features: Features,
}

/// What an entry that leads to a table says.
const TABLE_FLAGS: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

impl PageTables {
    /// Tables that map nothing, with a root from `source`.
    ///
    /// # Errors
    /// [`MapError::OutOfFrames`].
    pub fn new(
        window: Window,
        features: Features,
        source: &mut dyn FrameSource,
    ) -> Result<PageTables, MapError> {
        let root = new_table(window, source)?;
        Ok(PageTables { view: View { root, window }, features })
    }

    /// For reading.
    pub fn view(&self) -> View {
        self.view
    }

    /// The physical address of the root.
    pub fn root(&self) -> u64 {
        self.view.root
    }

    /// Maps the addresses `at` to physical memory from `physical` on, with the largest pages that fit. Nothing may be
    /// mapped there yet. New mappings need no TLB flush.
    ///
    /// # Errors
    /// See [`MapError`].
    ///
    /// # Safety
    /// If the tables are in use: nothing but the caller relies on what these addresses mean, and the physical memory may
    /// be accessed in this way.
    pub unsafe fn map(
        &mut self,
        at: Range<u64>,
        physical: u64,
        attributes: Attributes,
        source: &mut dyn FrameSource,
    ) -> Result<(), MapError> {
        check(&at)?;
        if !physical.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Misaligned);
        }
        if physical.checked_add(at.end - at.start).is_none_or(|end| end > 1 << 52) {
            return Err(MapError::BadRange);
        }
        let mut occupied = None;
        self.view.visit(at.clone(), &mut |leaf| _ = occupied.get_or_insert(leaf.address.max(at.start)));
        if let Some(address) = occupied {
            return Err(MapError::Occupied(address));
        }

        let mut address = at.start;
        while address < at.end {
            let target = physical + (address - at.start);
            let largest = self.largest(address, target, at.end - address);
            match self.map_page(address, target, largest, attributes, source) {
                Ok(size) => address += size.bytes(),
                Err(error) => {
                    self.rewrite(at.start..address, |_| Entry(0));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes the addresses `at`, all of them mapped, mean nothing.
    ///
    /// # Errors
    /// See [`MapError`]; frames are needed where a large page is cut.
    ///
    /// # Safety
    /// Nothing relies on these addresses any more. The memory behind them is not reused before every CPU that uses the
    /// tables has flushed.
    pub unsafe fn unmap(&mut self, at: Range<u64>, source: &mut dyn FrameSource) -> Result<(), MapError> {
        self.isolate(&at, source)?;
        self.rewrite(at, |_| Entry(0));
        Ok(())
    }

    /// Changes what the addresses `at`, all of them mapped, may be used for. How they are cached stays.
    ///
    /// # Errors
    /// See [`MapError`]; frames are needed where a large page is cut.
    ///
    /// # Safety
    /// Nothing relies on uses that are no longer allowed, and what the memory contains may be used as now allowed.
    /// Another CPU goes by the old permissions until it flushes.
    pub unsafe fn protect(
        &mut self,
        at: Range<u64>,
        permissions: Permissions,
        source: &mut dyn FrameSource,
    ) -> Result<(), MapError> {
        self.isolate(&at, source)?;
        let flags = permission_flags(permissions, self.features);
        self.rewrite(at, |entry| {
            Entry::new(entry.address(), entry.flags().difference(PERMISSION_FLAGS) | flags)
        });
        Ok(())
    }

    /// Gives every root entry of `at` a table, so that later mappings there do not change the root, and roots that share
    /// these entries stay alike.
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn populate_root(&mut self, at: Range<u64>, source: &mut dyn FrameSource) -> Result<(), MapError> {
        check(&at)?;
        let mut address = Some(at.start);
        while let Some(now) = address.filter(|address| *address < at.end) {
            self.table_below(self.root(), LEVELS, now, source)?;
            address = next(now, LEVELS);
        }
        Ok(())
    }

    /// Another root with the same upper half, and nothing in the lower.
    ///
    /// # Errors
    /// [`MapError::OutOfFrames`].
    pub fn sibling(&self, source: &mut dyn FrameSource) -> Result<PageTables, MapError> {
        let other = PageTables::new(self.view.window, self.features, source)?;
        for number in 256..512 {
            let entry = Entry::load(&self.view.window.table(self.root())[number]);
            other.store(&self.view.window.table(other.root())[number], entry);
        }
        Ok(other)
    }

    /// The largest page for this place.
    fn largest(&self, address: u64, physical: u64, length: u64) -> PageSize {
        let fits =
            |size: PageSize| (address | physical).is_multiple_of(size.bytes()) && size.bytes() <= length;
        if self.features.giant_pages && fits(PageSize::Giant) {
            PageSize::Giant
        } else if fits(PageSize::Large) {
            PageSize::Large
        } else {
            PageSize::Small
        }
    }

    /// Maps one page, of `largest` size or, where an emptied table is in the way, a smaller one. Returns its size.
    fn map_page(
        &mut self,
        address: u64,
        physical: u64,
        largest: PageSize,
        attributes: Attributes,
        source: &mut dyn FrameSource,
    ) -> Result<PageSize, MapError> {
        let mut table = self.root();
        let mut level = LEVELS;
        loop {
            let entry = &self.view.window.table(table)[index(address, level)];
            if level <= largest.level() && !Entry::load(entry).is_present() {
                let mut flags = attributes.flags(self.features);
                flags.set(PageTableFlags::HUGE_PAGE, level > 1);
                self.store(entry, Entry::new(physical, flags));
                return Ok(PageSize::of_level(level));
            }
            table = self.table_below(table, level, address, source)?;
            level -= 1;
        }
    }

    /// The table that the entry for `address` leads to, made if there is none. The entry is not a leaf.
    fn table_below(
        &self,
        table: u64,
        level: u32,
        address: u64,
        source: &mut dyn FrameSource,
    ) -> Result<u64, MapError> {
        let entry = &self.view.window.table(table)[index(address, level)];
        let old = Entry::load(entry);
        if old.is_present() {
            return Ok(old.address());
        }
        let new = new_table(self.view.window, source)?;
        self.store(entry, Entry::new(new, TABLE_FLAGS));
        Ok(new)
    }

    /// Checks that all of `at` is mapped, and cuts pages that reach over its bounds.
    fn isolate(&mut self, at: &Range<u64>, source: &mut dyn FrameSource) -> Result<(), MapError> {
        check(at)?;
        let mut expected = at.start;
        let mut gap = None;
        self.view.visit(at.clone(), &mut |leaf| {
            if leaf.address > expected {
                gap.get_or_insert(expected);
            }
            expected = leaf.address.saturating_add(leaf.size.bytes());
        });
        if expected < at.end {
            gap.get_or_insert(expected);
        }
        if let Some(address) = gap {
            return Err(MapError::NotMapped(address));
        }
        self.cut(at.start, source)?;
        self.cut(at.end, source)
    }

    /// Splits pages until none has `boundary` inside.
    fn cut(&mut self, boundary: u64, source: &mut dyn FrameSource) -> Result<(), MapError> {
        let mut table = self.root();
        for level in (1..=LEVELS).rev() {
            let slot = &self.view.window.table(table)[index(boundary, level)];
            let entry = Entry::load(slot);
            if !entry.is_present() || level == 1 {
                return Ok(());
            }
            if entry.is_leaf(level) {
                let smaller = PageSize::of_level(level - 1);
                if boundary.is_multiple_of(PageSize::of_level(level).bytes()) {
                    return Ok(());
                }
                let new = new_table(self.view.window, source)?;
                let mut flags = entry.flags();
                flags.set(PageTableFlags::HUGE_PAGE, smaller != PageSize::Small);
                for (number, part) in self.view.window.table(new).iter().enumerate() {
                    self.store(part, Entry::new(entry.address() + number as u64 * smaller.bytes(), flags));
                }
                // One store: at every moment the address means what it meant.
                self.store(slot, Entry::new(new, TABLE_FLAGS));
            }
            table = Entry::load(slot).address();
        }
        Ok(())
    }

    /// Replaces each leaf in `at`, at whose bounds no page reaches over.
    fn rewrite(&mut self, at: Range<u64>, new: impl Fn(Entry) -> Entry) {
        let mut address = at.start;
        while address < at.end {
            let mut table = self.root();
            let mut level = LEVELS;
            let after = loop {
                let slot = &self.view.window.table(table)[index(address, level)];
                let entry = Entry::load(slot);
                if !entry.is_present() {
                    break next(address, level);
                }
                if level < LEVELS && entry.is_leaf(level) {
                    self.store(slot, new(entry));
                    break next(address, level);
                }
                table = entry.address();
                level -= 1;
            };
            match after {
                Some(after) => address = after,
                None => return,
            }
        }
    }

    fn store(&self, slot: &AtomicU64, entry: Entry) {
        // Release: pairs with the Acquire in `Entry::load`; the CPU's own walker sees stores in order anyway.
        slot.store(entry.0, Ordering::Release);
    }
}

/// An empty table.
fn new_table(window: Window, source: &mut dyn FrameSource) -> Result<u64, MapError> {
    let frame = source.frame().ok_or(MapError::OutOfFrames)?;
    for entry in window.table(frame) {
        entry.store(0, Ordering::Relaxed);
    }
    Ok(frame)
}

/// Whether the range can be one of pages.
fn check(at: &Range<u64>) -> Result<(), MapError> {
    if !at.start.is_multiple_of(PAGE_SIZE) || !at.end.is_multiple_of(PAGE_SIZE) {
        return Err(MapError::Misaligned);
    }
    let half = |address: u64| address as i64 >> 47;
    let (first, last) = (half(at.start), half(at.end.wrapping_sub(1)));
    if at.is_empty() || first != last || !(first == 0 || first == -1) {
        return Err(MapError::BadRange);
    }
    Ok(())
}
