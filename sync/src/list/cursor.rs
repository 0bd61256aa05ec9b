//! Cursors: a place in a list, for changes in the middle.
//!
//! A cursor stands on an object, or on the head, which lies between the last and the first: going on from there comes to
//! the other end. It holds the list's borrow, so what it stands on stays in the list unless the cursor itself removes it.

use core::fmt;
use core::mem::ManuallyDrop;
use core::pin::Pin;
use core::ptr::{self, NonNull};

use super::field::Field;
use super::link::RingLink;
use super::links::Links;
use super::membership::object_at;
use super::owner::{Owner, UniqueOwner};
use super::typed::List;

/// A place in a [`List`] that is borrowed. See [`List::cursor_front`].
///
/// ```
/// # use sync::list::{Link, List};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// # let node = |n| Box::new(Node(n, Link::new()));
/// let list: List<Box<Node>, InList> = (1..=3).map(node).collect();
/// let mut cursor = list.cursor_front();
/// cursor.move_next();
/// let mut other = cursor.clone();
/// other.move_prev();
/// assert_eq!((cursor.current().unwrap().0, other.current().unwrap().0), (2, 1));
/// ```
pub struct Cursor<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> {
    list: &'a List<O, F>,
    /// None: the head.
    at: Option<NonNull<Links>>,
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> Cursor<'a, O, F> {
    pub(super) fn new(list: &'a List<O, F>) -> Cursor<'a, O, F> {
        let mut cursor = Cursor { list, at: None };
        cursor.move_next();
        cursor
    }

    /// The object that it stands on; `None` on the head.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front();
    /// assert_eq!(cursor.current().unwrap().0, 1);
    /// cursor.move_prev();
    /// assert!(cursor.current().is_none());
    /// ```
    pub fn current(&self) -> Option<&'a O::Object> {
        // SAFETY: a member of a list that is borrowed for 'a.
        self.at.map(|node| unsafe { object_at::<F>(node).as_ref() })
    }

    /// A pointer to the object of the kind that is in the list: another reference count of an `Arc`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Arc::new(Node(n, Link::new()));
    /// let mine = node(1);
    /// let mut list = List::<Arc<Node>, InList>::new();
    /// assert!(list.cursor_front().current_owner().is_none());
    /// list.push_back(mine.clone());
    /// let theirs = list.cursor_front().current_owner().unwrap();
    /// assert!(Arc::ptr_eq(&mine, &theirs));
    /// assert_eq!(Arc::strong_count(&mine), 3); // the list's, and these two
    /// ```
    pub fn current_owner(&self) -> Option<O>
    where
        O: Clone,
    {
        // SAFETY: a member of a list that is borrowed.
        self.at.map(|node| unsafe { another_owner::<O, F>(node) })
    }

    /// Whether it stands on the head. Linux: `list_is_head`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list: List<Box<Node>, InList> = (1..=1).map(node).collect();
    /// let mut cursor = list.cursor_front();
    /// assert!(!cursor.is_head());
    /// cursor.move_next();
    /// assert!(cursor.is_head());
    /// ```
    #[doc(alias = "list_is_head")]
    pub fn is_head(&self) -> bool {
        self.at.is_none()
    }

    /// Goes on; from the last to the head, from the head to the first. Linux: `list_next_entry`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front();
    /// for expected in [Some(1), Some(2), None, Some(1)] {
    ///     assert_eq!(cursor.current().map(|node| node.0), expected);
    ///     cursor.move_next();
    /// }
    /// ```
    #[doc(alias = "list_next_entry")]
    pub fn move_next(&mut self) {
        // SAFETY: in the ring of a list that is borrowed.
        self.go(|list| list.head.ends().0, |node| unsafe { Links::next(node) });
    }

    /// Goes back; from the first to the head, from the head to the last. Linux: `list_prev_entry`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front();
    /// for expected in [Some(1), None, Some(2), Some(1)] {
    ///     assert_eq!(cursor.current().map(|node| node.0), expected);
    ///     cursor.move_prev();
    /// }
    /// ```
    #[doc(alias = "list_prev_entry")]
    pub fn move_prev(&mut self) {
        // SAFETY: in the ring of a list that is borrowed.
        self.go(|list| list.head.ends().1, |node| unsafe { Links::prev(node) });
    }

    fn go(
        &mut self,
        from_head: impl Fn(&List<O, F>) -> NonNull<Links>,
        from_node: impl Fn(NonNull<Links>) -> NonNull<Links>,
    ) {
        let to = match self.at {
            None if self.list.is_empty() => return,
            None => from_head(self.list),
            Some(node) => from_node(node),
        };
        self.at = (to.addr().get() != self.list.home).then_some(to);
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Clone for Cursor<'_, O, F> {
    fn clone(&self) -> Self {
        Cursor { list: self.list, at: self.at }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> fmt::Debug for Cursor<'_, O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cursor").field(&self.current()).finish()
    }
}

/// A place in a [`List`] at which the list can be changed. See [`List::cursor_front_mut`].
///
/// ```
/// # use sync::list::{Link, List};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// # let node = |n| Box::new(Node(n, Link::new()));
/// let mut list: List<Box<Node>, InList> = (1..=4).map(node).collect();
/// let mut cursor = list.cursor_front_mut();
/// cursor.move_next();
/// assert_eq!(cursor.remove().unwrap().0, 2); // now on 3
/// cursor.insert_before(node(20));
/// cursor.move_to_back(); // 3 goes to the end, now on 4
/// let tail = cursor.split_after();
/// assert_eq!(tail.iter().map(|node| node.0).collect::<Vec<_>>(), [3]);
/// assert_eq!(list.iter().map(|node| node.0).collect::<Vec<_>>(), [1, 20, 4]);
/// ```
pub struct CursorMut<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> {
    // Anchored, and borrowed so that it stays so.
    list: &'a mut List<O, F>,
    head: NonNull<Links>,
    at: NonNull<Links>,
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> CursorMut<'a, O, F> {
    /// # Safety
    /// `list` is anchored, `head` its head and `at` in its ring.
    pub(super) unsafe fn new(
        list: &'a mut List<O, F>,
        head: NonNull<Links>,
        at: NonNull<Links>,
    ) -> CursorMut<'a, O, F> {
        CursorMut { list, head, at }
    }

    // ---- Looking and moving ----

    /// The object that it stands on; `None` on the head.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert_eq!(cursor.current().unwrap().0, 1);
    /// cursor.move_prev();
    /// assert!(cursor.current().is_none());
    /// ```
    pub fn current(&self) -> Option<&O::Object> {
        self.object(self.at)
    }

    /// The object that it stands on, mutably and pinned.
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
    /// let mut cursor = list.cursor_front_mut();
    /// cursor.move_next();
    /// *cursor.current_mut().unwrap().value() = 20; // a projection, as for `List::iter_mut`
    /// assert!(list.iter().map(|node| node.value).eq([1, 20, 3]));
    /// ```
    pub fn current_mut(&mut self) -> Option<Pin<&mut O::Object>>
    where
        O: UniqueOwner,
    {
        // SAFETY: a member of a list that is borrowed mutably and reaches the object alone (`UniqueOwner`).
        (!self.is_head()).then(|| unsafe { Pin::new_unchecked(object_at::<F>(self.at).as_mut()) })
    }

    /// A pointer to the object of the kind that is in the list: another reference count of an `Arc`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Arc::new(Node(n, Link::new()));
    /// let mine = node(1);
    /// let mut list: List<Arc<Node>, InList> = [mine.clone()].into_iter().collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert!(Arc::ptr_eq(&cursor.current_owner().unwrap(), &mine));
    /// assert_eq!(Arc::strong_count(&mine), 2); // the list keeps its own
    /// cursor.move_next();
    /// assert!(cursor.current_owner().is_none());
    /// ```
    pub fn current_owner(&self) -> Option<O>
    where
        O: Clone,
    {
        // SAFETY: a member of a list that is borrowed.
        (!self.is_head()).then(|| unsafe { another_owner::<O, F>(self.at) })
    }

    /// The object behind; `None` if that is the head.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert_eq!(cursor.peek_next().unwrap().0, 2);
    /// cursor.move_next();
    /// assert!(cursor.peek_next().is_none());
    /// ```
    pub fn peek_next(&self) -> Option<&O::Object> {
        // SAFETY: in the ring.
        self.object(unsafe { Links::next(self.at) })
    }

    /// The object in front; `None` if that is the head.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert!(cursor.peek_prev().is_none());
    /// cursor.move_next();
    /// assert_eq!(cursor.peek_prev().unwrap().0, 1);
    /// ```
    pub fn peek_prev(&self) -> Option<&O::Object> {
        // SAFETY: in the ring.
        self.object(unsafe { Links::prev(self.at) })
    }

    /// Whether it stands on the head. Linux: `list_is_head`, `list_entry_is_head`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=1).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert!(!cursor.is_head());
    /// cursor.move_next();
    /// assert!(cursor.is_head());
    /// ```
    #[doc(alias("list_is_head", "list_entry_is_head"))]
    pub fn is_head(&self) -> bool {
        Links::is_head(self.at, self.head)
    }

    /// Goes on; from the last to the head, from the head to the first.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// for expected in [Some(1), Some(2), None, Some(1)] {
    ///     assert_eq!(cursor.current().map(|node| node.0), expected);
    ///     cursor.move_next();
    /// }
    /// ```
    pub fn move_next(&mut self) {
        // SAFETY: in the ring.
        self.at = unsafe { Links::next(self.at) };
    }

    /// Goes back; from the first to the head, from the head to the last.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// for expected in [Some(1), None, Some(2), Some(1)] {
    ///     assert_eq!(cursor.current().map(|node| node.0), expected);
    ///     cursor.move_prev();
    /// }
    /// ```
    pub fn move_prev(&mut self) {
        // SAFETY: in the ring.
        self.at = unsafe { Links::prev(self.at) };
    }

    // ---- Single objects ----

    /// Adds directly behind; on the head, as the first. An object that is in a list is refused as by
    /// [`List::push_back`]. Linux: `list_add(new, pos)`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = [1, 3].map(node).into_iter().collect();
    /// let mut cursor = list.cursor_front_mut();
    /// cursor.insert_after(node(2));
    /// assert_eq!(cursor.current().unwrap().0, 1);
    /// cursor.move_prev(); // the head
    /// cursor.insert_after(node(0));
    /// assert!(list.iter().map(|node| node.0).eq([0, 1, 2, 3]));
    /// ```
    #[track_caller]
    pub fn insert_after(&mut self, owner: O) {
        // SAFETY: in the ring of an anchored list that is borrowed.
        unsafe { List::<O, F>::insert("list: insert_after", owner, self.at, Links::add) }
    }

    /// Adds directly in front; on the head, as the last. An object that is in a list is refused as by
    /// [`List::push_back`]. Linux: `list_add_tail(new, pos)`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = [1, 3].map(node).into_iter().collect();
    /// let mut cursor = list.cursor_back_mut();
    /// cursor.insert_before(node(2));
    /// assert_eq!(cursor.current().unwrap().0, 3);
    /// cursor.move_next(); // the head
    /// cursor.insert_before(node(4));
    /// assert!(list.iter().map(|node| node.0).eq([1, 2, 3, 4]));
    /// ```
    #[track_caller]
    pub fn insert_before(&mut self, owner: O) {
        // SAFETY: in the ring of an anchored list that is borrowed.
        unsafe { List::<O, F>::insert("list: insert_before", owner, self.at, Links::add_tail) }
    }

    /// Removes the object and goes on to the one behind. On the head: does nothing. Linux: `list_del`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert_eq!(cursor.remove().unwrap().0, 1);
    /// assert_eq!(cursor.remove().unwrap().0, 2);
    /// assert!(cursor.is_head() && cursor.remove().is_none());
    /// assert!(list.is_empty());
    /// ```
    #[track_caller]
    pub fn remove(&mut self) -> Option<O> {
        if self.is_head() {
            return None;
        }
        // SAFETY: a member of a list that is borrowed; what is behind it is in the ring.
        unsafe {
            let node = self.at;
            let behind = Links::next(node);
            let owner = List::<O, F>::take_out("list: remove", node)?;
            self.at = behind;
            Some(owner)
        }
    }

    /// Puts another object in the place of this one, and stands on it.
    ///
    /// Gives `new` back if it is in a list, or if there is nothing to replace because the cursor is on the head.
    /// Linux: `list_replace`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// assert_eq!(cursor.replace(node(10)).ok().unwrap().0, 1);
    /// assert_eq!(list.iter().map(|node| node.0).collect::<Vec<_>>(), [10, 2, 3]);
    /// ```
    #[doc(alias = "list_replace")]
    #[track_caller]
    pub fn replace(&mut self, new: O) -> Result<O, O> {
        if self.is_head() {
            return Err(new);
        }
        // SAFETY: a member; `try_insert` calls `replace` with the claimed node of `new` and with `at`, which is a member
        // of a list that is borrowed. Then `at` is removed and its owner, taken apart when it was added, the caller's.
        unsafe {
            let (old, before) = (self.at, Links::prev(self.at));
            List::<O, F>::try_insert("list: replace", new, old, |new, old| Links::replace(old, new))?;
            self.at = Links::next(before);
            Ok(O::from_raw(object_at::<F>(old)))
        }
    }

    /// Moves the object to the front and goes on to the one that was behind it. On the head: does nothing.
    /// Linux: `list_move`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// cursor.move_next();
    /// cursor.move_to_front();
    /// assert_eq!(cursor.current().unwrap().0, 3);
    /// assert!(list.iter().map(|node| node.0).eq([2, 1, 3]));
    /// ```
    #[doc(alias = "list_move")]
    #[track_caller]
    pub fn move_to_front(&mut self) {
        self.move_object("list: move_to_front", Links::move_to);
    }

    /// Moves the object to the back and goes on to the one that was behind it. On the head: does nothing.
    /// Linux: `list_move_tail`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// cursor.move_to_back();
    /// assert_eq!(cursor.current().unwrap().0, 2);
    /// assert!(list.iter().map(|node| node.0).eq([2, 3, 1]));
    /// ```
    #[doc(alias = "list_move_tail")]
    #[track_caller]
    pub fn move_to_back(&mut self) {
        self.move_object("list: move_to_back", Links::move_tail);
    }

    /// Moves the object to the back of `other` and goes on to the one that was behind it. On the head: does nothing.
    /// Linux: `list_move_tail` to another list.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut waiting: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let mut ready: List<Box<Node>, InList> = (7..=8).map(node).collect();
    /// let mut cursor = waiting.cursor_front_mut();
    /// cursor.move_to(&mut ready);
    /// assert_eq!(cursor.current().unwrap().0, 2);
    /// assert!(waiting.iter().map(|node| node.0).eq([2, 3]));
    /// assert!(ready.iter().map(|node| node.0).eq([7, 8, 1]));
    /// ```
    #[track_caller]
    pub fn move_to(&mut self, other: &mut List<O, F>) {
        if !self.is_head() {
            let head = other.anchor();
            // SAFETY: in the ring; a member, and the head of another list that is borrowed mutably as well.
            let done = unsafe {
                let node = self.at;
                self.at = Links::next(node);
                Links::move_tail(node, head)
            };
            List::<O, F>::check("list: move_to", done);
        }
    }

    // ---- Many at once ----

    /// Moves all objects of `other` directly behind. Linux: `list_splice_init(other, pos)`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut other: List<Box<Node>, InList> = (7..=8).map(node).collect();
    /// list.cursor_front_mut().splice_after(&mut other);
    /// assert!(other.is_empty());
    /// assert!(list.iter().map(|node| node.0).eq([1, 7, 8, 2]));
    /// ```
    #[doc(alias("list_splice", "list_splice_init"))]
    #[track_caller]
    pub fn splice_after(&mut self, other: &mut List<O, F>) {
        let from = other.anchor();
        // SAFETY: both lists are borrowed mutably, hence different.
        let done = unsafe { Links::splice(from, self.at) };
        List::<O, F>::check("list: splice_after", done);
    }

    /// Moves all objects of `other` directly in front. Linux: `list_splice_tail_init(other, pos)`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=2).map(node).collect();
    /// let mut other: List<Box<Node>, InList> = (7..=8).map(node).collect();
    /// list.cursor_back_mut().splice_before(&mut other);
    /// assert!(other.is_empty());
    /// assert!(list.iter().map(|node| node.0).eq([1, 7, 8, 2]));
    /// ```
    #[doc(alias("list_splice_tail", "list_splice_tail_init"))]
    #[track_caller]
    pub fn splice_before(&mut self, other: &mut List<O, F>) {
        let from = other.anchor();
        // SAFETY: both lists are borrowed mutably, hence different.
        let done = unsafe { Links::splice_tail(from, self.at) };
        List::<O, F>::check("list: splice_before", done);
    }

    /// Takes off the objects behind this one; on the head, all.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let tail = list.cursor_front_mut().split_after();
    /// assert!(tail.iter().map(|node| node.0).eq([2, 3]));
    /// assert!(list.iter().map(|node| node.0).eq([1]));
    /// ```
    #[track_caller]
    pub fn split_after(&mut self) -> List<O, F> {
        let mut tail = List::new();
        let head = tail.anchor();
        // SAFETY: both lists are borrowed; the first behind the cursor and the last are members with `first` not behind
        // `last`, unless nothing is behind it.
        let done = unsafe {
            let first = Links::next(self.at);
            if first == self.head {
                return tail;
            }
            Links::bulk_move_tail(first, Links::prev(self.head), head)
        };
        List::<O, F>::check("list: split_after", done);
        tail
    }

    /// Takes off the objects in front of this one; on the head, all. Linux: `list_cut_before`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let front = list.cursor_back_mut().split_before();
    /// assert!(front.iter().map(|node| node.0).eq([1, 2]));
    /// assert!(list.iter().map(|node| node.0).eq([3]));
    /// ```
    #[doc(alias("list_cut_before", "list_cut_position"))]
    #[track_caller]
    pub fn split_before(&mut self) -> List<O, F> {
        let mut front = List::new();
        let into = front.anchor();
        // SAFETY: both lists are borrowed, `into` is the head of an empty one, `at` is in the ring of the other.
        let done = unsafe { Links::cut_before(into, self.head, self.at) };
        List::<O, F>::check("list: split_before", done);
        front
    }

    /// Rotates the list so that this object becomes the first. On the head: does nothing. Linux: `list_rotate_to_front`.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=4).map(node).collect();
    /// let mut cursor = list.cursor_back_mut();
    /// cursor.move_prev();
    /// cursor.rotate_to_front();
    /// assert_eq!(cursor.current().unwrap().0, 3);
    /// assert!(list.iter().map(|node| node.0).eq([3, 4, 1, 2]));
    /// ```
    #[doc(alias = "list_rotate_to_front")]
    #[track_caller]
    pub fn rotate_to_front(&mut self) {
        if !self.is_head() {
            // SAFETY: a member and the head of its list.
            let done = unsafe { Links::rotate_to_front(self.at, self.head) };
            List::<O, F>::check("list: rotate_to_front", done);
        }
    }

    /// The list, to look at while the cursor stands.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// # let node = |n| Box::new(Node(n, Link::new()));
    /// let mut list: List<Box<Node>, InList> = (1..=3).map(node).collect();
    /// let mut cursor = list.cursor_front_mut();
    /// drop(cursor.remove());
    /// assert!(cursor.as_list().iter().map(|node| node.0).eq([2, 3]));
    /// assert_eq!(cursor.current().unwrap().0, 2);
    /// ```
    pub fn as_list(&self) -> &List<O, F> {
        self.list
    }

    #[track_caller]
    fn move_object(
        &mut self,
        operation: &'static str,
        to: unsafe fn(NonNull<Links>, NonNull<Links>) -> Result<(), super::Corruption>,
    ) {
        if !self.is_head() {
            // SAFETY: a member and the head of its list; what is behind it is in the ring.
            let done = unsafe {
                let node = self.at;
                self.at = Links::next(node);
                to(node, self.head)
            };
            List::<O, F>::check(operation, done);
        }
    }

    fn object(&self, node: NonNull<Links>) -> Option<&O::Object> {
        // SAFETY: in the ring of a list that is borrowed, and not the head.
        (!ptr::eq(node.as_ptr(), self.head.as_ptr())).then(|| unsafe { object_at::<F>(node).as_ref() })
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> fmt::Debug for CursorMut<'_, O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CursorMut").field(&self.current()).finish()
    }
}

/// Clones the owner of a member.
///
/// # Safety
/// `node` is a member of a list of this type that is borrowed.
unsafe fn another_owner<O: Owner + Clone, F: Field<Object = O::Object, Link: RingLink>>(
    node: NonNull<Links>,
) -> O {
    // SAFETY: the list's own pointer, put together only to be looked at: it is never dropped.
    let owner = ManuallyDrop::new(unsafe { O::from_raw(object_at::<F>(node)) });
    O::clone(&owner)
}
