//! A list of objects whose readers take no lock.
//!
//! 1. The objects contain a link; the list holds their owners, taken apart. Readers follow `next` pointers under the proof of
//!    a read section, and never store anything.
//! 2. Writers exclude each other by the list's lock: [`write`](RcuHList::write).
//! 3. Adding publishes an object in one store, when all of it is written. Removing leaves the object's own `next` as it is,
//!    for readers who are on it, and gives it out as a [`Retired`].
//!
//! The chain ends in null, or in a marker with a value of the user's choice ([`with_end`](RcuHList::with_end)), so that the
//! list's own address is in no object: a list can be moved.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use sync::list::raw::{HHead, HLinks};
use sync::list::{Corruption, Field, HlistLink};
use sync::lockdep::Subclass;
use sync::spin::SpinLockGuard;
use sync::{SpinLock, Task};

use crate::domain::Domain;
use crate::guard::Proof;
use crate::member::{self, report};
use crate::retired::{Reclaim, Retired};

/// A list of `O`s, linked by field `F`, that readers of domain `D` may walk at any time.
///
/// Linux: `hlist_head` with the `_rcu` operations; with an end marker `hlist_nulls_head`. Size: one word and a lock.
///
/// ```
/// use rcu::{RcuBox, RcuHList};
/// use sync::list::HLink;
///
/// rcu::hosted_domain! { struct Routes; }
/// struct Route {
///     metric: u32,
///     link: HLink,
/// }
/// sync::link_field! { struct Listed = Route => link: HLink; }
/// let route = |metric| RcuBox::new(Route { metric, link: HLink::new() });
///
/// let routes = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
/// for metric in [3, 1, 2] {
///     routes.write().insert_before(route(metric), |other| other.metric > metric);
/// }
/// let reader = rcu::read();
/// assert!(routes.iter(&reader).map(|route| route.metric).eq([1, 2, 3]));
/// drop(routes.write().remove_first(|route| route.metric == 2));
/// assert!(routes.iter(&reader).map(|route| route.metric).eq([1, 3]));
/// ```
///
/// # Invariants
/// The chain's members came from `O::into_raw`; their right to `from_raw` is the list's. It is changed by who holds the
/// lock.
pub struct RcuHList<O: Reclaim, F, D: Domain>
where
    F: Field<Object = O::Object, Link: HlistLink>,
{
    pub(crate) head: HHead,
    writers: SpinLock<(), Task<D::Platform>>,
    _members: PhantomData<(O, fn() -> F)>,
}

// SAFETY: it owns its members, which can be sent (`Reclaim`).
unsafe impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> Send for RcuHList<O, F, D> {}
// SAFETY: shared, it gives references to members; owners go in and come out by any thread.
unsafe impl<O: Reclaim<Object: Sync> + Sync, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> Sync
    for RcuHList<O, F, D>
{
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> RcuHList<O, F, D> {
    /// An empty list.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// static ROUTES: RcuHList<RcuBox<Route>, Listed, Routes> = RcuHList::new();
    /// assert!(ROUTES.is_empty());
    /// ```
    #[cfg(not(loom))]
    pub const fn new() -> RcuHList<O, F, D> {
        RcuHList { head: HHead::new(), writers: SpinLock::new(()), _members: PhantomData }
    }

    /// An empty list with a value at its end, of which the highest bit is lost: a reader learns at the end whose it is.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// let seventh = RcuHList::<RcuBox<Route>, Listed, Routes>::with_end(7);
    /// let reader = rcu::read();
    /// let mut all = seventh.iter(&reader);
    /// assert!(all.next().is_none());
    /// assert_eq!(all.end(), Some(7));
    /// ```
    #[cfg(not(loom))]
    pub const fn with_end(value: usize) -> RcuHList<O, F, D> {
        RcuHList { head: HHead::with_nulls(value), writers: SpinLock::new(()), _members: PhantomData }
    }

    /// Whether nothing is in the list. Out of date at once. Linux: `hlist_empty`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// list.write().push_front(RcuBox::new(Route(1, HLink::new())));
    /// assert!(!list.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// The objects, first to last. One that is added or removed meanwhile may come or not; all others come once.
    ///
    /// Linux: `hlist_for_each_entry_rcu`. Contexts: any.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// list.write().push_front(RcuBox::new(Route(1, HLink::new())));
    /// let reader = rcu::read();
    /// let found = list.iter(&reader).find(|route| route.0 == 1).unwrap();
    /// drop(list.write().remove_first(|_| true));
    /// assert_eq!(found.0, 1); // alive until the section ends
    /// ```
    pub fn iter<'g>(&'g self, _section: &'g impl Proof<D>) -> RcuHIter<'g, F> {
        RcuHIter { at: self.head.first_or_end(), _section: PhantomData }
    }

    /// Keeps other writers out. Contexts: task; spins. Readers go on.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// writer.push_front(RcuBox::new(Route(2, HLink::new())));
    /// writer.push_front(RcuBox::new(Route(1, HLink::new())));
    /// assert!(writer.iter().map(|route| route.0).eq([1, 2]));
    /// ```
    #[track_caller]
    pub fn write(&self) -> RcuHWriter<'_, O, F, D> {
        self.write_nested(Subclass::OUTER)
    }

    /// The same, for who has another list's writer already, and an order among lists that keeps two from waiting for each
    /// other.
    #[track_caller]
    pub(crate) fn write_nested(&self, subclass: Subclass) -> RcuHWriter<'_, O, F, D> {
        let lock = self.writers.lock_nested(subclass);
        // SAFETY: the caller is the writer now, and borrows the list, which therefore is not moved meanwhile.
        unsafe { self.head.anchor() };
        RcuHWriter { list: self, _lock: lock }
    }
}

#[cfg(not(loom))]
impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> Default for RcuHList<O, F, D> {
    fn default() -> RcuHList<O, F, D> {
        RcuHList::new()
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> Drop for RcuHList<O, F, D> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the list.
        unsafe { self.head.anchor() };
        while let Some(node) = self.head.first() {
            // SAFETY: a member. References to members borrow the list, and there are none.
            unsafe {
                if HLinks::del(node).is_err() {
                    return; // a broken chain: better to leak
                }
                drop(O::from_raw(object_of::<F>(node)));
            }
        }
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> fmt::Debug for RcuHList<O, F, D>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter(&crate::read::<D>())).finish()
    }
}

/// The objects of a list, for a reader. Made by [`RcuHList::iter`].
pub struct RcuHIter<'g, F: Field> {
    at: Result<NonNull<HLinks>, usize>,
    _section: PhantomData<&'g F::Object>,
}

impl<F: Field<Link: HlistLink>> RcuHIter<'_, F> {
    /// The value at the end, when the iteration has got there: 0, if the list was made without one.
    ///
    /// Linux: `get_nulls_value`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// writer.push_front(route(1));
    /// drop(writer);
    /// let reader = rcu::read();
    /// let mut routes = list.iter(&reader);
    /// assert_eq!(routes.end(), None);
    /// assert_eq!(routes.by_ref().count(), 1);
    /// assert_eq!(routes.end(), Some(0));
    /// ```
    pub fn end(&self) -> Option<usize> {
        self.at.err()
    }
}

impl<'g, F: Field<Link: HlistLink, Object: 'g>> Iterator for RcuHIter<'g, F> {
    type Item = &'g F::Object;

    #[inline(always)]
    fn next(&mut self) -> Option<&'g F::Object> {
        let node = self.at.ok()?;
        // SAFETY: a member, or one that was removed during the section: alive to the section's end, its `next` untouched.
        unsafe {
            self.at = HLinks::next_or_end(node);
            Some(object_of::<F>(node).as_ref())
        }
    }
}

impl<F: Field> fmt::Debug for RcuHIter<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RcuHIter")
    }
}

/// The right to change a list, as long as it lives. Made by [`RcuHList::write`].
///
/// # Invariants
/// The list's lock is held, and its head is anchored.
#[must_use = "other writers may come as soon as it is dropped"]
pub struct RcuHWriter<'a, O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> {
    list: &'a RcuHList<O, F, D>,
    _lock: SpinLockGuard<'a, (), Task<D::Platform>>,
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> RcuHWriter<'_, O, F, D> {
    /// The objects, first to last. No section is needed: nobody removes any.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// writer.push_front(route(1));
    /// assert_eq!(writer.iter().count(), 1);
    /// ```
    pub fn iter(&self) -> RcuHIter<'_, F> {
        RcuHIter { at: self.list.head.first_or_end(), _section: PhantomData }
    }

    /// Adds an object at the front. One that is in a list already is left there, and that is reported. Cost: O(1).
    /// Linux: `hlist_add_head_rcu`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// writer.push_front(route(1));
    /// writer.push_front(route(2));
    /// assert!(writer.iter().map(|route| route.0).eq([2, 1]));
    /// ```
    #[track_caller]
    pub fn push_front(&mut self, owner: O) {
        // SAFETY: this is the writer; `insert` has claimed the node, which stays in place until it is removed.
        self.insert(owner, |list, node| unsafe { list.head.add(node) });
    }

    /// Adds an object before the first one for which `is_behind`, and at the end if there is none. Cost: O(n).
    /// Linux: `hlist_add_before_rcu`, `hlist_add_tail_rcu`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// for number in [2, 3, 1] {
    ///     writer.insert_before(route(number), |other| other.0 > number);
    /// }
    /// assert!(writer.iter().map(|route| route.0).eq([1, 2, 3]));
    /// ```
    #[track_caller]
    pub fn insert_before(&mut self, owner: O, mut is_behind: impl FnMut(&O::Object) -> bool) {
        self.insert(owner, |list, node| {
            let (mut at, mut last) = (list.head.first(), None);
            // SAFETY: this is the writer: members stay members; the node is `insert`'s.
            unsafe {
                while let Some(member) = at {
                    if is_behind(object_of::<F>(member).as_ref()) {
                        return HLinks::add_before(node, member);
                    }
                    last = Some(member);
                    at = HLinks::next(member);
                }
                match last {
                    Some(last) => HLinks::add_behind(node, last),
                    None => list.head.add(node),
                }
            }
        });
    }

    /// Removes the first object for which `is_it`. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// writer.push_front(route(1));
    /// let removed = writer.remove_first(|route| route.0 == 1).unwrap();
    /// drop(writer);
    /// removed.free_after_grace_period();
    /// assert!(list.is_empty());
    /// ```
    #[track_caller]
    pub fn remove_first(&mut self, mut is_it: impl FnMut(&O::Object) -> bool) -> Option<Retired<O, D>> {
        let mut at = self.list.head.first();
        while let Some(node) = at {
            // SAFETY: this is the writer, and these are members.
            unsafe {
                if is_it(object_of::<F>(node).as_ref()) {
                    return self.take_out(node);
                }
                at = HLinks::next(node);
            }
        }
        None
    }

    /// Removes an object of this list. `None` if it is in no list. Cost: O(1). Linux: `hlist_del_rcu`.
    ///
    /// # Safety
    /// If the object is in a list by this field, then in this one.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// writer.push_front(route(1));
    /// let found = writer.iter().next().map(std::ptr::from_ref).unwrap();
    /// // SAFETY: it is in this list, and stays alive while the writer has it.
    /// let removed = unsafe { writer.remove(&*found) };
    /// assert_eq!(removed.unwrap().0, 1);
    /// ```
    #[track_caller]
    pub unsafe fn remove(&mut self, object: &O::Object) -> Option<Retired<O, D>> {
        // SAFETY: the field of a valid object; if linked, then a member here.
        unsafe {
            let node = node_of::<F>(NonNull::from(object));
            if !node.as_ref().is_linked() {
                return None;
            }
            self.take_out(HLinks::as_known(node))
        }
    }

    /// Removes the objects of which `keep` says no, and frees them after a grace period. Returns how many. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuHList};
    /// # use sync::list::HLink;
    /// # rcu::hosted_domain! { struct Routes; }
    /// # struct Route(u32, HLink);
    /// # sync::link_field! { struct Listed = Route => 1: HLink; }
    /// # let route = |number| RcuBox::new(Route(number, HLink::new()));
    /// let list = RcuHList::<RcuBox<Route>, Listed, Routes>::new();
    /// let mut writer = list.write();
    /// for number in 1..=4 {
    ///     writer.push_front(route(number));
    /// }
    /// assert_eq!(writer.retain(|route| route.0 % 2 == 0), 2);
    /// assert!(writer.iter().map(|route| route.0).eq([4, 2]));
    /// ```
    #[track_caller]
    pub fn retain(&mut self, mut keep: impl FnMut(&O::Object) -> bool) -> usize {
        let (mut at, mut removed) = (self.list.head.first(), 0);
        while let Some(node) = at {
            // SAFETY: as in `remove_first`. The next one is read before the object is given up.
            unsafe {
                at = HLinks::next(node);
                if !keep(object_of::<F>(node).as_ref()) {
                    match self.take_out(node) {
                        Some(retired) => retired.free_after_grace_period(),
                        None => return removed,
                    }
                    removed += 1;
                }
            }
        }
        removed
    }

    #[track_caller]
    fn insert(
        &mut self,
        owner: O,
        add: impl FnOnce(&RcuHList<O, F, D>, NonNull<HLinks>) -> Result<(), Corruption>,
    ) {
        let list = self.list;
        // SAFETY: the field of the object; this is the writer.
        unsafe { member::insert::<O, D, _>(owner, node_of::<F>, |node| add(list, node)) };
    }

    /// # Safety
    /// `node` is a member, as it was added.
    #[track_caller]
    unsafe fn take_out(&mut self, node: NonNull<HLinks>) -> Option<Retired<O, D>> {
        // SAFETY: this is the writer; the right to `from_raw` was the list's, and readers who begin now do not find it.
        unsafe {
            match HLinks::del_rcu(node) {
                Ok(()) => Some(Retired::from_raw(object_of::<F>(node))),
                Err(why) => {
                    report::<D>("RCU list: remove", why);
                    None
                }
            }
        }
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: HlistLink>, D: Domain> fmt::Debug
    for RcuHWriter<'_, O, F, D>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RcuHWriter({:#x})", ptr::from_ref(self.list).addr())
    }
}

/// # Safety
/// `object` is valid.
#[inline(always)]
pub(crate) unsafe fn node_of<F: Field<Link: HlistLink>>(object: NonNull<F::Object>) -> NonNull<HLinks> {
    // SAFETY: the field lies inside of the object.
    HlistLink::links(unsafe { object.byte_add(F::OFFSET).cast::<F::Link>() })
}

/// # Safety
/// `node` came from `node_of` with the same `F`.
#[inline(always)]
pub(crate) unsafe fn object_of<F: Field<Link: HlistLink>>(node: NonNull<HLinks>) -> NonNull<F::Object> {
    let link: NonNull<F::Link> = HlistLink::from_links(node);
    // SAFETY: inside of the same object.
    unsafe { link.byte_sub(F::OFFSET).cast() }
}

#[cfg(all(test, not(loom)))]
#[path = "hlist_tests.rs"]
mod tests;
