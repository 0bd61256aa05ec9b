//! The same work word by word: what the vector forms are compared with, and what does it where they cannot.

use super::{LANES, Page, Pattern, Sum};

/// The checksum of a page.
pub fn sum(page: &Page) -> Sum {
    let mut sum = Sum::default();
    for group in page.chunks_exact(LANES) {
        for (lane, word) in group.iter().enumerate() {
            sum.words[lane] = sum.words[lane].wrapping_add(*word);
            sum.sums[lane] = sum.sums[lane].wrapping_add(sum.words[lane]);
        }
    }
    sum
}

/// The bits in which a page differs from a pattern that fills it.
pub fn difference(page: &Page, pattern: &Pattern) -> u64 {
    page.chunks_exact(LANES)
        .flat_map(|group| group.iter().zip(pattern))
        .fold(0, |bits, (a, b)| bits | (a ^ b))
}
