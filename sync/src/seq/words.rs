//! A value that is read while it is being written, by atomic words.
//!
//! Two CPUs that touch the same plain data at the same time, one of them writing, is undefined behaviour even if the
//! reader throws away what it got. Relaxed atomic accesses are defined, and on every machine that matters they are
//! ordinary loads and stores. So the value is copied in and out by them: by machine words as far as they go, and the
//! rest by a half, a quarter and an eighth of one. Each byte always belongs to the same atomic, because overlapping
//! atomics of different size are undefined as well.

use core::mem::MaybeUninit;

use bytemuck::NoUninit;

#[cfg(not(loom))]
pub(super) use machine::Words;
#[cfg(loom)]
pub(super) use modelled::Words;

#[cfg(not(loom))]
mod machine {
    use core::cell::UnsafeCell;
    use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed};

    use super::{MaybeUninit, NoUninit};

    const WORD: usize = size_of::<usize>();

    /// A `T` that may be copied out while it is copied in.
    ///
    /// # Invariants
    /// While `&Words` exist, `value` is accessed by the atomics of `for_each_piece` only.
    #[repr(C, align(8))]
    pub(in crate::seq) struct Words<T> {
        value: UnsafeCell<T>,
    }

    // SAFETY: all accesses through `&Words` are atomic. Values go from CPU to CPU as copies, hence `Send`.
    unsafe impl<T: Send> Sync for Words<T> {}

    impl<T> Words<T> {
        pub(in crate::seq) const fn new(value: T) -> Words<T> {
            Words { value: UnsafeCell::new(value) }
        }

        pub(in crate::seq) fn into_inner(self) -> T {
            self.value.into_inner()
        }

        pub(in crate::seq) fn get_mut(&mut self) -> &mut T {
            self.value.get_mut()
        }
    }

    /// Calls `$copy!(Atomic, offset)` for each piece of a value of `$size` bytes.
    macro_rules! for_each_piece {
        ($size:expr, $copy:ident) => {{
            let (size, mut at) = ($size, 0);
            while at + WORD <= size {
                $copy!(AtomicUsize, usize, at);
                at += WORD;
            }
            if size - at >= 4 {
                $copy!(AtomicU32, u32, at);
                at += 4;
            }
            if size - at >= 2 {
                $copy!(AtomicU16, u16, at);
                at += 2;
            }
            if size > at {
                $copy!(AtomicU8, u8, at);
            }
        }};
    }

    impl<T: NoUninit> Words<T> {
        /// What each word holds at some moment of the call; one value only if nobody stores meanwhile.
        #[inline(always)]
        pub(in crate::seq) fn load(&self) -> MaybeUninit<T> {
            let mut copy = MaybeUninit::<T>::uninit();
            let (from, to) = (self.value.get().cast::<u8>(), copy.as_mut_ptr().cast::<u8>());
            macro_rules! copy {
                ($Atomic:ty, $Plain:ty, $at:expr) => {{
                    // SAFETY: the piece lies inside of the value, aligned because the value is to 8 bytes and larger
                    // pieces come first; it is initialised (`NoUninit`) and accessed by this atomic only.
                    let piece = unsafe { &*from.add($at).cast::<$Atomic>() };
                    // SAFETY: as large as the value, and ours.
                    unsafe { to.add($at).cast::<$Plain>().write_unaligned(piece.load(Relaxed)) };
                }};
            }
            for_each_piece!(size_of::<T>(), copy);
            copy
        }

        /// Stores `value`, word by word.
        #[inline(always)]
        pub(in crate::seq) fn store(&self, value: &T) {
            let (from, to) = (core::ptr::from_ref(value).cast::<u8>(), self.value.get().cast::<u8>());
            macro_rules! copy {
                ($Atomic:ty, $Plain:ty, $at:expr) => {{
                    // SAFETY: as in `load`.
                    let piece = unsafe { &*to.add($at).cast::<$Atomic>() };
                    // SAFETY: inside of `value`, all of whose bytes are initialised (`NoUninit`).
                    piece.store(unsafe { from.add($at).cast::<$Plain>().read_unaligned() }, Relaxed);
                }};
            }
            for_each_piece!(size_of::<T>(), copy);
        }
    }
}

/// The model checker's atomics are larger than what they stand for, so that the words are beside the value.
#[cfg(loom)]
mod modelled {
    use core::marker::PhantomData;

    use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::{MaybeUninit, NoUninit};

    const WORD: usize = size_of::<usize>();

    pub(in crate::seq) struct Words<T> {
        words: Vec<AtomicUsize>,
        value: PhantomData<fn(T) -> T>,
    }

    impl<T: NoUninit> Words<T> {
        pub(in crate::seq) fn new(value: T) -> Words<T> {
            let words = (0..size_of::<T>().div_ceil(WORD)).map(|_| AtomicUsize::new(0)).collect();
            let new = Words { words, value: PhantomData };
            new.store(&value);
            new
        }

        pub(in crate::seq) fn into_inner(self) -> T {
            // SAFETY: nobody else has access, so that the words are one value.
            unsafe { self.load().assume_init() }
        }

        pub(in crate::seq) fn load(&self) -> MaybeUninit<T> {
            let mut copy = MaybeUninit::<T>::uninit();
            let to = copy.as_mut_ptr().cast::<u8>();
            for (i, word) in self.words.iter().enumerate() {
                for (j, byte) in word.load(Relaxed).to_ne_bytes().into_iter().enumerate() {
                    if i * WORD + j < size_of::<T>() {
                        // SAFETY: inside of the copy, which is ours.
                        unsafe { to.add(i * WORD + j).write(byte) };
                    }
                }
            }
            copy
        }

        pub(in crate::seq) fn store(&self, value: &T) {
            for (word, from) in self.words.iter().zip(bytemuck::bytes_of(value).chunks(WORD)) {
                let mut bytes = [0; WORD];
                bytes[..from.len()].copy_from_slice(from);
                word.store(usize::from_ne_bytes(bytes), Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stores and loads arrays of each length: every byte comes back, whichever pieces it is copied by.
    #[test]
    fn every_size_is_copied_whole() {
        macro_rules! sizes {
            ($($n:literal)*) => {$({
                let words = Words::new([0_u8; $n]);
                let value: [u8; $n] = core::array::from_fn(|i| i as u8 + 1);
                words.store(&value);
                // SAFETY: nobody stores meanwhile.
                assert_eq!(unsafe { words.load().assume_init() }, value);
                assert_eq!(words.into_inner(), value);
            })*};
        }
        sizes!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 23 24 31 32 33 63 64 65);
    }

    #[test]
    fn a_store_stays_inside_of_the_value() {
        #[repr(C)]
        struct Between {
            before: u64,
            words: Words<[u8; 7]>,
            after: u8,
        }
        let between = Between { before: u64::MAX, words: Words::new([1; 7]), after: 0xa5 };
        between.words.store(&[0; 7]);
        assert_eq!((between.before, between.after), (u64::MAX, 0xa5));
    }

    #[test]
    fn alignment_is_at_least_a_words_and_at_least_the_types() {
        #[derive(Clone, Copy)]
        #[repr(C, align(32))]
        struct Wide([u8; 32]);
        // SAFETY: bytes without padding.
        unsafe impl NoUninit for Wide {}
        assert_eq!(align_of::<Words<u8>>(), 8);
        assert_eq!(align_of::<Words<Wide>>(), 32);
        let words = Words::new(Wide([3; 32]));
        words.store(&Wide([4; 32]));
        assert_eq!(words.into_inner().0, [4; 32]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn what_goes_in_comes_out(value: [u32; 7], other: [u32; 7]) {
            let words = Words::new(other);
            words.store(&value);
            // SAFETY: nobody stores meanwhile.
            prop_assert_eq!(unsafe { words.load().assume_init() }, value);
        }
    }
}
