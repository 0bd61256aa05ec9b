//! Work on whole pages with vector registers: a checksum, and a comparison.
//!
//! 1. The work is written three times: for 32-byte vectors (AVX2), for 16-byte ones (SSE2, which every x86_64 processor
//!    has), and without vectors ([`scalar`]). All three give the same answer; the scalar one is the check of the others.
//! 2. A call opens a section ([`FpuGuard`]) for one page and closes it, so that preemption is off for as long as a page
//!    takes and no longer.
//! 3. Where no section can be had, because this interrupts one, the scalar form does it.
//!
//! The vector forms are `asm!`, because the kernel's target has no vector registers as far as the compiler is concerned:
//! intrinsics would compile, to scalar code.

mod asm;
pub mod scalar;

use core::sync::atomic::AtomicU64;

use hal::percpu;
use hal::x86_64::cpuid::Features;
use hal::x86_64::fpu::{self, FpuGuard};
use spin::Once;

/// A page, as words.
pub type Page = [u64; 512];

/// Words that go side by side: what one AVX2 register holds.
pub const LANES: usize = 4;

/// What a page repeats when it has been filled with a pattern.
pub type Pattern = [u64; LANES];

/// A page's checksum: for each lane the sum of its words, and the sum of those sums as they grew.
///
/// The second depends on the words' order. It is Fletcher's checksum with words of 64 bits, modulo 2^64, for four lanes
/// (the form that file systems use). Any change within 32 bytes that stand together is found, because it changes a lane's
/// sum. Linux has no counterpart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Sum {
    /// The sums of the lanes' words.
    pub words: [u64; LANES],
    /// The sums of those sums, after each step.
    pub sums: [u64; LANES],
}

/// How pages are worked on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// Word by word.
    Scalar,
    /// 16 bytes at a time.
    Sse2,
    /// 32 bytes at a time.
    Avx2,
}

impl Width {
    /// All of them.
    pub const ALL: [Width; 3] = [Width::Scalar, Width::Sse2, Width::Avx2];

    /// The widest that this machine has; asked once.
    ///
    /// Contexts: any. Cost: a load.
    pub fn best() -> Width {
        static BEST: Once<Width> = Once::new();
        *BEST.call_once(|| Width::choose(Features::detect().avx2, fpu::format().map_or(0, |f| f.components)))
    }

    /// The widest, given whether the processor has AVX2 and which components of state are enabled.
    fn choose(avx2: bool, components: u64) -> Width {
        const AVX: u64 = 1 << 2;
        if avx2 && components & AVX != 0 { Width::Avx2 } else { Width::Sse2 }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Width::Scalar => "word by word",
            Width::Sse2 => "SSE2",
            Width::Avx2 => "AVX2",
        }
    }
}

percpu! {
    /// Pages that this CPU worked on in vector registers.
    static IN_VECTORS: AtomicU64 = AtomicU64::new(0);
    /// Pages that it worked on without, because the registers were in use.
    static WITHOUT: AtomicU64 = AtomicU64::new(0);
}

/// How many pages the executing CPU has worked on in vector registers, and without.
pub fn counts() -> (u64, u64) {
    (IN_VECTORS.read(), WITHOUT.read())
}

/// The checksum of a page.
///
/// Contexts: task, softirq, hardirq, NMI (where it is scalar). Preemption is off meanwhile. Cost: 128 loads of 32 bytes,
/// and a section.
///
/// ```
/// use kernel::vector::{scalar, sum};
/// let page = core::array::from_fn(|i| i as u64 * i as u64);
/// assert_eq!(sum(&page), scalar::sum(&page));
/// ```
pub fn sum(page: &Page) -> Sum {
    in_vectors(|width, guard| asm::sum(page, width, guard)).unwrap_or_else(|| scalar::sum(page))
}

/// The bits in which a page differs from a pattern that fills it: the union over all its words, 0 if it is equal.
///
/// Contexts and cost: as for [`sum`].
///
/// ```
/// use kernel::vector::difference;
/// let mut page = core::array::from_fn(|i| [1, 2, 3, 4][i % 4]);
/// assert_eq!(difference(&page, &[1, 2, 3, 4]), 0);
/// page[100] ^= 0x80;
/// assert_eq!(difference(&page, &[1, 2, 3, 4]), 0x80);
/// ```
pub fn difference(page: &Page, pattern: &Pattern) -> u64 {
    in_vectors(|width, guard| asm::difference(page, pattern, width, guard))
        .unwrap_or_else(|| scalar::difference(page, pattern))
}

/// Runs `work` in a section, if one can be had.
fn in_vectors<R>(work: impl FnOnce(Width, &FpuGuard) -> R) -> Option<R> {
    let width = Width::best();
    match FpuGuard::try_begin() {
        Ok(guard) => {
            IN_VECTORS.inc();
            Some(work(width, &guard))
        }
        Err(_) => {
            WITHOUT.inc();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The widths that this host's processor has.
    fn widths() -> impl Iterator<Item = Width> {
        [Width::Sse2, Width::Avx2]
            .into_iter()
            .filter(|width| *width != Width::Avx2 || Width::best() == Width::Avx2)
    }

    /// Pages of words that carry and words that do not. Made from a number, because shrinking 512 words helps nobody.
    fn page() -> impl Strategy<Value = Page> {
        any::<u64>().prop_map(|seed| {
            core::array::from_fn(|i| {
                let word = hal::chaos::mix(seed ^ i as u64);
                match word & 7 {
                    0 => 0,
                    1 => u64::MAX,
                    2 => word >> 62,
                    _ => word,
                }
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn every_width_gives_the_scalar_sum(page in page()) {
            for width in widths() {
                prop_assert_eq!(asm::sum(&page, width, &FpuGuard::begin()), scalar::sum(&page), "{:?}", width);
            }
        }

        #[test]
        fn every_width_finds_the_same_difference(
            pattern in any::<Pattern>(),
            changes in proptest::collection::vec((0..512_usize, any::<u64>()), 0..4),
        ) {
            let mut page: Page = core::array::from_fn(|i| pattern[i % LANES]);
            for (place, change) in changes {
                page[place] ^= change;
            }
            for width in widths() {
                prop_assert_eq!(
                    asm::difference(&page, &pattern, width, &FpuGuard::begin()),
                    scalar::difference(&page, &pattern),
                    "{:?}", width
                );
            }
        }

        #[test]
        fn a_changed_bit_changes_both_parts(page in page(), place in 0..512_usize, bit in 0..64) {
            let before = scalar::sum(&page);
            let mut changed = page;
            changed[place] ^= 1_u64 << bit;
            let after = scalar::sum(&changed);
            prop_assert_ne!(before.words, after.words);
            prop_assert_ne!(before, after);
        }

        #[test]
        fn words_that_change_places_change_the_sum(page in page(), a in 0..512_usize, b in 0..512_usize) {
            prop_assume!(page[a] != page[b]);
            let mut changed = page;
            changed.swap(a, b);
            prop_assert_ne!(scalar::sum(&page), scalar::sum(&changed));
        }
    }

    #[test]
    fn the_answer_is_the_same_where_no_section_can_be_had() {
        let page: Page = core::array::from_fn(|i| i as u64);
        let outer = FpuGuard::begin();
        let before = counts();
        let inside = (sum(&page), difference(&page, &[0; LANES]));
        assert_eq!(counts(), (before.0, before.1 + 2));
        drop(outer);
        assert_eq!((sum(&page), difference(&page, &[0; LANES])), inside);
        assert_eq!(counts(), (before.0 + 2, before.1 + 2));
    }

    #[test]
    fn wide_vectors_need_their_state_enabled() {
        assert_eq!(Width::choose(true, 0b111), Width::Avx2);
        assert_eq!(Width::choose(true, 0b011), Width::Sse2);
        assert_eq!(Width::choose(false, 0b111), Width::Sse2);
    }
}
