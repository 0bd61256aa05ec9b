//! A set of CPUs as a place.

use core::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "alloc")]
use super::CpuMask;
use super::{MAX_WORDS, WORD_BITS, place};
use crate::CpuId;

/// A set of CPUs that all CPUs may change and read at once, without locks.
///
/// Each bit is consistent on its own: [`set`](Self::set) and [`clear`](Self::clear) are release and acquire, and
/// [`test`](Self::test) and [`snapshot`](Self::snapshot) acquire, so whoever sees a bit also sees what was stored before
/// the bit was set. A snapshot reads word by word (64 CPUs at a time); bits that change meanwhile may or may not be in
/// it. An algorithm that needs one moment for all CPUs adds its own lock or fence.
///
/// Contexts: any. Cost: one locked instruction to change, one load to test.
#[derive(Debug)]
pub struct AtomicCpuMask {
    words: [AtomicU64; MAX_WORDS],
}

impl AtomicCpuMask {
    /// The empty set.
    pub const fn new() -> AtomicCpuMask {
        AtomicCpuMask { words: [const { AtomicU64::new(0) }; MAX_WORDS] }
    }

    /// Adds a CPU; returns whether it was absent. Linux: `!cpumask_test_and_set_cpu`.
    pub fn set(&self, cpu: CpuId) -> bool {
        let (index, bit) = place(cpu);
        // AcqRel: the release pairs with the acquire of whoever sees the bit set (`test`, `snapshot`, `clear`); the
        // acquire pairs with the release of the `clear` that this call undoes.
        self.words[index].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Removes a CPU; returns whether it was present. Linux: `cpumask_test_and_clear_cpu`.
    pub fn clear(&self, cpu: CpuId) -> bool {
        let (index, bit) = place(cpu);
        // AcqRel: pairs with `set`, both ways.
        self.words[index].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Whether the CPU is in the set.
    pub fn test(&self, cpu: CpuId) -> bool {
        let (index, bit) = place(cpu);
        // Acquire: pairs with the release in `set`.
        self.words[index].load(Ordering::Acquire) & bit != 0
    }

    /// The set as a value. Allocates if a CPU above 127 is in it.
    #[cfg(feature = "alloc")]
    pub fn snapshot(&self) -> CpuMask {
        let mut mask = CpuMask::new();
        for (index, word) in self.words.iter().enumerate() {
            // Acquire: pairs with the release in `set`.
            let word = word.load(Ordering::Acquire);
            if word != 0 {
                mask.grow(index);
                mask.words_mut()[index] = word;
            }
        }
        mask
    }

    /// The CPUs in ascending order, each word read when the walk comes to it. Never allocates.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            // Acquire: pairs with the release in `set`.
            let mut bits = word.load(Ordering::Acquire);
            core::iter::from_fn(move || {
                let low = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                CpuId::new((index * WORD_BITS) as u32 + low)
            })
        })
    }
}

impl Default for AtomicCpuMask {
    fn default() -> AtomicCpuMask {
        AtomicCpuMask::new()
    }
}
