//! Going through a list: borrowing, mutably, and taking all out.

use core::fmt;
use core::iter::FusedIterator;
use core::marker::PhantomData;
use core::pin::Pin;
use core::ptr::NonNull;

use super::field::Field;
use super::link::RingLink;
use super::links::Links;
use super::membership::object_at;
use super::owner::{Owner, UniqueOwner};
use super::typed::List;

/// What is left between the two ends of an iteration: the members from the first to the second, both included.
type Rest = Option<(NonNull<Links>, NonNull<Links>)>;

fn all<O: Owner, F: Field<Object = O::Object, Link: RingLink>>(list: &List<O, F>) -> Rest {
    if list.is_empty() { None } else { Some(list.head.ends()) }
}

/// Takes one from the front.
///
/// # Safety
/// `rest` lies in the ring of a list that is borrowed as long as `rest` is used.
#[inline(always)]
unsafe fn forward(rest: &mut Rest) -> Option<NonNull<Links>> {
    let (first, last) = (*rest)?;
    // SAFETY: in the ring; if it is not the last that is left then a member comes behind it.
    *rest = if first == last { None } else { Some((unsafe { Links::next(first) }, last)) };
    Some(first)
}

/// Takes one from the back.
///
/// # Safety
/// As for `forward`.
#[inline(always)]
unsafe fn backward(rest: &mut Rest) -> Option<NonNull<Links>> {
    let (first, last) = (*rest)?;
    // SAFETY: in the ring; if it is not the first that is left then a member comes before it.
    *rest = if first == last { None } else { Some((first, unsafe { Links::prev(last) })) };
    Some(last)
}

/// The objects of a [`List`], in both directions. See [`List::iter`].
///
/// ```
/// # use sync::list::{Link, List};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// # let node = |n| Box::new(Node(n, Link::new()));
/// let list: List<Box<Node>, InList> = (1..=4).map(node).collect();
/// let mut iter = list.iter();
/// assert_eq!(iter.next().unwrap().0, 1);
/// assert_eq!(iter.next_back().unwrap().0, 4);
/// assert!(iter.clone().map(|node| node.0).eq([2, 3]));
/// assert_eq!(iter.count(), 2);
/// ```
pub struct Iter<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> {
    rest: Rest,
    _list: PhantomData<&'a List<O, F>>,
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> Iter<'a, O, F> {
    #[inline]
    pub(super) fn new(list: &'a List<O, F>) -> Iter<'a, O, F> {
        Iter { rest: all(list), _list: PhantomData }
    }
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> Iterator for Iter<'a, O, F> {
    type Item = &'a O::Object;

    #[inline]
    fn next(&mut self) -> Option<&'a O::Object> {
        // SAFETY: the list is borrowed for 'a, so its members stay in it, and their objects in place (L2, R2).
        unsafe { Some(object_at::<F>(forward(&mut self.rest)?).as_ref()) }
    }
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> DoubleEndedIterator for Iter<'a, O, F> {
    #[inline]
    fn next_back(&mut self) -> Option<&'a O::Object> {
        // SAFETY: as for `next`.
        unsafe { Some(object_at::<F>(backward(&mut self.rest)?).as_ref()) }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> FusedIterator for Iter<'_, O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Clone for Iter<'_, O, F> {
    fn clone(&self) -> Self {
        Iter { rest: self.rest, _list: PhantomData }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> fmt::Debug for Iter<'_, O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// The objects of a [`List`], mutably and in both directions. See [`List::iter_mut`].
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
/// let mut iter = list.iter_mut();
/// *iter.next().unwrap().value() = 10;
/// *iter.next_back().unwrap().value() = 30;
/// assert!(iter.map(|node| node.value).eq([2]));
/// assert!(list.iter().map(|node| node.value).eq([10, 2, 30]));
/// ```
pub struct IterMut<'a, O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> {
    rest: Rest,
    _list: PhantomData<&'a mut List<O, F>>,
}

impl<'a, O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> IterMut<'a, O, F> {
    #[inline]
    pub(super) fn new(list: &'a mut List<O, F>) -> IterMut<'a, O, F> {
        IterMut { rest: all(list), _list: PhantomData }
    }
}

impl<'a, O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> Iterator for IterMut<'a, O, F> {
    type Item = Pin<&'a mut O::Object>;

    #[inline]
    fn next(&mut self) -> Option<Pin<&'a mut O::Object>> {
        // SAFETY: the list is borrowed mutably for 'a and reaches the object alone (`UniqueOwner`); each is given out
        // once, and does not move while it is in the list.
        unsafe { Some(Pin::new_unchecked(object_at::<F>(forward(&mut self.rest)?).as_mut())) }
    }
}

impl<O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> DoubleEndedIterator for IterMut<'_, O, F> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        // SAFETY: as for `next`.
        unsafe { Some(Pin::new_unchecked(object_at::<F>(backward(&mut self.rest)?).as_mut())) }
    }
}

impl<O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> FusedIterator for IterMut<'_, O, F> {}

impl<O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> fmt::Debug for IterMut<'_, O, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IterMut").finish_non_exhaustive()
    }
}

/// The pointers that were in a [`List`], in both directions. Those that are left when it is dropped are dropped.
///
/// ```
/// # use sync::list::{Link, List};
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let list: List<Box<Node>, InList> = (0..3).map(|n| Box::new(Node(n, Link::new()))).collect();
/// let numbers: Vec<u32> = list.into_iter().map(|node| node.0).collect();
/// assert_eq!(numbers, [0, 1, 2]);
/// ```
pub struct Drain<O: Owner, F: Field<Object = O::Object, Link: RingLink>> {
    list: List<O, F>,
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Drain<O, F> {
    pub(super) fn new(list: List<O, F>) -> Drain<O, F> {
        Drain { list }
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> Iterator for Drain<O, F> {
    type Item = O;

    #[inline]
    fn next(&mut self) -> Option<O> {
        self.list.pop_front()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> DoubleEndedIterator for Drain<O, F> {
    #[inline]
    fn next_back(&mut self) -> Option<O> {
        self.list.pop_back()
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> FusedIterator for Drain<O, F> {}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> fmt::Debug for Drain<O, F>
where
    O::Object: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}

impl<O: Owner, F: Field<Object = O::Object, Link: RingLink>> IntoIterator for List<O, F> {
    type Item = O;
    type IntoIter = Drain<O, F>;

    fn into_iter(self) -> Drain<O, F> {
        Drain::new(self)
    }
}

impl<'a, O: Owner, F: Field<Object = O::Object, Link: RingLink>> IntoIterator for &'a List<O, F> {
    type Item = &'a O::Object;
    type IntoIter = Iter<'a, O, F>;

    fn into_iter(self) -> Iter<'a, O, F> {
        self.iter()
    }
}

impl<'a, O: UniqueOwner, F: Field<Object = O::Object, Link: RingLink>> IntoIterator for &'a mut List<O, F> {
    type Item = Pin<&'a mut O::Object>;
    type IntoIter = IterMut<'a, O, F>;

    fn into_iter(self) -> IterMut<'a, O, F> {
        self.iter_mut()
    }
}
