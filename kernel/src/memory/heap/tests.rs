use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Pages from the host's allocator, never given back, with at most `LIMIT` bytes.
fn grow(size: usize) -> Option<NonNull<u8>> {
    const LIMIT: usize = 256 << 20;
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    if GIVEN.fetch_add(size, Ordering::Relaxed) + size > LIMIT {
        GIVEN.fetch_sub(size, Ordering::Relaxed);
        return None;
    }
    let layout = Layout::from_size_align(size, 4096).unwrap();
    // SAFETY: not empty.
    NonNull::new(unsafe { std::alloc::alloc(layout) })
}

/// Memory that lies in one piece, handed out in order.
fn grow_in_order(size: usize) -> Option<NonNull<u8>> {
    const ARENA: usize = 8 << 20;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    static START: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let start = *START.get_or_init(|| {
        // SAFETY: not empty.
        unsafe { std::alloc::alloc(Layout::from_size_align(ARENA, 4096).unwrap()) as usize }
    });
    let offset = NEXT.fetch_add(size, Ordering::Relaxed);
    (offset + size <= ARENA).then(|| NonNull::new((start + offset) as *mut u8).unwrap())
}

struct Block {
    start: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Block {
    fn new(heap: &Heap, size: usize, align: usize, fill: u8) -> Block {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: not empty.
        let start = unsafe { heap.alloc(layout) };
        assert!(!start.is_null() && (start as usize).is_multiple_of(align));
        // SAFETY: the block has this size.
        unsafe { start.write_bytes(fill, size) };
        Block { start, layout, fill }
    }

    fn check(&self) {
        // SAFETY: the block is ours and initialised.
        let bytes = unsafe { core::slice::from_raw_parts(self.start, self.layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == self.fill), "somebody else wrote here");
    }

    fn free(self, heap: &Heap) {
        self.check();
        // SAFETY: allocated with this layout.
        unsafe { heap.dealloc(self.start, self.layout) };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(40)))]

    #[test]
    fn blocks_keep_what_is_written_to_them(steps in prop::collection::vec((0..4u8, 1..60_000usize, 0..13u32, any::<u8>()), 1..120)) {
        // SAFETY: `grow` gives memory for good.
        let heap = unsafe { Heap::new(grow) };
        let mut blocks: Vec<Block> = Vec::new();
        for (what, size, align, fill) in steps {
            match what {
                0 | 1 => blocks.push(Block::new(&heap, size, 1 << align, fill)),
                2 if !blocks.is_empty() => blocks.swap_remove(size % blocks.len()).free(&heap),
                3 if !blocks.is_empty() => {
                    let index = fill as usize % blocks.len();
                    let block = &mut blocks[index];
                    // SAFETY: allocated with this layout; the new size is not 0.
                    unsafe { block.start = heap.realloc(block.start, block.layout, size) };
                    let kept = Layout::from_size_align(size.min(block.layout.size()), block.layout.align()).unwrap();
                    Block { start: block.start, layout: kept, fill: block.fill }.check();
                    block.layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                    // SAFETY: the block has this size.
                    unsafe { block.start.write_bytes(block.fill, size) };
                }
                _ => {}
            }
            let stats = heap.stats();
            prop_assert_eq!(stats.allocations, blocks.len() as u64);
            prop_assert_eq!(stats.used, blocks.iter().map(|block| block.layout.size() as u64).sum::<u64>());
            prop_assert!(stats.used + stats.free <= stats.claimed);
        }
        blocks.into_iter().for_each(|block| block.free(&heap));
        prop_assert_eq!(heap.stats().used, 0);
    }
}

#[test]
fn growth_that_continues_the_last_block_extends_it() {
    // SAFETY: `grow_in_order` gives memory for good, and is used by this heap only.
    let heap = unsafe { Heap::new(grow_in_order) };
    let first = Block::new(&heap, GROWTH * 3 / 4, 8, 1);
    // More than is left and less than the seam could hold: it has to reach over the end of the first block.
    let second = Block::new(&heap, GROWTH, 8, 2);
    let gap = second.start as usize - (first.start as usize + first.layout.size());
    assert!(gap < 64, "{gap} bytes lie between the blocks");
    first.free(&heap);
    second.free(&heap);
}

#[test]
fn what_cannot_be_had_is_null_and_counted() {
    // SAFETY: it gives nothing.
    let heap = unsafe { Heap::new(|_| None) };
    // SAFETY: not empty.
    let memory = unsafe { heap.alloc(Layout::new::<u64>()) };
    assert!(memory.is_null());
    // SAFETY: not empty; larger than any address space.
    let memory = unsafe { heap.alloc(Layout::from_size_align(isize::MAX as usize - 8, 8).unwrap()) };
    assert!(memory.is_null());
    assert_eq!(heap.stats().refused, 2);
}
