//! The typed list with a head of one word, for tables of many heads.
//!
//! As [`List`](super::List), with two differences that follow from the small head: there is no way to the last object but
//! going through all, and no going back.
//!
//! # Invariants
//!
//! * **M1**: the first member's `pprev` is the address that the head had at the last change. If the head has been moved
//!   since, then whatever is about to follow or compare that `pprev` writes the new address there first
//!   ([`HList::anchor`]).
//! * **M2**: each member is the field `F` of an object whose owner was taken apart by [`Owner::into_raw`] and has not
//!   been put together again.

mod cursor;
mod iter;
mod link;

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::corruption::{CHECKED, Corruption};
use super::field::{Field, link_of, object_of};
use super::hlist_links::{HHead, HLinks};
use super::link::report_refused;
use super::owner::Owner;
use crate::primitives::const_fn;

pub use cursor::HCursorMut;
pub use iter::{HDrain, HIter};
pub use link::{HLink, HlistLink};

/// A list whose nodes are inside of the objects and whose head is one word.
///
/// `O` is the pointer type that it holds, `F` names an [`HLink`] field; both as for [`List`](super::List), and so are
/// contexts and the rule that a list may be moved. Cost: each operation is O(1) and allocates nothing, unless said
/// otherwise. Linux: `struct hlist_head`.
///
/// ```
/// use sync::list::{HLink, HList};
///
/// struct Inode {
///     number: usize,
///     hash: HLink,
/// }
/// sync::link_field! { struct Hashed = Inode => hash: HLink; }
///
/// let mut table: [HList<Box<Inode>, Hashed>; 16] = [const { HList::new() }; 16];
/// for number in [3, 19, 5] {
///     table[number % 16].push_front(Box::new(Inode { number, hash: HLink::new() }));
/// }
/// let chain: Vec<usize> = table[3].iter().map(|inode| inode.number).collect();
/// assert_eq!(chain, [19, 3]);
/// ```
pub struct HList<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> {
    head: HHead,
    _members: PhantomData<(O, fn() -> F)>,
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> HList<O, F> {
    const_fn! {
        /// An empty list. Linux: `HLIST_HEAD_INIT`.
        ///
        /// ```
        /// # use sync::list::{HLink, HList};
        /// # struct Node(u32, HLink);
        /// # sync::link_field! { struct InList = Node => 1: HLink; }
        /// let table: [HList<Box<Node>, InList>; 8] = [const { HList::new() }; 8];
        /// assert!(table.iter().all(|list| list.is_empty()));
        /// ```
        #[doc(alias = "INIT_HLIST_HEAD")]
        pub fn new() -> HList<O, F> {
            HList { head: HHead::new(), _members: PhantomData }
        }

        /// An empty list whose end marker carries `value` (its highest bit is lost), which [`HIter::end`] tells.
        ///
        /// For chains whose readers take no lock and whose objects go from one chain to another under them: a reader that
        /// comes to an end with another chain's value was carried over and starts again. Linux: `hlist_nulls`.
        ///
        /// ```
        /// # use sync::list::{HLink, HList};
        /// # struct Node(u32, HLink);
        /// # sync::link_field! { struct InList = Node => 1: HLink; }
        /// let mut bucket = HList::<Box<Node>, InList>::with_nulls(7);
        /// bucket.push_front(Box::new(Node(1, HLink::new())));
        /// let mut iter = bucket.iter();
        /// assert!(iter.by_ref().all(|node| node.0 == 1));
        /// assert_eq!(iter.end(), Some(7));
        /// ```
        #[doc(alias = "INIT_HLIST_NULLS_HEAD")]
        pub fn with_nulls(value: usize) -> HList<O, F> {
            HList { head: HHead::with_nulls(value), _members: PhantomData }
        }
    }

    /// Whether there is no object. One load. Linux: `hlist_empty`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// assert!(list.is_empty());
    /// list.push_front(node(1));
    /// assert!(!list.is_empty());
    /// ```
    #[doc(alias = "hlist_empty")]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Whether there is exactly one object. Linux: `hlist_is_singular_node`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// assert!(!list.is_singular());
    /// list.push_front(node(1));
    /// assert!(list.is_singular());
    /// list.push_front(node(2));
    /// assert!(!list.is_singular());
    /// ```
    #[doc(alias = "hlist_is_singular_node")]
    pub fn is_singular(&self) -> bool {
        let mut objects = self.iter();
        objects.next().is_some() && objects.next().is_none()
    }

    /// The first object.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// assert!(list.front().is_none());
    /// list.push_front(node(2));
    /// list.push_front(node(1));
    /// assert_eq!(list.front().unwrap().0, 1);
    /// ```
    #[inline]
    pub fn front(&self) -> Option<&O::Object> {
        self.iter().next()
    }

    /// All objects, first to last. Linux: `hlist_for_each_entry`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// for n in [3, 2, 1] {
    ///     list.push_front(node(n));
    /// }
    /// assert!(list.iter().map(|node| node.0).eq([1, 2, 3]));
    /// ```
    #[doc(alias = "hlist_for_each_entry")]
    #[inline]
    pub fn iter(&self) -> HIter<'_, O, F> {
        HIter::new(&self.head)
    }

    /// Adds at the head. An object that is in a list by this field is refused: reported, and the pointer dropped.
    /// Linux: `hlist_add_head`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let (a, b) = (Node(1, HLink::new()), Node(2, HLink::new()));
    /// let mut list = HList::<&Node, InList>::new();
    /// list.push_front(&a);
    /// list.push_front(&b);
    /// assert!(list.iter().map(|node| node.0).eq([2, 1]));
    /// ```
    #[doc(alias = "hlist_add_head")]
    #[inline]
    #[track_caller]
    pub fn push_front(&mut self, owner: O) {
        self.anchor_if_checked();
        let head = &self.head;
        // SAFETY: this list's head, which stays here as long as `anchor` is called before its address is used (M1).
        unsafe { Self::insert("hlist: push_front", owner, |new| head.add(new)) }
    }

    /// Adds at the head, or gives the pointer back if the object is in a list by this field.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let node = Node(1, HLink::new());
    /// let (mut a, mut b) = (HList::<&Node, InList>::new(), HList::<&Node, InList>::new());
    /// assert!(a.try_push_front(&node).is_ok());
    /// assert!(b.try_push_front(&node).is_err());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_push_front(&mut self, owner: O) -> Result<(), O> {
        self.anchor_if_checked();
        let head = &self.head;
        // SAFETY: as for `push_front`.
        unsafe { Self::try_insert("hlist: try_push_front", owner, |new| head.add(new)) }
    }

    /// Removes the first object.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// list.push_front(node(2));
    /// list.push_front(node(1));
    /// assert_eq!(list.pop_front().unwrap().0, 1);
    /// assert_eq!(list.pop_front().unwrap().0, 2);
    /// assert!(list.pop_front().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn pop_front(&mut self) -> Option<O> {
        self.anchor();
        // SAFETY: a member of this list.
        unsafe { Self::take_out("hlist: pop_front", self.head.first()?) }
    }

    /// Removes `object`, which the caller has found by another way than through the list. `None` if it is in no list.
    /// Linux: `hlist_del_init`.
    ///
    /// # Safety
    /// By the field `F`, `object` is in this list or in none.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let node = Node(1, HLink::new());
    /// let mut list = HList::<&Node, InList>::new();
    /// list.push_front(&node);
    /// // SAFETY: there is only one list here.
    /// assert!(unsafe { list.remove(&node) }.is_some());
    /// assert!(list.is_empty());
    /// ```
    #[doc(alias("hlist_del", "hlist_del_init"))]
    #[inline]
    #[track_caller]
    pub unsafe fn remove(&mut self, object: &O::Object) -> Option<O> {
        self.anchor();
        // SAFETY: the field of an object. If it is in a list, and therefore in this one, then the word that points to it
        // holds the pointer that its owner had.
        unsafe {
            let node = node_of::<F>(NonNull::from(object));
            if !node.as_ref().is_linked() {
                return None;
            }
            Self::take_out("hlist: remove", HLinks::as_known(node))
        }
    }

    /// Removes all objects and drops their pointers. Cost: O(n).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let node = Arc::new(Node(1, HLink::new()));
    /// let mut list = HList::<Arc<Node>, InList>::new();
    /// list.push_front(node.clone());
    /// list.clear();
    /// assert!(list.is_empty());
    /// assert_eq!(Arc::strong_count(&node), 1);
    /// ```
    pub fn clear(&mut self) {
        drop(self.drain());
    }

    /// Removes all objects, first to last, giving them to the caller; those that the iterator did not give when it is
    /// dropped are dropped then.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let (a, b) = (Arc::new(Node(1, HLink::new())), Arc::new(Node(2, HLink::new())));
    /// let mut list = HList::<Arc<Node>, InList>::new();
    /// list.push_front(b.clone());
    /// list.push_front(a.clone());
    /// assert_eq!(list.drain().next().unwrap().0, 1);
    /// assert!(list.is_empty());
    /// assert_eq!(Arc::strong_count(&b), 1); // the iterator did not give it
    /// ```
    pub fn drain(&mut self) -> HDrain<O, F> {
        HDrain::new(self.take())
    }

    /// Moves all objects to a new list with the same end marker. Cost: O(n), because that one is at the far end. Linux: `hlist_move_list`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let mut old = HList::<Box<Node>, InList>::new();
    /// old.push_front(Box::new(Node(1, HLink::new())));
    /// let new = old.take();
    /// assert!(old.is_empty() && new.is_singular());
    /// ```
    #[doc(alias = "hlist_move_list")]
    pub fn take(&mut self) -> HList<O, F> {
        // SAFETY: borrowed mutably. The new list is anchored before its first change (M1).
        HList { head: unsafe { self.head.take() }, _members: PhantomData }
    }

    /// Removes and drops the objects of which `keep` says no. Cost: O(n). Linux: `hlist_for_each_entry_safe` with
    /// `hlist_del`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// for n in [3, 2, 1, 0] {
    ///     list.push_front(node(n));
    /// }
    /// list.retain(|node| node.0 % 2 == 0);
    /// assert!(list.iter().map(|node| node.0).eq([0, 2]));
    /// ```
    #[doc(alias = "hlist_for_each_entry_safe")]
    pub fn retain(&mut self, mut keep: impl FnMut(&O::Object) -> bool) {
        for _ in self.extract_if(|object| !keep(object)) {}
    }

    /// Removes the objects of which `remove` says yes, giving them to the caller, as the iterator is advanced.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// for n in 0..4 {
    ///     list.push_front(Box::new(Node(n, HLink::new())));
    /// }
    /// let odd: Vec<u32> = list.extract_if(|node| node.0 % 2 == 1).map(|node| node.0).collect();
    /// assert_eq!(odd, [3, 1]);
    /// ```
    pub fn extract_if(&mut self, mut remove: impl FnMut(&O::Object) -> bool) -> impl Iterator<Item = O> {
        let mut cursor = self.cursor_front_mut();
        core::iter::from_fn(move || {
            loop {
                if remove(cursor.current()?) {
                    return cursor.remove();
                }
                cursor.move_next();
            }
        })
    }

    /// A cursor on the first object, or at the end if there is none.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut sorted = HList::<Box<Node>, InList>::new();
    /// for n in [2, 1, 3] {
    ///     let mut cursor = sorted.cursor_front_mut();
    ///     while cursor.current().is_some_and(|node| node.0 < n) {
    ///         cursor.move_next();
    ///     }
    ///     cursor.insert_before(node(n));
    /// }
    /// assert!(sorted.iter().map(|node| node.0).eq([1, 2, 3]));
    /// ```
    pub fn cursor_front_mut(&mut self) -> HCursorMut<'_, O, F> {
        self.anchor();
        let at = self.head.first();
        HCursorMut::new(self, at)
    }

    // ---- The machinery ----

    /// Makes sure that the first member knows where the head is (M1).
    #[inline(always)]
    fn anchor(&mut self) {
        // SAFETY: the list is borrowed mutably, and before it can be moved again nobody uses the address.
        unsafe { self.head.anchor() };
    }

    /// Adding overwrites what the first member knows; only checks compare it before.
    #[inline(always)]
    fn anchor_if_checked(&mut self) {
        if CHECKED {
            self.anchor();
        }
    }

    /// Claims the node of `owner` and gives it to `add`, or gives the owner back.
    ///
    /// # Safety
    /// `add` adds the node to a list of this type that the caller has borrowed mutably, or leaves it alone and says why.
    #[inline(always)]
    #[track_caller]
    unsafe fn try_insert(
        operation: &'static str,
        owner: O,
        add: impl FnOnce(NonNull<HLinks>) -> Result<(), Corruption>,
    ) -> Result<(), O> {
        let object = owner.into_raw();
        // SAFETY: `owner` pointed to an object, whose field is a link.
        let node = unsafe { node_of::<F>(object) };
        // SAFETY: valid.
        let links = unsafe { node.as_ref() };
        let mine = if O::SHARED { links.claim() } else { !links.is_linked() };
        if mine {
            match add(node) {
                Ok(()) => return Ok(()),
                Err(why) => {
                    report_refused::<<F::Link as HlistLink>::Platform>(operation, why);
                    links.unclaim();
                }
            }
        }
        // SAFETY: taken apart above, and not in a list.
        Err(unsafe { O::from_raw(object) })
    }

    /// As `try_insert`, for callers to whom a linked node is a mistake.
    ///
    /// # Safety
    /// As for `try_insert`.
    #[inline(always)]
    #[track_caller]
    unsafe fn insert(
        operation: &'static str,
        owner: O,
        add: impl FnOnce(NonNull<HLinks>) -> Result<(), Corruption>,
    ) {
        // SAFETY: as the contract says.
        if let Err(owner) = unsafe { Self::try_insert(operation, owner, add) } {
            let object = owner.into_raw();
            // SAFETY: the field of the object.
            let node = unsafe { node_of::<F>(object) };
            // SAFETY: valid. If it is in no list then the chain was broken, and that has been reported.
            if unsafe { node.as_ref() }.is_linked() {
                let why = Corruption::DoubleAdd { node: node.addr().get() };
                report_refused::<<F::Link as HlistLink>::Platform>(operation, why);
            }
            // SAFETY: taken apart above.
            drop(unsafe { O::from_raw(object) });
        }
    }

    /// Removes a member and puts its owner together again. `None` if the chain is broken, which is reported.
    ///
    /// # Safety
    /// `node` is a member of an anchored list of this type that the caller has borrowed mutably, and is as `into_raw`
    /// gave it.
    #[inline(always)]
    #[track_caller]
    unsafe fn take_out(operation: &'static str, node: NonNull<HLinks>) -> Option<O> {
        // SAFETY: a member.
        match unsafe { HLinks::del(node) } {
            // SAFETY: its owner was taken apart when it was added (M2).
            Ok(()) => Some(unsafe { O::from_raw(object_at::<F>(node)) }),
            Err(why) => {
                report_refused::<<F::Link as HlistLink>::Platform>(operation, why);
                None
            }
        }
    }
}

/// The chain's part of an object's link.
///
/// # Safety
/// `object` is valid.
#[inline(always)]
unsafe fn node_of<F: Field<Link: HlistLink>>(object: NonNull<F::Object>) -> NonNull<HLinks> {
    // SAFETY: as the contract says.
    HlistLink::links(unsafe { link_of::<F>(object) })
}

/// The object that a member belongs to.
///
/// # Safety
/// `node` came from [`node_of`] with the same `F`.
#[inline(always)]
unsafe fn object_at<F: Field<Link: HlistLink>>(node: NonNull<HLinks>) -> NonNull<F::Object> {
    // SAFETY: as the contract says.
    unsafe { object_of::<F>(HlistLink::from_links(node)) }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> Default for HList<O, F> {
    fn default() -> HList<O, F> {
        HList::new()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> Drop for HList<O, F> {
    fn drop(&mut self) {
        /// Goes on where a panic in an object's `drop` left off.
        struct GoOn<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>>(&'a mut HList<O, F>);
        impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> Drop for GoOn<'_, O, F> {
            fn drop(&mut self) {
                while self.0.pop_front().is_some() {}
            }
        }
        let rest = GoOn(self);
        while rest.0.pop_front().is_some() {}
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> fmt::Debug for HList<O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
