//! Reading page tables, without a lock and in any context.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use ::x86_64::structures::paging::PageTableFlags;

use super::PageSize;

/// A page table. Entries are atomic because the CPU, readers in traps and a writer may meet there.
pub(super) type Table = [AtomicU64; 512];

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
pub(super) const LEVELS: u32 = 4;

/// Where physical memory is visible: physical address plus an offset.
///
/// # Invariants
/// All page tables that are reached through a window can be read and written there, and nothing else uses their memory
/// but by the same atomic accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    offset: u64,
}

impl Window {
    /// The window in which physical address `p` is visible at `p + offset`, modulo 2^64.
    ///
    /// # Safety
    /// As long as the value and its copies are used, every frame that is used as a page table (the root, those that it
    /// leads to, those that a [`FrameSource`](super::FrameSource) gives) is visible, writable and used for nothing else.
    pub const unsafe fn new(offset: u64) -> Window {
        Window { offset }
    }

    /// The table in the frame at `physical`, which the caller found in a table or got from a frame source.
    pub(super) fn table(&self, physical: u64) -> &Table {
        // SAFETY: by the invariant the frame is visible, has room for 512 aligned entries, and is accessed atomically.
        unsafe { &*(physical.wrapping_add(self.offset) as *const Table) }
    }
}

/// One entry, read once.
#[derive(Clone, Copy)]
pub(super) struct Entry(pub(super) u64);

impl Entry {
    pub(super) fn new(physical: u64, flags: PageTableFlags) -> Entry {
        Entry(physical | flags.bits())
    }

    pub(super) fn load(entry: &AtomicU64) -> Entry {
        // Acquire: pairs with the Release in `PageTables::store`; who finds a table finds its entries.
        Entry(entry.load(Ordering::Acquire))
    }

    pub(super) fn flags(self) -> PageTableFlags {
        PageTableFlags::from_bits_retain(self.0 & !ADDRESS)
    }

    pub(super) fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    pub(super) fn is_present(self) -> bool {
        self.flags().contains(PageTableFlags::PRESENT)
    }

    /// Whether a present entry of a table of this level maps memory (else it leads to a table).
    pub(super) fn is_leaf(self, level: u32) -> bool {
        level == 1 || self.flags().contains(PageTableFlags::HUGE_PAGE)
    }
}

pub(super) const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

pub(super) const fn index(address: u64, level: u32) -> usize {
    (address >> shift(level)) as usize & 511
}

/// The next address that another entry of a table of this level stands for; `None` at the end of the address space.
pub(super) const fn next(address: u64, level: u32) -> Option<u64> {
    (address >> shift(level) << shift(level)).checked_add(1 << shift(level))
}

/// Makes a 48-bit address canonical.
const fn canonical(address: u64) -> u64 {
    ((address << 16) as i64 >> 16) as u64
}

/// One mapped page. What it allows is what all levels together allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The page's first virtual address.
    pub address: u64,
    /// The physical address behind it.
    pub physical: u64,
    /// Its size.
    pub size: PageSize,
    /// Whether the kernel may write to it.
    pub writable: bool,
    /// Whether instructions may be fetched from it.
    pub executable: bool,
    /// Whether user mode may use it.
    pub user: bool,
    /// Whether accesses bypass the caches.
    pub uncached: bool,
    /// Whether its translation outlives a change of root.
    pub global: bool,
}

/// Page tables to look at. Reading takes no lock: during a change by another CPU a reader sees an entry as it was
/// before or as it is after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    pub(super) root: u64,
    pub(super) window: Window,
}

impl View {
    /// The tables with this root, a physical address.
    ///
    /// # Safety
    /// The window's conditions hold for the root and all tables below it.
    pub const unsafe fn new(root: u64, window: Window) -> View {
        View { root, window }
    }

    /// The physical address of the root, as CR3 wants it.
    pub const fn root(&self) -> u64 {
        self.root
    }

    /// The page that maps `address`. Contexts: any, NMI included. Cost: at most 4 loads.
    pub fn leaf(&self, address: u64) -> Option<Leaf> {
        if canonical(address) != address {
            return None;
        }
        let mut leaf = None;
        let mut table = self.root;
        let mut path = Path::ROOT;
        for level in (1..=LEVELS).rev() {
            let entry = Entry::load(&self.window.table(table)[index(address, level)]);
            if !entry.is_present() {
                return None;
            }
            path = path.through(entry);
            if level < LEVELS && entry.is_leaf(level) {
                leaf = Some(path.leaf(address, entry, level));
                break;
            }
            table = entry.address();
        }
        leaf
    }

    /// The physical address that `address` leads to.
    pub fn translate(&self, address: u64) -> Option<u64> {
        self.leaf(address).map(|leaf| leaf.physical + (address - leaf.address))
    }

    /// Calls `visit` for each mapped page that lies in `range` at least in part, in ascending order of addresses.
    pub fn visit(&self, range: Range<u64>, visit: &mut dyn FnMut(Leaf)) {
        self.visit_table(self.root, LEVELS, Path::ROOT, &range, 0, visit);
    }

    /// Calls `visit` for every mapped page.
    pub fn visit_all(&self, visit: &mut dyn FnMut(Leaf)) {
        self.visit(0..u64::MAX, visit);
    }

    fn visit_table(
        &self,
        table: u64,
        level: u32,
        path: Path,
        range: &Range<u64>,
        base: u64,
        visit: &mut dyn FnMut(Leaf),
    ) {
        for (number, entry) in self.window.table(table).iter().enumerate() {
            let address = canonical(base | (number as u64) << shift(level));
            let last = address | ((1 << shift(level)) - 1);
            if last < range.start || address >= range.end {
                continue;
            }
            let entry = Entry::load(entry);
            if !entry.is_present() {
                continue;
            }
            let path = path.through(entry);
            if level < LEVELS && entry.is_leaf(level) {
                visit(path.leaf(address, entry, level));
            } else {
                self.visit_table(entry.address(), level - 1, path, range, address, visit);
            }
        }
    }
}

/// What the entries on the way allow together.
#[derive(Clone, Copy)]
struct Path {
    writable: bool,
    executable: bool,
    user: bool,
}

impl Path {
    const ROOT: Path = Path { writable: true, executable: true, user: true };

    fn through(self, entry: Entry) -> Path {
        let flags = entry.flags();
        Path {
            writable: self.writable && flags.contains(PageTableFlags::WRITABLE),
            executable: self.executable && !flags.contains(PageTableFlags::NO_EXECUTE),
            user: self.user && flags.contains(PageTableFlags::USER_ACCESSIBLE),
        }
    }

    fn leaf(self, address: u64, entry: Entry, level: u32) -> Leaf {
        let size = PageSize::of_level(level);
        Leaf {
            address: address & !(size.bytes() - 1),
            physical: entry.address(),
            size,
            writable: self.writable,
            executable: self.executable,
            user: self.user,
            uncached: entry.flags().contains(PageTableFlags::NO_CACHE),
            global: entry.flags().contains(PageTableFlags::GLOBAL),
        }
    }
}
