//! The typed list: a ring with an owner.
//!
//! 1. What goes in is a pointer that the list can hold ([`Owner`]); what comes out is that pointer. In between the list
//!    lends the objects.
//! 2. A node that is in a list is refused by every list. Where two CPUs could add one object at the same time, because
//!    the pointer is shared, one atomic claim decides between them.
//! 3. All changes need `&mut` to the list, which is the exclusion of writers that the ring asks for.
//!
//! # Invariants
//!
//! * **L1**: `home` is the address that the ring's ends know the head by. If it is not the head's own then the list has
//!   been moved since, and the first change writes the new address into the ends ([`List::anchor`]). The address in
//!   `home` is compared, never followed.
//! * **L2**: each member is the field `F` of an object whose owner was taken apart by [`Owner::into_raw`] and has not
//!   been put together again.

use core::fmt;
use core::marker::PhantomData;
use core::pin::Pin;
use core::ptr::NonNull;

use super::cursor::{Cursor, CursorMut};
use super::field::Field;
use super::iter::{Drain, Iter, IterMut};
use super::link::RingLink;
use super::links::Links;
use super::membership::node_of;
use super::owner::{Owner, UniqueOwner};
use crate::primitives::const_fn;

/// A doubly linked list whose nodes are inside of the objects.
///
/// `O` is the pointer type that it holds (`Box`, `Arc`, `&'a T`, `&'a mut T`, or a pinned one), `F` names the link field
/// (see [`link_field!`](crate::link_field)). The list itself may be moved at any time. Dropping it removes the objects
/// and drops their pointers.
///
/// Contexts: any; the list switches nothing off and locks nothing, so put it behind the lock that its sharers need. Cost:
/// each operation is O(1) and allocates nothing, unless said otherwise. Linux: `struct list_head` as a head. Size: three
/// words.
///
/// ```
/// use sync::SpinLock;
/// use sync::list::{Link, List};
///
/// struct Request {
///     sector: u64,
///     link: Link,
/// }
/// sync::link_field! { struct Pending = Request => link: Link; }
///
/// static QUEUE: SpinLock<List<Box<Request>, Pending>> = SpinLock::new(List::new());
///
/// for sector in [8, 16, 24] {
///     QUEUE.lock().push_back(Box::new(Request { sector, link: Link::new() }));
/// }
/// let first = QUEUE.lock().pop_front().unwrap();
/// assert_eq!(first.sector, 8);
/// let rest: Vec<u64> = QUEUE.lock().iter().map(|request| request.sector).collect();
/// assert_eq!(rest, [16, 24]);
/// # QUEUE.lock().clear();
/// ```
///
/// A list may go to another thread if the pointers in it may:
///
/// ```compile_fail,E0277
/// # use sync::list::{Link, List};
/// # use std::rc::Rc;
/// # struct Node(Rc<u32>, Link); // with `Arc` in the place of `Rc`, it compiles
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let list = List::<Box<Node>, InList>::new();
/// std::thread::spawn(move || list.count());
/// ```
///
/// ```
/// # use sync::list::{Link, List};
/// # use std::sync::Arc;
/// # struct Node(Arc<u32>, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let list = List::<Box<Node>, InList>::new();
/// std::thread::spawn(move || list.count()).join().unwrap();
/// ```
pub struct List<O: Owner, F: Field<Object = O::Object, Link: RingLink>> {
    pub(super) head: Links,
    pub(super) home: usize,
    _members: PhantomData<(O, fn() -> F)>,
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> List<O, F> {
    const_fn! {
        /// An empty list. Linux: `LIST_HEAD_INIT`.
        ///
        /// ```
        /// # use sync::list::{Link, List};
        /// # struct Node(u32, Link);
        /// # sync::link_field! { struct InList = Node => 1: Link; }
        /// let buckets: [List<Box<Node>, InList>; 4] = [const { List::new() }; 4];
        /// assert!(buckets.iter().all(|list| list.is_empty()));
        /// ```
        #[doc(alias("INIT_LIST_HEAD", "LIST_HEAD"))]
        pub fn new() -> List<O, F> {
            List { head: Links::new(), home: 0, _members: PhantomData }
        }
    }

    // ---- Looking ----

    /// Whether there is no object. One load. Linux: `list_empty`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list = List::<Box<Node>, InList>::new();
    /// assert!(list.is_empty());
    /// list.push_back(node(1));
    /// assert!(!list.is_empty());
    /// drop(list.pop_front());
    /// assert!(list.is_empty());
    /// ```
    #[doc(alias = "list_empty")]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.next_address() == self.home
    }

    /// Whether there is exactly one object. Linux: `list_is_singular`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let mut list = List::<Box<Node>, InList>::new();
    /// assert!(!list.is_singular());
    /// list.push_back(Box::new(Node(1, Link::new())));
    /// assert!(list.is_singular());
    /// ```
    #[doc(alias = "list_is_singular")]
    #[inline]
    pub fn is_singular(&self) -> bool {
        !self.is_empty() && self.head.next_address() == self.head.prev_address()
    }

    /// How many objects there are. Cost: O(n), it counts. Linux: `list_count_nodes`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// assert_eq!(list.count(), 3);
    /// drop(list.pop_front());
    /// assert_eq!(list.count(), 2);
    /// ```
    #[doc(alias = "list_count_nodes")]
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// The first object. Linux: `list_first_entry_or_null`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// assert_eq!(list.front().unwrap().0, 1);
    /// assert!(List::<Box<Node>, InList>::new().front().is_none());
    /// ```
    #[doc(alias("list_first_entry", "list_first_entry_or_null"))]
    #[inline]
    pub fn front(&self) -> Option<&O::Object> {
        self.iter().next()
    }

    /// The last object. Linux: `list_last_entry`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// assert_eq!(list.back().unwrap().0, 3);
    /// assert!(List::<Box<Node>, InList>::new().back().is_none());
    /// ```
    #[doc(alias = "list_last_entry")]
    #[inline]
    pub fn back(&self) -> Option<&O::Object> {
        self.iter().next_back()
    }

    /// The first object, mutably.
    ///
    /// ```
    /// # use core::pin::Pin;
    /// # use sync::list::{Link, List};
    /// # struct Node { value: u32, link: Link }
    /// # impl Node {
    /// #     fn value(self: Pin<&mut Self>) -> &mut u32 {
    /// #         // SAFETY: the number is not what is pinned.
    /// #         unsafe { &mut self.get_unchecked_mut().value }
    /// #     }
    /// # }
    /// # sync::link_field! { struct InList = Node => link: Link; }
    /// # let node = |value| Box::new(Node { value, link: Link::new() });
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// *list.front_mut().unwrap().value() = 10; // a projection, as for `iter_mut`
    /// assert!(list.iter().map(|node| node.value).eq([10, 2, 3]));
    /// ```
    #[inline]
    pub fn front_mut(&mut self) -> Option<Pin<&mut O::Object>>
    where
        O: UniqueOwner,
    {
        self.iter_mut().next()
    }

    /// The last object, mutably.
    ///
    /// ```
    /// # use core::pin::Pin;
    /// # use sync::list::{Link, List};
    /// # struct Node { value: u32, link: Link }
    /// # impl Node {
    /// #     fn value(self: Pin<&mut Self>) -> &mut u32 {
    /// #         // SAFETY: the number is not what is pinned.
    /// #         unsafe { &mut self.get_unchecked_mut().value }
    /// #     }
    /// # }
    /// # sync::link_field! { struct InList = Node => link: Link; }
    /// # let node = |value| Box::new(Node { value, link: Link::new() });
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// *list.back_mut().unwrap().value() = 30; // a projection, as for `iter_mut`
    /// assert!(list.iter().map(|node| node.value).eq([1, 2, 30]));
    /// ```
    #[inline]
    pub fn back_mut(&mut self) -> Option<Pin<&mut O::Object>>
    where
        O: UniqueOwner,
    {
        self.iter_mut().next_back()
    }

    /// Whether `object` is the first. Linux: `list_is_first`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let nodes = [1, 2].map(|n| Node(n, Link::new()));
    /// let mut list = List::<&Node, InList>::new();
    /// assert!(!list.is_first(&nodes[0]));
    /// list.extend(&nodes);
    /// assert!(list.is_first(&nodes[0]) && !list.is_first(&nodes[1]));
    /// ```
    #[doc(alias = "list_is_first")]
    #[inline]
    pub fn is_first(&self, object: &O::Object) -> bool {
        self.front().is_some_and(|first| core::ptr::eq(first, object))
    }

    /// Whether `object` is the last. Linux: `list_is_last`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let nodes = [1, 2].map(|n| Node(n, Link::new()));
    /// let mut list = List::<&Node, InList>::new();
    /// assert!(!list.is_last(&nodes[1]));
    /// list.extend(&nodes);
    /// assert!(list.is_last(&nodes[1]) && !list.is_last(&nodes[0]));
    /// ```
    #[doc(alias = "list_is_last")]
    #[inline]
    pub fn is_last(&self, object: &O::Object) -> bool {
        self.back().is_some_and(|last| core::ptr::eq(last, object))
    }

    /// All objects, first to last; from the back with `rev`. Linux: `list_for_each_entry`, `.._reverse`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let nodes = [1, 2, 3].map(|n| Node(n, Link::new()));
    /// let mut list = List::<&Node, InList>::new();
    /// list.extend(&nodes);
    /// assert_eq!(list.iter().map(|node| node.0).collect::<Vec<_>>(), [1, 2, 3]);
    /// assert_eq!(list.iter().rev().map(|node| node.0).collect::<Vec<_>>(), [3, 2, 1]);
    /// ```
    #[doc(alias("list_for_each", "list_for_each_entry", "list_for_each_entry_reverse"))]
    #[inline]
    pub fn iter(&self) -> Iter<'_, O, F> {
        Iter::new(self)
    }

    /// All objects, mutably, in both directions. They stay pinned, so that nobody swaps two of them.
    ///
    /// ```
    /// # use core::pin::Pin;
    /// # use sync::list::{Link, List};
    /// # struct Node { value: u32, link: Link }
    /// # impl Node {
    /// #     fn value(self: Pin<&mut Self>) -> &mut u32 {
    /// #         // SAFETY: the number is not what is pinned.
    /// #         unsafe { &mut self.get_unchecked_mut().value }
    /// #     }
    /// # }
    /// # sync::link_field! { struct InList = Node => link: Link; }
    /// let mut list = List::<Box<Node>, InList>::new();
    /// list.push_back(Box::new(Node { value: 4, link: Link::new() }));
    /// for node in list.iter_mut() {
    ///     *node.value() += 1; // a projection, by hand or by `pin-project-lite`
    /// }
    /// assert_eq!(list.front().unwrap().value, 5);
    /// ```
    #[inline]
    pub fn iter_mut(&mut self) -> IterMut<'_, O, F>
    where
        O: UniqueOwner,
    {
        IterMut::new(self)
    }

    // ---- Adding ----

    /// Adds at the head: two of these and `pop_front` make a stack. An object that is in a list by this field is
    /// refused: reported, and the pointer dropped. Linux: `list_add`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let (a, b) = (Node(1, Link::new()), Node(2, Link::new()));
    /// let mut stack = List::<&Node, InList>::new();
    /// stack.push_front(&a);
    /// stack.push_front(&b);
    /// assert_eq!(stack.pop_front().unwrap().0, 2);
    /// ```
    #[doc(alias = "list_add")]
    #[inline]
    #[track_caller]
    pub fn push_front(&mut self, owner: O) {
        let head = self.anchor();
        // SAFETY: `anchor` returns this list's head.
        unsafe { Self::insert("list: push_front", owner, head, Links::add) }
    }

    /// Adds at the tail: with `pop_front` this makes a queue. An object that is in a list by this field is refused:
    /// reported, and the pointer dropped. Linux: `list_add_tail`.
    ///
    /// Adding an object again while it is in the list does not compile if the pointer says that there is only one:
    ///
    /// ```compile_fail,E0499
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let mut node = Node(1, Link::new());
    /// let mut list = List::<&mut Node, InList>::new();
    /// list.push_back(&mut node);
    /// list.push_back(&mut node);
    /// ```
    ///
    /// After it has been removed it does:
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let mut node = Node(1, Link::new());
    /// let mut list = List::<&mut Node, InList>::new();
    /// list.push_back(&mut node);
    /// let node = list.pop_front().unwrap();
    /// list.push_back(node);
    /// ```
    #[doc(alias = "list_add_tail")]
    #[inline]
    #[track_caller]
    pub fn push_back(&mut self, owner: O) {
        let head = self.anchor();
        // SAFETY: `anchor` returns this list's head.
        unsafe { Self::insert("list: push_back", owner, head, Links::add_tail) }
    }

    /// Adds at the head, or gives the pointer back if the object is in a list by this field: for objects that several
    /// CPUs try to add, of which one shall succeed.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Arc::new(Node(n, Link::new()));
    /// let work = node(1);
    /// let (mut mine, mut yours) = (List::<_, InList>::new(), List::<_, InList>::new());
    /// mine.push_back(node(2));
    /// assert!(mine.try_push_front(work.clone()).is_ok());
    /// assert!(yours.try_push_front(work.clone()).is_err());
    /// assert!(mine.iter().map(|node| node.0).eq([1, 2]) && yours.is_empty());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_push_front(&mut self, owner: O) -> Result<(), O> {
        let head = self.anchor();
        // SAFETY: `anchor` returns this list's head.
        unsafe { Self::try_insert("list: try_push_front", owner, head, Links::add) }
    }

    /// Adds at the tail, or gives the pointer back if the object is in a list by this field: for objects that several
    /// CPUs try to add, of which one shall succeed. Linux: `test_and_set_bit(QUEUED)` before `list_add_tail`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # use std::sync::Arc;
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let work = Arc::new(Node(1, Link::new()));
    /// let (mut mine, mut yours) = (List::<_, InList>::new(), List::<_, InList>::new());
    /// assert!(mine.try_push_back(work.clone()).is_ok());
    /// assert!(yours.try_push_back(work.clone()).is_err());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_push_back(&mut self, owner: O) -> Result<(), O> {
        let head = self.anchor();
        // SAFETY: `anchor` returns this list's head.
        unsafe { Self::try_insert("list: try_push_back", owner, head, Links::add_tail) }
    }

    // ---- Removing ----

    /// Removes the first object.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// assert_eq!(list.pop_front().unwrap().0, 1);
    /// assert_eq!(list.pop_front().unwrap().0, 2);
    /// assert!(list.pop_front().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn pop_front(&mut self) -> Option<O> {
        let head = self.anchor();
        // SAFETY: anchored, so the head is in the ring; what comes behind it is a member unless it is the head.
        unsafe {
            let first = Links::next(head);
            if first == head { None } else { Self::take_out("list: pop_front", first) }
        }
    }

    /// Removes the last object.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// assert_eq!(list.pop_back().unwrap().0, 2);
    /// assert_eq!(list.pop_back().unwrap().0, 1);
    /// assert!(list.pop_back().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn pop_back(&mut self) -> Option<O> {
        let head = self.anchor();
        // SAFETY: anchored, so the head is in the ring; what comes before it is a member unless it is the head.
        unsafe {
            let last = Links::prev(head);
            if last == head { None } else { Self::take_out("list: pop_back", last) }
        }
    }

    /// Removes `object`, which the caller has found by another way than through the list. `None` if it is in no list.
    /// Linux: `list_del`.
    ///
    /// Objects found through the list are removed without `unsafe`: by a [cursor](List::cursor_front_mut), by
    /// [`retain`](List::retain) or [`extract_if`](List::extract_if).
    ///
    /// # Safety
    /// By the field `F`, `object` is in this list or in none.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let node = Node(1, Link::new());
    /// let mut list = List::<&Node, InList>::new();
    /// list.push_back(&node);
    /// // SAFETY: there is only one list here.
    /// assert!(unsafe { list.remove(&node) }.is_some());
    /// // SAFETY: as above.
    /// assert!(unsafe { list.remove(&node) }.is_none());
    /// ```
    #[doc(alias("list_del", "list_del_init"))]
    #[inline]
    #[track_caller]
    pub unsafe fn remove(&mut self, object: &O::Object) -> Option<O> {
        self.anchor();
        // SAFETY: the field of an object.
        let node = unsafe { node_of::<F>(NonNull::from(object)) };
        // SAFETY: valid. Nobody adds it or removes it meanwhile: it is in this list, which is borrowed, or in none.
        if !unsafe { node.as_ref() }.is_linked() {
            return None;
        }
        // SAFETY: in a list, and therefore in this one. The links know where the object's owner came from, so the pointer
        // that comes out is one that the owner had, and not one made from the reference.
        unsafe {
            let node = Links::next(Links::prev(node));
            Self::take_out("list: remove", node)
        }
    }

    /// Removes all objects and drops their pointers, first to last. Cost: O(n).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Arc::new(Node(n, Link::new()));
    /// let mine = node(1);
    /// let mut list: List<Arc<Node>, InList> = [mine.clone(), node(2)].into_iter().collect();
    /// list.clear();
    /// assert!(list.is_empty());
    /// assert_eq!(Arc::strong_count(&mine), 1);
    /// ```
    pub fn clear(&mut self) {
        drop(self.drain());
    }

    /// Removes all objects, first to last, giving them to the caller; those that the iterator did not give when it is
    /// dropped are dropped then.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Arc::new(Node(n, Link::new()));
    /// let last = node(3);
    /// let mut list: List<Arc<Node>, InList> = [node(1), node(2), last.clone()].into_iter().collect();
    /// let mut all = list.drain();
    /// assert!(list.is_empty());
    /// assert_eq!(all.next().unwrap().0, 1);
    /// drop(all);
    /// assert_eq!(Arc::strong_count(&last), 1);
    /// ```
    pub fn drain(&mut self) -> Drain<O, F> {
        Drain::new(core::mem::take(self))
    }

    /// Removes and drops the objects of which `keep` says no. Cost: O(n). Linux: `list_for_each_entry_safe` with
    /// `list_del`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let mut list: List<Box<Node>, InList> = (0..6).map(|n| Box::new(Node(n, Link::new()))).collect();
    /// list.retain(|node| node.0 % 2 == 0);
    /// assert_eq!(list.iter().map(|node| node.0).collect::<Vec<_>>(), [0, 2, 4]);
    /// ```
    #[doc(alias = "list_for_each_entry_safe")]
    pub fn retain(&mut self, mut keep: impl FnMut(&O::Object) -> bool) {
        for _ in self.extract_if(|object| !keep(object)) {}
    }

    /// Removes the objects of which `remove` says yes, giving them to the caller, as the iterator is advanced.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (0..6).map(node).collect();
    /// let odd: Vec<u32> = list.extract_if(|node| node.0 % 2 == 1).map(|node| node.0).collect();
    /// assert_eq!(odd, [1, 3, 5]);
    /// assert!(list.iter().map(|node| node.0).eq([0, 2, 4]));
    /// ```
    #[doc(alias = "list_for_each_entry_safe")]
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

    // ---- Many at once ----

    /// Moves all objects of `other` behind this list's last. Linux: `list_splice_tail_init`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut a: List<Box<Node>, InList> = (0..2).map(node).collect();
    /// let mut b: List<Box<Node>, InList> = (2..4).map(node).collect();
    /// a.append(&mut b);
    /// assert!(b.is_empty());
    /// assert_eq!(a.iter().map(|node| node.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    /// ```
    #[doc(alias("list_splice_tail", "list_splice_tail_init"))]
    #[track_caller]
    pub fn append(&mut self, other: &mut List<O, F>) {
        let (head, from) = (self.anchor(), other.anchor());
        // SAFETY: the heads of two lists that are both borrowed mutably, hence different.
        let done = unsafe { Links::splice_tail(from, head) };
        Self::check("list: append", done);
    }

    /// Moves all objects of `other` before this list's first. Linux: `list_splice_init`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut a: List<Box<Node>, InList> = (0..2).map(node).collect();
    /// let mut b: List<Box<Node>, InList> = (2..4).map(node).collect();
    /// a.prepend(&mut b);
    /// assert!(b.is_empty());
    /// assert!(a.iter().map(|node| node.0).eq([2, 3, 0, 1]));
    /// ```
    #[doc(alias("list_splice", "list_splice_init"))]
    #[track_caller]
    pub fn prepend(&mut self, other: &mut List<O, F>) {
        let (head, from) = (self.anchor(), other.anchor());
        // SAFETY: the heads of two lists that are both borrowed mutably, hence different.
        let done = unsafe { Links::splice(from, head) };
        Self::check("list: prepend", done);
    }

    /// Makes the first object the last. Linux: `list_rotate_left`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// list.rotate_left();
    /// assert!(list.iter().map(|node| node.0).eq([2, 3, 1]));
    /// ```
    #[doc(alias = "list_rotate_left")]
    #[track_caller]
    pub fn rotate_left(&mut self) {
        let head = self.anchor();
        // SAFETY: this list's head.
        let done = unsafe { Links::rotate_left(head) };
        Self::check("list: rotate_left", done);
    }

    // ---- Cursors ----

    /// A cursor on the first object, or on the head if there is none.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list = List::<Box<Node>, InList>::new();
    /// assert!(list.cursor_front().is_head());
    /// list.extend((1..=3).map(node));
    /// assert_eq!(list.cursor_front().current().unwrap().0, 1);
    /// ```
    pub fn cursor_front(&self) -> Cursor<'_, O, F> {
        Cursor::new(self)
    }

    /// A cursor on the first object, or on the head if there is none, that can change the list.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let mut sorted: List<Box<Node>, InList> = [1, 3].map(|n| Box::new(Node(n, Link::new()))).into_iter().collect();
    /// let new = Box::new(Node(2, Link::new()));
    /// let mut cursor = sorted.cursor_front_mut();
    /// while cursor.current().is_some_and(|node| node.0 < new.0) {
    ///     cursor.move_next();
    /// }
    /// cursor.insert_before(new);
    /// assert_eq!(sorted.iter().map(|node| node.0).collect::<Vec<_>>(), [1, 2, 3]);
    /// ```
    pub fn cursor_front_mut(&mut self) -> CursorMut<'_, O, F> {
        let head = self.anchor();
        // SAFETY: anchored; what is behind the head is in the ring.
        unsafe { CursorMut::new(self, head, Links::next(head)) }
    }

    /// A cursor on the last object, or on the head if there is none, that can change the list.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut sorted: List<Box<Node>, InList> = [1, 3, 4].map(node).into_iter().collect();
    /// let mut cursor = sorted.cursor_back_mut();
    /// while cursor.current().is_some_and(|node| node.0 > 2) {
    ///     cursor.move_prev();
    /// }
    /// cursor.insert_after(node(2));
    /// assert!(sorted.iter().map(|node| node.0).eq([1, 2, 3, 4]));
    /// ```
    pub fn cursor_back_mut(&mut self) -> CursorMut<'_, O, F> {
        let head = self.anchor();
        // SAFETY: anchored; what is before the head is in the ring.
        unsafe { CursorMut::new(self, head, Links::prev(head)) }
    }

    /// A cursor on `object`, or on the head if it is in no list.
    ///
    /// # Safety
    /// As for [`remove`](List::remove).
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let nodes = [1, 2, 3].map(|n| Node(n, Link::new()));
    /// let mut list = List::<&Node, InList>::new();
    /// list.extend(&nodes);
    /// // SAFETY: there is only one list here.
    /// let mut cursor = unsafe { list.cursor_mut_at(&nodes[1]) };
    /// assert_eq!(cursor.remove().unwrap().0, 2);
    /// assert_eq!(cursor.current().unwrap().0, 3);
    /// // SAFETY: as above.
    /// assert!(unsafe { list.cursor_mut_at(&nodes[1]) }.is_head());
    /// ```
    pub unsafe fn cursor_mut_at(&mut self, object: &O::Object) -> CursorMut<'_, O, F> {
        let head = self.anchor();
        // SAFETY: the field of an object; in the ring of this list if it is linked. The pointer is one that the owner had.
        unsafe {
            let node = node_of::<F>(NonNull::from(object));
            let at = if node.as_ref().is_linked() { Links::next(Links::prev(node)) } else { head };
            CursorMut::new(self, head, at)
        }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Default for List<O, F> {
    fn default() -> List<O, F> {
        List::new()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Drop for List<O, F> {
    fn drop(&mut self) {
        /// Goes on where a panic in an object's `drop` left off.
        struct GoOn<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>>(&'a mut List<O, F>);
        impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Drop for GoOn<'_, O, F> {
            fn drop(&mut self) {
                while self.0.pop_front().is_some() {}
            }
        }
        if !self.is_empty() {
            let rest = GoOn(self);
            while rest.0.pop_front().is_some() {}
        }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Extend<O> for List<O, F> {
    #[track_caller]
    fn extend<I: IntoIterator<Item = O>>(&mut self, owners: I) {
        for owner in owners {
            self.push_back(owner);
        }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> FromIterator<O> for List<O, F> {
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = O>>(owners: I) -> List<O, F> {
        let mut list = List::new();
        list.extend(owners);
        list
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> fmt::Debug for List<O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
