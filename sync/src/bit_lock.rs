//! A spin lock in one bit of somebody else's word.
//!
//! A table of a million buckets, or an object that there are millions of, has no room for a lock each, but often a bit
//! to spare: the lowest of a pointer, the highest of a counter. This lock needs no more than that, and leaves the rest
//! of the word to its owner.
//!
//! 1. The lock is held while the bit is set. It is taken with one atomic OR, and given up with one atomic AND that
//!    changes nothing else.
//! 2. The rest of the word may be changed by its holder, with [`BitGuard::set`], and by others too, if they use atomic
//!    read-modify-writes that leave the bit alone.
//!
//! What it costs compared to a [`SpinLock`](crate::SpinLock): it is unfair without a bound (there is no room to remember
//! who waits), the dependency checker does not know it (there is no room for a class), and giving it up is a
//! read-modify-write. Take it for sections of a few instructions that rarely meet.

use core::fmt;

use hal::Platform;
use hal::percpu::{IrqsOff, Pinned};

use crate::flavor::{Entered, Flavor, IrqsOffFlavor, Task};
use crate::primitives::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::spin::raw::pause;

/// A word that can hold the lock: `AtomicU32`, `AtomicUsize`, `AtomicPtr`. Nothing else can implement it.
///
/// ```
/// use core::sync::atomic::AtomicPtr;
/// use sync::{BitSpinLock, Task};
///
/// let mut node = 7_u32;
/// let head = AtomicPtr::new(&raw mut node);
/// let guard = BitSpinLock::<_, Task>::new(&head, 0).lock();
/// assert_eq!(guard.get(), &raw mut node, "the pointer, without the bit");
/// ```
pub trait BitWord: sealed::Word {}

mod sealed {
    use super::Ordering;

    pub trait Word {
        /// What the word holds.
        type Value: Copy;
        const BITS: u32;
        fn load(&self) -> Self::Value;
        fn has(value: Self::Value, bit: u32) -> bool;
        fn with(value: Self::Value, bit: u32) -> Self::Value;
        fn without(value: Self::Value, bit: u32) -> Self::Value;
        fn fetch_set(&self, bit: u32, ordering: Ordering) -> Self::Value;
        fn fetch_clear(&self, bit: u32, ordering: Ordering) -> Self::Value;
        fn replace(&self, from: Self::Value, to: Self::Value, ordering: Ordering) -> Result<(), Self::Value>;
    }
}

macro_rules! integer_word {
    ($($Atomic:ty, $Value:ty;)*) => {$(
        impl BitWord for $Atomic {}

        impl sealed::Word for $Atomic {
            type Value = $Value;
            const BITS: u32 = <$Value>::BITS;

            #[inline(always)]
            fn load(&self) -> $Value {
                self.load(Ordering::Relaxed)
            }
            #[inline(always)]
            fn has(value: $Value, bit: u32) -> bool {
                value & (1 << bit) != 0
            }
            #[inline(always)]
            fn with(value: $Value, bit: u32) -> $Value {
                value | (1 << bit)
            }
            #[inline(always)]
            fn without(value: $Value, bit: u32) -> $Value {
                value & !(1 << bit)
            }
            #[inline(always)]
            fn fetch_set(&self, bit: u32, ordering: Ordering) -> $Value {
                self.fetch_or(1 << bit, ordering)
            }
            #[inline(always)]
            fn fetch_clear(&self, bit: u32, ordering: Ordering) -> $Value {
                self.fetch_and(!(1 << bit), ordering)
            }
            #[inline(always)]
            fn replace(&self, from: $Value, to: $Value, ordering: Ordering) -> Result<(), $Value> {
                self.compare_exchange(from, to, ordering, Ordering::Relaxed).map(drop)
            }
        }
    )*};
}

integer_word! {
    AtomicU32, u32;
    AtomicUsize, usize;
}

impl<T> BitWord for AtomicPtr<T> {}

impl<T> sealed::Word for AtomicPtr<T> {
    type Value = *mut T;
    const BITS: u32 = usize::BITS;

    #[inline(always)]
    fn load(&self) -> *mut T {
        self.load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn has(value: *mut T, bit: u32) -> bool {
        value.addr() & (1 << bit) != 0
    }
    #[inline(always)]
    fn with(value: *mut T, bit: u32) -> *mut T {
        value.map_addr(|addr| addr | (1 << bit))
    }
    #[inline(always)]
    fn without(value: *mut T, bit: u32) -> *mut T {
        value.map_addr(|addr| addr & !(1 << bit))
    }
    #[inline(always)]
    fn fetch_set(&self, bit: u32, ordering: Ordering) -> *mut T {
        update_pointer(self, ordering, |value| Self::with(value, bit))
    }
    #[inline(always)]
    fn fetch_clear(&self, bit: u32, ordering: Ordering) -> *mut T {
        update_pointer(self, ordering, |value| Self::without(value, bit))
    }
    #[inline(always)]
    fn replace(&self, from: *mut T, to: *mut T, ordering: Ordering) -> Result<(), *mut T> {
        self.compare_exchange(from, to, ordering, Ordering::Relaxed).map(drop)
    }
}

/// Changes a pointer and keeps what it may point to. (`AtomicPtr::fetch_or` does so in one instruction, but the model
/// checker's atomics have none.)
#[inline(always)]
fn update_pointer<T>(word: &AtomicPtr<T>, ordering: Ordering, change: impl Fn(*mut T) -> *mut T) -> *mut T {
    let mut value = word.load(Ordering::Relaxed);
    loop {
        match word.compare_exchange(value, change(value), ordering, Ordering::Relaxed) {
            Ok(_) => return value,
            Err(now) => value = now,
        }
    }
}

/// One bit of `word`, as a lock. A handle to be made where it is needed; the lock itself is the bit.
///
/// `F` says what is switched off on this CPU while it is held, as for a [`SpinLock`](crate::SpinLock); all who take the
/// bit must agree on it, because nothing else does.
///
/// Linux: `bit_spin_lock`, `hlist_bl_lock`. Size of the lock: a bit.
///
/// ```
/// use core::sync::atomic::{AtomicUsize, Ordering};
/// use sync::{BitSpinLock, Task};
///
/// const LOCK: u32 = 0;
/// let head = AtomicUsize::new(0x1000); // an address, whose lowest bits are 0
/// let bucket = BitSpinLock::<_, Task>::new(&head, LOCK);
/// {
///     let mut guard = bucket.lock();
///     assert_eq!(guard.get(), 0x1000);
///     assert!(bucket.try_lock().is_none());
///     guard.set(0x2000);
/// }
/// assert_eq!(head.load(Ordering::Relaxed), 0x2000);
/// ```
pub struct BitSpinLock<'a, W: BitWord, F: Flavor = Task> {
    word: &'a W,
    bit: u32,
    flavor: core::marker::PhantomData<fn() -> F>,
}

impl<'a, W: BitWord, F: Flavor> BitSpinLock<'a, W, F> {
    /// Bit `bit` of `word`; 0 is the lowest.
    ///
    /// # Panics
    /// If the word has no such bit.
    ///
    /// ```
    /// use core::sync::atomic::{AtomicU32, Ordering};
    /// use sync::{BitSpinLock, Task};
    ///
    /// let flags = AtomicU32::new(0b1000);
    /// let _guard = BitSpinLock::<_, Task>::new(&flags, 1).lock();
    /// assert_eq!(flags.load(Ordering::Relaxed), 0b1010);
    /// ```
    #[inline]
    #[track_caller]
    pub fn new(word: &'a W, bit: u32) -> BitSpinLock<'a, W, F> {
        assert!(bit < W::BITS, "the word has {} bits, and none of number {bit}", W::BITS);
        BitSpinLock { word, bit, flavor: core::marker::PhantomData }
    }

    /// Switches off what the flavour says, then waits until the bit is clear and sets it. Given up by dropping the guard.
    ///
    /// Contexts: as the flavour allows; not NMI. Cost: one atomic read-modify-write, and one to give it up. A waiter may
    /// be passed without bound.
    ///
    /// ```
    /// # use core::sync::atomic::AtomicU32;
    /// # use sync::{BitSpinLock, Task};
    /// let flags = AtomicU32::new(0);
    /// let lock = BitSpinLock::<_, Task>::new(&flags, 31);
    /// let guard = lock.lock();
    /// assert!(lock.is_locked() && sync::context::in_atomic());
    /// drop(guard);
    /// assert!(!lock.is_locked() && !sync::context::in_atomic());
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> BitGuard<'a, W, F> {
        let entered = Entered::new();
        if !self.grab() {
            self.wait();
        }
        BitGuard { held: Held { word: self.word, bit: self.bit }, entered }
    }

    /// Sets the bit if it is clear. Contexts: any.
    ///
    /// ```
    /// # use core::sync::atomic::AtomicU32;
    /// # use sync::{BitSpinLock, Task};
    /// let flags = AtomicU32::new(0);
    /// let first = BitSpinLock::<_, Task>::new(&flags, 0).try_lock();
    /// assert!(first.is_some());
    /// assert!(BitSpinLock::<_, Task>::new(&flags, 0).try_lock().is_none(), "the same bit");
    /// assert!(BitSpinLock::<_, Task>::new(&flags, 1).try_lock().is_some(), "another lock");
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<BitGuard<'a, W, F>> {
        let entered = Entered::new();
        self.grab().then(|| BitGuard { held: Held { word: self.word, bit: self.bit }, entered })
    }

    /// Whether the bit is set; out of date at once.
    ///
    /// ```
    /// # use core::sync::atomic::AtomicU32;
    /// # use sync::{BitSpinLock, Task};
    /// let flags = AtomicU32::new(0b10);
    /// assert!(BitSpinLock::<_, Task>::new(&flags, 1).is_locked());
    /// assert!(!BitSpinLock::<_, Task>::new(&flags, 0).is_locked());
    /// ```
    #[inline]
    pub fn is_locked(&self) -> bool {
        W::has(self.word.load(), self.bit)
    }

    #[inline(always)]
    fn grab(&self) -> bool {
        // Acquire: pairs with the Release in `Held::drop`.
        !W::has(self.word.fetch_set(self.bit, Ordering::Acquire), self.bit)
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        loop {
            F::Platform::chaos_point();
            // Look before grabbing: a failed grab takes the cache line away from the holder, a look shares it.
            if !self.is_locked() && self.grab() {
                return;
            }
            pause::<F::Platform>(looks);
            looks = looks.wrapping_add(1);
        }
    }
}

impl<W: BitWord, F: Flavor> Clone for BitSpinLock<'_, W, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: BitWord, F: Flavor> Copy for BitSpinLock<'_, W, F> {}

impl<W: BitWord, F: Flavor> fmt::Debug for BitSpinLock<'_, W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BitSpinLock").field("bit", &self.bit).field("is_locked", &self.is_locked()).finish()
    }
}

/// The bit is set, and was set by the owner of this value. Dropping it clears the bit, changes nothing else in the word,
/// and switches on again what the flavour switched off. Neither `Send` nor `Sync`.
///
/// ```
/// # use core::sync::atomic::{AtomicUsize, Ordering};
/// # use sync::{BitSpinLock, Irq};
/// let head = AtomicUsize::new(0x1000);
/// let guard = BitSpinLock::<_, Irq>::new(&head, 0).lock();
/// assert_eq!(head.load(Ordering::Relaxed), 0x1001);
/// assert!(sync::context::irqs_disabled(), "as the flavour says");
/// drop(guard);
/// assert_eq!(head.load(Ordering::Relaxed), 0x1000);
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct BitGuard<'a, W: BitWord, F: Flavor> {
    // The order of these fields is the order of release: unlock, then switch on.
    held: Held<'a, W>,
    #[expect(dead_code, reason = "it is there to be dropped after `held`")]
    entered: Entered<F>,
}

/// # Invariants
/// `bit` of `word` is set, and the owner of this value clears it.
struct Held<'a, W: BitWord> {
    word: &'a W,
    bit: u32,
}

impl<W: BitWord> Drop for Held<'_, W> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `grab`.
        self.word.fetch_clear(self.bit, Ordering::Release);
    }
}

impl<W: BitWord, F: Flavor> BitGuard<'_, W, F> {
    /// The word, without the lock's bit.
    ///
    /// ```
    /// # use core::sync::atomic::AtomicU32;
    /// # use sync::{BitSpinLock, Task};
    /// let word = AtomicU32::new(6);
    /// assert_eq!(BitSpinLock::<_, Task>::new(&word, 0).lock().get(), 6);
    /// ```
    #[inline]
    pub fn get(&self) -> W::Value {
        W::without(self.held.word.load(), self.held.bit)
    }

    /// Makes `value` the word, except for the lock's bit, which stays set.
    ///
    /// Release: what was done before is visible to who finds the value without taking the lock (a reader of a list whose
    /// head this is), if it loads with `Acquire`. A change that somebody else makes at the same time is overwritten.
    ///
    /// ```
    /// # use core::sync::atomic::{AtomicU32, Ordering};
    /// # use sync::{BitSpinLock, Task};
    /// let word = AtomicU32::new(6);
    /// let mut guard = BitSpinLock::<_, Task>::new(&word, 0).lock();
    /// guard.set(8);
    /// assert_eq!(word.load(Ordering::Relaxed), 9, "with the bit, which is held");
    /// drop(guard);
    /// assert_eq!(word.load(Ordering::Relaxed), 8);
    /// ```
    #[inline]
    pub fn set(&mut self, value: W::Value) {
        let value = W::with(value, self.held.bit);
        let mut now = self.held.word.load();
        // Release: as said above, and for the next holder of the bit.
        while let Err(changed) = self.held.word.replace(now, value, Ordering::Release) {
            now = changed;
        }
    }
}

impl<W: BitWord, F: Flavor> fmt::Debug for BitGuard<'_, W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BitGuard").field("bit", &self.held.bit).finish()
    }
}

// SAFETY: the guard lives between an `enter` and the matching `exit` of its flavour, where `Flavor` promises that the
// execution stays on its CPU. `Entered` makes it neither `Send` nor `Sync`.
unsafe impl<W: BitWord, F: Flavor> Pinned for BitGuard<'_, W, F> {}
// SAFETY: as above, and the flavour turns interrupts off.
unsafe impl<W: BitWord, F: IrqsOffFlavor> IrqsOff for BitGuard<'_, W, F> {}

#[cfg(all(test, loom))]
mod bit_models {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::test_platform::Modelled;

    /// Two take the bit while a third changes the rest of the word.
    fn two_and_a_bystander(take: impl Fn(&AtomicUsize, &UnsafeCell<u32>) + Copy + Send + Sync + 'static) {
        struct Shared(AtomicUsize, UnsafeCell<u32>);
        // SAFETY: the model checks what this claims.
        unsafe impl Sync for Shared {}
        // SAFETY: as above.
        unsafe impl Send for Shared {}

        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        test_support::check(&builder, move || {
            let shared = Arc::new(Shared(AtomicUsize::new(0), UnsafeCell::new(0)));
            let takers: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || take(&shared.0, &shared.1))
                })
                .collect();
            shared.0.fetch_add(0x10, Ordering::Relaxed);
            for taker in takers {
                taker.join().unwrap();
            }
            assert_eq!(shared.0.load(Ordering::Relaxed), 0x10);
            // SAFETY: nobody else is there any more.
            assert_eq!(shared.1.with(|count| unsafe { *count }), 2);
        });
    }

    #[test]
    fn the_bit_excludes_and_the_rest_is_left_alone() {
        two_and_a_bystander(|word, count| {
            let _guard = BitSpinLock::<_, Task<Modelled>>::new(word, 0).lock();
            // SAFETY: the model reports accesses that are not ordered.
            count.with_mut(|count| unsafe { *count += 1 });
        });
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn giving_up_without_release_is_noticed() {
        two_and_a_bystander(|word, count| {
            let lock = BitSpinLock::<_, Task<Modelled>>::new(word, 0);
            let guard = lock.lock();
            // SAFETY: as above.
            count.with_mut(|count| unsafe { *count += 1 });
            core::mem::forget(guard);
            word.fetch_and(!1, Ordering::Relaxed);
        });
    }
}
