//! Objects that no new reader finds, and old ones may still use.
//!
//! 1. Who unlinks an object gets it as a [`Retired`]. It cannot be freed by mistake: whatever is done with the value, or
//!    nothing, a grace period comes first.
//! 2. What to do after the grace period is said once: free it, get it back, or pass it to a function.
//! 3. The head that waits for the grace period lies in the object's own allocation, if it is an
//!    [`RcuBox`](crate::RcuBox). For other owners a small carrier is allocated when the object is given up.

use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ops::Deref;
use core::ptr::NonNull;

use sync::TaskCx;
use sync::list::Owner;

use crate::domain::Domain;

/// Owners whose objects can be given up to a grace period.
///
/// | owner | the head |
/// |---|---|
/// | [`RcuBox<T>`](crate::RcuBox) | in front of the value: giving up neither allocates nor fails |
/// | `Box<T>`, `Arc<T>` and pinned ones | in a carrier of four words that is allocated; if there is no memory the object is leaked, and that is reported |
///
/// # Safety
/// `defer` does what it says.
///
/// ```
/// use rcu::{Reclaim, RcuBox, RcuOption};
/// rcu::hosted_domain! { struct Routes; }
///
/// /// Empties a pointer to whatever kind of object.
/// fn clear<O: Reclaim>(pointer: &RcuOption<O, Routes>) {
///     drop(pointer.replace(None));
/// }
/// let (a, b) = (RcuOption::from(RcuBox::new(1)), RcuOption::from(std::sync::Arc::new(2)));
/// clear(&a);
/// clear(&b);
/// assert!(a.is_none() && b.is_none());
/// ```
pub unsafe trait Reclaim: Owner + Send + 'static {
    /// Has the owner put together again and given to `J` after a grace period of `D`.
    ///
    /// # Safety
    /// `object` came from `into_raw`, and becomes the callback's.
    #[doc(hidden)]
    #[track_caller]
    unsafe fn defer<D: Domain, J: Job<Self>>(object: NonNull<Self::Object>);
}

/// What is done with an owner after the grace period. A type without values, so that a function pointer says it all.
#[doc(hidden)]
pub trait Job<O>: 'static {
    /// Contexts: those of the domain's callbacks.
    fn run(owner: O);
}

/// Frees.
enum Free {}

impl<O> Job<O> for Free {
    #[inline]
    fn run(owner: O) {
        drop(owner);
    }
}

/// Calls a function that has a type of its own.
struct Call<F>(PhantomData<F>);

impl<O, F: FnOnce(O) + 'static> Job<O> for Call<F> {
    #[inline]
    fn run(owner: O) {
        // SAFETY: `F` has no size (`Retired::call` checks it), so that there is nothing to be initialised, and the value
        // that the caller of `Retired::call` gave up for this was forgotten: it is used once.
        let function: F = unsafe { NonNull::dangling().read() };
        function(owner);
    }
}

/// An object that new readers of domain `D` do not find any more, and which earlier ones may still be using.
///
/// Dropping it is [`free_after_grace_period`](Retired::free_after_grace_period). While it is held the object is alive, and
/// can be looked at.
///
/// ```
/// use rcu::{RcuBox, RcuOption};
/// rcu::hosted_domain! { struct Routes; }
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
/// let old = gateway.replace(Some(RcuBox::new(2))).unwrap();
/// assert_eq!(*old, 1);
/// let mine = old.synchronize_then(&mut cx); // nobody else has it any more
/// assert_eq!(mine.into_inner(), 1);
/// ```
///
/// # Invariants
/// The object came from `O::into_raw`; the value has the right to the one `from_raw`, after a grace period of `D` that
/// begins no earlier than the value was made.
#[must_use = "dropping it frees the object after a grace period; say so with `free_after_grace_period`"]
pub struct Retired<O: Reclaim, D: Domain> {
    object: NonNull<O::Object>,
    _owner: PhantomData<(O, fn() -> D)>,
}

// SAFETY: it is an owner that is not put together yet.
unsafe impl<O: Reclaim, D: Domain> Send for Retired<O, D> {}
// SAFETY: shared, it gives references to the object.
unsafe impl<O: Reclaim<Object: Sync>, D: Domain> Sync for Retired<O, D> {}

impl<O: Reclaim, D: Domain> Retired<O, D> {
    /// Retires an object that may be known to readers for another reason, or to nobody.
    ///
    /// ```
    /// rcu::hosted_domain! { struct Routes; }
    /// rcu::Retired::<_, Routes>::new(rcu::RcuBox::new(7)).free_after_grace_period();
    /// ```
    pub fn new(owner: O) -> Retired<O, D> {
        // SAFETY: taken apart just now.
        unsafe { Retired::from_raw(owner.into_raw()) }
    }

    /// For structures that hold owners taken apart.
    ///
    /// # Safety
    /// `object` came from `O::into_raw`, there is no other right to its `from_raw`, and readers who begin a section of
    /// `D` after this do not find it.
    pub unsafe fn from_raw(object: NonNull<O::Object>) -> Retired<O, D> {
        // INVARIANT: the contract.
        Retired { object, _owner: PhantomData }
    }

    /// Frees the object when a grace period has passed. Does not wait for that. A domain that bounds its callbacks may hold a
    /// caller back that may sleep, while there are too many of them.
    ///
    /// Linux: `kfree_rcu`. Contexts: those of the domain's `call`; an object without an embedded head also needs the
    /// allocator. The object is dropped where callbacks run, with bottom halves off: its `drop` must not sleep.
    ///
    /// ```
    /// use rcu::{RcuBox, RcuOption};
    /// rcu::hosted_domain! { struct Routes; }
    /// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// if let Some(old) = gateway.replace(None) {
    ///     old.free_after_grace_period();
    /// }
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn free_after_grace_period(self) {
        let object = self.into_raw();
        // SAFETY: the type's invariant.
        unsafe { O::defer::<D, Free>(object) };
    }

    /// Calls `function` with the owner when a grace period has passed. Waits as
    /// [`free_after_grace_period`](Retired::free_after_grace_period) does. The function must be one without
    /// captured variables, because there is no room for them; that is checked when compiled.
    ///
    /// Linux: `call_rcu`. Contexts: as for [`free_after_grace_period`](Retired::free_after_grace_period), and so for
    /// `function`.
    ///
    /// ```
    /// use rcu::{RcuBox, Retired, hosted::HostedDomain};
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// rcu::hosted_domain! { struct Routes; }
    /// static LAST: AtomicU32 = AtomicU32::new(0);
    ///
    /// Retired::<_, Routes>::new(RcuBox::new(7)).call(|route| LAST.store(*route, Ordering::Relaxed));
    /// Routes::wait_for_callbacks();
    /// assert_eq!(LAST.load(Ordering::Relaxed), 7);
    /// ```
    ///
    /// ```compile_fail
    /// # use rcu::{RcuBox, Retired};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let captured = String::from("no room");
    /// Retired::<_, Routes>::new(RcuBox::new(7)).call(move |_| println!("{captured}"));
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn call<F: FnOnce(O) + Send + 'static>(self, function: F) {
        const { assert!(size_of::<F>() == 0, "the function captures variables, and there is no room for them") };
        // `Call` makes it again out of nothing.
        mem::forget(function);
        let object = self.into_raw();
        // SAFETY: the type's invariant.
        unsafe { O::defer::<D, Call<F>>(object) };
    }

    /// Waits for a grace period and gives the owner back.
    ///
    /// Linux: `synchronize_rcu` and what follows it. Contexts: as for [`Domain::synchronize`].
    ///
    /// ```
    /// use rcu::{RcuBox, RcuOption};
    /// rcu::hosted_domain! { struct Routes; }
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// let old = gateway.replace(None).map(|old| old.synchronize_then(&mut cx));
    /// assert_eq!(old.unwrap().into_inner(), 1);
    /// ```
    #[track_caller]
    pub fn synchronize_then(self, cx: &mut TaskCx<D::Platform>) -> O {
        D::synchronize(cx);
        // SAFETY: the type's invariant; the grace period was this one.
        unsafe { O::from_raw(self.into_raw()) }
    }

    /// Gives the owner back if a grace period has passed since `state` was named, otherwise itself. `state` must have been
    /// named after this value was made.
    ///
    /// # Safety
    /// It was: an older state says nothing about readers who began since then.
    ///
    /// ```
    /// use rcu::{Domain, RcuBox, Retired};
    /// rcu::hosted_domain! { struct Routes; }
    /// let mut old = Retired::<_, Routes>::new(RcuBox::new(7));
    /// let state = Routes::start_poll();
    /// let mine = loop {
    ///     // SAFETY: named after the object was retired.
    ///     match unsafe { old.poll_then(state) } {
    ///         Ok(mine) => break mine,
    ///         Err(not_yet) => old = not_yet,
    ///     }
    /// };
    /// assert_eq!(*mine, 7);
    /// ```
    pub unsafe fn poll_then(self, state: D::State) -> Result<O, Retired<O, D>> {
        if D::poll(state) {
            // SAFETY: the type's invariant; the contract makes the grace period a later one.
            Ok(unsafe { O::from_raw(self.into_raw()) })
        } else {
            Err(self)
        }
    }

    /// The right to the object, without the value.
    #[inline(always)]
    fn into_raw(self) -> NonNull<O::Object> {
        let object = self.object;
        mem::forget(self);
        object
    }
}

impl<O: Reclaim, D: Domain> Drop for Retired<O, D> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the type's invariant.
        unsafe { O::defer::<D, Free>(self.object) };
    }
}

// Only what may be shared: readers on other CPUs look at it too, and the value may have come here from another one.
impl<O: Reclaim<Object: Sync>, D: Domain> Deref for Retired<O, D> {
    type Target = O::Object;

    fn deref(&self) -> &O::Object {
        // SAFETY: the object is alive until the value is used up. Readers share it.
        unsafe { self.object.as_ref() }
    }
}

impl<O: Reclaim<Object: Sync + fmt::Debug>, D: Domain> fmt::Debug for Retired<O, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retired").field(&**self).finish()
    }
}

#[cfg(feature = "alloc")]
mod owners {
    use alloc::alloc::{Layout, alloc};
    use alloc::boxed::Box;
    use alloc::sync::Arc;
    use core::panic::Location;
    use core::pin::Pin;

    use hal::Platform;
    use hal::platform::{Report, Severity};

    use super::*;
    use crate::boxed::RcuBox;
    use crate::head::Head;

    // SAFETY: the head in front of the value is in no queue, because the right to `from_raw` is with the caller.
    unsafe impl<T: Send + 'static> Reclaim for RcuBox<T> {
        #[inline(always)]
        #[track_caller]
        unsafe fn defer<D: Domain, J: Job<RcuBox<T>>>(object: NonNull<T>) {
            unsafe fn run<T, J: Job<RcuBox<T>>>(head: NonNull<Head>) {
                // SAFETY: the head is the one that was queued below.
                J::run(unsafe { RcuBox::from_raw(RcuBox::value_of(head)) });
            }
            // SAFETY: the object is alive and in place until `run` owns it.
            unsafe { D::call_lazy(RcuBox::head_of(object), run::<T, J>) };
        }
    }

    /// A head for an object that has none.
    #[repr(C)]
    struct Carrier<T> {
        head: Head,
        object: NonNull<T>,
    }

    /// # Safety
    /// As for `Reclaim::defer`.
    #[track_caller]
    unsafe fn carry<O: Reclaim, D: Domain, J: Job<O>>(object: NonNull<O::Object>) {
        unsafe fn run<O: Reclaim, J: Job<O>>(head: NonNull<Head>) {
            // SAFETY: the head is that of the carrier that was queued below.
            let carrier = *unsafe { Box::from_raw(head.cast::<Carrier<O::Object>>().as_ptr()) };
            let object = carrier.object;
            drop(carrier);
            // SAFETY: the right to it was given to `carry`.
            J::run(unsafe { O::from_raw(object) });
        }
        // SAFETY: a carrier has a size.
        let memory = unsafe { alloc(Layout::new::<Carrier<O::Object>>()) };
        let Some(carrier) = NonNull::new(memory.cast::<Carrier<O::Object>>()) else {
            D::Platform::report(&Report {
                severity: Severity::Warning,
                message: format_args!("rcu: no memory to give up an object; it is never freed"),
                location: Location::caller(),
            });
            return;
        };
        // SAFETY: fresh memory of this layout, in place until `run` frees it.
        unsafe {
            carrier.write(Carrier { head: Head::new(), object });
            D::call_lazy(carrier.cast(), run::<O, J>);
        }
    }

    macro_rules! carried {
        ($($Owner:ty: $($Bound:ident)+;)+) => {$(
            // SAFETY: `carry` does it.
            unsafe impl<T: $($Bound +)+ 'static> Reclaim for $Owner {
                #[track_caller]
                unsafe fn defer<D: Domain, J: Job<Self>>(object: NonNull<T>) {
                    // SAFETY: the same contract.
                    unsafe { carry::<Self, D, J>(object) };
                }
            }
        )+};
    }
    carried! {
        Box<T>: Send;
        Pin<Box<T>>: Send;
        Arc<T>: Send Sync;
        Pin<Arc<T>>: Send Sync;
    }
}
