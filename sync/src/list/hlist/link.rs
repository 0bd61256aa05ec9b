//! The field that makes an object a possible member of a chain.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use hal::{Native, Platform};

use crate::list::hlist_links::HLinks;
use crate::list::link::linked_node_dropped;
use crate::primitives::const_fn;

/// A place in an [`HList`](crate::list::HList), to be embedded in the objects that go into one; see
/// [`Link`](crate::list::Link).
///
/// Linux: a `struct hlist_node` member. Size: two words.
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
/// let root = Inode { number: 1, hash: HLink::new() };
/// let mut bucket = HList::<&Inode, Hashed>::new();
/// bucket.push_front(&root);
/// assert_eq!(bucket.front().unwrap().number, 1);
/// ```
#[repr(C)]
pub struct HLink<P: Platform = Native> {
    links: HLinks,
    _platform: PhantomData<fn() -> P>,
}

impl HLink {
    const_fn! {
        /// A link in no list, on this build's platform.
        ///
        /// ```
        /// use sync::list::HLink;
        /// static LINK: HLink = HLink::new();
        /// assert!(!LINK.is_linked());
        /// ```
        pub fn new() -> HLink {
            HLink::new_in()
        }
    }
}

impl<P: Platform> HLink<P> {
    const_fn! {
        /// A link in no list, on the platform `P`.
        ///
        /// ```
        /// use sync::list::HLink;
        /// let link = HLink::<hal::Native>::new_in();
        /// assert!(!link.is_linked());
        /// ```
        pub fn new_in() -> HLink<P> {
            HLink { links: HLinks::new(), _platform: PhantomData }
        }
    }

    /// Whether the object is in a list by this link, or is being added to one at this moment. Out of date at once unless
    /// other users of the list are kept out. Linux: `!hlist_unhashed`.
    ///
    /// ```
    /// # use sync::list::{HLink, HList};
    /// # struct Node(u32, HLink);
    /// # sync::link_field! { struct InList = Node => 1: HLink; }
    /// let node = Node(1, HLink::new());
    /// let mut list = HList::<&Node, InList>::new();
    /// list.push_front(&node);
    /// assert!(node.1.is_linked());
    /// list.clear();
    /// assert!(!node.1.is_linked());
    /// ```
    #[doc(alias = "hlist_unhashed")]
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.links.is_linked()
    }
}

impl Default for HLink {
    fn default() -> HLink {
        HLink::new()
    }
}

impl<P: Platform> fmt::Debug for HLink<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_linked() { "HLink(in a list)" } else { "HLink(in no list)" })
    }
}

impl<P: Platform> Drop for HLink<P> {
    #[inline]
    fn drop(&mut self) {
        if self.is_linked() {
            linked_node_dropped::<P>((&raw const *self).addr());
        }
    }
}

/// The link fields of [`HList`](crate::list::HList)s: [`HLink`]s.
///
/// ```
/// use sync::list::{Field, HLink, HList, HlistLink, Owner};
///
/// /// Counts the objects of any list.
/// fn count<O: Owner, F: Field<Object = O::Object, Link: HlistLink>>(list: &HList<O, F>) -> usize {
///     list.iter().count()
/// }
///
/// # struct Node(u32, HLink);
/// # sync::link_field! { struct InList = Node => 1: HLink; }
/// let mut list = HList::<Box<Node>, InList>::new();
/// list.push_front(Box::new(Node(1, HLink::new())));
/// assert_eq!(count(&list), 1);
/// ```
pub trait HlistLink: sealed::Sealed {
    /// Where reports go.
    type Platform: Platform;
    /// The part of the link that forms chains.
    #[doc(hidden)]
    fn links(link: NonNull<Self>) -> NonNull<HLinks>;
    /// And back.
    #[doc(hidden)]
    fn from_links(links: NonNull<HLinks>) -> NonNull<Self>;
}

mod sealed {
    pub trait Sealed {}
}
impl<P: Platform> sealed::Sealed for HLink<P> {}

impl<P: Platform> HlistLink for HLink<P> {
    type Platform = P;

    // The first field of a `repr(C)` structure has its address.
    #[inline(always)]
    fn links(link: NonNull<HLink<P>>) -> NonNull<HLinks> {
        link.cast()
    }

    #[inline(always)]
    fn from_links(links: NonNull<HLinks>) -> NonNull<HLink<P>> {
        links.cast()
    }
}
