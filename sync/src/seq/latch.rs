//! Two copies, one of which is always at rest: for readers that must not wait for the writer that they interrupted.

use core::fmt;
use core::panic::Location;

use bytemuck::NoUninit;
use hal::Platform;

use super::guard::{Target, WriteGuard, sealed};
use super::protocol::TwoCopies;
use crate::flavor::{Flavor, Proves, Task};
use crate::primitives::const_fn;
use crate::spin::{SpinLock, SpinLockGuard, SpinLockWithGuard};

/// A small `T` that can be read in every context, the middle of its own writing included.
///
/// 1. There are two copies, and a number whose lowest bit says which one readers use.
/// 2. A writer steps the number, which turns readers to copy 1; changes copy 0; steps it again, which turns them to
///    copy 0; changes copy 1.
/// 3. A reader copies and looks at the number again. If it has moved, the writer has gone on: the reader starts over. A
///    writer that stands still, because the reader interrupted it or because it lost its CPU, moves nothing, and the
///    reader is done at once with what was there before or comes after.
///
/// So readers never wait. They can be disturbed by writers that run on other CPUs, twice for each write.
///
/// Linux: `seqcount_latch_t`, without the data. Costs a second copy of the data and of the copying, so where no reader
/// interrupts a writer take [`SeqLock`](super::SeqLock). Writers exclude each other by a spin lock of flavour `F`.
///
/// ```
/// use sync::Latch;
///
/// static CYCLES_TO_NS: Latch<[u64; 2]> = Latch::new([1, 0]); // multiplier and offset
///
/// /// May be called in NMI.
/// fn ns(cycles: u64) -> u64 {
///     let [mult, offset] = CYCLES_TO_NS.read();
///     cycles * mult + offset
/// }
/// let mut adjusting = CYCLES_TO_NS.write();
/// *adjusting = [2, 7];
/// assert_eq!(ns(10), 10); // as an NMI would see it here
/// drop(adjusting);
/// assert_eq!(ns(10), 27);
/// ```
pub struct Latch<T, F: Flavor = Task> {
    data: TwoCopies<T>,
    writers: SpinLock<(), F>,
}

/// The right to write a [`Latch`]; made by [`write`](Latch::write) and [`try_write`](Latch::try_write).
///
/// ```
/// use sync::{Latch, seq::LatchGuard};
/// fn double(mut guard: LatchGuard<'_, u32>) {
///     *guard *= 2;
/// }
/// let latch: Latch<u32> = Latch::new(4);
/// double(latch.write());
/// assert_eq!(latch.read(), 8);
/// ```
pub type LatchGuard<'a, T, F = Task> = WriteGuard<'a, Latch<T, F>, SpinLockGuard<'a, (), F>>;
/// The right to write a [`Latch`], in a context that was there before; made by [`write_with`](Latch::write_with).
///
/// ```
/// use sync::{Irq, Latch, seq::LatchWithGuard};
/// fn double(mut guard: LatchWithGuard<'_, u32, Irq>) {
///     *guard *= 2;
/// }
/// let latch: Latch<u32, Irq> = Latch::new(4);
/// double(latch.write_with(&sync::irq::disable()));
/// assert_eq!(latch.read(), 8);
/// ```
pub type LatchWithGuard<'a, T, F = Task> = WriteGuard<'a, Latch<T, F>, SpinLockWithGuard<'a, (), F>>;

impl<T: NoUninit, F: Flavor> Latch<T, F> {
    const_fn! {
        /// A latch that holds `value`.
        ///
        /// ```
        /// static RATE: sync::Latch<u64> = sync::Latch::new(3);
        /// assert_eq!(RATE.read(), 3);
        /// ```
        #[track_caller]
        pub fn new(value: T) -> Latch<T, F> {
            Latch { data: TwoCopies::new(value), writers: SpinLock::new(()) }
        }
    }

    /// The data: one value that was published, never a mixture. During a write it is the old one or the new one.
    ///
    /// Linux: `raw_read_seqcount_latch` and its retry. Contexts: any, NMI too, in the middle of a write too. Cost: two
    /// loads more than a copy, and no store.
    ///
    /// ```
    /// let latch = sync::Latch::<[u64; 2]>::new([1, 2]);
    /// let mut writing = latch.write();
    /// writing[0] = 3;
    /// assert_eq!(latch.read(), [1, 2], "in the middle of a write too");
    /// drop(writing);
    /// assert_eq!(latch.read(), [3, 2]);
    /// ```
    #[inline]
    pub fn read(&self) -> T {
        loop {
            if let Some(value) = self.data.try_read() {
                return value;
            }
            // Not a wait: the writer has moved on, so that there is something new to read already.
            F::Platform::relax();
        }
    }

    /// Takes the lock of the writers; the guard holds a copy, which it publishes when it is dropped.
    ///
    /// Linux: `write_seqcount_latch` under a lock. Contexts, waiting and recursion: as [`SpinLock::lock`].
    ///
    /// ```
    /// let latch = sync::Latch::<[u64; 2]>::new([1, 2]);
    /// latch.write()[1] = 5;
    /// assert_eq!(latch.read(), [1, 5]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write(&self) -> LatchGuard<'_, T, F> {
        let held = self.writers.lock();
        WriteGuard::new(self, self.data.peek(), held, Location::caller())
    }

    /// As [`write`](Self::write), if no writer is there already. Contexts: as [`SpinLock::try_lock`].
    ///
    /// ```
    /// let latch = sync::Latch::<[u64; 2]>::new([1, 2]);
    /// let first = latch.try_write();
    /// assert!(first.is_some() && latch.try_write().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_write(&self) -> Option<LatchGuard<'_, T, F>> {
        let held = self.writers.try_lock()?;
        Some(WriteGuard::new(self, self.data.peek(), held, Location::caller()))
    }

    /// As [`write`](Self::write), where what the flavour switches off is off already.
    ///
    /// ```
    /// let latch = sync::Latch::<u64, sync::Irq>::new(1);
    /// let quiet = sync::irq::disable();
    /// *latch.write_with(&quiet) = 2;
    /// assert_eq!(latch.read(), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write_with<'a>(&'a self, proof: &'a (impl Proves<F> + ?Sized)) -> LatchWithGuard<'a, T, F> {
        let held = self.writers.lock_with(proof);
        WriteGuard::new(self, self.data.peek(), held, Location::caller())
    }

    /// Replaces the data. Contexts: as [`write`](Self::write).
    ///
    /// ```
    /// let latch = sync::Latch::<[u64; 2]>::new([1, 2]);
    /// latch.set([3, 4]);
    /// assert_eq!(latch.read(), [3, 4]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn set(&self, value: T) {
        let _held = self.writers.lock();
        self.data.publish::<F::Platform>(&value);
    }

    /// The data, of a latch that nobody can use any more.
    ///
    /// ```
    /// let latch = sync::Latch::<[u64; 2]>::new([1, 2]);
    /// assert_eq!(latch.into_inner(), [1, 2]);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: NoUninit, F: Flavor> sealed::Publish for Latch<T, F> {
    type Value = T;

    #[inline]
    fn publish(&self, value: &T, _at: &'static Location<'static>) {
        self.data.publish::<F::Platform>(value);
    }
}

impl<T: NoUninit, F: Flavor> Target for Latch<T, F> {}

impl<T: NoUninit + Default, F: Flavor> Default for Latch<T, F> {
    fn default() -> Latch<T, F> {
        Latch::new(T::default())
    }
}

impl<T: NoUninit + fmt::Debug, F: Flavor> fmt::Debug for Latch<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latch").field("data", &self.read()).finish()
    }
}
