//! The kernel's address space: which parts of it exist, and what each may be used for.
//!
//! | addresses | what | may be |
//! |---|---|---|
//! | image | text | read, executed |
//! | image | constants, template of per-CPU areas | read |
//! | image | data | read, written |
//! | direct map | memory | read, written |
//! | direct map | the image's text, constants and template | read |
//! | direct map | what firmware keeps below 4 GiB, ACPI tables | read |
//! | dynamic | stacks, device registers, as they come | read, written |
//!
//! Nothing else is mapped; the lower half with the null page is empty. In particular there is no second way to write to
//! what the image's own mapping protects, and nothing is written and executed.
//!
//! [`build`] works on any memory that a [`Window`] shows, and so is tested on the host.

use core::ops::Range;

use hal::x86_64::layout::{DIRECT_MAP, DYNAMIC, IMAGE, Permissions, Section};
use hal::x86_64::paging::{Attributes, Features, FrameSource, MapError, PageTables, Window};

use super::map::{Kind, MemoryMap};

/// Reserved memory is mapped below this address only. Firmware keeps its tables there; above are at most device
/// windows, some of them as large as a whole machine's memory.
const FIRMWARE_LIMIT: u64 = 1 << 32;

/// Makes the final tables. They are not in use yet.
///
/// # Errors
/// [`MapError`]; frames that were taken by then are lost, as the kernel cannot go on anyway.
pub fn build(
    map: &MemoryMap,
    image: &[Section],
    features: Features,
    window: Window,
    source: &mut dyn FrameSource,
) -> Result<PageTables, MapError> {
    let mut tables = PageTables::new(window, features, source)?;
    for section in image.iter().filter(|section| !section.range.is_empty()) {
        let attributes = Attributes::kernel(section.permissions);
        // SAFETY: the tables are not in use.
        unsafe { tables.map(section.range.clone(), section.range.start - IMAGE, attributes, source)? };
    }
    let mut run = Run::default();
    for region in map.regions() {
        for (range, permissions) in pieces(region.range(), region.kind, image) {
            if let Some(done) = run.extend(range, permissions) {
                map_direct(&mut tables, done, source)?;
            }
        }
    }
    if let Some(last) = run.0 {
        map_direct(&mut tables, last, source)?;
    }
    // From here on no root entry changes, so that other roots can share them.
    tables.populate_root(DYNAMIC, source)?;
    Ok(tables)
}

/// Tables that are the kernel's and also map the page at the physical address `page` to itself, to be executed: a CPU
/// that switches paging on runs there.
///
/// # Errors
/// [`MapError`].
pub fn with_identity_page(
    kernel: &PageTables,
    page: u64,
    source: &mut dyn FrameSource,
) -> Result<PageTables, MapError> {
    let mut tables = kernel.sibling(source)?;
    let attributes = Attributes::local(Permissions::ReadExecute);
    // SAFETY: these tables are not in use.
    unsafe { tables.map(page..page + 4096, page, attributes, source)? };
    Ok(tables)
}

fn map_direct(
    tables: &mut PageTables,
    (range, permissions): (Range<u64>, Permissions),
    source: &mut dyn FrameSource,
) -> Result<(), MapError> {
    let at = range.start + DIRECT_MAP..range.end + DIRECT_MAP;
    // SAFETY: the tables are not in use.
    unsafe { tables.map(at, range.start, Attributes::kernel(permissions), source) }
}

/// Neighbouring pieces with the same permissions, joined so that they get large pages.
#[derive(Default)]
struct Run(Option<(Range<u64>, Permissions)>);

impl Run {
    /// Adds a piece. Returns the run before it if the piece does not continue it.
    fn extend(&mut self, range: Range<u64>, permissions: Permissions) -> Option<(Range<u64>, Permissions)> {
        match &mut self.0 {
            Some((run, same)) if run.end == range.start && *same == permissions => {
                run.end = range.end;
                None
            }
            _ => self.0.replace((range, permissions)),
        }
    }
}

/// What the direct map allows on a region of physical memory, piece by piece in ascending order.
fn pieces(
    region: Range<u64>,
    kind: Kind,
    image: &[Section],
) -> impl Iterator<Item = (Range<u64>, Permissions)> {
    let (end, general) = match kind {
        Kind::Usable | Kind::Kernel => (region.end, Some(Permissions::ReadWrite)),
        Kind::AcpiReclaimable | Kind::AcpiNvs => (region.end, Some(Permissions::Read)),
        Kind::Reserved => (region.end.min(FIRMWARE_LIMIT), Some(Permissions::Read)),
        Kind::Bad => (region.end, None),
    };
    let mut at = region.start;
    core::iter::from_fn(move || {
        let general = general?;
        if at >= end {
            return None;
        }
        // The next change is the nearest bound of a protected section.
        let (mut next, mut permissions) = (end, general);
        for section in image.iter().filter(|section| section.permissions != Permissions::ReadWrite) {
            let (start, stop) = (section.range.start - IMAGE, section.range.end - IMAGE);
            if at < start {
                next = next.min(start);
            } else if at < stop {
                next = next.min(stop);
                permissions = Permissions::Read;
            }
        }
        let piece = at..next;
        at = next;
        Some((piece, permissions))
    })
}

#[cfg(test)]
mod tests;
