//! Pointers that readers follow while writers exchange them.
//!
//! 1. A pointer owns the object that it points to, by way of a `Box`-like owner or an `Arc`.
//! 2. A reader loads it under the proof of a read section. The reference that it gets lasts as long as both the section
//!    and the pointer.
//! 3. A writer exchanges it in one atomic step. The former object comes out as a [`Retired`], which will not be freed
//!    before the readers that may have it are gone.
//!
//! # What is ordered
//!
//! Every exchange releases and every load acquires: who follows a pointer sees the object as it was when it was
//! published. On x86_64 an acquiring load is an ordinary one. (Linux relies on the dependency between the load of a pointer
//! and the accesses through it, which Rust cannot express.)

use core::fmt;
use core::marker::PhantomData;
use core::ops::DerefMut;
use core::ptr::{self, NonNull};

use sync::list::Owner;

use crate::domain::Domain;
use crate::guard::{Proof, ReadGuard, read};
use crate::primitives::{AtomicPtr, Ordering, const_fn};
use crate::retired::{Reclaim, Retired};

/// A pointer to an object, or to none, that readers of domain `D` may follow at any time.
///
/// `O` is the owner: [`RcuBox<T>`](crate::RcuBox), `Box<T>`, `Arc<T>`.
///
/// Dropping the pointer drops the object at once: references to the object borrow the pointer too, so that there are none.
///
/// Linux: an `__rcu` pointer. Size: one word.
///
/// ```
/// use rcu::{RcuBox, RcuOption};
/// rcu::hosted_domain! { struct Routes; }
///
/// static GATEWAY: RcuOption<RcuBox<[u8; 4]>, Routes> = RcuOption::none();
///
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let reader = rcu::read();
///         let found = GATEWAY.load(&reader); // one of the two, whole
///         assert!(found.is_none() || found == Some(&[10, 0, 0, 1]));
///     });
///     drop(GATEWAY.replace(Some(RcuBox::new([10, 0, 0, 1]))));
/// });
/// ```
///
/// # Invariants
/// The pointer is null or came from `O::into_raw`, and the right to its `from_raw` is here.
pub struct RcuOption<O: Owner, D: Domain> {
    pointer: AtomicPtr<O::Object>,
    _owner: PhantomData<(O, fn() -> D)>,
}

// SAFETY: it is an `Option<O>`.
unsafe impl<O: Owner + Send, D: Domain> Send for RcuOption<O, D> {}
// SAFETY: shared, it gives references to the object to readers, and takes and gives owners.
unsafe impl<O: Owner<Object: Sync> + Send + Sync, D: Domain> Sync for RcuOption<O, D> {}

/// What a refused [`compare_exchange`](RcuOption::compare_exchange) gives back: what would have been put in.
#[derive(Debug)]
pub struct Refused<O>(pub O);

impl<O: Owner, D: Domain> RcuOption<O, D> {
    const_fn! {
        /// Points to nothing.
        ///
        /// ```
        /// use rcu::{RcuBox, RcuOption};
        /// rcu::hosted_domain! { struct Routes; }
        /// static GATEWAY: RcuOption<RcuBox<u32>, Routes> = RcuOption::none();
        /// assert!(GATEWAY.is_none());
        /// ```
        pub fn none() -> RcuOption<O, D> {
            RcuOption { pointer: AtomicPtr::new(ptr::null_mut()), _owner: PhantomData }
        }
    }

    /// The object, for as long as the section lasts.
    ///
    /// Linux: `rcu_dereference`. Contexts: any. Cost: one load.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// let reader = rcu::read();
    /// let found = gateway.load(&reader);
    /// drop(gateway.replace(None));
    /// assert_eq!(found, Some(&1)); // still there: the section began before
    /// assert_eq!(gateway.load(&reader), None);
    /// ```
    #[inline(always)]
    pub fn load<'g>(&'g self, _section: &'g impl Proof<D>) -> Option<&'g O::Object> {
        // Acquire: pairs with the Release of the exchanges below.
        let object = self.pointer.load(Ordering::Acquire);
        // SAFETY: null or an object that was in the pointer during the section. If it has been taken out, then into a
        // `Retired`, which outlasts the section (`Proof`, `Domain`); if it is still in, the pointer keeps it, which is
        // borrowed.
        unsafe { object.as_ref() }
    }

    /// The address of the object, to be compared and not followed. Out of date at once.
    ///
    /// Linux: `rcu_access_pointer`. Contexts: any, no section needed.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// assert_eq!(gateway.address(), std::ptr::from_ref(gateway.load(&rcu::read()).unwrap()));
    /// ```
    #[inline(always)]
    pub fn address(&self) -> *const O::Object {
        self.pointer.load(Ordering::Relaxed)
    }

    /// Whether there is no object, without following the pointer. Out of date at once.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// assert!(!RcuOption::<_, Routes>::from(RcuBox::new(1)).is_none());
    /// ```
    #[inline(always)]
    pub fn is_none(&self) -> bool {
        self.address().is_null()
    }

    /// The object, for its only user.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let mut gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// *gateway.get_mut().unwrap() += 1;
    /// assert_eq!(*gateway.into_inner().unwrap(), 2);
    /// ```
    pub fn get_mut(&mut self) -> Option<&mut O::Object>
    where
        O: sync::list::UniqueOwner,
        O::Object: Unpin,
    {
        // SAFETY: the type's invariant. No reader has it, because references borrow the pointer, and the owner is the only
        // one.
        unsafe { self.pointer.load(Ordering::Relaxed).as_mut() }
    }

    /// Takes the pointer apart. No reader is left, so that the object comes out at once.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// assert_eq!(*gateway.into_inner().unwrap(), 1);
    /// ```
    pub fn into_inner(self) -> Option<O> {
        // Acquire: pairs with the Release of the exchanges below.
        let object = NonNull::new(self.pointer.swap(ptr::null_mut(), Ordering::Acquire))?;
        // SAFETY: the type's invariant; no reference is left.
        Some(unsafe { O::from_raw(object) })
    }
}

impl<O: Reclaim, D: Domain> RcuOption<O, D> {
    /// Exchanges the object. New readers find `new`; the former one comes out.
    ///
    /// Linux: `rcu_replace_pointer`, `rcu_assign_pointer`. Contexts: any that may give up the former object. Cost: one atomic
    /// operation.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let gateway = RcuOption::<RcuBox<u32>, Routes>::none();
    /// assert!(gateway.replace(Some(RcuBox::new(1))).is_none());
    /// let old = gateway.replace(Some(RcuBox::new(2)));
    /// assert_eq!(*old.unwrap(), 1);
    /// ```
    #[inline]
    pub fn replace(&self, new: Option<O>) -> Option<Retired<O, D>> {
        let new = new.map_or(ptr::null_mut(), |new| new.into_raw().as_ptr());
        // INVARIANT: taken apart just now.
        // Release: pairs with the Acquire in `load`. Acquire: who takes the object out sees it as it was put in.
        let old = self.pointer.swap(new, Ordering::AcqRel);
        // SAFETY: it was here, by the type's invariant, and is not any more.
        NonNull::new(old).map(|old| unsafe { Retired::from_raw(old) })
    }

    /// Exchanges the object if it is still `current`; otherwise gives `new` back.
    ///
    /// `current` is a reference, so that no other object can have its address meanwhile.
    ///
    /// Linux: `cmpxchg` on an `__rcu` pointer. Contexts: as for [`replace`](RcuOption::replace).
    ///
    /// # Errors
    /// [`Refused`], with `new`, if the pointer has changed.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let gateway = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// let reader = rcu::read();
    /// let seen = gateway.load(&reader);
    /// drop(gateway.compare_exchange(seen, Some(RcuBox::new(2))).unwrap());
    /// let refused = gateway.compare_exchange(seen, Some(RcuBox::new(3))).unwrap_err();
    /// assert_eq!(refused.0.as_deref(), Some(&3));
    /// assert_eq!(gateway.load(&reader), Some(&2));
    /// ```
    pub fn compare_exchange(
        &self,
        current: Option<&O::Object>,
        new: Option<O>,
    ) -> Result<Option<Retired<O, D>>, Refused<Option<O>>> {
        let current = current.map_or(ptr::null_mut(), |current| ptr::from_ref(current).cast_mut());
        let new = new.map_or(ptr::null_mut(), |new| new.into_raw().as_ptr());
        // INVARIANT and orderings: as in `replace`.
        match self.pointer.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed) {
            // SAFETY: as in `replace`.
            Ok(old) => Ok(NonNull::new(old).map(|old| unsafe { Retired::from_raw(old) })),
            // SAFETY: taken apart above, and put nowhere.
            Err(_) => Err(Refused(NonNull::new(new).map(|new| unsafe { O::from_raw(new) }))),
        }
    }

    /// Makes a new object from the present one and puts it in, as often as it takes: `change` is called again if somebody
    /// else was faster. It runs in a read section.
    ///
    /// Contexts: as for [`replace`](RcuOption::replace). Lock-free.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// let count = RcuOption::<RcuBox<u32>, Routes>::none();
    /// for _ in 0..3 {
    ///     drop(count.update(|old| Some(RcuBox::new(old.copied().unwrap_or(0) + 1))));
    /// }
    /// assert_eq!(count.load(&rcu::read()), Some(&3));
    /// ```
    pub fn update(&self, mut change: impl FnMut(Option<&O::Object>) -> Option<O>) -> Option<Retired<O, D>> {
        let section: ReadGuard<'_, D> = read();
        loop {
            let current = self.load(&section);
            let new = change(current);
            if let Ok(old) = self.compare_exchange(current, new) {
                return old;
            }
        }
    }

    /// Makes a new object from the present one and puts it in, for a writer that holds the lock by which all writers of
    /// this pointer exclude each other. `change` is called once; it runs in a read section.
    ///
    /// Linux: `rcu_dereference_protected` and `rcu_assign_pointer`. Contexts: as for [`replace`](RcuOption::replace).
    ///
    /// # Panics
    /// If somebody who does not hold the lock has changed the pointer meanwhile.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuOption};
    /// # rcu::hosted_domain! { struct Routes; }
    /// static WRITERS: sync::SpinLock<()> = sync::SpinLock::new(());
    /// let count = RcuOption::<_, Routes>::from(RcuBox::new(1));
    /// let mut lock = WRITERS.lock();
    /// let old = count.update_with(&mut lock, |old| old.map(|n| RcuBox::new(n + 1)));
    /// drop(lock);
    /// old.unwrap().free_after_grace_period();
    /// assert_eq!(count.load(&rcu::read()), Some(&2));
    /// ```
    #[track_caller]
    pub fn update_with<G: DerefMut>(
        &self,
        _lock: &mut G,
        change: impl FnOnce(Option<&O::Object>) -> Option<O>,
    ) -> Option<Retired<O, D>> {
        let section: ReadGuard<'_, D> = read();
        let current = self.load(&section);
        let Ok(old) = self.compare_exchange(current, change(current)) else { changed_without_the_lock() };
        old
    }
}

#[cold]
#[track_caller]
fn changed_without_the_lock() -> ! {
    panic!(
        "rcu: a pointer was changed by somebody else while it was updated under a lock; all its writers must hold that lock"
    )
}

impl<O: Owner, D: Domain> From<O> for RcuOption<O, D> {
    fn from(owner: O) -> RcuOption<O, D> {
        // INVARIANT: taken apart just now.
        RcuOption { pointer: AtomicPtr::new(owner.into_raw().as_ptr()), _owner: PhantomData }
    }
}

impl<O: Owner, D: Domain> Default for RcuOption<O, D> {
    fn default() -> RcuOption<O, D> {
        RcuOption::none()
    }
}

impl<O: Owner, D: Domain> Drop for RcuOption<O, D> {
    fn drop(&mut self) {
        // Acquire: pairs with the Release of the exchanges.
        if let Some(object) = NonNull::new(self.pointer.load(Ordering::Acquire)) {
            // SAFETY: the type's invariant; references to the object borrow the pointer, and there are none.
            drop(unsafe { O::from_raw(object) });
        }
    }
}

impl<O: Owner<Object: fmt::Debug>, D: Domain> fmt::Debug for RcuOption<O, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RcuOption").field(&self.load(&read::<D>())).finish()
    }
}
