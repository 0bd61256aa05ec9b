//! Pointers that a list can hold.
//!
//! A list of `Box`es owns its objects, a list of `Arc`s owns a share in each, a list of references borrows them for as
//! long as the list lives. What the list stores in every case is the object's address; the pointer is taken apart when
//! it goes in and put together again when it comes out. So there is neither an allocation nor a second pointer.

use core::pin::Pin;
use core::ptr::NonNull;

#[cfg(feature = "alloc")]
use alloc::{boxed::Box, sync::Arc};

/// A pointer that gives its object's membership to a list and gets it back.
///
/// | pointer | adding | in the list | comes back |
/// |---|---|---|---|
/// | `Box<T>`, `Pin<Box<T>>` | checks the node | the list is the owner | on removal |
/// | `&'a mut T`, `Pin<&'a mut T>` | checks the node | borrowed for `'a`, which outlives the list | on removal |
/// | `Arc<T>`, `Pin<Arc<T>>` | claims the node by one atomic operation | one reference count | on removal |
/// | `&'a T`, `&'static T` | claims the node by one atomic operation | borrowed for `'a` | on removal |
///
/// # Safety
/// * From `into_raw` to `from_raw` the object neither moves nor ends, as long as `'a` of a borrowing pointer lasts.
/// * `into_raw` gives the same address each time, valid for the whole object.
/// * If `SHARED` is false, then no other pointer to the object could be given to a list between the two.
///
/// ```
/// use std::sync::Arc;
/// use sync::list::Owner;
///
/// let mine = Arc::new(7_u32);
/// let object = mine.clone().into_raw();
/// assert_eq!(Arc::strong_count(&mine), 2); // what was taken apart keeps its count
/// // SAFETY: it came from `into_raw`, for which there is no other `from_raw`.
/// let again = unsafe { <Arc<u32> as Owner>::from_raw(object) };
/// assert!(Arc::ptr_eq(&mine, &again));
/// ```
pub unsafe trait Owner: Sized {
    /// The object.
    type Object;
    /// Whether two such pointers to one object can exist, so that two CPUs might add it at the same time.
    const SHARED: bool;

    /// Takes the pointer apart.
    fn into_raw(self) -> NonNull<Self::Object>;

    /// Puts it together again.
    ///
    /// # Safety
    /// `object` came from `into_raw` of this type, and this is the only `from_raw` for that `into_raw`.
    unsafe fn from_raw(object: NonNull<Self::Object>) -> Self;
}

/// Owners that nobody else has a pointer beside: the list lends out their objects mutably (and pinned).
///
/// # Safety
/// From `into_raw` to `from_raw` nobody but the list reaches the object. `SHARED` is false.
///
/// A `Box` is one:
///
/// ```
/// # use sync::list::{Link, List};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let mut list: List<Box<Node>, InList> = (1..=3).map(|n| Box::new(Node(n, Link::new()))).collect();
/// assert_eq!(list.iter_mut().count(), 3);
/// ```
///
/// An `Arc` is not:
///
/// ```compile_fail,E0277
/// # use std::sync::Arc;
/// # use sync::list::{Link, List};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let mut list: List<Arc<Node>, InList> = (1..=3).map(|n| Arc::new(Node(n, Link::new()))).collect();
/// assert_eq!(list.iter_mut().count(), 3);
/// ```
pub unsafe trait UniqueOwner: Owner {}

// SAFETY: the reference keeps the object in place for `'a`, which outlives the list. Being a reference, not more: of an
// object that is not in a list any more, because the list was leaked, only its links remember it, and no list reaches it.
unsafe impl<'a, T> Owner for &'a T {
    type Object = T;
    const SHARED: bool = true;

    #[inline(always)]
    fn into_raw(self) -> NonNull<T> {
        NonNull::from(self)
    }

    #[inline(always)]
    unsafe fn from_raw(object: NonNull<T>) -> &'a T {
        // SAFETY: it was a `&'a T`, and the list does not outlive `'a`.
        unsafe { object.as_ref() }
    }
}

// SAFETY: as for `&T`; a mutable reference is the only one.
unsafe impl<'a, T> Owner for &'a mut T {
    type Object = T;
    const SHARED: bool = false;

    #[inline(always)]
    fn into_raw(self) -> NonNull<T> {
        NonNull::from(self)
    }

    #[inline(always)]
    unsafe fn from_raw(mut object: NonNull<T>) -> &'a mut T {
        // SAFETY: it was a `&'a mut T`, the list does not outlive `'a` and gives it up.
        unsafe { object.as_mut() }
    }
}
// SAFETY: a mutable reference is the only one.
unsafe impl<T> UniqueOwner for &mut T {}

// SAFETY: as for `&mut T`; the list moves no object.
unsafe impl<'a, T> Owner for Pin<&'a mut T> {
    type Object = T;
    const SHARED: bool = false;

    #[inline(always)]
    fn into_raw(self) -> NonNull<T> {
        // SAFETY: nobody moves the object while its address is in the list.
        NonNull::from(unsafe { self.get_unchecked_mut() })
    }

    #[inline(always)]
    unsafe fn from_raw(mut object: NonNull<T>) -> Pin<&'a mut T> {
        // SAFETY: it was a `Pin<&'a mut T>`, the list does not outlive `'a` and gives it up.
        unsafe { Pin::new_unchecked(object.as_mut()) }
    }
}
// SAFETY: a mutable reference is the only one.
unsafe impl<T> UniqueOwner for Pin<&mut T> {}

#[cfg(feature = "alloc")]
mod owned {
    use super::*;

    // SAFETY: a box keeps its object in place, is the only pointer to it, and a raw box is not freed.
    unsafe impl<T> Owner for Box<T> {
        type Object = T;
        const SHARED: bool = false;

        #[inline(always)]
        fn into_raw(self) -> NonNull<T> {
            // SAFETY: a box is never null.
            unsafe { NonNull::new_unchecked(Box::into_raw(self)) }
        }

        #[inline(always)]
        unsafe fn from_raw(object: NonNull<T>) -> Box<T> {
            // SAFETY: it was a box, and becomes one once.
            unsafe { Box::from_raw(object.as_ptr()) }
        }
    }
    // SAFETY: a box is the only pointer to its object.
    unsafe impl<T> UniqueOwner for Box<T> {}

    // SAFETY: as for `Box`; the list moves no object.
    unsafe impl<T> Owner for Pin<Box<T>> {
        type Object = T;
        const SHARED: bool = false;

        #[inline(always)]
        fn into_raw(self) -> NonNull<T> {
            // SAFETY: nobody moves the object while its address is in the list.
            unsafe { Pin::into_inner_unchecked(self) }.into_raw()
        }

        #[inline(always)]
        unsafe fn from_raw(object: NonNull<T>) -> Pin<Box<T>> {
            // SAFETY: it was a box, and becomes one once. It was pinned.
            unsafe { Pin::new_unchecked(Box::from_raw(object.as_ptr())) }
        }
    }
    // SAFETY: a box is the only pointer to its object.
    unsafe impl<T> UniqueOwner for Pin<Box<T>> {}

    // SAFETY: an `Arc` keeps its object in place and alive; the one that was taken apart keeps its count.
    unsafe impl<T> Owner for Arc<T> {
        type Object = T;
        const SHARED: bool = true;

        #[inline(always)]
        fn into_raw(self) -> NonNull<T> {
            // SAFETY: an `Arc` is never null.
            unsafe { NonNull::new_unchecked(Arc::into_raw(self).cast_mut()) }
        }

        #[inline(always)]
        unsafe fn from_raw(object: NonNull<T>) -> Arc<T> {
            // SAFETY: it was an `Arc`, whose count becomes this one's.
            unsafe { Arc::from_raw(object.as_ptr()) }
        }
    }

    // SAFETY: as for `Arc`; the list moves no object.
    unsafe impl<T> Owner for Pin<Arc<T>> {
        type Object = T;
        const SHARED: bool = true;

        #[inline(always)]
        fn into_raw(self) -> NonNull<T> {
            // SAFETY: nobody moves the object while its address is in the list.
            unsafe { Pin::into_inner_unchecked(self) }.into_raw()
        }

        #[inline(always)]
        unsafe fn from_raw(object: NonNull<T>) -> Pin<Arc<T>> {
            // SAFETY: as for `Arc`. It was pinned.
            unsafe { Pin::new_unchecked(<Arc<T> as Owner>::from_raw(object)) }
        }
    }
}
