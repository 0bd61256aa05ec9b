//! The memory self-check: is what must not change as it was, and does free memory keep what is written to it?
//!
//! 1. At boot the pages of the image that nobody may write (code, constants, the template of per-CPU areas) are summed,
//!    each by itself. A check sums them again; a page whose sum differs has been overwritten through a stray pointer into
//!    the direct map, which no page protection of the image stops, or its memory is bad.
//! 2. Free frames are taken, at most half of them, filled with a pattern that depends on the frame, all of them, and only
//!    then compared: two addresses that reach one frame show. Then once more with every bit inverted.
//!
//! Both go page by page through [`vector`], and preemption is off for one page at a time. Where memory has
//! caches, frames that fit into them may be compared there: this finds wrong mappings, stray writes and memory that is
//! plainly bad, and is no test of memory chips.

use alloc::vec::Vec;

use crate::vector::{self, Page, Pattern, Sum};

/// Pages that must not change, and their sums.
#[derive(Debug)]
pub struct Constant<'a> {
    pages: &'a [Page],
    sums: Vec<Sum>,
}

impl<'a> Constant<'a> {
    /// Sums the pages as they are now.
    ///
    /// Contexts: those in which memory can be allocated.
    pub fn of(pages: &'a [Page]) -> Constant<'a> {
        Constant { pages, sums: pages.iter().map(vector::sum).collect() }
    }

    /// How many pages they are.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The pages that are not as they were.
    ///
    /// Contexts: any. Cost: a page's [`sum`](vector::sum) for each.
    pub fn changed(&self) -> impl Iterator<Item = &'a Page> {
        self.pages
            .iter()
            .zip(&self.sums)
            .filter(|(page, sum)| vector::sum(page) != **sum)
            .map(|(page, _)| page)
    }
}

/// What page number `frame` is filled with: four words that no other frame is filled with in the same round.
pub fn pattern(frame: u64, inverted: bool) -> Pattern {
    core::array::from_fn(|lane| {
        let word = hal::chaos::mix(frame << 2 | lane as u64);
        if inverted { !word } else { word }
    })
}

/// Fills a page with a pattern.
pub fn fill(page: &mut Page, pattern: &Pattern) {
    page.chunks_exact_mut(pattern.len()).for_each(|group| group.copy_from_slice(pattern));
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Pages of the image that were summed.
    pub constant_pages: usize,
    /// The addresses of those that have changed.
    pub changed: Vec<u64>,
    /// Free frames that were filled and compared.
    pub frames: usize,
    /// The physical addresses of those that did not keep what was written, and the bits in which they differed.
    pub bad: Vec<(u64, u64)>,
    /// How pages were worked on.
    pub method: &'static str,
    /// Nanoseconds that it took.
    pub ns: u64,
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.changed.is_empty() && self.bad.is_empty()
    }
}

#[cfg(target_os = "none")]
pub use machine::{check, remember_image};

#[cfg(target_os = "none")]
mod machine {
    use alloc::vec::Vec;

    use hal::x86_64::layout::{PAGE_SIZE, Permissions, phys_to_virt, sections};
    use hal::{Native, Platform};
    use spin::Once;

    use super::{Constant, Findings, fill, pattern};
    use crate::memory::{allocate_frames, free_frames, stats};
    use crate::vector::{Page, Width, difference};

    static IMAGE: Once<Vec<Constant<'static>>> = Once::new();

    /// Sums what the image has of constant pages. Once, at boot, when the registers are enabled and the final page tables
    /// are in use. Returns how many there are.
    pub fn remember_image() -> usize {
        let sums = || {
            let constant =
                sections().into_iter().filter(|section| section.permissions != Permissions::ReadWrite);
            let pages = constant.map(|section| {
                let count = (section.range.end - section.range.start) / PAGE_SIZE;
                // SAFETY: mapped pages of the image, page-aligned, which no page table of the kernel's lets anybody write.
                unsafe { core::slice::from_raw_parts(section.range.start as *const Page, count as usize) }
            });
            pages.map(Constant::of).collect()
        };
        IMAGE.call_once(sums).iter().map(Constant::len).sum()
    }

    /// Checks the image, and at most `limit` bytes of free memory, of which it takes half at most.
    ///
    /// Task context. Takes and gives back memory; others can allocate meanwhile.
    pub fn check(limit: u64) -> Findings {
        let begun = Native::now_ns();
        let image = IMAGE.get();
        let mut findings = Findings { method: Width::best().name(), ..Findings::default() };
        for part in image.into_iter().flatten() {
            findings.constant_pages += part.len();
            findings.changed.extend(part.changed().map(|page| page.as_ptr() as u64));
        }
        let blocks = take(limit.min(stats().free() / 2));
        for inverted in [false, true] {
            for frame in frames(&blocks) {
                // SAFETY: a frame that was allocated below and is given to nobody else; the direct map shows it.
                let page = unsafe { &mut *phys_to_virt(frame * PAGE_SIZE).cast::<Page>() };
                fill(page, &pattern(frame, inverted));
            }
            for frame in frames(&blocks) {
                // SAFETY: as above.
                let page = unsafe { &*phys_to_virt(frame * PAGE_SIZE).cast::<Page>() };
                match difference(page, &pattern(frame, inverted)) {
                    0 => {}
                    bits => findings.bad.push((frame * PAGE_SIZE, bits)),
                }
            }
        }
        findings.frames = frames(&blocks).count();
        blocks.into_iter().for_each(|(block, order)| free_frames(block, order));
        findings.ns = Native::now_ns() - begun;
        findings
    }

    /// Blocks of frames: where each begins, and the power of two of its frames.
    fn take(bytes: u64) -> Vec<(u64, usize)> {
        let mut blocks = Vec::new();
        let mut left = bytes / PAGE_SIZE;
        // Large blocks first; from then on each has to be smaller than what is left.
        let mut order = 9;
        while left > 0 {
            order = order.min(left.ilog2() as usize);
            match allocate_frames(order) {
                Some(block) => {
                    blocks.push((block, order));
                    left -= 1 << order;
                }
                None if order > 0 => order -= 1,
                None => break,
            }
        }
        blocks
    }

    /// The numbers of the frames in blocks.
    fn frames(blocks: &[(u64, usize)]) -> impl Iterator<Item = u64> {
        blocks.iter().flat_map(|(block, order)| (block / PAGE_SIZE..).take(1 << order))
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;

    use super::*;

    #[test]
    fn a_page_that_changes_is_named() {
        let pages = vec![[7; 512]; 5];
        let mut constant = Constant::of(&pages);
        assert_eq!((constant.len(), constant.changed().count()), (5, 0));
        // Changing what is borrowed as constant would be undefined behaviour in the test too. A sum of other contents looks
        // the same from here.
        let mut other = pages[3];
        other[100] ^= 1;
        constant.sums[3] = vector::sum(&other);
        let found: Vec<_> = constant.changed().map(core::ptr::from_ref).collect();
        assert_eq!(found, [&raw const pages[3]]);
    }

    #[test]
    fn frames_have_patterns_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for frame in 0..10_000 {
            for inverted in [false, true] {
                assert!(pattern(frame, inverted).into_iter().all(|word| seen.insert(word)), "frame {frame}");
            }
        }
    }

    #[test]
    fn what_a_page_does_not_keep_shows() {
        let mut page: Box<Page> = Box::new([0; 512]);
        let expected = pattern(77, true);
        fill(&mut page, &expected);
        assert_eq!(vector::difference(&page, &expected), 0);
        page[511] ^= 1 << 40 | 1;
        assert_eq!(vector::difference(&page, &expected), 1 << 40 | 1);
        // A frame that another address reaches too holds the other's pattern.
        fill(&mut page, &pattern(78, true));
        assert_ne!(vector::difference(&page, &expected), 0);
    }
}
