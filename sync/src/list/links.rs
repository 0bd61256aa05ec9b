//! The ring itself: two words in each object, and the operations that keep them consistent.
//!
//! 1. A list is a ring of [`Links`]: one of them is the head, each other one lies inside of an object. Going round in
//!    either direction never meets a null pointer, so inserting and removing have no special cases and no branches.
//! 2. Whoever changes a ring keeps all other changers out. Readers may be let in, as long as they only go forward: each
//!    operation leaves every `next` that such a reader can reach pointing to a node that is complete.
//! 3. `prev` is never read by such readers, which leaves it free to say something else as well: whether the node is in a
//!    ring at all. A node is claimed there, atomically, before it is added.
//!
//! # Invariants
//!
//! The `unsafe` functions here require and keep them; the typed lists guarantee them.
//!
//! * **R1, ring**: outside of these functions `p.next.prev == p` and `p.prev.next == p` for each `p` of a ring.
//! * **R2, place**: a `Links` stays where it is, and valid, from being added to being removed; a head as long as there
//!   is a ring. Pointers handed in are good for the whole object, not just for the `Links`, if the caller wants to get
//!   back to the object from what the ring returns.
//! * **R3, one writer**: at most one execution at a time is inside of a function that changes a given ring.
//! * **R4, membership**: `prev` is null or poison in a node that is in no ring; `CLAIMED` while one execution, the one
//!   whose claim succeeded, owns the right to add it; otherwise the node is in a ring.
//! * **R5, publication**: the store that makes a node reachable going forward comes after all its fields are written,
//!   with release ordering. It pairs with the acquire load in [`Links::next`].

use core::marker::PhantomPinned;
use core::ptr::{self, NonNull};

use super::corruption::{CLAIMED, Corruption, marker};
use super::stores::{
    check_initialised, check_member, insert, is_free, mark_removed, poison_next, publish_next, set_prev,
    unlink,
};
use crate::primitives::{AtomicPtr, Ordering, const_fn};

/// A node's or a head's place in a ring: the next and the previous one.
///
/// This is the unsafe core under [`List`](super::List), for those who build another list on it; the invariants that its
/// functions refer to as R1 to R5 stand in the module's documentation. Each changing function returns
/// a [`Corruption`] in debug builds if it finds a broken ring, having changed nothing; in release builds it looks at
/// nothing and always returns `Ok`.
///
/// Contexts: any, as far as R3 can be kept. Cost: O(1) and no branches in release builds, unless said otherwise.
/// Linux: `struct list_head`. Size: two words.
///
/// ```
/// use core::ptr::NonNull;
/// use sync::list::raw::Links;
///
/// let (head, a, b) = (Links::new(), Links::new(), Links::new());
/// let (head, a, b) = (NonNull::from(&head), NonNull::from(&a), NonNull::from(&b));
/// // SAFETY: the three stay in place until both nodes are removed, and nobody else knows of them.
/// unsafe {
///     Links::init(head);
///     Links::add_tail(a, head)?;
///     Links::add_tail(b, head)?;
///     assert_eq!(Links::next(head), a);
///     assert_eq!(Links::next(a), b);
///     assert_eq!(Links::next(b), head);
///     Links::del(a)?;
///     Links::del(b)?;
///     assert!(Links::is_empty(head));
/// }
/// # Ok::<(), sync::list::Corruption>(())
/// ```
// Atomics, although only one execution writes (R3): lockless readers load `next` meanwhile, and claims of other
// executions meet in `prev`. A relaxed access is an ordinary `mov`.
#[repr(C)]
#[derive(Debug)]
pub struct Links {
    pub(super) next: AtomicPtr<Links>,
    pub(super) prev: AtomicPtr<Links>,
    // Neighbours write here while somebody holds a `&mut` to the object: this keeps the compiler from assuming that a
    // mutable reference to a type that contains `Links` is the only way to it.
    _pinned: PhantomPinned,
}

impl Links {
    const_fn! {
        /// Links in no ring. A head needs [`init`](Links::init) before it is one.
        ///
        /// ```
        /// use sync::list::raw::Links;
        /// static NODE: Links = Links::new();
        /// assert!(!NODE.is_linked());
        /// ```
        pub fn new() -> Links {
            Links {
                next: AtomicPtr::new(ptr::null_mut()),
                prev: AtomicPtr::new(ptr::null_mut()),
                _pinned: PhantomPinned,
            }
        }
    }

    /// Whether the node is in a ring, or about to be.
    ///
    /// Out of date at once unless the caller keeps the ring's writer out.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: both stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add(a, head)?;
    ///     assert!(a.as_ref().is_linked());
    ///     Links::del(a)?;
    ///     assert!(!a.as_ref().is_linked());
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub fn is_linked(&self) -> bool {
        !is_free(self.prev.load(Ordering::Relaxed))
    }

    /// The address in `next`, for comparison.
    #[inline(always)]
    pub(super) fn next_address(&self) -> usize {
        self.next.load(Ordering::Relaxed).addr()
    }

    /// The address in `prev`, for comparison.
    #[inline(always)]
    pub(super) fn prev_address(&self) -> usize {
        self.prev.load(Ordering::Relaxed).addr()
    }

    /// The first and the last member, as a head that is not empty knows them.
    #[inline(always)]
    pub(super) fn ends(&self) -> (NonNull<Links>, NonNull<Links>) {
        // Acquire pairs with the release in `publish_next`.
        let first = NonNull::new(self.next.load(Ordering::Acquire));
        let last = NonNull::new(self.prev.load(Ordering::Relaxed));
        first.zip(last).expect("a head that is not empty has two ends")
    }

    /// Claims the node: at most one of several executions that want to add it succeeds.
    ///
    /// Whoever succeeds must add it or [`unclaim`](Links::unclaim) it. Cost: one atomic read-modify-write.
    ///
    /// ```
    /// use sync::list::raw::Links;
    /// let node = Links::new();
    /// assert!(node.claim() && !node.claim());
    /// node.unclaim();
    /// assert!(!node.is_linked());
    /// ```
    #[inline]
    #[must_use = "the node is claimed until it is added or unclaimed"]
    pub fn claim(&self) -> bool {
        let seen = self.prev.load(Ordering::Relaxed);
        // Acquire pairs with the release store in `mark_removed`: what the remover did to the node is over before the
        // claimer writes to it.
        is_free(seen)
            && self.prev.compare_exchange(seen, marker(CLAIMED), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Gives a claim back. Does nothing to a node that is not claimed.
    ///
    /// ```
    /// use sync::list::raw::Links;
    /// let node = Links::new();
    /// assert!(node.claim());
    /// node.unclaim();
    /// assert!(node.claim()); // the next one may
    /// ```
    #[inline]
    pub fn unclaim(&self) {
        if self.prev.load(Ordering::Relaxed).addr() == CLAIMED {
            // Release: pairs with the acquire in `claim`.
            self.prev.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// Makes `head` a ring of its own: an empty list. Linux: `INIT_LIST_HEAD`.
    ///
    /// # Safety
    /// `head` is valid, is in no ring with others, and R2 and R3 hold from here on.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: it stays in place to the end, and nobody else knows of it.
    /// unsafe {
    ///     Links::init(head);
    ///     assert!(Links::is_empty(head));
    ///     assert_eq!(Links::prev(head), head);
    /// }
    /// ```
    #[inline]
    pub unsafe fn init(head: NonNull<Links>) {
        // SAFETY: valid says the contract.
        unsafe {
            set_prev(head, head);
            publish_next(head, head);
        }
    }

    /// The next one in the ring: a member, or the head after the last. `node` itself if the ring is empty.
    ///
    /// The only way to move that needs no exclusion from the writer. Acquire ordering: what was written to the node
    /// before it was added is visible. Linux: `READ_ONCE(node->next)` and the address dependency behind it.
    ///
    /// # Safety
    /// `node` is valid and in a ring or a head; or was in one, and the ring's owner keeps removed nodes readable. In no
    /// other removed node: `next` is poison there.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: both stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     assert_eq!(Links::next(head), head);
    ///     Links::add(a, head)?;
    ///     assert_eq!((Links::next(head), Links::next(a)), (a, head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn next(node: NonNull<Links>) -> NonNull<Links> {
        // SAFETY: valid says the contract.
        let next = unsafe { node.as_ref() }.next.load(Ordering::Acquire);
        debug_assert!(
            !next.is_null(),
            "list: next of a node in no list, or of a head that was not initialised"
        );
        // SAFETY: R1: never null in a ring.
        unsafe { NonNull::new_unchecked(next) }
    }

    /// The previous one in the ring: a member, or the head before the first.
    ///
    /// # Safety
    /// `node` is in a ring or is a head, and the caller keeps the ring's writer out.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     assert_eq!((Links::prev(head), Links::prev(b), Links::prev(a)), (b, a, head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn prev(node: NonNull<Links>) -> NonNull<Links> {
        // SAFETY: valid says the contract.
        let prev = unsafe { node.as_ref() }.prev.load(Ordering::Relaxed);
        debug_assert!(
            !is_free(prev),
            "list: prev of a node in no list, or of a head that was not initialised"
        );
        // SAFETY: R1: never null in a ring.
        unsafe { NonNull::new_unchecked(prev) }
    }

    /// Adds `new` directly behind `head`, which may be the head or any member. Two adds behind the head make a stack.
    /// Linux: `list_add`.
    ///
    /// # Errors
    /// Debug builds: the neighbours disagree, or `new` is in a list.
    ///
    /// # Safety
    /// R1 to R3 hold for `head`'s ring; `new` is valid, in no ring (claimed by the caller if others could claim it), and
    /// R2 holds for it from here on.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add(a, head)?;
    ///     Links::add(b, head)?;
    ///     Links::add(c, b)?;
    /// }
    /// assert_eq!(members(head), [b, c, a]);
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn add(new: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: the contract, and the node behind a ring's node is in the ring.
        unsafe {
            check_initialised(head)?;
            insert(new, head, Links::next(head))
        }
    }

    /// Adds `new` directly in front of `head`, which may be the head, so that `new` becomes the last, or any member. Two
    /// adds in front of the head make a queue. Linux: `list_add_tail`.
    ///
    /// # Errors
    /// Debug builds: the neighbours disagree, or `new` is in a list.
    ///
    /// # Safety
    /// As for [`add`](Links::add).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     Links::add_tail(c, b)?;
    /// }
    /// assert_eq!(members(head), [a, c, b]);
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn add_tail(new: NonNull<Links>, head: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: the contract, and the node in front of a ring's node is in the ring.
        unsafe {
            check_initialised(head)?;
            insert(new, Links::prev(head), head)
        }
    }

    /// Removes `node` from its ring. Debug builds poison both of its links. Linux: `list_del`.
    ///
    /// # Errors
    /// Debug builds: `node` is in no ring, was removed before, or the neighbours disagree.
    ///
    /// # Safety
    /// R1 to R3 hold for `node`'s ring, and `node` is a member. In debug builds it may also be in no ring.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     Links::del(a)?;
    ///     assert_eq!(members(head), [b]);
    ///     if cfg!(debug_assertions) {
    ///         assert!(Links::del(a).is_err()); // once was enough
    ///     }
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn del(node: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: the contract is the same.
        unsafe {
            check_member(node)?;
            unlink(node);
            // Before the mark: from then on the node may be somebody else's.
            poison_next(node);
            mark_removed(node);
        }
        Ok(())
    }

    /// Removes `node` from its ring and leaves its `next` as it is, for lockless readers that are on it: they go on
    /// into the list. The node's memory may be reused, and the node added again, only when they have gone.
    /// Linux: `list_del_rcu`.
    ///
    /// # Errors
    /// As for [`del`](Links::del).
    ///
    /// # Safety
    /// As for [`del`](Links::del).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// # let members = |head: NonNull<Links>| {
    /// #     // SAFETY: the head of a ring that nobody changes meanwhile.
    /// #     let ring = core::iter::successors(Some(head), |&at| Some(unsafe { Links::next(at) }));
    /// #     ring.skip(1).take_while(|&at| at != head).collect::<Vec<_>>()
    /// # };
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     Links::del_rcu(a)?;
    ///     assert_eq!(members(head), [b]);
    ///     assert_eq!(Links::next(a), b); // a reader that is on `a` goes on
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn del_rcu(node: NonNull<Links>) -> Result<(), Corruption> {
        // SAFETY: the contract is the same.
        unsafe {
            check_member(node)?;
            unlink(node);
            mark_removed(node);
        }
        Ok(())
    }

    /// Whether the list has no member. One load, so the answer was true at some moment even without exclusion;
    /// `is_empty` and then looking at the first are two moments, though. Linux: `list_empty`.
    ///
    /// # Safety
    /// `head` is a valid head.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: both stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     assert!(Links::is_empty(head));
    ///     Links::add(a, head)?;
    ///     assert!(!Links::is_empty(head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn is_empty(head: NonNull<Links>) -> bool {
        // SAFETY: as the contract says.
        unsafe { Links::next(head) == head }
    }

    /// Whether the list has exactly one member. Linux: `list_is_singular`.
    ///
    /// # Safety
    /// `head` is a head and the caller keeps the ring's writer out.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     assert!(!Links::is_singular(head));
    ///     Links::add(a, head)?;
    ///     assert!(Links::is_singular(head));
    ///     Links::add(b, head)?;
    ///     assert!(!Links::is_singular(head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn is_singular(head: NonNull<Links>) -> bool {
        // SAFETY: as the contract says.
        unsafe { !Links::is_empty(head) && Links::next(head) == Links::prev(head) }
    }

    /// Whether `node` is the first of `head`'s list. Linux: `list_is_first`.
    ///
    /// # Safety
    /// `node` is in a ring or is a head, and the caller keeps the ring's writer out.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     assert!(Links::is_first(a, head) && !Links::is_first(b, head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn is_first(node: NonNull<Links>, head: NonNull<Links>) -> bool {
        // SAFETY: as the contract says.
        unsafe { Links::prev(node) == head }
    }

    /// Whether `node` is the last of `head`'s list. Linux: `list_is_last`.
    ///
    /// # Safety
    /// `node` is in a ring or is a head.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: all stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add_tail(a, head)?;
    ///     Links::add_tail(b, head)?;
    ///     assert!(Links::is_last(b, head) && !Links::is_last(a, head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn is_last(node: NonNull<Links>, head: NonNull<Links>) -> bool {
        // SAFETY: as the contract says.
        unsafe { Links::next(node) == head }
    }

    /// Whether going round has come back to the head. Linux: `list_is_head`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::Links;
    /// # let links = [const { Links::new() }; 5];
    /// # let [head, other, a, b, c] = links.each_ref().map(NonNull::from);
    /// // SAFETY: both stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     Links::init(head);
    ///     Links::add(a, head)?;
    ///     assert!(!Links::is_head(Links::next(head), head));
    ///     assert!(Links::is_head(Links::next(a), head));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub fn is_head(node: NonNull<Links>, head: NonNull<Links>) -> bool {
        node == head
    }
}

impl Default for Links {
    fn default() -> Links {
        Links::new()
    }
}

#[cfg(all(test, loom))]
#[path = "models.rs"]
mod models;
