//! The kernel's heap: `talc` between the frame allocator and `alloc`.
//!
//! It starts without memory, grows by what it needs and at least [`GROWTH`] at a time, and does not shrink. A block of
//! frames that continues the last one extends it, so that growth leaves few seams.
//!
//! Interrupts are off during an operation; allocating is allowed in task and interrupt context, not in NMI. An
//! allocation that fails returns null, which `alloc` turns into a panic unless the caller asked by a `try_` function.
//! Linux: `kmalloc` with `GFP_ATOMIC`.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use hal::x86_64::layout::PAGE_SIZE;
use sync::IrqSpinLock;
use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// The least that the heap grows by, in bytes, if there is that much in one piece.
pub const GROWTH: usize = 128 * 1024;

/// What the allocator needs around a request: its own tables in the first block, tags, alignment.
const OVERHEAD: usize = talc::min_first_heap_size::<DefaultBinning>() + 128;

/// Gives contiguous pages: the number of bytes, a multiple of the page size, to the address of memory that is the
/// heap's from then on.
pub type Grow = fn(usize) -> Option<NonNull<u8>>;

/// An allocator that grows on demand.
pub struct Heap {
    talc: IrqSpinLock<Talc<Pages, DefaultBinning>>,
}

/// Where the memory comes from, and where the last of it ends.
#[derive(Debug)]
struct Pages {
    grow: Grow,
    end: Option<NonNull<u8>>,
    refused: u64,
}

// SAFETY: `end` is an address that is only compared and handed to the allocator that the value is a part of.
unsafe impl Send for Pages {}

/// A reading of the heap's state, in bytes unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapStats {
    /// Taken from the frame allocator.
    pub claimed: u64,
    /// In use.
    pub used: u64,
    /// Free, in pieces.
    pub free: u64,
    /// Allocations that exist.
    pub allocations: u64,
    /// Allocations since boot.
    pub total_allocations: u64,
    /// Requests that could not be met.
    pub refused: u64,
}

impl Heap {
    /// A heap that has nothing yet and gets its memory from `grow`.
    ///
    /// # Safety
    /// `grow` gives writable memory, of the size it is asked for, that nothing else ever uses. It does not allocate from
    /// this heap.
    pub const unsafe fn new(grow: Grow) -> Heap {
        Heap { talc: IrqSpinLock::new(Talc::new(Pages { grow, end: None, refused: 0 })) }
    }

    /// The present state.
    pub fn stats(&self) -> HeapStats {
        let talc = self.talc.lock();
        let counters = talc.counters();
        HeapStats {
            claimed: counters.claimed_bytes as u64,
            used: counters.allocated_bytes as u64,
            free: counters.available_bytes as u64,
            allocations: counters.allocation_count as u64,
            total_allocations: counters.total_allocation_count,
            refused: talc.source.refused,
        }
    }
}

// SAFETY: every operation is the one of `talc` with the same contract, under a lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller gives a layout that is not empty.
        unsafe { self.talc.lock().allocate(layout) }.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back what `alloc` gave for this layout.
        unsafe { self.talc.lock().deallocate(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the memory has this layout, and the new size is not 0, by the caller's promise.
        if unsafe { self.talc.lock().try_realloc_in_place(memory, layout, size) } {
            return memory;
        }
        // The lock is not held while copying, which may take long.
        // SAFETY: the caller promises that the new size is valid with this alignment; the blocks are different ones and
        // each has room for the smaller size.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(memory, new, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            new
        }
    }
}

// SAFETY: uses the allocator that it is handed, and `grow`, which does not allocate.
unsafe impl Source for Pages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let page = PAGE_SIZE as usize;
        let needed = layout
            .size()
            .checked_add(layout.align())
            .and_then(|size| size.checked_add(OVERHEAD)?.checked_next_multiple_of(page));
        let grown = needed.and_then(|needed| {
            let generous = needed.max(GROWTH);
            let grow = talc.source.grow;
            // Almost full: less than a generous piece may still be had.
            grow(generous)
                .map(|start| (start, generous))
                .or_else(|| grow(needed).map(|start| (start, needed)))
        });
        let Some((start, size)) = grown else {
            talc.source.refused += 1;
            return Err(());
        };
        let end = start.as_ptr().wrapping_add(size);
        let last = talc.source.end;
        // SAFETY: the memory is the heap's by the promise of `grow`; `last` is where the latest heap ends, and neither it
        // nor its successor is ever truncated.
        let new_end = unsafe {
            match last {
                Some(last) if last == start => Some(talc.extend(last, end)),
                _ => talc.claim(start.as_ptr(), size),
            }
        };
        talc.source.end = new_end;
        new_end.map(drop).ok_or(())
    }
}

#[cfg(test)]
mod tests;
