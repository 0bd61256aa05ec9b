//! The field that makes an object a possible member of a list.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;

use hal::platform::{Report, Severity};
use hal::{Native, Platform};

use super::corruption::Corruption;
use super::links::Links;
use crate::primitives::const_fn;

/// A place in a [`List`](super::List), to be embedded in the objects that go into one; several in one object let it be in
/// several lists. Name it with [`link_field!`](crate::link_field).
///
/// A link that is dropped while it is in a list would leave its neighbours pointing into freed memory: then the platform
/// `P` is told by a fatal report, and nothing goes on. The lists keep that from happening; what remains is a list that
/// was leaked while it borrowed its objects.
///
/// Linux: a `struct list_head` member. Size: two words.
///
/// ```
/// use sync::list::{Link, List};
///
/// struct Task {
///     name: &'static str,
///     run_queue: Link,
/// }
/// sync::link_field! { struct Runnable = Task => run_queue: Link; }
///
/// let idle = Task { name: "idle", run_queue: Link::new() };
/// let mut runnable = List::<&Task, Runnable>::new();
/// runnable.push_back(&idle);
/// assert!(idle.run_queue.is_linked());
/// assert_eq!(runnable.pop_front().unwrap().name, "idle");
/// assert!(!idle.run_queue.is_linked());
/// ```
#[repr(C)]
pub struct Link<P: Platform = Native> {
    links: Links,
    _platform: PhantomData<fn() -> P>,
}

impl Link {
    const_fn! {
        /// A link in no list, on this build's platform.
        ///
        /// ```
        /// use sync::list::Link;
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
        /// use sync::list::Link;
        /// let link = Link::<hal::Native>::new_in();
        /// assert!(!link.is_linked());
        /// ```
        pub fn new_in() -> Link<P> {
            Link { links: Links::new(), _platform: PhantomData }
        }
    }

    /// Whether the object is in a list by this link, or is being added to one at this moment. Any context; out of date at
    /// once, unless the caller keeps other users of the list out.
    ///
    /// ```
    /// # use sync::list::{Link, List};
    /// # struct Node(u32, Link);
    /// # sync::link_field! { struct InList = Node => 1: Link; }
    /// let node = Node(1, Link::new());
    /// let mut list = List::<&Node, InList>::new();
    /// list.push_back(&node);
    /// assert!(node.1.is_linked());
    /// list.clear();
    /// assert!(!node.1.is_linked());
    /// ```
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.links.is_linked()
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

/// Stops the machine: what is freed next is still reachable.
#[cold]
#[inline(never)]
#[track_caller]
pub(crate) fn linked_node_dropped<P: Platform>(node: usize) -> ! {
    let location = Location::caller();
    let message = format_args!("list: node {node:#x} was dropped while it is in a list");
    P::report(&Report { severity: Severity::Fatal, message, location });
    // On a host a fatal report may return if a panic is under way already; a second one then ends the process.
    panic!("list: node {node:#x} was dropped while it is in a list");
}

/// Reports what was refused, with the line of whoever called the list.
#[cold]
#[inline(never)]
#[track_caller]
pub(crate) fn report_refused<P: Platform>(operation: &str, why: Corruption) {
    let location = Location::caller();
    let message = format_args!("{operation}: {why}");
    P::report(&Report { severity: Severity::Bug, message, location });
}

/// The link fields of [`List`](super::List)s: [`Link`]s.
///
/// ```
/// use sync::list::{Field, Link, List, Owner, RingLink};
///
/// /// Takes the two ends of any list.
/// fn ends<O: Owner, F: Field<Object = O::Object, Link: RingLink>>(mut list: List<O, F>) -> [Option<O>; 2] {
///     [list.pop_front(), list.pop_back()]
/// }
///
/// # struct Node(u32, Link);
/// # sync::link_field! { struct InList = Node => 1: Link; }
/// let list: List<Box<Node>, InList> = (1..=3).map(|n| Box::new(Node(n, Link::new()))).collect();
/// assert_eq!(ends(list).map(|node| node.unwrap().0), [1, 3]);
/// ```
pub trait RingLink: sealed::Sealed {
    /// Where reports go.
    type Platform: Platform;
    /// The part of the link that forms rings.
    #[doc(hidden)]
    fn links(link: NonNull<Self>) -> NonNull<Links>;
    /// And back.
    #[doc(hidden)]
    fn from_links(links: NonNull<Links>) -> NonNull<Self>;
}

mod sealed {
    pub trait Sealed {}
}
impl<P: Platform> sealed::Sealed for Link<P> {}

impl<P: Platform> RingLink for Link<P> {
    type Platform = P;

    // The first field of a `repr(C)` structure has its address.
    #[inline(always)]
    fn links(link: NonNull<Link<P>>) -> NonNull<Links> {
        link.cast()
    }

    #[inline(always)]
    fn from_links(links: NonNull<Links>) -> NonNull<Link<P>> {
        links.cast()
    }
}
