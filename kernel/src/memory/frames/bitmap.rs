//! A set of small integers that finds its least member quickly.
//!
//! Level 0 has a bit for each integer; each level above has a bit for each word of the one below, set when that word is
//! not zero; the top level is one word. So members are found, added and removed in O(log64 n) steps.
//!
//! The words need not be zero at first. Integers come in *blocks* of equal size, and the words that belong to one block
//! alone are cleared only when that block is [opened](Bitmap::open). A set over a tebibyte of frames so costs next to
//! nothing until it is used.

use core::ops::Range;

const BITS: usize = u64::BITS as usize;
/// Enough for 2^36 integers.
const MAX_LEVELS: usize = 6;

/// The shape of a set; its words are handed to every operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bitmap {
    bits: usize,
    /// How many integers make a block: a power of two.
    block: usize,
}

impl Bitmap {
    pub(super) const fn new(bits: usize, block: usize) -> Bitmap {
        Bitmap { bits, block }
    }

    /// How many words all levels take.
    pub(super) fn words(self) -> usize {
        self.levels().map(|level| level.len()).sum()
    }

    /// The word range of each level, from level 0 up.
    fn levels(self) -> impl Iterator<Item = Range<usize>> {
        let (mut offset, mut bits, mut done) = (0, self.bits, false);
        core::iter::from_fn(move || {
            if done {
                return None;
            }
            let count = bits.div_ceil(BITS).max(1);
            let level = offset..offset + count;
            (offset, bits, done) = (level.end, count, count == 1);
            Some(level)
        })
    }

    /// Makes the set empty, with every block closed: clears the words that several blocks share.
    pub(super) fn clear(self, words: &mut [u64]) {
        let mut share = self.block;
        for level in self.levels() {
            if share < BITS {
                words[level].fill(0);
            }
            share /= BITS;
        }
    }

    /// Clears the words that belong to block number `index` alone. Until then none of its integers may be named.
    pub(super) fn open(self, words: &mut [u64], index: usize) {
        let mut share = self.block;
        for level in self.levels() {
            if share < BITS {
                return;
            }
            let count = share / BITS;
            let start = (level.start + index * count).min(level.end);
            words[start..(start + count).min(level.end)].fill(0);
            share = count;
        }
    }

    pub(super) fn contains(self, words: &[u64], bit: usize) -> bool {
        words[bit / BITS] >> (bit % BITS) & 1 != 0
    }

    /// Whether any integer of `range`, whose length is a power of two and its start a multiple of it, is in the set.
    pub(super) fn any(self, words: &[u64], range: Range<usize>) -> bool {
        let count = range.len();
        if count < BITS {
            return words[range.start / BITS] >> (range.start % BITS) & ((1 << count) - 1) != 0;
        }
        words[range.start / BITS..range.end / BITS].iter().any(|word| *word != 0)
    }

    pub(super) fn insert(self, words: &mut [u64], mut bit: usize) {
        for level in self.levels() {
            let word = &mut words[level.start + bit / BITS];
            let was_empty = *word == 0;
            *word |= 1 << (bit % BITS);
            if !was_empty {
                return;
            }
            bit /= BITS;
        }
    }

    pub(super) fn remove(self, words: &mut [u64], mut bit: usize) {
        for level in self.levels() {
            let word = &mut words[level.start + bit / BITS];
            *word &= !(1 << (bit % BITS));
            if *word != 0 {
                return;
            }
            bit /= BITS;
        }
    }

    /// The least member.
    pub(super) fn first(self, words: &[u64]) -> Option<usize> {
        let mut starts = [0; MAX_LEVELS];
        let mut count = 0;
        for level in self.levels() {
            starts[count] = level.start;
            count += 1;
        }
        let mut bit = 0;
        for start in starts[..count].iter().rev() {
            let word = words[start + bit];
            if word == 0 {
                return None;
            }
            bit = bit * BITS + word.trailing_zeros() as usize;
        }
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn agrees_with_a_tree_set(
            blocks in 1..40usize,
            log_block in 0..10u32,
            steps in prop::collection::vec((any::<u32>(), any::<bool>()), 1..200),
        ) {
            let block = 1 << log_block;
            let bitmap = Bitmap::new(blocks * block, block);
            let mut words = vec![0xdead_beef_dead_beef; bitmap.words()];
            bitmap.clear(&mut words);
            let (mut model, mut open) = (BTreeSet::new(), BTreeSet::new());
            for (value, insert) in steps {
                let bit = value as usize % (blocks * block);
                if open.insert(bit / block) {
                    bitmap.open(&mut words, bit / block);
                }
                if insert {
                    bitmap.insert(&mut words, bit);
                    model.insert(bit);
                } else {
                    bitmap.remove(&mut words, bit);
                    model.remove(&bit);
                }
                prop_assert_eq!(bitmap.contains(&words, bit), insert);
                prop_assert_eq!(bitmap.first(&words), model.first().copied());
                let whole = bit / block * block..(bit / block + 1) * block;
                prop_assert_eq!(bitmap.any(&words, whole.clone()), model.range(whole).next().is_some());
            }
        }
    }
}
