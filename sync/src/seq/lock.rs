//! One copy, whose readers start over when a writer comes between.

use core::fmt;
use core::panic::Location;

use bytemuck::NoUninit;
use hal::Platform;

use super::guard::{Target, WriteGuard, sealed};
use super::protocol::OneCopy;
use super::writer::Writer;
use crate::flavor::{Flavor, Irq, Proves, Task};
use crate::primitives::const_fn;
use crate::spin::{SpinLock, SpinLockGuard, SpinLockWithGuard};

/// A [`SeqLock`] whose writers may be interrupt handlers, and whose readers may be handlers whoever writes.
///
/// ```
/// static STAMP: sync::IrqSeqLock<u64> = sync::IrqSeqLock::new(1);
/// let writing = STAMP.write();
/// assert!(sync::context::irqs_disabled(), "no handler can meet the writer");
/// drop(writing);
/// assert_eq!(STAMP.read(), 1);
/// ```
pub type IrqSeqLock<T> = SeqLock<T, Irq>;

/// A small `T` that is read without a store and without waiting for other readers. Writers exclude each other by a spin
/// lock of flavour `F`, so they are not preempted.
///
/// The flavour says who *writes*, as for [`SpinLock`]; and whoever may interrupt a writer on its CPU and reads must be
/// kept out by it too, or would wait for the writer that it interrupted. So with readers in interrupt handlers take
/// [`IrqSeqLock`]; for readers in NMI a [`Latch`](super::Latch), or [`try_read`](SeqLock::try_read).
///
/// Linux: `seqlock_t`. Unlike there it owns its data, and a writer works on a copy, which is published when the guard
/// goes: readers are held up for the copying only. Size: the data, a word, a spin lock.
///
/// ```
/// use sync::{SeqLock, seq::NoUninit};
///
/// #[derive(Clone, Copy, PartialEq, Debug, NoUninit)]
/// #[bytemuck(crate = "sync::seq::bytemuck")]
/// #[repr(C)]
/// struct Offset {
///     ns: u64,
///     generation: u64,
/// }
/// static OFFSET: SeqLock<Offset> = SeqLock::new(Offset { ns: 0, generation: 1 });
///
/// let mut offset = OFFSET.write();
/// offset.ns += 250;
/// offset.generation += 1;
/// assert_eq!(OFFSET.read(), Offset { ns: 0, generation: 1 }); // not published yet
/// drop(offset);
/// assert_eq!(OFFSET.read(), Offset { ns: 250, generation: 2 });
/// ```
pub struct SeqLock<T, F: Flavor = Task> {
    data: OneCopy<T>,
    writer: Writer,
    writers: SpinLock<(), F>,
}

/// The right to write a [`SeqLock`]; made by [`write`](SeqLock::write) and [`try_write`](SeqLock::try_write).
///
/// ```
/// use sync::{SeqLock, seq::SeqLockGuard};
/// fn double(mut guard: SeqLockGuard<'_, u32>) {
///     *guard *= 2;
/// }
/// let limit: SeqLock<u32> = SeqLock::new(4);
/// double(limit.write());
/// assert_eq!(limit.read(), 8);
/// ```
pub type SeqLockGuard<'a, T, F = Task> = WriteGuard<'a, SeqLock<T, F>, SpinLockGuard<'a, (), F>>;
/// The right to write a [`SeqLock`], in a context that was there before; made by [`write_with`](SeqLock::write_with).
///
/// ```
/// use sync::{Irq, IrqSeqLock, seq::SeqLockWithGuard};
/// fn double(mut guard: SeqLockWithGuard<'_, u32, Irq>) {
///     *guard *= 2;
/// }
/// let limit = IrqSeqLock::new(4);
/// double(limit.write_with(&sync::irq::disable()));
/// assert_eq!(limit.read(), 8);
/// ```
pub type SeqLockWithGuard<'a, T, F = Task> = WriteGuard<'a, SeqLock<T, F>, SpinLockWithGuard<'a, (), F>>;

impl<T: NoUninit, F: Flavor> SeqLock<T, F> {
    const_fn! {
        /// A lock around `value`.
        ///
        /// ```
        /// static LIMIT: sync::SeqLock<u64> = sync::SeqLock::new(3);
        /// assert_eq!(LIMIT.read(), 3);
        /// ```
        #[track_caller]
        pub fn new(value: T) -> SeqLock<T, F> {
            SeqLock { data: OneCopy::new(value), writer: Writer::new(), writers: SpinLock::new(()) }
        }
    }

    /// The data: one value that was published, never a mixture.
    ///
    /// Linux: `read_seqbegin`, the copying, and `read_seqretry`. Contexts: any that cannot interrupt a writer in the
    /// middle of publishing (see the type); debug builds report one that did, `seqcount: reader on CPU#n waits for ..`.
    /// Cost: two loads more than a copy, and no store. A reader starts over for each write that comes between; use
    /// [`read_or_lock`](Self::read_or_lock) where writers may not pause.
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// assert_eq!(lock.read(), [1, 2]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn read(&self) -> T {
        match self.try_read() {
            Some(value) => value,
            None => self.read_again(Location::caller()),
        }
    }

    /// The data, unless a writer disturbs the one attempt. Never waits.
    ///
    /// Contexts: any, NMI too.
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// assert_eq!(lock.try_read(), Some([1, 2]));
    /// ```
    #[inline]
    pub fn try_read(&self) -> Option<T> {
        self.data.try_read()
    }

    /// The data, by at most `attempts` attempts without the lock and then with it, which no writer can hold up for long.
    ///
    /// Linux: `read_seqbegin_or_lock`. Contexts: as [`write`](Self::write). Cost: as [`read`](Self::read), at worst a
    /// spin lock more.
    ///
    /// ```
    /// let load: sync::SeqLock<[u64; 3]> = sync::SeqLock::new([1, 5, 15]);
    /// assert_eq!(load.read_or_lock(10), [1, 5, 15]);
    /// ```
    #[track_caller]
    pub fn read_or_lock(&self, attempts: u32) -> T {
        for _ in 0..attempts {
            if let Some(value) = self.try_read() {
                return value;
            }
            F::Platform::relax();
        }
        let _excluded = self.writers.lock();
        self.data.peek()
    }

    /// Takes the lock of the writers; the guard holds a copy, which it publishes when it is dropped.
    ///
    /// Linux: `write_seqlock`, `write_seqlock_irqsave` by flavour. Contexts, waiting and recursion: as
    /// [`SpinLock::lock`].
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// let mut writing = lock.write();
    /// writing[0] = 3;
    /// drop(writing);
    /// assert_eq!(lock.read(), [3, 2]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write(&self) -> SeqLockGuard<'_, T, F> {
        let held = self.writers.lock();
        WriteGuard::new(self, self.data.peek(), held, Location::caller())
    }

    /// As [`write`](Self::write), if no writer is there already. Contexts: as [`SpinLock::try_lock`].
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// let first = lock.try_write();
    /// assert!(first.is_some() && lock.try_write().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_write(&self) -> Option<SeqLockGuard<'_, T, F>> {
        let held = self.writers.try_lock()?;
        Some(WriteGuard::new(self, self.data.peek(), held, Location::caller()))
    }

    /// As [`write`](Self::write), where what the flavour switches off is off already.
    ///
    /// ```
    /// use sync::{irq, seq::IrqSeqLock};
    /// let events = IrqSeqLock::new([0_u32; 2]);
    /// let quiet = irq::disable();
    /// events.write_with(&quiet)[0] += 1;
    /// drop(quiet);
    /// assert_eq!(events.read(), [1, 0]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write_with<'a>(&'a self, proof: &'a (impl Proves<F> + ?Sized)) -> SeqLockWithGuard<'a, T, F> {
        let held = self.writers.lock_with(proof);
        WriteGuard::new(self, self.data.peek(), held, Location::caller())
    }

    /// Replaces the data. Contexts: as [`write`](Self::write), of which this is the form that does not copy out first.
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// lock.set([3, 4]);
    /// assert_eq!(lock.read(), [3, 4]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn set(&self, value: T) {
        let _held = self.writers.lock();
        sealed::Publish::publish(self, &value, Location::caller());
    }

    /// Whether somebody holds the lock of the writers; out of date at once. Contexts: any.
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// let writing = lock.write();
    /// assert!(lock.is_locked());
    /// drop(writing);
    /// assert!(!lock.is_locked());
    /// ```
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.writers.is_locked()
    }

    /// The data, of a lock that nobody can use any more.
    ///
    /// ```
    /// let lock = sync::SeqLock::<[u64; 2]>::new([1, 2]);
    /// assert_eq!(lock.into_inner(), [1, 2]);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.words.into_inner()
    }

    /// The data. The exclusive borrow shows that nobody else reads or writes.
    ///
    /// ```
    /// let mut lock = sync::SeqLock::<u64>::new(1);
    /// *lock.get_mut() += 1;
    /// assert_eq!(lock.read(), 2);
    /// ```
    #[cfg(not(loom))]
    pub fn get_mut(&mut self) -> &mut T {
        self.data.words.get_mut()
    }

    #[cold]
    fn read_again(&self, at: &'static Location<'static>) -> T {
        self.writer.check_reader::<F::Platform>(at);
        loop {
            F::Platform::relax();
            F::Platform::chaos_point();
            if let Some(value) = self.try_read() {
                return value;
            }
        }
    }
}

impl<T: NoUninit, F: Flavor> sealed::Publish for SeqLock<T, F> {
    type Value = T;

    #[inline]
    fn publish(&self, value: &T, at: &'static Location<'static>) {
        self.writer.begin::<F::Platform>(at);
        self.data.publish::<F::Platform>(value);
        self.writer.end();
    }
}

impl<T: NoUninit, F: Flavor> Target for SeqLock<T, F> {}

impl<T: NoUninit + Default, F: Flavor> Default for SeqLock<T, F> {
    fn default() -> SeqLock<T, F> {
        SeqLock::new(T::default())
    }
}

impl<T: NoUninit, F: Flavor> From<T> for SeqLock<T, F> {
    fn from(value: T) -> SeqLock<T, F> {
        SeqLock::new(value)
    }
}

impl<T: NoUninit + fmt::Debug, F: Flavor> fmt::Debug for SeqLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("SeqLock");
        match self.try_read() {
            Some(value) => s.field("data", &value),
            None => s.field("data", &format_args!("<being written>")),
        };
        s.finish()
    }
}
