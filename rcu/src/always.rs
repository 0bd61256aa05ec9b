//! A pointer that always has an object.

use core::fmt;
use core::ops::DerefMut;

use sync::list::Owner;

use crate::cell::{RcuOption, Refused};
use crate::domain::Domain;
use crate::guard::{Proof, read};
use crate::retired::{Reclaim, Retired};

/// A pointer that always has an object. See [`RcuOption`].
///
/// ```
/// use rcu::{Rcu, RcuBox};
/// rcu::hosted_domain! { struct Settings; }
///
/// let limit: Rcu<RcuBox<u32>, Settings> = Rcu::new(RcuBox::new(10));
/// assert_eq!(*limit.load(&rcu::read()), 10);
/// limit.replace(RcuBox::new(20)).free_after_grace_period();
/// assert_eq!(*limit.load(&rcu::read()), 20);
/// ```
///
/// # Invariants
/// The pointer is not null.
pub struct Rcu<O: Owner, D: Domain>(RcuOption<O, D>);

impl<O: Owner, D: Domain> Rcu<O, D> {
    /// Points to the owner's object.
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// assert_eq!(*limit.load(&rcu::read()), 10);
    /// ```
    pub fn new(owner: O) -> Rcu<O, D> {
        // INVARIANT: an owner has an object.
        Rcu(RcuOption::from(owner))
    }

    /// The object, for as long as the section lasts. See [`RcuOption::load`].
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// let reader = rcu::read();
    /// let found = limit.load(&reader);
    /// drop(limit.replace(RcuBox::new(20)));
    /// assert_eq!(*found, 10);
    /// ```
    #[inline(always)]
    pub fn load<'g>(&'g self, section: &'g impl Proof<D>) -> &'g O::Object {
        // SAFETY: the type's invariant.
        unsafe { self.0.load(section).unwrap_unchecked() }
    }

    /// The address of the object, to be compared and not followed. See [`RcuOption::address`].
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// assert!(!limit.address().is_null());
    /// ```
    #[inline(always)]
    pub fn address(&self) -> *const O::Object {
        self.0.address()
    }

    /// Takes the pointer apart.
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// assert_eq!(*Rcu::<_, Settings>::new(RcuBox::new(10)).into_inner(), 10);
    /// ```
    pub fn into_inner(self) -> O {
        self.0.into_inner().expect("always has an object")
    }
}

impl<O: Reclaim, D: Domain> Rcu<O, D> {
    /// Exchanges the object. See [`RcuOption::replace`].
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// let old = limit.replace(RcuBox::new(20));
    /// assert_eq!((*old, *limit.load(&rcu::read())), (10, 20));
    /// ```
    #[inline]
    pub fn replace(&self, new: O) -> Retired<O, D> {
        // INVARIANT: put in just now.
        self.0.replace(Some(new)).expect("always has an object")
    }

    /// Exchanges the object if it is still `current`. See [`RcuOption::compare_exchange`].
    ///
    /// # Errors
    /// [`Refused`], with `new`, if the pointer has changed.
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// let reader = rcu::read();
    /// let seen = limit.load(&reader);
    /// assert!(limit.compare_exchange(seen, RcuBox::new(20)).is_ok());
    /// assert_eq!(*limit.compare_exchange(seen, RcuBox::new(30)).unwrap_err().0, 30);
    /// ```
    pub fn compare_exchange(&self, current: &O::Object, new: O) -> Result<Retired<O, D>, Refused<O>> {
        match self.0.compare_exchange(Some(current), Some(new)) {
            Ok(old) => Ok(old.expect("always has an object")),
            Err(Refused(new)) => Err(Refused(new.expect("was passed on"))),
        }
    }

    /// Makes a new object from the present one, as often as it takes. See [`RcuOption::update`].
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// limit.update(|old| RcuBox::new(2 * old)).free_after_grace_period();
    /// assert_eq!(*limit.load(&rcu::read()), 20);
    /// ```
    pub fn update(&self, mut change: impl FnMut(&O::Object) -> O) -> Retired<O, D> {
        let old = self.0.update(|current| Some(change(current.expect("always has an object"))));
        old.expect("always has an object")
    }

    /// Makes a new object from the present one, for a writer that holds the writers' lock. See
    /// [`RcuOption::update_with`].
    ///
    /// # Panics
    /// If somebody who does not hold the lock has changed the pointer meanwhile.
    ///
    /// ```
    /// # use rcu::{Rcu, RcuBox};
    /// # rcu::hosted_domain! { struct Settings; }
    /// let writers: sync::SpinLock<()> = sync::SpinLock::new(());
    /// let limit = Rcu::<_, Settings>::new(RcuBox::new(10));
    /// let old = limit.update_with(&mut writers.lock(), |old| RcuBox::new(old + 1));
    /// assert_eq!((*old, *limit.load(&rcu::read())), (10, 11));
    /// ```
    #[track_caller]
    pub fn update_with<G: DerefMut>(
        &self,
        lock: &mut G,
        change: impl FnOnce(&O::Object) -> O,
    ) -> Retired<O, D> {
        let change = |current: Option<&O::Object>| Some(change(current.expect("always has an object")));
        self.0.update_with(lock, change).expect("always has an object")
    }
}

impl<O: Owner<Object: fmt::Debug>, D: Domain> fmt::Debug for Rcu<O, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rcu").field(self.load(&read::<D>())).finish()
    }
}

#[cfg(feature = "alloc")]
mod shared {
    use alloc::sync::Arc;

    use super::*;

    impl<T, D: Domain> RcuOption<Arc<T>, D> {
        /// A share in the object, which lasts beyond the section. Cost: one atomic operation.
        ///
        /// Linux: `kref_get_unless_zero` under `rcu_read_lock`, which here cannot fail: the pointer, or whoever retired the
        /// object, has a share for as long as there are readers.
        ///
        /// ```
        /// use std::sync::Arc;
        /// use rcu::RcuOption;
        /// rcu::hosted_domain! { struct Routes; }
        /// let gateway = RcuOption::<_, Routes>::from(Arc::new(1));
        /// let mine = gateway.load_share(&rcu::read()).unwrap(); // the section is over
        /// drop(gateway.replace(None));
        /// assert_eq!(*mine, 1);
        /// ```
        pub fn load_share(&self, section: &impl Proof<D>) -> Option<Arc<T>> {
            let object: *const T = self.load(section)?;
            // SAFETY: it came from `Arc::into_raw`, and that one's count is held until after the section.
            Some(unsafe {
                Arc::increment_strong_count(object);
                Arc::from_raw(object)
            })
        }
    }

    impl<T, D: Domain> Rcu<Arc<T>, D> {
        /// A share in the object, which lasts beyond the section. See [`RcuOption::load_share`].
        ///
        /// ```
        /// use std::sync::Arc;
        /// use rcu::Rcu;
        /// rcu::hosted_domain! { struct Routes; }
        /// let gateway = Rcu::<_, Routes>::new(Arc::new(1));
        /// let mine = gateway.load_share(&rcu::read());
        /// assert_eq!(Arc::strong_count(&mine), 2);
        /// ```
        pub fn load_share(&self, section: &impl Proof<D>) -> Arc<T> {
            self.0.load_share(section).expect("always has an object")
        }
    }
}
