//! A set of CPUs as a value.

use core::fmt;
use core::str::FromStr;

use alloc::vec::Vec;

use super::{MAX_WORDS, WORD_BITS, place};
use crate::{CpuId, MAX_CPUS};

/// Words that a mask holds without the heap: 128 CPUs.
const INLINE_WORDS: usize = 2;

/// A set of CPUs.
///
/// Sets whose CPUs are all below 128 live inline; higher ones use the heap, and so must not be made where allocating is
/// forbidden (inserting, [`all`](CpuMask::all), set algebra and `clone` can allocate; everything else cannot).
///
/// ```
/// use hal::{CpuId, cpumask::CpuMask};
///
/// let mut mask: CpuMask = "0-3,7".parse()?;
/// mask.remove(CpuId::BOOT);
/// assert_eq!(mask.to_string(), "1-3,7");
/// assert_eq!(mask.weight(), 4);
/// assert_eq!(mask.next(CpuId::new(3).unwrap()), CpuId::new(7));
/// # Ok::<(), hal::cpumask::ParseMaskError>(())
/// ```
///
/// # Invariants
/// Bits at and above [`MAX_CPUS`] are clear.
#[derive(Clone)]
pub struct CpuMask {
    words: Words,
}

#[derive(Clone)]
enum Words {
    Inline([u64; INLINE_WORDS]),
    Heap(Vec<u64>),
}

impl CpuMask {
    /// The empty set. Does not allocate.
    pub const fn new() -> CpuMask {
        CpuMask { words: Words::Inline([0; INLINE_WORDS]) }
    }

    /// CPUs `0..count`; counts above [`MAX_CPUS`] mean `MAX_CPUS`.
    pub fn all(count: u32) -> CpuMask {
        (0..count.min(MAX_CPUS as u32)).filter_map(CpuId::new).collect()
    }

    /// The set of one CPU. Linux: `cpumask_of`.
    pub fn of(cpu: CpuId) -> CpuMask {
        let mut mask = CpuMask::new();
        mask.insert(cpu);
        mask
    }

    fn words(&self) -> &[u64] {
        match &self.words {
            Words::Inline(words) => words,
            Words::Heap(words) => words,
        }
    }

    pub(super) fn words_mut(&mut self) -> &mut [u64] {
        match &mut self.words {
            Words::Inline(words) => words,
            Words::Heap(words) => words,
        }
    }

    fn word(&self, index: usize) -> u64 {
        self.words().get(index).copied().unwrap_or(0)
    }

    /// Makes room for word `index`.
    pub(super) fn grow(&mut self, index: usize) {
        if index < self.words().len() {
            return;
        }
        // In one step to the largest size: masks that need the heap at all belong to machines with many CPUs.
        let mut heap = Vec::with_capacity(MAX_WORDS);
        heap.extend_from_slice(self.words());
        heap.resize(MAX_WORDS, 0);
        self.words = Words::Heap(heap);
    }

    /// Adds a CPU; returns whether it was absent. Linux: `__cpumask_test_and_set_cpu`, inverted.
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        let (index, bit) = place(cpu);
        self.grow(index);
        let word = &mut self.words_mut()[index];
        let absent = *word & bit == 0;
        *word |= bit;
        absent
    }

    /// Removes a CPU; returns whether it was present.
    pub fn remove(&mut self, cpu: CpuId) -> bool {
        let (index, bit) = place(cpu);
        match self.words_mut().get_mut(index) {
            Some(word) => {
                let present = *word & bit != 0;
                *word &= !bit;
                present
            }
            None => false,
        }
    }

    /// Removes all. Keeps the memory.
    pub fn clear(&mut self) {
        self.words_mut().fill(0);
    }

    /// Whether the CPU is in the set. Linux: `cpumask_test_cpu`.
    pub fn contains(&self, cpu: CpuId) -> bool {
        let (index, bit) = place(cpu);
        self.word(index) & bit != 0
    }

    /// Whether the set has no CPU.
    pub fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }

    /// How many CPUs the set has. Linux: `cpumask_weight`.
    pub fn weight(&self) -> usize {
        self.words().iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The lowest CPU. Linux: `cpumask_first`.
    pub fn first(&self) -> Option<CpuId> {
        self.at_or_above(0)
    }

    /// The lowest CPU above `after`. Linux: `cpumask_next`.
    pub fn next(&self, after: CpuId) -> Option<CpuId> {
        self.at_or_above(after.index() + 1)
    }

    /// The lowest CPU above `after`, or else the lowest of all: a walk round the set. Linux: `cpumask_next_wrap`.
    pub fn next_wrapping(&self, after: CpuId) -> Option<CpuId> {
        self.next(after).or_else(|| self.first())
    }

    fn at_or_above(&self, number: usize) -> Option<CpuId> {
        let mut index = number / WORD_BITS;
        let mut word = self.word(index) & (u64::MAX << (number % WORD_BITS));
        while word == 0 {
            index += 1;
            word = *self.words().get(index)?;
        }
        CpuId::new((index * WORD_BITS) as u32 + word.trailing_zeros())
    }

    /// The CPUs in ascending order. Linux: `for_each_cpu`.
    pub fn iter(&self) -> Iter<'_> {
        Iter { mask: self, from: 0 }
    }

    /// Whether every CPU of this set is in `other`.
    pub fn is_subset(&self, other: &CpuMask) -> bool {
        self.words().iter().enumerate().all(|(index, word)| word & !other.word(index) == 0)
    }

    /// Whether the two sets share a CPU.
    pub fn intersects(&self, other: &CpuMask) -> bool {
        self.words().iter().enumerate().any(|(index, word)| word & other.word(index) != 0)
    }

    fn zip(&self, other: &CpuMask, f: impl Fn(u64, u64) -> u64) -> CpuMask {
        let mut mask = CpuMask::new();
        for index in 0..self.words().len().max(other.words().len()) {
            let word = f(self.word(index), other.word(index));
            if word != 0 {
                mask.grow(index);
                mask.words_mut()[index] = word;
            }
        }
        mask
    }
}

macro_rules! algebra {
    ($($(#[$meta:meta])* $trait:ident $method:ident $assign:ident $assign_method:ident $f:expr;)*) => {$(
        impl core::ops::$trait for &CpuMask {
            type Output = CpuMask;
            $(#[$meta])*
            fn $method(self, other: &CpuMask) -> CpuMask {
                self.zip(other, $f)
            }
        }
        impl core::ops::$assign<&CpuMask> for CpuMask {
            fn $assign_method(&mut self, other: &CpuMask) {
                *self = self.zip(other, $f);
            }
        }
    )*};
}

algebra! {
    /// The union.
    BitOr bitor BitOrAssign bitor_assign |a, b| a | b;
    /// The intersection.
    BitAnd bitand BitAndAssign bitand_assign |a, b| a & b;
    /// The CPUs that are in one of the two sets only.
    BitXor bitxor BitXorAssign bitxor_assign |a, b| a ^ b;
    /// The CPUs of the first set that are not in the second.
    Sub sub SubAssign sub_assign |a, b| a & !b;
}

impl Default for CpuMask {
    fn default() -> CpuMask {
        CpuMask::new()
    }
}

/// Sets are equal if they have the same CPUs, however they are stored.
impl PartialEq for CpuMask {
    fn eq(&self, other: &CpuMask) -> bool {
        let words = self.words().len().max(other.words().len());
        (0..words).all(|index| self.word(index) == other.word(index))
    }
}

impl Eq for CpuMask {}

impl FromIterator<CpuId> for CpuMask {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> CpuMask {
        let mut mask = CpuMask::new();
        mask.extend(cpus);
        mask
    }
}

impl Extend<CpuId> for CpuMask {
    fn extend<I: IntoIterator<Item = CpuId>>(&mut self, cpus: I) {
        for cpu in cpus {
            self.insert(cpu);
        }
    }
}

impl<'a> IntoIterator for &'a CpuMask {
    type Item = CpuId;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The CPUs of a [`CpuMask`] in ascending order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    mask: &'a CpuMask,
    from: usize,
}

impl Iterator for Iter<'_> {
    type Item = CpuId;
    fn next(&mut self) -> Option<CpuId> {
        let cpu = self.mask.at_or_above(self.from)?;
        self.from = cpu.index() + 1;
        Some(cpu)
    }
}

impl core::iter::FusedIterator for Iter<'_> {}

/// Ranges, as in `0-3,7`; the empty set is the empty string. Linux: the `%*pbl` format.
impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut rest = self.first();
        while let Some(low) = rest {
            let mut high = low;
            rest = self.next(high);
            while let Some(next) = rest.filter(|next| next.index() == high.index() + 1) {
                high = next;
                rest = self.next(high);
            }
            write!(f, "{comma}{low}")?;
            if high != low {
                write!(f, "-{high}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMask({self})")
    }
}

/// Why a text is no set of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseMaskError {
    /// A part between commas is not `N` or `N-M` in decimal.
    Syntax,
    /// A range ends before it begins.
    Backwards {
        /// The first number of the range.
        low: u32,
        /// The last number of the range.
        high: u32,
    },
    /// The number is [`MAX_CPUS`] or more.
    TooHigh {
        /// The number.
        number: u32,
    },
}

impl fmt::Display for ParseMaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseMaskError::Syntax => {
                f.write_str("write CPUs as numbers and ranges with commas between, like 0-3,7")
            }
            ParseMaskError::Backwards { low, high } => {
                write!(f, "the range {low}-{high} runs backwards; write {high}-{low}")
            }
            ParseMaskError::TooHigh { number } => {
                write!(f, "there is no CPU {number}; the highest of this build is {}", MAX_CPUS - 1)
            }
        }
    }
}

impl core::error::Error for ParseMaskError {}

/// Reads what `Display` writes; spaces around numbers are allowed, and parts may come in any order and overlap.
impl FromStr for CpuMask {
    type Err = ParseMaskError;

    fn from_str(text: &str) -> Result<CpuMask, ParseMaskError> {
        let mut mask = CpuMask::new();
        if text.trim().is_empty() {
            return Ok(mask);
        }
        let number = |text: &str| {
            let text = text.trim();
            // `u32::from_str` would also take a plus sign.
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits {
                return Err(ParseMaskError::Syntax);
            }
            // Digits only, so the one error left is that the number does not fit.
            Ok(text.parse().unwrap_or(u32::MAX))
        };
        for part in text.split(',') {
            let (low, high) = match part.split_once('-') {
                Some((low, high)) => (number(low)?, number(high)?),
                None => (number(part)?, number(part)?),
            };
            if high < low {
                return Err(ParseMaskError::Backwards { low, high });
            }
            let last = CpuId::new(high).ok_or(ParseMaskError::TooHigh { number: high })?;
            mask.extend((low..=last.as_u32()).filter_map(CpuId::new));
        }
        Ok(mask)
    }
}
