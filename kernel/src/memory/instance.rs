//! The machine's memory: one map, one frame allocator, one set of kernel tables.
//!
//! Lock order: tables, heap and stack slots before frames. None of these locks is held while other CPUs are asked to
//! flush.

use core::ops::Range;
use core::panic::Location;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::platform::{Report, Severity};
use hal::x86_64::boot::{BootInfo, MemoryKind};
use hal::x86_64::layout::{self, DIRECT_MAP, DIRECT_MAP_SIZE, DYNAMIC, PAGE_SIZE, Permissions, phys_to_virt};
use hal::x86_64::paging::{self, Attributes, Features, MapError, PageTables, View, Window};
use hal::{Native, Platform};
use log::{info, warn};
use spin::Once;
use sync::IrqSpinLock;

use super::frames::{FrameAllocator, order_for};
use super::heap::Heap;
use super::map::{Kind, MemoryMap, RawRegion};
use super::{MemoryStats, refusals, shootdown, space, stacks};
use crate::sanitize;

static MAP: Once<MemoryMap> = Once::new();
static FRAMES: IrqSpinLock<FrameAllocator<'static>> = IrqSpinLock::new(FrameAllocator::new());
static TABLES: IrqSpinLock<Option<PageTables>> = IrqSpinLock::new(None);
static VIEW: Once<View> = Once::new();
static TABLE_FRAMES: AtomicU64 = AtomicU64::new(0);
static DEVICE_BYTES: AtomicU64 = AtomicU64::new(0);
/// Where the next device is mapped; moves up only. Changed while `TABLES` is held.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(DEVICES.start);

/// Device registers are mapped here: the second half of the dynamic region.
const DEVICES: Range<u64> = DYNAMIC.start + (DYNAMIC.end - DYNAMIC.start) / 2..DYNAMIC.end;
const _: () = assert!(stacks::REGION.end <= DEVICES.start);

/// What the boot tables map; until the final ones are in use nothing above can be reached.
const BOOT_LIMIT: u64 = 1 << 32;
/// Real mode ends here.
const LOW_LIMIT: u64 = 1 << 20;

// SAFETY: `grow_heap` gives whole frames that are the heap's for good, through the direct map, and does not allocate.
#[cfg_attr(not(quiesce_sanitize = "address"), global_allocator)]
static HEAP: Heap = unsafe { Heap::new(grow_heap) };

#[cfg(quiesce_sanitize = "address")]
#[global_allocator]
static CHECKED: sanitize::Checked = sanitize::Checked(&HEAP);

/// Takes the machine's memory over: reads the map, sets the frame allocator up, and replaces the boot tables by the
/// final ones. From here on there is a heap.
///
/// Once, on the boot CPU, before other CPUs run. Per-CPU data must work.
///
/// # Panics
/// If the machine has too little memory to go on.
pub fn init(boot: &BootInfo) {
    let features = Features::detect();
    let (map, mut words) = with_records(&read_map(boot));
    let map = MAP.call_once(|| map);
    report_map(map);

    add_regions(usable(map, 0..BOOT_LIMIT), &mut words);
    // SAFETY: the boot tables show physical memory up to `BOOT_LIMIT` in the direct map, from where all frames come
    // until the regions above are added; after the switch the direct map shows all of it.
    let window = unsafe { Window::new(DIRECT_MAP) };
    let tables = space::build(map, &layout::sections(), features, window, &mut table_frame)
        .unwrap_or_else(|error| panic!("the kernel's page tables cannot be built: {error}"));
    // SAFETY: the tables map the image and the direct map, where everything in use lies: code, data and the boot stack
    // are in the image. Each is mapped as it is used.
    unsafe {
        paging::enable(features);
        paging::switch_to(tables.root());
    }
    paging::flush_all();
    VIEW.call_once(|| tables.view());
    *TABLES.lock() = Some(tables);

    add_regions(usable(map, BOOT_LIMIT..u64::MAX), &mut words);
    report_ready(features);
    #[cfg(quiesce_sanitize = "address")]
    sanitize::start(usable(map, 0..u64::MAX).last().map_or(0, |region| region.end), allocate_bytes);
}

/// Switches on, on an executing CPU that has just started, what the tables rely on: no-execute, write protection, global
/// pages.
pub fn enable_on_this_cpu() {
    // SAFETY: the kernel's tables are in use, and the features are those that they were built with; CPUs are checked to
    // have them.
    unsafe { paging::enable(Features::detect()) };
}

/// The boot loader's map with what the kernel occupies laid over it.
fn read_map(boot: &BootInfo) -> MemoryMap {
    let told = boot.memory.iter().map(|region| RawRegion {
        start: region.start,
        length: region.length,
        kind: match region.kind {
            MemoryKind::Usable => Kind::Usable,
            MemoryKind::AcpiReclaimable => Kind::AcpiReclaimable,
            MemoryKind::AcpiNvs => Kind::AcpiNvs,
            MemoryKind::Reserved => Kind::Reserved,
            MemoryKind::Bad => Kind::Bad,
        },
    });
    let occupied = boot.reserved.into_iter().map(|(start, end)| RawRegion {
        start,
        length: end.saturating_sub(start),
        kind: Kind::Kernel,
    });
    // Firmware's data, and the address that means "nothing" in too many places.
    let zero = RawRegion { start: 0, length: PAGE_SIZE, kind: Kind::Reserved };
    MemoryMap::normalise(told.chain(occupied).chain([zero]), DIRECT_MAP_SIZE)
}

/// Finds room for the frame allocator's records. Returns the map with that room marked, and the room.
fn with_records(map: &MemoryMap) -> (MemoryMap, &'static mut [u64]) {
    let regions = || usable(map, 0..BOOT_LIMIT).chain(usable(map, BOOT_LIMIT..u64::MAX));
    // Marking the room makes a region smaller, which may take a few words more for its last level.
    let words = FrameAllocator::words_needed(regions()) + 8 * regions().count();
    let bytes = (words as u64 * 8).next_multiple_of(PAGE_SIZE);
    let place = usable(map, 0..BOOT_LIMIT)
        .filter(|region| region.end - region.start >= bytes)
        .last()
        .map(|region| region.end - bytes)
        .unwrap_or_else(|| {
            panic!("no {bytes} bytes of memory in one piece for the frame allocator's records")
        });
    let room = RawRegion { start: place, length: bytes, kind: Kind::Kernel };
    // SAFETY: usable memory below 4 GiB that the boot tables show, that nothing in use occupies, and that the mark keeps
    // from being allocated. Any bytes are valid words.
    let words = unsafe { slice::from_raw_parts_mut(phys_to_virt(place).cast(), (bytes / 8) as usize) };
    (map.overlay([room].into_iter()), words)
}

/// The usable regions, as far as they lie within `part`.
fn usable(map: &MemoryMap, part: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    map.usable()
        .map(move |region| region.start.max(part.start)..region.end.min(part.end))
        .filter(|region| !region.is_empty())
}

fn add_regions(regions: impl Iterator<Item = Range<u64>>, words: &mut &'static mut [u64]) {
    let mut frames = FRAMES.lock();
    let mut lost = 0;
    for region in regions {
        let bytes = region.end - region.start;
        let taken = core::mem::take(words);
        // A refused region takes no words, but they are gone with the call: no region after it is added either.
        match frames.add(region, taken) {
            Ok(rest) => *words = rest,
            Err(_) => lost += bytes,
        }
    }
    drop(frames);
    if lost != 0 {
        warn!("{} KiB of memory are in too many pieces and are not used", lost / 1024);
    }
}

fn report_map(map: &MemoryMap) {
    for region in map.regions() {
        info!(
            "{:#014x} - {:#014x}  {:>10} KiB  {}",
            region.start,
            region.end,
            region.bytes() / 1024,
            region.kind.name()
        );
    }
    if map.ignored_entries() != 0 {
        warn!("{} usable entries of the memory map wrap around and are ignored", map.ignored_entries());
    }
    let (regions, bytes) = map.dropped();
    if regions != 0 {
        warn!("the memory map has {regions} regions too many; {} KiB of memory are not used", bytes / 1024);
    }
}

fn report_ready(features: Features) {
    if !features.no_execute {
        warn!("this CPU cannot forbid execution: data can be executed");
    }
    let stats = FRAMES.lock().stats();
    info!(
        "{} MiB usable, {} KiB of records, {} page tables{}",
        (stats.total * PAGE_SIZE) >> 20,
        stats.metadata_bytes / 1024,
        TABLE_FRAMES.load(Ordering::Relaxed),
        if features.giant_pages { ", 1 GiB pages" } else { "" },
    );
}

/// Takes `1 << order` contiguous frames. Returns their physical address, a multiple of their size; the content is
/// whatever it was. The memory can be accessed in the direct map.
///
/// Contexts: any but NMI. Linux: `alloc_pages`.
pub fn allocate_frames(order: usize) -> Option<u64> {
    if refusals::strikes() {
        return None;
    }
    let mut frames = FRAMES.lock();
    frames.allocate(order).inspect(|block| sanitize::frames_allocated(*block, order))
}

/// Takes the lowest `1 << order` contiguous frames that end at or below the physical address `limit`.
///
/// Contexts: any but NMI.
pub fn allocate_frames_below(order: usize, limit: u64) -> Option<u64> {
    let mut frames = FRAMES.lock();
    frames.allocate_below(order, limit).inspect(|block| sanitize::frames_allocated(*block, order))
}

/// Gives frames back. A block that is not allocated is reported, with the caller's line, and left alone.
///
/// Contexts: any but NMI. Linux: `__free_pages`.
#[track_caller]
pub fn free_frames(block: u64, order: usize) {
    let mut frames = FRAMES.lock();
    // Before anybody else can have them.
    let freed = frames.free(block, order).inspect(|()| sanitize::frames_freed(block, order));
    drop(frames);
    if let Err(error) = freed {
        Native::report(&Report {
            severity: Severity::Bug,
            message: format_args!("freeing {} frames at {block:#x}: {error}", 1_u64 << order),
            location: Location::caller(),
        });
    }
}

/// A frame of zeroes.
pub(super) fn allocate_zeroed() -> Option<u64> {
    let frame = allocate_frames(0)?;
    // SAFETY: the frame is ours, and the direct map shows it.
    unsafe { phys_to_virt(frame).write_bytes(0, PAGE_SIZE as usize) };
    Some(frame)
}

fn table_frame() -> Option<u64> {
    let frame = allocate_frames(0)?;
    TABLE_FRAMES.fetch_add(1, Ordering::Relaxed);
    Some(frame)
}

fn low_table_frame() -> Option<u64> {
    let frame = allocate_frames_below(0, BOOT_LIMIT)?;
    TABLE_FRAMES.fetch_add(1, Ordering::Relaxed);
    Some(frame)
}

/// Takes so many bytes in one piece, rounded up to whole frames.
fn allocate_bytes(bytes: u64) -> Option<u64> {
    let mut frames = FRAMES.lock();
    let order = order_for(bytes);
    let start = frames.allocate(order)?;
    // What is beyond the wish goes back, in the largest pieces that end where the block ends.
    let mut at = start + bytes.next_multiple_of(PAGE_SIZE);
    let end = start + (PAGE_SIZE << order);
    while at < end {
        let piece = (at / PAGE_SIZE).trailing_zeros() as usize;
        let freed = frames.free(at, piece);
        debug_assert_eq!(freed, Ok(()));
        at += PAGE_SIZE << piece;
    }
    Some(start)
}

fn grow_heap(bytes: usize) -> Option<NonNull<u8>> {
    let start = allocate_bytes(bytes as u64)?;
    sanitize::heap_grown(start, bytes as u64);
    NonNull::new(phys_to_virt(start))
}

/// The kernel's tables, for looking at without a lock.
///
/// # Panics
/// Before [`init`].
pub fn view() -> View {
    *VIEW.get().expect("memory is not initialised")
}

/// The memory map.
///
/// # Panics
/// Before [`init`].
pub fn map_of_memory() -> &'static MemoryMap {
    MAP.get().expect("memory is not initialised")
}

/// The physical address of the kernel's root table, for CR3.
///
/// # Panics
/// Before [`init`].
pub fn root() -> u64 {
    view().root()
}

fn with_tables<R>(work: impl FnOnce(&mut PageTables) -> R) -> R {
    work(TABLES.lock().as_mut().expect("memory is not initialised"))
}

/// Maps pages of the dynamic region.
///
/// # Safety
/// As for [`PageTables::map`].
pub(super) unsafe fn map(at: Range<u64>, physical: u64, attributes: Attributes) -> Result<(), MapError> {
    // SAFETY: the caller's promise.
    with_tables(|tables| unsafe { tables.map(at, physical, attributes, &mut table_frame) })
}

/// Unmaps pages; the caller flushes.
///
/// # Safety
/// As for [`PageTables::unmap`].
pub(super) unsafe fn unmap_unflushed(at: Range<u64>) -> Result<(), MapError> {
    // SAFETY: the caller's promise.
    with_tables(|tables| unsafe { tables.unmap(at, &mut table_frame) })
}

/// Changes what mapped kernel addresses may be used for, on all CPUs before it returns.
///
/// Contexts and conditions: as for [`shootdown`]. Linux: `set_memory_ro` and its kin.
///
/// # Errors
/// [`MapError`]; nothing has changed then.
///
/// # Safety
/// As for [`PageTables::protect`]: nothing relies on uses that are no longer allowed, and what the memory contains may
/// be used as now allowed. Memory that is made executable is not writable anywhere else.
pub unsafe fn protect(at: Range<u64>, permissions: Permissions) -> Result<(), MapError> {
    // SAFETY: the caller's promise.
    with_tables(|tables| unsafe { tables.protect(at.clone(), permissions, &mut table_frame) })?;
    shootdown::flush_everywhere(at);
    Ok(())
}

/// Maps `length` bytes of device registers from the physical address `physical` on, uncached, for ever. Returns where
/// the first is.
///
/// Task context. Linux: `ioremap`.
///
/// # Errors
/// [`MapError`]; [`MapError::BadRange`] if it is ordinary memory, which must not be mapped uncached beside the direct
/// map.
pub fn map_mmio(physical: u64, length: usize) -> Result<NonNull<u8>, MapError> {
    let first = physical / PAGE_SIZE * PAGE_SIZE;
    let end = physical
        .checked_add(length as u64)
        .and_then(|end| end.checked_next_multiple_of(PAGE_SIZE))
        .filter(|end| *end > first)
        .ok_or(MapError::BadRange)?;
    let is_memory =
        |kind| matches!(kind, Kind::Usable | Kind::Kernel | Kind::AcpiReclaimable | Kind::AcpiNvs);
    if map_of_memory().regions().iter().any(|r| is_memory(r.kind) && r.start < end && first < r.end) {
        return Err(MapError::BadRange);
    }
    let size = end - first;
    let start = with_tables(|tables| {
        let start = NEXT_DEVICE.load(Ordering::Relaxed);
        // A page between two devices stays unmapped.
        let next = start.checked_add(size + PAGE_SIZE).filter(|next| *next <= DEVICES.end);
        let next = next.ok_or(MapError::OutOfAddresses)?;
        // SAFETY: nobody was given these addresses yet, and device registers are the driver's affair.
        unsafe { tables.map(start..start + size, first, Attributes::device(), &mut table_frame)? };
        NEXT_DEVICE.store(next, Ordering::Relaxed);
        Ok(start)
    })?;
    DEVICE_BYTES.fetch_add(size, Ordering::Relaxed);
    Ok(NonNull::new((start + (physical - first)) as *mut u8).expect("the dynamic region is not at 0"))
}

/// What a CPU needs to start: a page that it begins in, and the tables that it begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartPage {
    /// A free physical page below 1 MiB, in the direct map for writing.
    pub page: u64,
    /// The root of tables that map the kernel, and that page to itself for executing. Below 4 GiB.
    pub root: u64,
}

/// The page and tables that CPUs start with. Made once and kept, so that CPUs can be started again later.
///
/// # Errors
/// [`MapError::OutOfFrames`] if no page below 1 MiB is free, or none is left for tables.
pub fn start_page() -> Result<StartPage, MapError> {
    static START: Once<StartPage> = Once::new();
    START
        .try_call_once(|| {
            let page = allocate_frames_below(0, LOW_LIMIT).ok_or(MapError::OutOfFrames)?;
            let tables = with_tables(|kernel| space::with_identity_page(kernel, page, &mut low_table_frame))?;
            Ok(StartPage { page, root: tables.root() })
        })
        .copied()
}

/// The state of all memory.
pub fn stats() -> MemoryStats {
    let map = map_of_memory();
    // In a statement of its own, so that the lock is let go of before the heap's is taken, under which the heap grows.
    let frames = FRAMES.lock().stats();
    MemoryStats {
        kinds: Kind::ALL.map(|kind| (kind, map.bytes(kind))),
        frames,
        heap: HEAP.stats(),
        table_bytes: TABLE_FRAMES.load(Ordering::Relaxed) * PAGE_SIZE,
        stack_bytes: stacks::stacks().map(|(_, stack)| stack.end - stack.start).sum(),
        stacks: stacks::stacks().count() as u64,
        device_bytes: DEVICE_BYTES.load(Ordering::Relaxed),
        shootdown: shootdown::stats(),
    }
}
