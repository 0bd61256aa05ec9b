//! Going through a chain: borrowing, and taking all out.

use core::fmt;
use core::iter::FusedIterator;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{HList, HlistLink, object_at};
use crate::list::field::Field;
use crate::list::hlist_links::{HHead, HLinks};
use crate::list::owner::Owner;

/// The objects of an [`HList`]. See [`HList::iter`].
///
/// ```
/// # use sync::list::{HLink, HList};
/// # struct Node(u32, HLink);
/// # sync::link_field! { struct InList = Node => 1: HLink; }
/// # let node = |n| Box::new(Node(n, HLink::new()));
/// let mut list = HList::<Box<Node>, InList>::new();
/// list.push_front(node(2));
/// list.push_front(node(1));
/// let mut iter = list.iter();
/// assert_eq!(iter.next().unwrap().0, 1);
/// assert!(iter.clone().map(|node| node.0).eq([2]));
/// assert_eq!(iter.count(), 1);
/// ```
pub struct HIter<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>> {
    at: Result<NonNull<HLinks>, usize>,
    _list: PhantomData<&'a HList<O, F>>,
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>> HIter<'a, O, F> {
    #[inline]
    pub(super) fn new(head: &'a HHead) -> HIter<'a, O, F> {
        HIter { at: head.first_or_end(), _list: PhantomData }
    }

    /// The value of the end marker, once the iterator has come there; 0 for a list without a value.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// # let node = |n| Box::new(Node(n, HLink::new()));
    /// let mut list = HList::<Box<Node>, InList>::with_nulls(3);
    /// list.push_front(node(1));
    /// let mut iter = list.iter();
    /// assert_eq!(iter.end(), None);
    /// assert!(iter.next().is_some());
    /// assert_eq!(iter.end(), Some(3));
    /// ```
    #[inline]
    pub fn end(&self) -> Option<usize> {
        self.at.err()
    }
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>> Iterator for HIter<'a, O, F> {
    type Item = &'a O::Object;

    #[inline]
    fn next(&mut self) -> Option<&'a O::Object> {
        let node = self.at.ok()?;
        // SAFETY: the list is borrowed for 'a, so its members stay in it, and their objects in place.
        unsafe {
            self.at = HLinks::next_or_end(node);
            Some(object_at::<F>(node).as_ref())
        }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> FusedIterator for HIter<'_, O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> Clone for HIter<'_, O, F> {
    fn clone(&self) -> Self {
        HIter { at: self.at, _list: PhantomData }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> fmt::Debug for HIter<'_, O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: HlistLink>> IntoIterator for &'a HList<O, F> {
    type Item = &'a O::Object;
    type IntoIter = HIter<'a, O, F>;

    fn into_iter(self) -> HIter<'a, O, F> {
        self.iter()
    }
}

/// The pointers that were in an [`HList`]. Those that are left when it is dropped are dropped.
///
/// ```
/// # use sync::list::{HLink, HList};
/// # struct Node(u32, HLink);
/// # sync::link_field! { struct InList = Node => 1: HLink; }
/// # let node = |n| Box::new(Node(n, HLink::new()));
/// let mut list = HList::<Box<Node>, InList>::new();
/// list.push_front(node(2));
/// list.push_front(node(1));
/// let all = list.drain();
/// assert!(list.is_empty());
/// assert!(all.map(|node| node.0).eq([1, 2]));
/// ```
pub struct HDrain<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> {
    list: HList<O, F>,
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> HDrain<O, F> {
    pub(super) fn new(list: HList<O, F>) -> HDrain<O, F> {
        HDrain { list }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> Iterator for HDrain<O, F> {
    type Item = O;

    #[inline]
    fn next(&mut self) -> Option<O> {
        self.list.pop_front()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> FusedIterator for HDrain<O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: HlistLink>> fmt::Debug for HDrain<O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}
