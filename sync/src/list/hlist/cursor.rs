//! A place in a chain, for changes in the middle.

use core::fmt;
use core::ptr::NonNull;

use super::{HList, HlistLink, object_at};
use crate::list::field::Field;
use crate::list::hlist_links::HLinks;
use crate::list::owner::Owner;

/// A place in an [`HList`] at which the list can be changed: an object, or the end. It only goes forward.
///
/// ```
/// # use sync::list::{HLink, HList};
/// # struct Node(u32, HLink);
/// # sync::link_field! { struct InList = Node => 1: HLink; }
/// # let node = |n| Box::new(Node(n, HLink::new()));
/// let mut list = HList::<Box<Node>, InList>::new();
/// list.push_front(node(1));
/// let mut cursor = list.cursor_front_mut();
/// cursor.insert_after(node(3));
/// cursor.move_next();
/// cursor.insert_before(node(2));
/// cursor.move_next(); // the end
/// cursor.insert_before(node(4));
/// assert_eq!(list.iter().map(|node| node.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
/// ```
pub struct HCursorMut<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>> {
    // Anchored, and borrowed so that it stays so.
    list: &'a mut HList<O, F>,
    at: Option<NonNull<HLinks>>,
    /// The member in front of `at`; none if that is the head.
    before: Option<NonNull<HLinks>>,
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>> HCursorMut<'a, O, F> {
    /// A cursor on the first object `at` of an anchored list.
    pub(super) fn new(list: &'a mut HList<O, F>, at: Option<NonNull<HLinks>>) -> HCursorMut<'a, O, F> {
        HCursorMut { list, at, before: None }
    }

    /// The object that it stands on; `None` at the end.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// list.push_front(node(1));
    /// let mut cursor = list.cursor_front_mut();
    /// assert_eq!(cursor.current().unwrap().0, 1);
    /// cursor.move_next();
    /// assert!(cursor.current().is_none());
    /// ```
    pub fn current(&self) -> Option<&O::Object> {
        // SAFETY: a member of a list that is borrowed.
        self.at.map(|node| unsafe { object_at::<F>(node).as_ref() })
    }

    /// Goes on to the next object or the end; at the end, stays.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// list.push_front(node(2));
    /// list.push_front(node(1));
    /// let mut cursor = list.cursor_front_mut();
    /// for expected in [Some(1), Some(2), None, None] {
    ///     assert_eq!(cursor.current().map(|node| node.0), expected);
    ///     cursor.move_next();
    /// }
    /// ```
    pub fn move_next(&mut self) {
        if let Some(node) = self.at {
            self.before = self.at;
            // SAFETY: a member of a list that is borrowed.
            self.at = unsafe { HLinks::next(node) };
        }
    }

    /// Adds directly in front; at the end, as the last. Refuses as [`HList::push_front`] does. Linux: `hlist_add_before`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// let mut cursor = list.cursor_front_mut(); // at the end
    /// cursor.insert_before(node(1));
    /// cursor.insert_before(node(2));
    /// assert!(cursor.current().is_none());
    /// assert!(list.iter().map(|node| node.0).eq([1, 2]));
    /// ```
    #[doc(alias = "hlist_add_before")]
    #[track_caller]
    pub fn insert_before(&mut self, owner: O) {
        let (head, before) = (&self.list.head, self.before);
        // SAFETY: `before` is a member, or the head is what comes before, of an anchored list that is borrowed.
        unsafe {
            HList::<O, F>::insert("hlist: insert_before", owner, |new| match before {
                Some(member) => HLinks::add_behind(new, member),
                None => head.add(new),
            });
            self.before = match before {
                Some(member) => HLinks::next(member),
                None => head.first(),
            };
        }
        if self.before == self.at {
            self.before = before; // refused
        }
    }

    /// Adds directly behind; at the end, as the last. Refuses as [`HList::push_front`] does. Linux: `hlist_add_behind`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// list.push_front(node(1));
    /// let mut cursor = list.cursor_front_mut();
    /// cursor.insert_after(node(3));
    /// cursor.insert_after(node(2));
    /// assert_eq!(cursor.current().unwrap().0, 1);
    /// assert!(list.iter().map(|node| node.0).eq([1, 2, 3]));
    /// ```
    #[doc(alias = "hlist_add_behind")]
    #[track_caller]
    pub fn insert_after(&mut self, owner: O) {
        match self.at {
            // SAFETY: a member of an anchored list that is borrowed.
            Some(member) => unsafe {
                HList::<O, F>::insert("hlist: insert_after", owner, |new| HLinks::add_behind(new, member));
            },
            None => self.insert_before(owner),
        }
    }

    /// Removes the object and goes on to the one behind. At the end: does nothing. Linux: `hlist_del`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::new();
    /// list.push_front(node(2));
    /// list.push_front(node(1));
    /// let mut cursor = list.cursor_front_mut();
    /// assert_eq!(cursor.remove().unwrap().0, 1);
    /// assert_eq!(cursor.remove().unwrap().0, 2);
    /// assert!(cursor.remove().is_none());
    /// ```
    #[doc(alias = "hlist_del")]
    #[track_caller]
    pub fn remove(&mut self) -> Option<O> {
        let node = self.at?;
        // SAFETY: a member of an anchored list that is borrowed.
        unsafe {
            let behind = HLinks::next(node);
            let owner = HList::<O, F>::take_out("hlist: remove", node)?;
            self.at = behind;
            Some(owner)
        }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> fmt::Debug for HCursorMut<'_, O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HCursorMut").field(&self.current()).finish()
    }
}
