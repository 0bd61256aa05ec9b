//! The heap's objects under the address checks: room around each, a record in front, and a wait before reuse.
//!
//! 1. An object gets a *header* in front of it, which says how large it is and where it was allocated and freed, and at least
//!    16 bytes behind it. None of that may be accessed, so an overflow meets forbidden memory, and from there the header
//!    is found by going back through the shadow.
//! 2. A freed object is forbidden as a whole and joins the end of the *quarantine*, a queue through the headers. It returns
//!    to the heap when [`QUARANTINE`] bytes came after it; until then an access to it is a use after free with both
//!    stacks, rather than damage to somebody else's object.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;

use sync::IrqSpinLock;

use super::address::{FREED, GRANULE, HEADER, Mistake, REDZONE, as_allocator, copy, mark, shadow_of};
use super::stack::Stack;
use crate::memory::heap::Heap;

/// Bytes of freed objects, with what surrounds them, that wait. If memory runs out, fewer do.
const QUARANTINE: u64 = 512 * 1024;
/// The least that is forbidden behind an object, in bytes.
const BEHIND: u64 = 16;
/// How far from an access its object is looked for, in bytes.
const REACH: u64 = 64 * 1024;

/// In front of every object, whose first byte comes right behind it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// Of the object, in bytes.
    size: u64,
    /// The object after this one in the quarantine, or 0.
    next: u64,
    /// Of the object.
    align: u64,
    allocated: Stack,
    freed: Stack,
}

const HEADER_SIZE: u64 = size_of::<Header>() as u64;
const _: () = assert!(HEADER_SIZE.is_multiple_of(GRANULE));

/// Reads the header of an object, without a hook.
///
/// # Safety
/// `object` is the address of a heap object, in use or in the quarantine.
unsafe fn header(object: u64) -> Header {
    let mut header = Header { size: 0, next: 0, align: 0, allocated: Stack::NONE, freed: Stack::NONE };
    // SAFETY: the header is in front of the object, by the caller's promise.
    unsafe { copy(&raw mut header as u64, object - HEADER_SIZE, HEADER_SIZE) };
    header
}

/// Writes it.
///
/// # Safety
/// There is room of the caller's own in front of `object`.
unsafe fn set_header(object: u64, header: Header) {
    // SAFETY: the caller's promise.
    unsafe { copy(object - HEADER_SIZE, &raw const header as u64, HEADER_SIZE) };
}

/// Where the block of an object with this layout begins before the object, and the block's layout.
fn block(size: u64, align: u64) -> Option<(u64, Layout)> {
    let align = align.max(GRANULE);
    let before = HEADER_SIZE.checked_next_multiple_of(align)?;
    let total = before.checked_add(size)?.checked_add(BEHIND)?.checked_next_multiple_of(GRANULE)?;
    Some((before, Layout::from_size_align(total as usize, align as usize).ok()?))
}

/// Freed objects, the oldest first.
struct Quarantine {
    first: u64,
    last: u64,
    bytes: u64,
}

static WAITING: IrqSpinLock<Quarantine> = IrqSpinLock::new(Quarantine { first: 0, last: 0, bytes: 0 });

impl Quarantine {
    fn push(&mut self, object: u64, bytes: u64) {
        if self.first == 0 {
            self.first = object;
        } else {
            // SAFETY: objects in the quarantine keep their headers, which are changed under its lock only.
            unsafe { set_header(self.last, Header { next: object, ..header(self.last) }) };
        }
        self.last = object;
        self.bytes += bytes;
    }

    /// Takes the oldest out if more than `keep` bytes wait: its block, and the block's layout.
    fn pop(&mut self, keep: u64) -> Option<(u64, Layout)> {
        if self.first == 0 || self.bytes <= keep {
            return None;
        }
        let object = self.first;
        // SAFETY: as above.
        let Header { size, align, next, .. } = unsafe { header(object) };
        let (before, layout) = block(size, align)?;
        self.first = next;
        self.bytes -= layout.size() as u64;
        Some((object - before, layout))
    }
}

/// The heap with what surrounds its objects.
pub(crate) struct Checked(pub(crate) &'static Heap);

impl Checked {
    /// Gives back what waits, up to `keep` bytes of it. Returns whether there was something.
    fn give_back(&self, keep: u64) -> bool {
        let mut any = false;
        loop {
            // In a statement of its own: the lock is not held while the heap works.
            let oldest = WAITING.lock().pop(keep);
            let Some((start, layout)) = oldest else { return any };
            mark(start, layout.size() as u64, REDZONE);
            // SAFETY: the block was allocated with this layout, and out of the quarantine it is nobody else's.
            as_allocator(|| unsafe { self.0.dealloc(start as *mut u8, layout) });
            any = true;
        }
    }
}

// SAFETY: an object is a part of a block of the heap, aligned as asked because the block is and its beginning is cut by a
// multiple of the alignment; the block is given back once, when the object was.
unsafe impl GlobalAlloc for Checked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size() as u64, layout.align() as u64);
        let Some((before, block)) = block(size, align) else { return core::ptr::null_mut() };
        // SAFETY: the block is not empty.
        let take = || as_allocator(|| unsafe { self.0.alloc(block) });
        let mut start = take();
        if start.is_null() && self.give_back(0) {
            start = take();
        }
        if start.is_null() {
            return start;
        }
        let object = start as u64 + before;
        let allocated = Stack::above(1);
        // SAFETY: the block is ours, and has room for the header.
        unsafe { set_header(object, Header { size, next: 0, align, allocated, freed: Stack::NONE }) };
        mark(start as u64, block.size() as u64, REDZONE);
        mark(object - HEADER_SIZE, HEADER_SIZE, HEADER);
        mark(object, size, 0);
        object as *mut u8
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let object = memory as u64;
        let freed = Stack::above(1);
        // Objects exist before the shadow does; then nothing is known about them but what their headers say.
        if shadow_of(object) == FREED {
            let what = format_args!("double free");
            return Mistake { what, address: object, object: Object::near(object), made: freed }.tell();
        }
        // SAFETY: the caller gives back what `alloc` gave.
        let before = unsafe { header(object) };
        if before.size != layout.size() as u64 {
            let what = format_args!("free of {} bytes", layout.size());
            Mistake { what, address: object, object: Object::near(object), made: freed }.tell();
        }
        let Some((_, block)) = block(before.size, before.align) else { return };
        // SAFETY: as above; nobody else looks at the header of an object in use.
        unsafe { set_header(object, Header { freed, next: 0, ..before }) };
        mark(object, before.size, FREED);
        WAITING.lock().push(object, block.size() as u64);
        self.give_back(QUARANTINE);
    }
}

/// An object that a forbidden access may have meant.
pub(super) struct Object {
    address: u64,
    header: Header,
}

impl Object {
    /// Looks for the object whose surroundings `address` is in: by going up if that is a header, or else down to one.
    pub(super) fn near(address: u64) -> Option<Object> {
        let mut at = address & !(GRANULE - 1);
        if shadow_of(at) == HEADER {
            while shadow_of(at) == HEADER {
                at += GRANULE;
            }
        } else {
            let lowest = at.saturating_sub(REACH);
            while shadow_of(at - GRANULE) != HEADER {
                at -= GRANULE;
                if at < lowest {
                    return None;
                }
            }
        }
        // SAFETY: the shadow says that a header ends here.
        Some(Object { address: at, header: unsafe { header(at) } })
    }

    fn is_freed(&self) -> bool {
        self.header.freed.innermost() != 0
    }

    /// Says where `address` is in this object, and whose the object is or was.
    pub(super) fn seen_from(&self, address: u64) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            let &Object { address: start, header } = self;
            let end = start + header.size;
            match address {
                a if a < start => write!(f, ", {} bytes before", start - a)?,
                a if a >= end => write!(f, ", {} bytes behind", a - end)?,
                a => write!(f, ", {} bytes into", a - start)?,
            }
            write!(f, " an object of {} bytes allocated in {}", header.size, header.allocated.place())?;
            if self.is_freed() {
                write!(f, " and freed in {}", header.freed.place())?;
            }
            Ok(())
        })
    }

    /// The stacks of its owners.
    pub(super) fn history(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            write!(f, "\n  allocated{}", self.header.allocated)?;
            if self.is_freed() {
                write!(f, "\n  freed{}", self.header.freed)?;
            }
            Ok(())
        })
    }
}
