//! The number alone, for data that lies elsewhere.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use hal::percpu::Pinned;
use hal::{Native, Platform};

use super::protocol::Number;
use super::writer::Writer;
use crate::cpu::CpuBound;
use crate::primitives::const_fn;

/// Says whether data that lies elsewhere, in atomics, was changed while it was being read.
///
/// The caller excludes writers from each other, by a lock that it has anyway, and shows that it cannot be preempted: a
/// writer that is preempted in the middle leaves readers spinning. The data must be atomics (relaxed accesses will do).
/// If it fits into one value, [`SeqLock`](super::SeqLock) does all of that.
///
/// Linux: `seqcount_t`; `seqcount_spinlock_t` by the guard that `write` asks for. Size: one word; 16 bytes more in debug
/// builds.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use sync::{SpinLock, seq::SeqCount};
///
/// struct Span {
///     count: SeqCount,
///     writers: SpinLock<()>,
///     start: AtomicU64,
///     end: AtomicU64,
/// }
/// let span = Span {
///     count: SeqCount::new(),
///     writers: SpinLock::new(()),
///     start: AtomicU64::new(1),
///     end: AtomicU64::new(2),
/// };
/// {
///     let guard = span.writers.lock();
///     let _writing = span.count.write(&guard);
///     span.start.store(10, Relaxed);
///     span.end.store(20, Relaxed);
/// }
/// assert_eq!(span.count.read(|| (span.start.load(Relaxed), span.end.load(Relaxed))), (10, 20));
/// ```
pub struct SeqCount<P = Native> {
    number: Number,
    writer: Writer,
    platform: PhantomData<fn() -> P>,
}

/// The number that a reader noted; made by [`SeqCount::begin`].
///
/// ```
/// let count = sync::SeqCount::<hal::Native>::new();
/// let (one, other) = (count.begin(), count.begin());
/// assert_eq!(one, other, "nobody wrote in between");
/// drop(count.write(&sync::preempt::disable()));
/// assert_ne!(one, count.begin());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a read section means nothing until its end is checked"]
pub struct Begun(usize);

impl<P: Platform> SeqCount<P> {
    const_fn! {
        /// A count under which nobody writes.
        ///
        /// ```
        /// static COUNT: sync::SeqCount = sync::SeqCount::new();
        /// assert!(COUNT.try_begin().is_some());
        /// ```
        pub fn new() -> SeqCount<P> {
            SeqCount { number: Number::new(), writer: Writer::new(), platform: PhantomData }
        }
    }

    /// Runs `f`, which reads the data, until it was not disturbed by a writer. What `f` returns when it was disturbed
    /// is dropped: it may be a mixture of old and new.
    ///
    /// Contexts: any that cannot interrupt a writer on its CPU; there use [`try_begin`](Self::try_begin). Cost: two
    /// loads and no store; unbounded while writers come without a pause.
    ///
    /// ```
    /// let count = sync::SeqCount::<hal::Native>::new();
    /// let mut tries = 0;
    /// let seen = count.read(|| {
    ///     tries += 1;
    ///     if tries == 1 {
    ///         drop(count.write(&sync::preempt::disable())); // a writer comes between
    ///     }
    ///     tries
    /// });
    /// assert_eq!(seen, 2, "what was read first is not believed");
    /// ```
    #[inline]
    #[track_caller]
    pub fn read<R>(&self, mut f: impl FnMut() -> R) -> R {
        loop {
            let begun = self.begin();
            let result = f();
            if self.is_current(begun) {
                return result;
            }
            P::relax();
        }
    }

    /// Begins a read section, after waiting for a writer that is at work.
    ///
    /// Linux: `read_seqcount_begin`. Contexts: as [`read`](Self::read). In debug builds a reader that waits for a writer
    /// on its own CPU is reported; it waits for ever.
    ///
    /// ```
    /// let count = sync::SeqCount::<hal::Native>::new();
    /// let begun = count.begin();
    /// // .. reads the data ..
    /// assert!(count.is_current(begun));
    /// ```
    #[inline]
    #[track_caller]
    pub fn begin(&self) -> Begun {
        match self.try_begin() {
            Some(begun) => begun,
            None => self.wait(Location::caller()),
        }
    }

    /// Begins a read section, unless a writer is at work. Never waits. Contexts: any, NMI too.
    ///
    /// ```
    /// let count = sync::SeqCount::<hal::Native>::new();
    /// let here = sync::preempt::disable();
    /// let writing = count.write(&here);
    /// assert!(count.try_begin().is_none());
    /// drop(writing);
    /// assert!(count.try_begin().is_some());
    /// ```
    #[inline]
    pub fn try_begin(&self) -> Option<Begun> {
        let number = self.number.begin();
        number.is_multiple_of(2).then_some(Begun(number))
    }

    /// Whether no writer has been at work since `begun`, so that what was read is one state of the data.
    ///
    /// Linux: `read_seqcount_retry`, the other way round. Contexts: any. Cost: one load.
    ///
    /// ```
    /// let count = sync::seq::SeqCount::<hal::Native>::new();
    /// let begun = count.begin();
    /// assert!(count.is_current(begun));
    /// drop(count.write(&sync::preempt::disable()));
    /// assert!(!count.is_current(begun));
    /// ```
    #[inline]
    #[must_use = "data that was read in a disturbed section may be a mixture"]
    pub fn is_current(&self, begun: Begun) -> bool {
        self.number.is_current(begun.0)
    }

    /// Begins a write section, which ends when the guard is dropped. `pinned` shows that the writer cannot be
    /// preempted.
    ///
    /// Linux: `write_seqcount_begin`. The caller holds the lock that excludes other writers; debug builds report a
    /// second one, `seqcount: write section inside of ..`. Contexts: task, softirq and hardirq, as that lock allows.
    ///
    /// ```
    /// let count = sync::SeqCount::<hal::Native>::new();
    /// let begun = count.begin();
    /// let here = sync::preempt::disable();
    /// let writing = count.write(&here);
    /// assert!(!count.is_current(begun), "from its beginning on");
    /// drop(writing);
    /// assert!(!count.is_current(begun));
    /// ```
    #[inline]
    #[track_caller]
    pub fn write<'a>(&'a self, _pinned: &'a (impl Pinned + ?Sized)) -> SeqCountGuard<'a, P> {
        self.writer.begin::<P>(Location::caller());
        SeqCountGuard { odd: self.number.start(), count: self, _bound: CpuBound::NEW }
    }

    #[cold]
    fn wait(&self, at: &'static Location<'static>) -> Begun {
        self.writer.check_reader::<P>(at);
        loop {
            P::relax();
            if let Some(begun) = self.try_begin() {
                return begun;
            }
        }
    }
}

impl<P: Platform> Default for SeqCount<P> {
    fn default() -> SeqCount<P> {
        SeqCount::new()
    }
}

impl<P> fmt::Debug for SeqCount<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SeqCount").field(&self.number.begin()).finish()
    }
}

/// A write section of a [`SeqCount`]; readers that meet it start over. It cannot outlive the proof that its CPU is not
/// taken away, and is neither `Send` nor `Sync`.
///
/// ```
/// let count = sync::SeqCount::<hal::Native>::new();
/// let writers = sync::SpinLock::<()>::new(());
/// let held = writers.lock(); // excludes other writers, and pins
/// let writing = count.write(&held);
/// assert!(count.try_begin().is_none());
/// drop(writing);
/// assert!(count.try_begin().is_some());
/// ```
#[must_use = "the write section ends as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct SeqCountGuard<'a, P = Native> {
    count: &'a SeqCount<P>,
    odd: usize,
    _bound: CpuBound,
}

impl<P> Drop for SeqCountGuard<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.count.writer.end();
        self.count.number.end(self.odd);
    }
}

impl<P> fmt::Debug for SeqCountGuard<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeqCountGuard").field("number", &self.odd).finish()
    }
}
