//! A box with room for a callback's head.

use alloc::boxed::Box;
use core::fmt;
use core::mem::offset_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use sync::list::{Owner, UniqueOwner};

use crate::head::Head;

/// A value on the heap, with a [`Head`] in front of it: what it takes to give it up after a grace period, without an
/// allocation at that moment.
///
/// Otherwise it is a `Box`, two words larger. [`Rcu`](crate::Rcu) and the lists hold such boxes.
///
/// ```
/// use rcu::RcuBox;
/// let mut route = RcuBox::new((10, "eth0"));
/// route.0 += 1;
/// assert_eq!(*route, (11, "eth0"));
/// assert_eq!(route.into_inner(), (11, "eth0"));
/// ```
///
/// # Invariants
/// The pointer came from a `Box<Headed<T>>` and is the only one to it.
pub struct RcuBox<T>(NonNull<Headed<T>>);

#[repr(C)]
struct Headed<T> {
    head: Head,
    value: T,
}

// SAFETY: the only pointer to its value, as `Box` is.
unsafe impl<T: Send> Send for RcuBox<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for RcuBox<T> {}

impl<T> RcuBox<T> {
    /// Allocates. Contexts: those of the allocator.
    ///
    /// ```
    /// assert_eq!(*rcu::RcuBox::new(7), 7);
    /// ```
    pub fn new(value: T) -> RcuBox<T> {
        let headed = Box::leak(Box::new(Headed { head: Head::new(), value }));
        // INVARIANT: made just now.
        RcuBox(NonNull::from(headed))
    }

    /// Takes the value out.
    ///
    /// ```
    /// assert_eq!(rcu::RcuBox::new(7).into_inner(), 7);
    /// ```
    pub fn into_inner(self) -> T {
        let headed = self.0;
        core::mem::forget(self);
        // SAFETY: the type's invariant.
        unsafe { Box::from_raw(headed.as_ptr()) }.value
    }

    /// The head in front of a value.
    ///
    /// # Safety
    /// `value` came from `into_raw` of this type.
    #[inline(always)]
    pub(crate) unsafe fn head_of(value: NonNull<T>) -> NonNull<Head> {
        // SAFETY: the contract; the pointer is good for the whole box.
        unsafe { value.byte_sub(offset_of!(Headed<T>, value)) }.cast()
    }

    /// And back.
    ///
    /// # Safety
    /// `head` came from `head_of` with the same `T`.
    #[inline(always)]
    pub(crate) unsafe fn value_of(head: NonNull<Head>) -> NonNull<T> {
        // SAFETY: the contract; the head is the first field.
        unsafe { head.byte_add(offset_of!(Headed<T>, value)) }.cast()
    }
}

impl<T> Drop for RcuBox<T> {
    fn drop(&mut self) {
        // SAFETY: the type's invariant.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

// SAFETY: as for `Box`: in place until it becomes a box again, and the only pointer. The address given is that of the
// value, and good for the head in front of it.
unsafe impl<T> Owner for RcuBox<T> {
    type Object = T;
    const SHARED: bool = false;

    #[inline(always)]
    fn into_raw(self) -> NonNull<T> {
        let headed = self.0;
        core::mem::forget(self);
        // SAFETY: a field of a live object.
        unsafe { NonNull::new_unchecked(&raw mut (*headed.as_ptr()).value) }
    }

    #[inline(always)]
    unsafe fn from_raw(object: NonNull<T>) -> RcuBox<T> {
        // SAFETY: it came from `into_raw`.
        // INVARIANT: by the contract it is the only pointer again.
        RcuBox(unsafe { RcuBox::head_of(object) }.cast())
    }
}
// SAFETY: the only pointer to its value.
unsafe impl<T> UniqueOwner for RcuBox<T> {}

impl<T> Deref for RcuBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the type's invariant.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> DerefMut for RcuBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the type's invariant.
        unsafe { &mut self.0.as_mut().value }
    }
}

impl<T> From<T> for RcuBox<T> {
    fn from(value: T) -> RcuBox<T> {
        RcuBox::new(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for RcuBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
