//! The number, the data, and the four orderings between them.
//!
//! ```text
//! writer                              reader
//! W1  number = odd        relaxed     R1  begun = number      acquire
//! W2  fence(Release)                  R2  copy the data       relaxed words
//! W3  the data            relaxed     R3  fence(Acquire)
//! W4  number = even       release     R4  number == begun?    relaxed
//! ```
//!
//! * If `R2` reads a word that `W3` stored, then by the two fences (`W2` before `W3`, `R3` after `R2`) `W1` happened
//!   before `R4`. So `R4` reads the odd number or a later one, and differs from `begun`, unless `R1` saw `W4` already.
//! * If `R1` sees `W4`, then by acquire and release all of `W3` happened before `R2`, which reads no older word.
//!
//! Together: if `R4` agrees with `R1`, the words are all of the round that `R1` saw. On x86_64 none of the four is more
//! than a rule for the compiler. `models.rs` leaves each one out and shows that the reader then gets a mixture.
//!
//! The number is as wide as a pointer. A 32-bit one can come back to where it was within two minutes of uninterrupted
//! writing, for which a preempted reader would have to sleep; a 64-bit one cannot.

use core::marker::PhantomData;

use bytemuck::NoUninit;
use hal::Platform;

use super::words::Words;
use crate::primitives::{AtomicUsize, Ordering, const_fn, fence};

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(super) trait Rules {
    /// R1.
    const BEGIN: Ordering = Ordering::Acquire;
    /// R3.
    const FENCE_BEFORE_RELOAD: bool = true;
    /// W2.
    const FENCE_AFTER_ODD: bool = true;
    /// W4; also where a latch turns its readers to the other copy.
    const END: Ordering = Ordering::Release;
    /// Whether a latch's reader looks again at the number.
    const RELOAD: bool = true;
}

/// The protocol as described.
pub(super) enum Sound {}

impl Rules for Sound {}

/// The number of a round. Writers exclude each other.
pub(super) struct Number<R: Rules = Sound> {
    number: AtomicUsize,
    rules: PhantomData<fn() -> R>,
}

impl<R: Rules> Number<R> {
    const_fn! {
        pub(super) fn new() -> Number<R> {
            Number { number: AtomicUsize::new(0), rules: PhantomData }
        }
    }

    /// The present number. What writers did before they stored it is seen by what follows.
    #[inline(always)]
    pub(super) fn begin(&self) -> usize {
        // Acquire: pairs with the Release in `end` and `advance`.
        self.number.load(R::BEGIN)
    }

    /// Whether nobody has stored a number since `begun` was read, as far as anything shows that was read before.
    #[inline(always)]
    pub(super) fn is_current(&self, begun: usize) -> bool {
        if R::FENCE_BEFORE_RELOAD {
            // Acquire: pairs with the Release fence in `start` and `advance`, by way of the data.
            fence(Ordering::Acquire);
        }
        self.number.load(Ordering::Relaxed) == begun
    }

    /// A writer starts: the number becomes odd. Returns it.
    #[inline(always)]
    pub(super) fn start(&self) -> usize {
        // Only writers store, and they exclude each other.
        let odd = self.number.load(Ordering::Relaxed).wrapping_add(1);
        self.number.store(odd, Ordering::Relaxed);
        if R::FENCE_AFTER_ODD {
            // Release: pairs with the Acquire fence in `is_current`: who sees data stored from here on sees `odd`.
            fence(Ordering::Release);
        }
        odd
    }

    /// The writer that made the number `odd` is done: the number becomes even.
    #[inline(always)]
    pub(super) fn end(&self, odd: usize) {
        // Release: pairs with the Acquire in `begin`: who sees this number sees all the data.
        self.number.store(odd.wrapping_add(1), R::END);
    }

    /// One step of a latch's writer: an end, of what came before, and a start, of what follows.
    #[inline(always)]
    pub(super) fn advance(&self) {
        let next = self.number.load(Ordering::Relaxed).wrapping_add(1);
        // Release: pairs with the Acquire in `begin`: the copy that readers now turn to is complete.
        self.number.store(next, R::END);
        if R::FENCE_AFTER_ODD {
            // Release: pairs with the Acquire fence in `is_current`: who sees the other copy change sees `next`.
            fence(Ordering::Release);
        }
    }
}

/// One copy of a value, under a number. Writers exclude each other.
pub(super) struct OneCopy<T, R: Rules = Sound> {
    pub(super) number: Number<R>,
    pub(super) words: Words<T>,
}

impl<T: NoUninit, R: Rules> OneCopy<T, R> {
    const_fn! {
        pub(super) fn new(value: T) -> OneCopy<T, R> {
            OneCopy { number: Number::new(), words: Words::new(value) }
        }
    }

    /// The value, if no writer disturbs the copying.
    #[inline(always)]
    pub(super) fn try_read(&self) -> Option<T> {
        let begun = self.number.begin();
        if !begun.is_multiple_of(2) {
            return None;
        }
        let copy = self.words.load();
        if !self.number.is_current(begun) {
            return None;
        }
        // SAFETY: the words are all of one round, as argued above, and so the bytes of a value that was stored.
        Some(unsafe { copy.assume_init() })
    }

    /// The value, for somebody who excludes writers.
    #[inline(always)]
    pub(super) fn peek(&self) -> T {
        // SAFETY: nobody stores meanwhile, and whoever did last happened before, by the exclusion.
        unsafe { self.words.load().assume_init() }
    }

    /// Makes `value` the value.
    #[inline]
    pub(super) fn publish<P: Platform>(&self, value: &T) {
        let odd = self.number.start();
        P::chaos_point();
        self.words.store(value);
        P::chaos_point();
        self.number.end(odd);
    }
}

/// Two copies of a value, one of which is at rest at any time. Writers exclude each other.
pub(super) struct TwoCopies<T, R: Rules = Sound> {
    number: Number<R>,
    /// Readers use the one at the number's lowest bit.
    words: [Words<T>; 2],
}

impl<T: NoUninit, R: Rules> TwoCopies<T, R> {
    const_fn! {
        pub(super) fn new(value: T) -> TwoCopies<T, R> {
            TwoCopies { number: Number::new(), words: [Words::new(value), Words::new(value)] }
        }
    }

    /// The value before or after any write that is going on; nothing if the writer moved on during the copying.
    #[inline(always)]
    pub(super) fn try_read(&self) -> Option<T> {
        let begun = self.number.begin();
        let copy = self.words[begun % 2].load();
        if R::RELOAD && !self.number.is_current(begun) {
            return None;
        }
        // SAFETY: while the number is `begun` nobody stores to this copy, which was complete when the number was
        // stored; if a word of a later store had been read, the reload would have seen a later number.
        Some(unsafe { copy.assume_init() })
    }

    /// The value, for somebody who excludes writers.
    #[inline(always)]
    pub(super) fn peek(&self) -> T {
        // SAFETY: nobody stores meanwhile, and whoever did last happened before, by the exclusion.
        unsafe { self.words[0].load().assume_init() }
    }

    /// Makes `value` the value, first in one copy and then in the other.
    #[inline]
    pub(super) fn publish<P: Platform>(&self, value: &T) {
        for words in &self.words {
            // Turns readers to the other copy: first to 1, then, changed as it is by now, to 0.
            self.number.advance();
            P::chaos_point();
            words.store(value);
            P::chaos_point();
        }
    }

    pub(super) fn into_inner(self) -> T {
        self.peek()
    }
}

#[cfg(all(test, loom))]
#[path = "seq_models.rs"]
mod models;
