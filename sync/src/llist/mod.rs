//! Lists that are filled without a lock: any number of producers push, and a consumer takes everything at once.
//!
//! 1. The head is one word that points to what was pushed last. A push writes the old head into its node and swings the
//!    head by one compare-and-exchange; if another push came first, it tries again.
//! 2. A consumer exchanges the head for null: one operation, and the whole chain is its own. Nobody ever looks into the
//!    chain of another, so there is no node that could be freed under a reader, and no ABA: a push only has to know that
//!    the head is still the address that it wrote into its node, whatever happened to it in between.
//! 3. What was taken comes out last in, first out. [`Taken::into_fifo`] turns it round, in one walk.
//!
//! A push says whether the list was empty. That is exactly the moment at which a consumer has to be woken: pushes that
//! find something are covered by the wake-up of the one that did not.

mod links;

use core::fmt;
use core::iter::FusedIterator;
use core::marker::PhantomData;
use core::ptr::NonNull;

use hal::{Native, Platform};

use crate::list::internals::{link_of, linked_node_dropped, object_of, report_refused};
use crate::list::{Corruption, Field, Owner};
use crate::primitives::const_fn;
use links::{Head, Node};

/// A place in an [`LList`], to be embedded in the objects that go into one. Declared as a list's with
/// [`link_field!`](crate::link_field).
///
/// Dropping it while it is in a list stops the machine, as for [`list::Link`](crate::list::Link).
/// Linux: a `struct llist_node` member. Size: one word.
///
/// ```
/// use sync::llist::{LList, Link};
///
/// struct Event {
///     number: u32,
///     link: Link,
/// }
/// sync::link_field! { struct Pending = Event => link: Link; }
///
/// let event = Event { number: 14, link: Link::new() };
/// let pending = LList::<&Event, Pending>::new();
/// pending.push(&event);
/// assert_eq!(pending.take_all().next().unwrap().number, 14);
/// ```
#[repr(C)]
pub struct Link<P: Platform = Native> {
    node: Node,
    _platform: PhantomData<fn() -> P>,
}

impl Link {
    const_fn! {
        /// A link in no list, on this build's platform.
        ///
        /// ```
        /// use sync::llist::Link;
        /// static LINK: Link = Link::new();
        /// assert!(!LINK.is_linked());
        /// ```
        pub fn new() -> Link {
            Link::new_in()
        }
    }
}

impl<P: Platform> Link<P> {
    const_fn! {
        /// A link in no list, on the platform `P`.
        ///
        /// ```
        /// use sync::llist::Link;
        /// let link = Link::<hal::Native>::new_in();
        /// assert!(!link.is_linked());
        /// ```
        pub fn new_in() -> Link<P> {
            Link { node: Node::new(), _platform: PhantomData }
        }
    }

    /// Whether the object is in a list by this link, or is being added to one at this moment. Out of date at once.
    /// Linux: `llist_on_list`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let node = Node(1, Link::new());
    /// let list = LList::<&Node, InList>::new();
    /// list.push(&node);
    /// assert!(node.1.is_linked());
    /// drop(list.take_all());
    /// assert!(!node.1.is_linked());
    /// ```
    #[doc(alias = "llist_on_list")]
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.node.is_linked()
    }
}

impl Default for Link {
    fn default() -> Link {
        Link::new()
    }
}

impl<P: Platform> fmt::Debug for Link<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_linked() { "Link(in a list)" } else { "Link(in no list)" })
    }
}

impl<P: Platform> Drop for Link<P> {
    #[inline]
    fn drop(&mut self) {
        if self.is_linked() {
            linked_node_dropped::<P>((&raw const *self).addr());
        }
    }
}

/// The link fields of [`LList`]s: [`Link`]s.
///
/// ```
/// use sync::list::{Field, Owner};
/// use sync::llist::{LList, Link, LlistLink};
///
/// /// Takes all of any list and says how many they were.
/// fn discard<O: Owner, F: Field<Object = O::Object, Link: LlistLink>>(list: &LList<O, F>) -> usize {
///     list.take_all().count()
/// }
///
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let list = LList::<Box<Node>, InList>::new();
/// list.push(Box::new(Node(1, Link::new())));
/// assert_eq!((discard(&list), discard(&list)), (1, 0));
/// ```
pub trait LlistLink: sealed::Sealed {
    /// What waits and takes reports.
    type Platform: Platform;
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "sealed: nobody outside calls it")]
    fn node(link: NonNull<Self>) -> NonNull<Node>;
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "sealed: nobody outside calls it")]
    fn from_node(node: NonNull<Node>) -> NonNull<Self>;
}

mod sealed {
    pub trait Sealed {}
}
impl<P: Platform> sealed::Sealed for Link<P> {}

impl<P: Platform> LlistLink for Link<P> {
    type Platform = P;

    // The first field of a `repr(C)` structure has its address.
    #[inline(always)]
    #[expect(private_interfaces, reason = "sealed: nobody outside calls it")]
    fn node(link: NonNull<Link<P>>) -> NonNull<Node> {
        link.cast()
    }

    #[inline(always)]
    #[expect(private_interfaces, reason = "sealed: nobody outside calls it")]
    fn from_node(node: NonNull<Node>) -> NonNull<Link<P>> {
        node.cast()
    }
}

/// A list that everybody may push to without a lock, and from which everything is taken at once.
///
/// `O` is the pointer type that it holds (see [`Owner`]), `F` names an [`llist::Link`](Link) field.
///
/// Contexts: any, NMI included; nothing waits for anybody, a push only tries again when another one has succeeded. Cost: a
/// push is one atomic read-modify-write, two for shared pointers; taking all is one. Linux: `struct llist_head`. Size: one
/// word.
///
/// ```
/// use sync::llist::{LList, Link};
///
/// struct Message {
///     text: &'static str,
///     link: Link,
/// }
/// sync::link_field! { struct InMailbox = Message => link: Link; }
///
/// static MAILBOX: LList<Box<Message>, InMailbox> = LList::new();
///
/// let sender = |text| move || MAILBOX.push(Box::new(Message { text, link: Link::new() }));
/// assert!(sender("first")()); // it was empty: now the receiver would be woken
/// assert!(!sender("second")());
/// let texts: Vec<&str> = MAILBOX.take_all().into_fifo().map(|message| message.text).collect();
/// assert_eq!(texts, ["first", "second"]);
/// ```
pub struct LList<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> {
    head: Head,
    _members: PhantomData<(O, fn() -> F)>,
}

// SAFETY: through a shared reference owners can be put in and taken out, which amounts to sending them; nobody gets
// a reference to what is in the list, so that `O` need not be `Sync`.
unsafe impl<O: Owner + Send, F: Field<Object = O::Object, Link: LlistLink>> Sync for LList<O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> LList<O, F> {
    const_fn! {
        /// An empty list. Linux: `LLIST_HEAD_INIT`.
        ///
        /// ```
        /// # use sync::llist::{LList, Link};
        /// # struct Node(u32, Link);
        /// # sync::link_field! { struct InList = Node => 1: Link; }
        /// static QUEUE: LList<Box<Node>, InList> = LList::new();
        /// assert!(QUEUE.is_empty());
        /// ```
        #[doc(alias = "init_llist_head")]
        pub fn new() -> LList<O, F> {
            LList { head: Head::new(), _members: PhantomData }
        }
    }

    /// Whether nothing has been pushed since everything was taken. One load; out of date at once. Linux: `llist_empty`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list = LList::<Box<Node>, InList>::new();
    /// assert!(list.is_empty());
    /// list.push(node(1));
    /// assert!(!list.is_empty());
    /// drop(list.take_all());
    /// assert!(list.is_empty());
    /// ```
    #[doc(alias = "llist_empty")]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Adds an object, and says whether the list was empty: if so, whoever takes should be told.
    ///
    /// Everything that the pusher did before is visible to the taker. An object that is in a list by this field is refused:
    /// reported, the pointer dropped, and the answer is `false`. Linux: `llist_add`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list = LList::<Box<Node>, InList>::new();
    /// assert!(list.push(node(1))); // the taker should be told
    /// assert!(!list.push(node(2)));
    /// assert!(list.take_all().map(|node| node.0).eq([2, 1]));
    /// ```
    #[doc(alias = "llist_add")]
    #[inline]
    #[track_caller]
    pub fn push(&self, owner: O) -> bool {
        match self.try_push(owner) {
            Ok(was_empty) => was_empty,
            Err(owner) => {
                let object = owner.into_raw();
                let why = Corruption::DoubleAdd { node: object.addr().get() + F::OFFSET };
                report_refused::<<F::Link as LlistLink>::Platform>("llist: push", why);
                // SAFETY: taken apart just now.
                drop(unsafe { O::from_raw(object) });
                false
            }
        }
    }

    /// Adds an object and says whether the list was empty, or gives the pointer back if the object is in a list by this
    /// field: for objects that stand for "something is to be done", of which one in the list is enough.
    ///
    /// ```
    /// use std::sync::Arc;
    /// # use sync::llist::{LList, Link};
    /// # struct Work(Link);
    /// # sync::link_field! { struct Queued = Work => 0: Link; }
    /// let work = Arc::new(Work(Link::new()));
    /// let queue = LList::<Arc<Work>, Queued>::new();
    /// assert_eq!(queue.try_push(work.clone()).ok(), Some(true));
    /// assert!(queue.try_push(work.clone()).is_err());
    /// drop(queue.take_all());
    /// assert_eq!(queue.try_push(work).ok(), Some(true));
    /// ```
    #[inline]
    pub fn try_push(&self, owner: O) -> Result<bool, O> {
        let object = owner.into_raw();
        // SAFETY: `owner` pointed to an object, whose field is a link.
        let node = unsafe { LlistLink::node(link_of::<F>(object)) };
        // SAFETY: valid.
        let links = unsafe { node.as_ref() };
        let mine = if O::SHARED { links.claim() } else { !links.is_linked() };
        if !mine {
            // SAFETY: taken apart above.
            return Err(unsafe { O::from_raw(object) });
        }
        // SAFETY: claimed, or the only pointer to the object; it stays in place until it comes out (`Owner`).
        Ok(unsafe { self.head.push::<<F::Link as LlistLink>::Platform>(node, node) })
    }

    /// Puts back what was taken, in front of what has been pushed since, and says whether the list was empty. An object
    /// given by the iterator before is not among it. Linux: `llist_add_batch`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let list = LList::<Box<Node>, InList>::new();
    /// for n in 0..4 {
    ///     list.push(Box::new(Node(n, Link::new())));
    /// }
    /// let mut taken = list.take_all();
    /// assert_eq!(taken.next().unwrap().0, 3);
    /// assert!(list.push_all(taken));
    /// assert_eq!(list.take_all().map(|node| node.0).collect::<Vec<_>>(), [2, 1, 0]);
    /// ```
    #[doc(alias = "llist_add_batch")]
    pub fn push_all(&self, mut taken: Taken<O, F>) -> bool {
        let Some(first) = taken.rest.take() else { return false };
        // SAFETY: a chain that nobody else has, which belongs to the list from here on.
        unsafe {
            let last = Node::last(first);
            self.head.push::<<F::Link as LlistLink>::Platform>(first, last)
        }
    }

    /// Takes everything, last in, first out. Everything that the pushers did before is visible. Linux: `llist_del_all`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list = LList::<Box<Node>, InList>::new();
    /// for n in 0..3 {
    ///     list.push(node(n));
    /// }
    /// let taken = list.take_all();
    /// assert!(list.is_empty());
    /// assert!(taken.map(|node| node.0).eq([2, 1, 0]));
    /// ```
    #[doc(alias = "llist_del_all")]
    #[inline]
    pub fn take_all(&self) -> Taken<O, F> {
        Taken { rest: self.head.take_all(), _members: PhantomData }
    }

    /// Takes everything in the order in which it was pushed. Cost: O(n). Linux: `llist_del_all` with
    /// `llist_reverse_order`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let list = LList::<Box<Node>, InList>::new();
    /// for n in 0..3 {
    ///     list.push(Box::new(Node(n, Link::new())));
    /// }
    /// assert_eq!(list.take_fifo().map(|node| node.0).collect::<Vec<_>>(), [0, 1, 2]);
    /// ```
    #[inline]
    pub fn take_fifo(&self) -> Taken<O, F> {
        self.take_all().into_fifo()
    }

    /// Puts in what nobody can have put in elsewhere, without a look. Returns whether the list was empty.
    ///
    /// # Safety
    /// The object's link is in no list, and nobody else is adding it.
    #[inline]
    pub(crate) unsafe fn push_free(&self, owner: O) -> bool {
        let object = owner.into_raw();
        // SAFETY: `owner` pointed to an object, whose field is a link.
        let node = unsafe { LlistLink::node(link_of::<F>(object)) };
        // SAFETY: valid.
        debug_assert!(!unsafe { node.as_ref() }.is_linked());
        // SAFETY: by the contract; it stays in place until it comes out (`Owner`).
        unsafe { self.head.push::<<F::Link as LlistLink>::Platform>(node, node) }
    }

    /// Everything, in the order in which it was pushed, for who was told that there is something.
    #[inline]
    pub(crate) fn take_fifo_at_once(&self) -> Taken<O, F> {
        Taken { rest: self.head.take_all_at_once(), _members: PhantomData }.into_fifo()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> Default for LList<O, F> {
    fn default() -> LList<O, F> {
        LList::new()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> Drop for LList<O, F> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> fmt::Debug for LList<O, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "LList(empty)" } else { "LList(not empty)" })
    }
}

/// What was taken from an [`LList`]. What is left when it is dropped is dropped.
///
/// ```
/// # use sync::llist::{LList, Link};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// # let node = |n| Box::new(Node(n, Link::new()));
/// let list = LList::<Box<Node>, InList>::new();
/// list.push(node(1));
/// let mut taken = list.take_all();
/// list.push(node(2)); // comes too late for what was taken
/// assert_eq!(taken.next().unwrap().0, 1);
/// assert!(taken.next().is_none());
/// ```
pub struct Taken<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> {
    rest: Option<NonNull<Node>>,
    // Holds the owners, and gives them out one at a time.
    _members: PhantomData<(O, fn() -> F)>,
}

// SAFETY: it is a collection of owners, which nobody else reaches.
unsafe impl<O: Owner + Send, F: Field<Object = O::Object, Link: LlistLink>> Send for Taken<O, F> {}
// SAFETY: a shared reference to it reaches nothing but, by `iter`, shared references to the objects.
unsafe impl<O: Owner + Sync, F: Field<Object = O::Object, Link: LlistLink>> Sync for Taken<O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> Taken<O, F> {
    /// Whether nothing is left.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list = LList::<Box<Node>, InList>::new();
    /// assert!(list.take_all().is_empty());
    /// list.push(node(1));
    /// let mut taken = list.take_all();
    /// assert!(!taken.is_empty());
    /// drop(taken.next());
    /// assert!(taken.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.rest.is_none()
    }

    /// Turns what is left round: what was taken from a list then comes in the order in which it was pushed. Cost: O(n),
    /// one walk. Linux: `llist_reverse_order`.
    ///
    /// ```
    /// # use sync::llist::{LList, Link};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list = LList::<Box<Node>, InList>::new();
    /// for n in 0..4 {
    ///     list.push(node(n));
    /// }
    /// let mut taken = list.take_all();
    /// assert_eq!(taken.next().unwrap().0, 3);
    /// assert!(taken.into_fifo().map(|node| node.0).eq([0, 1, 2]));
    /// ```
    #[doc(alias = "llist_reverse_order")]
    #[must_use = "the order changes in what is returned"]
    #[inline]
    pub fn into_fifo(mut self) -> Taken<O, F> {
        // SAFETY: a chain that nobody else has.
        let rest = self.rest.take().map(|first| unsafe { Node::reverse(first) });
        Taken { rest, _members: PhantomData }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> Iterator for Taken<O, F> {
    type Item = O;

    #[inline]
    fn next(&mut self) -> Option<O> {
        let node = self.rest?;
        // SAFETY: a chain that nobody else has. The node is taken out of it and its owner, taken apart when it was pushed,
        // put together again once.
        unsafe {
            self.rest = Node::detach(node);
            Some(O::from_raw(object_of::<F>(LlistLink::from_node(node))))
        }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> FusedIterator for Taken<O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> Drop for Taken<O, F> {
    fn drop(&mut self) {
        /// Goes on where a panic in an object's `drop` left off.
        struct GoOn<'a, O: Owner, F: Field<Object = O::Object, Link: LlistLink>>(&'a mut Taken<O, F>);
        impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> Drop for GoOn<'_, O, F> {
            fn drop(&mut self) {
                while self.0.next().is_some() {}
            }
        }
        let rest = GoOn(self);
        while rest.0.next().is_some() {}
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: LlistLink>> fmt::Debug for Taken<O, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Taken(empty)" } else { "Taken(not empty)" })
    }
}

#[cfg(all(test, loom))]
mod models;
