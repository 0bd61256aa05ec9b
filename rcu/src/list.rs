//! A ring of objects whose readers take no lock.
//!
//! 1. As in [`RcuHList`](crate::RcuHList) the objects contain a link, the list holds their owners, and readers follow `next`
//!    under the proof of a read section. The links form a ring through the head, so that a writer adds at both ends and
//!    walks in both directions in O(1) steps. A node costs the same two words, the head three.
//! 2. Readers only go forward. `prev` is the writer's: a reader that went back could meet a node that is half added.
//! 3. The ring goes through the head, so the last object knows the head's address. A list may be moved all the same: see
//!    `ring.rs`.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use sync::list::raw::Links;
use sync::list::{Corruption, Field, RingLink};
use sync::spin::SpinLockGuard;
use sync::{SpinLock, Task};

use crate::domain::Domain;
use crate::guard::Proof;
use crate::member::{self, report};
use crate::retired::{Reclaim, Retired};
use crate::ring::Ring;

/// A ring of `O`s, linked by field `F`, that readers of domain `D` may walk forward at any time.
///
/// A list that was moved with objects in it is settled with interrupts off, once. So it must not be an NMI that uses it
/// first.
///
/// Linux: `list_head` with the `_rcu` operations. Size: three words and a lock.
///
/// ```
/// use rcu::{RcuBox, RcuList};
/// use sync::list::Link;
///
/// rcu::hosted_domain! { struct Modules; }
/// struct Module {
///     name: &'static str,
///     link: Link,
/// }
/// sync::link_field! { struct Loaded = Module => link: Link; }
/// static MODULES: RcuList<RcuBox<Module>, Loaded, Modules> = RcuList::new();
/// let module = |name| RcuBox::new(Module { name, link: Link::new() });
///
/// for name in ["net", "disk", "sound"] {
///     MODULES.write().push_back(module(name));
/// }
/// let reader = rcu::read();
/// assert!(MODULES.iter(&reader).map(|module| module.name).eq(["net", "disk", "sound"]));
/// drop(MODULES.write().remove_first(|module| module.name == "disk"));
/// assert!(MODULES.iter(&reader).map(|module| module.name).eq(["net", "sound"]));
/// ```
///
/// # Invariants
/// The ring's members came from `O::into_raw`; their right to `from_raw` is the list's. It is changed by who holds the lock.
pub struct RcuList<O: Reclaim, F, D: Domain>
where
    F: Field<Object = O::Object, Link: RingLink>,
{
    ring: Ring,
    writers: SpinLock<(), Task<D::Platform>>,
    _members: PhantomData<(O, fn() -> F)>,
}

// SAFETY: it owns its members, which can be sent (`Reclaim`).
unsafe impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> Send for RcuList<O, F, D> {}
// SAFETY: shared, it gives references to members; owners go in and come out by any thread.
unsafe impl<O: Reclaim<Object: Sync> + Sync, F: Field<Object = O::Object, Link: RingLink>, D: Domain> Sync
    for RcuList<O, F, D>
{
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> RcuList<O, F, D> {
    /// An empty list.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// static MODULES: RcuList<RcuBox<Module>, Loaded, Modules> = RcuList::new();
    /// assert!(MODULES.is_empty());
    /// ```
    #[cfg(not(loom))]
    pub const fn new() -> RcuList<O, F, D> {
        RcuList { ring: Ring::new(), writers: SpinLock::new(()), _members: PhantomData }
    }

    /// Whether nothing is in the list. Out of date at once. Linux: `list_empty`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// list.write().push_back(RcuBox::new(Module(1, Link::new())));
    /// assert!(!list.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        let head = self.anchor();
        // SAFETY: anchored, so a head.
        unsafe { Links::is_empty(head) }
    }

    /// The objects, first to last. One that is added or removed meanwhile may come or not; all others come once.
    ///
    /// Linux: `list_for_each_entry_rcu`. Contexts: any.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// list.write().push_back(RcuBox::new(Module(1, Link::new())));
    /// let reader = rcu::read();
    /// let found = list.iter(&reader).find(|module| module.0 == 1).unwrap();
    /// drop(list.write().remove_first(|_| true));
    /// assert_eq!(found.0, 1); // alive until the section ends
    /// ```
    #[inline]
    pub fn iter<'g>(&'g self, _section: &'g impl Proof<D>) -> RcuIter<'g, F> {
        RcuIter::after(self.anchor())
    }

    /// Keeps other writers out. Contexts: task; spins. Readers go on.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// writer.push_front(RcuBox::new(Module(1, Link::new())));
    /// writer.push_back(RcuBox::new(Module(2, Link::new())));
    /// assert!(writer.iter().map(|module| module.0).eq([1, 2]));
    /// assert_eq!(writer.last().unwrap().0, 2);
    /// ```
    #[track_caller]
    pub fn write(&self) -> RcuWriter<'_, O, F, D> {
        let head = self.anchor();
        RcuWriter { head, list: self, _lock: self.writers.lock() }
    }

    #[inline(always)]
    fn anchor(&self) -> NonNull<Links> {
        self.ring.anchor::<D::Platform>()
    }
}

#[cfg(not(loom))]
impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> Default for RcuList<O, F, D> {
    fn default() -> RcuList<O, F, D> {
        RcuList::new()
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> Drop for RcuList<O, F, D> {
    fn drop(&mut self) {
        let head = self.anchor();
        // SAFETY: nobody else has the list. References to members borrow the list, and there are none.
        unsafe {
            while !Links::is_empty(head) {
                let node = Links::next(head);
                if Links::del(node).is_err() {
                    return; // a broken ring: better to leak
                }
                drop(O::from_raw(object_of::<F>(node)));
            }
        }
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> fmt::Debug for RcuList<O, F, D>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter(&crate::read::<D>())).finish()
    }
}

/// The objects of a list, for a reader. Made by [`RcuList::iter`].
///
/// # Invariants
/// `at` is the head, or an object that is or was in the ring and lives as long as the borrow.
pub struct RcuIter<'g, F: Field> {
    at: NonNull<Links>,
    head: NonNull<Links>,
    _section: PhantomData<&'g F::Object>,
}

impl<F: Field> RcuIter<'_, F> {
    #[inline(always)]
    fn after(head: NonNull<Links>) -> Self {
        RcuIter { at: head, head, _section: PhantomData }
    }
}

impl<'g, F: Field<Link: RingLink, Object: 'g>> Iterator for RcuIter<'g, F> {
    type Item = &'g F::Object;

    #[inline(always)]
    fn next(&mut self) -> Option<&'g F::Object> {
        // SAFETY: the head, a member, or one that was removed during the section: alive to the section's end, its `next`
        // untouched.
        let next = unsafe { Links::next(self.at) };
        if next == self.head {
            return None; // and again, if asked again
        }
        self.at = next;
        // SAFETY: a member, or one that was, during the section.
        Some(unsafe { object_of::<F>(next).as_ref() })
    }
}

impl<F: Field> fmt::Debug for RcuIter<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RcuIter")
    }
}

/// The right to change a list, as long as it lives. Made by [`RcuList::write`].
///
/// # Invariants
/// The list's lock is held; `head` is its head, anchored.
#[must_use = "other writers may come as soon as it is dropped"]
pub struct RcuWriter<'a, O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> {
    head: NonNull<Links>,
    list: &'a RcuList<O, F, D>,
    _lock: SpinLockGuard<'a, (), Task<D::Platform>>,
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> RcuWriter<'_, O, F, D> {
    /// The objects, first to last. No section is needed: nobody removes any.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// writer.push_back(module(1));
    /// writer.push_back(module(2));
    /// assert_eq!(writer.iter().map(|module| module.0).sum::<u32>(), 3);
    /// ```
    pub fn iter(&self) -> RcuIter<'_, F> {
        RcuIter::after(self.head)
    }

    /// The last object. Cost: O(1). Linux: `list_last_entry`; there is none for readers, who do not go back.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// assert!(writer.last().is_none());
    /// writer.push_back(module(1));
    /// writer.push_back(module(2));
    /// assert_eq!(writer.last().unwrap().0, 2);
    /// ```
    pub fn last(&self) -> Option<&O::Object> {
        // SAFETY: this is the writer; in front of the head is the last member, or itself.
        unsafe {
            let last = Links::prev(self.head);
            (last != self.head).then(|| object_of::<F>(last).as_ref())
        }
    }

    /// Adds an object at the front. One that is in a list already is left there, and that is reported. Cost: O(1).
    /// Linux: `list_add_rcu`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// writer.push_front(module(1));
    /// writer.push_front(module(2));
    /// assert!(writer.iter().map(|module| module.0).eq([2, 1]));
    /// ```
    #[track_caller]
    pub fn push_front(&mut self, owner: O) {
        // SAFETY: this is the writer; `insert` has claimed the node, which stays in place until it is removed.
        self.insert(owner, |head, node| unsafe { Links::add(node, head) });
    }

    /// Adds an object at the end, as [`push_front`](RcuWriter::push_front) does at the front. Cost: O(1).
    /// Linux: `list_add_tail_rcu`.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// writer.push_back(module(1));
    /// writer.push_back(module(2));
    /// assert!(writer.iter().map(|module| module.0).eq([1, 2]));
    /// ```
    #[track_caller]
    pub fn push_back(&mut self, owner: O) {
        // SAFETY: as in `push_front`.
        self.insert(owner, |head, node| unsafe { Links::add_tail(node, head) });
    }

    /// Adds an object before the first one for which `is_behind`, and at the end if there is none. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// // Sorted, as they come.
    /// for number in [2, 3, 1] {
    ///     writer.insert_before(module(number), |other| other.0 > number);
    /// }
    /// assert!(writer.iter().map(|module| module.0).eq([1, 2, 3]));
    /// ```
    #[track_caller]
    pub fn insert_before(&mut self, owner: O, mut is_behind: impl FnMut(&O::Object) -> bool) {
        let behind = self.iter().find(|object| is_behind(object)).map(NonNull::from);
        self.insert(owner, |head, node| {
            // SAFETY: this is the writer: a member is still one, and its neighbours know it by a pointer to the whole of it.
            // The node is `insert`'s.
            unsafe {
                let place = behind.map_or(head, |object| Links::next(Links::prev(node_of::<F>(object))));
                Links::add_tail(node, place)
            }
        });
    }

    /// Removes the first object for which `is_it`. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// writer.push_back(module(1));
    /// let removed = writer.remove_first(|module| module.0 == 1).unwrap();
    /// drop(writer);
    /// // Readers may be on it still: it is freed after a grace period.
    /// removed.free_after_grace_period();
    /// assert!(list.is_empty());
    /// ```
    #[track_caller]
    pub fn remove_first(&mut self, mut is_it: impl FnMut(&O::Object) -> bool) -> Option<Retired<O, D>> {
        let object = self.iter().find(|object| is_it(object)).map(NonNull::from)?;
        // SAFETY: a member, of this list.
        unsafe { self.take_out(node_of::<F>(object)) }
    }

    /// Removes an object of this list. `None` if it is in no list. Cost: O(1). Linux: `list_del_rcu`.
    ///
    /// # Safety
    /// If the object is in a list by this field, then in this one.
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// writer.push_back(module(1));
    /// let found = writer.last().map(std::ptr::from_ref).unwrap();
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
            self.take_out(node)
        }
    }

    /// Removes the objects of which `keep` says no, and frees them after a grace period. Returns how many. Cost: O(n).
    ///
    /// ```
    /// # use rcu::{RcuBox, RcuList};
    /// # use sync::list::Link;
    /// # rcu::hosted_domain! { struct Modules; }
    /// # struct Module(u32, Link);
    /// # sync::link_field! { struct Loaded = Module => 1: Link; }
    /// # let module = |number| RcuBox::new(Module(number, Link::new()));
    /// let list = RcuList::<RcuBox<Module>, Loaded, Modules>::new();
    /// let mut writer = list.write();
    /// for number in 1..=4 {
    ///     writer.push_back(module(number));
    /// }
    /// assert_eq!(writer.retain(|module| module.0 != 2), 1);
    /// assert!(writer.iter().map(|module| module.0).eq([1, 3, 4]));
    /// ```
    #[track_caller]
    pub fn retain(&mut self, mut keep: impl FnMut(&O::Object) -> bool) -> usize {
        let mut removed = 0;
        // SAFETY: this is the writer, and these are members. The next one is read before the object is given up.
        unsafe {
            let mut at = Links::next(self.head);
            while at != self.head {
                let node = at;
                at = Links::next(node);
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
        add: impl FnOnce(NonNull<Links>, NonNull<Links>) -> Result<(), Corruption>,
    ) {
        let head = self.head;
        // SAFETY: the field of the object; this is the writer.
        unsafe { member::insert::<O, D, _>(owner, node_of::<F>, |node| add(head, node)) };
    }

    /// # Safety
    /// `node` is a member.
    #[track_caller]
    unsafe fn take_out(&mut self, node: NonNull<Links>) -> Option<Retired<O, D>> {
        // SAFETY: this is the writer; the right to `from_raw` was the list's, and readers who begin now do not find it. Its
        // neighbour knows it by the pointer that it was added with, which is good for the whole object.
        unsafe {
            let node = Links::next(Links::prev(node));
            match Links::del_rcu(node) {
                Ok(()) => Some(Retired::from_raw(object_of::<F>(node))),
                Err(why) => {
                    report::<D>("RCU list: remove", why);
                    None
                }
            }
        }
    }
}

impl<O: Reclaim, F: Field<Object = O::Object, Link: RingLink>, D: Domain> fmt::Debug
    for RcuWriter<'_, O, F, D>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RcuWriter({:#x})", ptr::from_ref(self.list).addr())
    }
}

/// # Safety
/// `object` is valid.
#[inline(always)]
unsafe fn node_of<F: Field<Link: RingLink>>(object: NonNull<F::Object>) -> NonNull<Links> {
    // SAFETY: the field lies inside of the object.
    RingLink::links(unsafe { object.byte_add(F::OFFSET).cast::<F::Link>() })
}

/// # Safety
/// `node` came from `node_of` with the same `F`.
#[inline(always)]
unsafe fn object_of<F: Field<Link: RingLink>>(node: NonNull<Links>) -> NonNull<F::Object> {
    let link: NonNull<F::Link> = RingLink::from_links(node);
    // SAFETY: inside of the same object.
    unsafe { link.byte_sub(F::OFFSET).cast() }
}

#[cfg(all(test, not(loom)))]
#[path = "list_tests.rs"]
mod tests;
