//! One stretch of usable memory and the buddies in it.

use core::ops::Range;

use super::bitmap::Bitmap;
use super::{FrameError, MAX_ORDER, ORDERS};

/// All numbers are in frames.
///
/// # Invariants
/// * A block of order `o` is a run of `1 << o` frames whose first is a multiple of that; blocks are numbered from `base`.
/// * The set of order `o` holds exactly the free blocks that are not part of a larger free block. No two of them are
///   buddies, below the order `top`.
/// * A block of order `top` that is not in `opened` has no smaller block in any set.
#[derive(Debug)]
pub(super) struct Zone<'m> {
    pub(super) start: u64,
    pub(super) end: u64,
    shape: Shape,
    words: &'m mut [u64],
    pub(super) free_blocks: [u64; ORDERS],
}

/// What a zone's words are divided into: the sets of orders 0, 1, .. `top`, then the record of opened blocks.
#[derive(Debug)]
struct Shape {
    /// The zone's start, rounded down to a block of order `top`.
    base: u64,
    /// The largest order that fits.
    top: usize,
    /// How many blocks of order `top` the zone touches.
    tops: usize,
    /// Where the set of each order begins; at `top + 1` the record of opened blocks.
    offsets: [usize; ORDERS + 1],
}

impl Shape {
    fn of(frames: &Range<u64>) -> Shape {
        let top = ((frames.end - frames.start).ilog2() as usize).min(MAX_ORDER);
        let base = frames.start >> top << top;
        let tops = (frames.end - base).div_ceil(1 << top) as usize;
        let mut shape = Shape { base, top, tops, offsets: [0; ORDERS + 1] };
        for order in 0..=top {
            shape.offsets[order + 1] = shape.offsets[order] + shape.set(order).words();
        }
        shape
    }

    fn set(&self, order: usize) -> Bitmap {
        let block = 1 << (self.top - order);
        Bitmap::new(self.tops * block, block)
    }

    /// Remembers which blocks of order `top` were opened.
    fn opened(&self) -> Bitmap {
        Bitmap::new(self.tops, 1)
    }

    fn words_of(&self, order: usize) -> Range<usize> {
        self.offsets[order]..self.offsets[order + 1]
    }

    fn words_of_opened(&self) -> Range<usize> {
        let start = self.offsets[self.top + 1];
        start..start + self.opened().words()
    }

    fn words(&self) -> usize {
        self.words_of_opened().end
    }
}

impl<'m> Zone<'m> {
    /// How many words a zone of these frames needs.
    pub(super) fn words_needed(frames: &Range<u64>) -> usize {
        Shape::of(frames).words()
    }

    /// A zone in which every frame is free. `words` are [`words_needed`](Zone::words_needed), with any content.
    pub(super) fn new(frames: Range<u64>, words: &'m mut [u64]) -> Zone<'m> {
        let shape = Shape::of(&frames);
        for order in 0..=shape.top {
            shape.set(order).clear(&mut words[shape.words_of(order)]);
        }
        shape.opened().clear(&mut words[shape.words_of_opened()]);
        let mut zone = Zone { start: frames.start, end: frames.end, shape, words, free_blocks: [0; ORDERS] };
        let mut frame = frames.start;
        while frame < frames.end {
            let aligned = (frame.trailing_zeros() as usize).min(zone.shape.top);
            let order = ((frames.end - frame).ilog2() as usize).min(aligned);
            zone.insert(order, frame);
            frame += 1 << order;
        }
        zone
    }

    pub(super) fn contains(&self, frame: u64) -> bool {
        (self.start..self.end).contains(&frame)
    }

    /// How many bytes of records this zone keeps.
    pub(super) fn metadata_bytes(&self) -> u64 {
        size_of_val(self.words) as u64
    }

    /// Takes a block of `order` from the smallest free block that has one.
    pub(super) fn allocate(&mut self, order: usize) -> Option<u64> {
        let from = (order..=self.shape.top).find(|o| self.free_blocks[*o] != 0)?;
        let frame = self.first(from)?;
        self.take(frame, from, order);
        Some(frame)
    }

    /// Takes the lowest block of `order`, if it ends at or below `limit`.
    pub(super) fn allocate_below(&mut self, order: usize, limit: u64) -> Option<u64> {
        let (frame, from) = (order..=self.shape.top).filter_map(|o| Some((self.first(o)?, o))).min()?;
        if frame + (1 << order) > limit {
            return None;
        }
        self.take(frame, from, order);
        Some(frame)
    }

    /// Gives a block back and joins it with its buddy as long as that is free too.
    pub(super) fn free(&mut self, mut frame: u64, mut order: usize) -> Result<(), FrameError> {
        if order > self.shape.top || frame + (1 << order) > self.end {
            return Err(FrameError::Foreign);
        }
        if self.overlaps_free(frame, order) {
            return Err(FrameError::DoubleFree);
        }
        while order < self.shape.top {
            let buddy = frame ^ (1 << order);
            if !self.is_free(buddy, order) {
                break;
            }
            self.remove(order, buddy);
            frame &= !(1 << order);
            order += 1;
        }
        self.insert(order, frame);
        Ok(())
    }

    /// Removes the free block `frame` of order `from`, of which all but the first part of order `order` stays free.
    fn take(&mut self, frame: u64, from: usize, order: usize) {
        self.remove(from, frame);
        for half in (order..from).rev() {
            self.insert(half, frame + (1 << half));
        }
    }

    /// Whether any frame of a block is free.
    fn overlaps_free(&self, frame: u64, order: usize) -> bool {
        if (order..=self.shape.top).any(|o| self.is_free(frame >> o << o, o)) {
            return true;
        }
        let shape = &self.shape;
        self.is_open(frame)
            && (0..order).any(|o| {
                let first = self.number(o, frame);
                shape.set(o).any(&self.words[shape.words_of(o)], first..first + (1 << (order - o)))
            })
    }

    fn is_free(&self, frame: u64, order: usize) -> bool {
        let shape = &self.shape;
        (order == self.shape.top || self.is_open(frame))
            && shape.set(order).contains(&self.words[shape.words_of(order)], self.number(order, frame))
    }

    fn first(&self, order: usize) -> Option<u64> {
        let shape = &self.shape;
        let number = shape.set(order).first(&self.words[shape.words_of(order)])?;
        Some(self.shape.base + ((number as u64) << order))
    }

    fn number(&self, order: usize, frame: u64) -> usize {
        ((frame - self.shape.base) >> order) as usize
    }

    fn is_open(&self, frame: u64) -> bool {
        let shape = &self.shape;
        shape.opened().contains(&self.words[shape.words_of_opened()], self.number(self.shape.top, frame))
    }

    fn insert(&mut self, order: usize, frame: u64) {
        let (shape, number) = (&self.shape, self.number(order, frame));
        if order < self.shape.top && !self.is_open(frame) {
            let index = self.number(self.shape.top, frame);
            for o in 0..self.shape.top {
                shape.set(o).open(&mut self.words[shape.words_of(o)], index);
            }
            shape.opened().insert(&mut self.words[shape.words_of_opened()], index);
        }
        shape.set(order).insert(&mut self.words[shape.words_of(order)], number);
        self.free_blocks[order] += 1;
    }

    fn remove(&mut self, order: usize, frame: u64) {
        let (shape, number) = (&self.shape, self.number(order, frame));
        shape.set(order).remove(&mut self.words[shape.words_of(order)], number);
        self.free_blocks[order] -= 1;
    }
}
