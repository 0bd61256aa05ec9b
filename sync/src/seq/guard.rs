//! Writing, as a value: a copy that is changed at leisure and published when the guard goes.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use hal::percpu::{IrqsOff, Pinned};

/// A [`SeqLock`](super::SeqLock) or [`Latch`](super::Latch): what a [`WriteGuard`] publishes to. Nothing else can
/// implement it.
///
/// ```
/// use sync::{Latch, SeqLock, seq::Target};
/// fn is_target(_: &impl Target) {}
/// is_target(&SeqLock::<u32>::new(1));
/// is_target(&Latch::<u32>::new(1));
/// ```
pub trait Target: sealed::Publish {}

pub(super) mod sealed {
    use core::panic::Location;

    use bytemuck::NoUninit;

    pub trait Publish {
        /// The data.
        type Value: NoUninit;

        /// Makes `value` the value. Writers exclude each other and are not preempted.
        fn publish(&self, value: &Self::Value, at: &'static Location<'static>);
    }
}

/// The exclusive right to write a [`SeqLock`](super::SeqLock) or [`Latch`](super::Latch) while this value lives.
///
/// It dereferences to a copy of the data, which readers do not see. Dropping the guard publishes the copy if it was
/// borrowed mutably, releases the lock of the writers, and switches on what the flavour switched off. So readers are
/// disturbed for as long as copying takes, however long the guard is held, and reading inside of it is allowed.
///
/// Leaking the guard leaves the writers' lock held for ever; readers go on with the old value. `H` is how the lock is
/// held. Neither `Send` nor `Sync`.
///
/// ```
/// let limit: sync::SeqLock<u32> = sync::SeqLock::new(1);
/// let mut writing = limit.write();
/// *writing += 4;
/// assert_eq!((*writing, limit.read()), (5, 1));
/// drop(writing);
/// assert_eq!(limit.read(), 5);
/// ```
#[must_use = "the data is published and the lock released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct WriteGuard<'a, L: Target, H> {
    target: &'a L,
    value: L::Value,
    changed: bool,
    taken_at: &'static Location<'static>,
    #[expect(dead_code, reason = "it is there to be dropped after `Drop::drop` has published")]
    held: H,
}

impl<'a, L: Target, H> WriteGuard<'a, L, H> {
    /// `held` excludes other writers of `target`, whose present value is `value`.
    #[inline(always)]
    pub(super) fn new(
        target: &'a L,
        value: L::Value,
        held: H,
        taken_at: &'static Location<'static>,
    ) -> WriteGuard<'a, L, H> {
        WriteGuard { target, value, changed: false, taken_at, held }
    }

    /// Ends the write without publishing: the data stays as it was.
    ///
    /// ```
    /// let limit: sync::SeqLock<u32> = sync::SeqLock::new(1);
    /// let mut writing = limit.write();
    /// *writing = 1_000;
    /// writing.discard();
    /// assert_eq!(limit.read(), 1);
    /// ```
    #[inline]
    pub fn discard(mut self) {
        self.changed = false;
    }
}

impl<L: Target, H> Drop for WriteGuard<'_, L, H> {
    #[inline]
    fn drop(&mut self) {
        if self.changed {
            self.target.publish(&self.value, self.taken_at);
        }
    }
}

impl<L: Target, H> Deref for WriteGuard<'_, L, H> {
    type Target = L::Value;

    #[inline(always)]
    fn deref(&self) -> &L::Value {
        &self.value
    }
}

impl<L: Target, H> DerefMut for WriteGuard<'_, L, H> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut L::Value {
        self.changed = true;
        &mut self.value
    }
}

impl<L: Target, H> fmt::Debug for WriteGuard<'_, L, H>
where
    L::Value: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)
    }
}

// SAFETY: `held` has the property as long as it lives, and makes the guard neither `Send` nor `Sync`.
unsafe impl<L: Target, H: Pinned> Pinned for WriteGuard<'_, L, H> {}
// SAFETY: as above.
unsafe impl<L: Target, H: IrqsOff> IrqsOff for WriteGuard<'_, L, H> {}
