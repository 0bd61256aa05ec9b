//! The chain below [`HList`](super::HList): one word in the head, two in each object.
//!
//! A hash table has many heads, most of which stand for nothing or one object, so a head should be one word. A member still
//! has to leave without a walk from the head: it knows the *word that points to it*, which is the head's or its
//! predecessor's `next`, and need not know which.
//!
//! What the last member's `next` (or an empty head) holds is an **end marker**: null, or an odd number that carries a value
//! ("nulls"). No node has an odd address. A reader without a lock can be carried into another chain, when the node that it
//! stands on is removed and added there; if each chain has a value of its own then the reader sees at the end that it
//! ended elsewhere, and starts again.
//!
//! # Invariants
//!
//! * **H1, chain**: for each member `m`, `*m.pprev` is `m`'s address.
//! * **H2, place**, **H3, one writer**, **H5, publication**: as R2, R3 and R5 of the [ring](super::raw).
//! * **H4, membership**: `pprev` is null or poison in a node that is in no chain, `CLAIMED` while one execution owns the
//!   right to add it; otherwise the node is in a chain.

use core::marker::PhantomPinned;
use core::ptr::{self, NonNull};

use super::corruption::{CHECKED, CLAIMED, Corruption, POISON_PREV, marker};
use crate::primitives::{AtomicPtr, Ordering, const_fn};

/// In `next` of a node that was removed. Even, unlike the ring's: an odd number would be an end marker, at which a reader
/// stops, and this one is to trap.
const POISON_NEXT: usize = super::corruption::POISON_NEXT - 1;

/// A word that points to a node or holds an end marker.
pub(super) type Word = AtomicPtr<HLinks>;

/// A node's place in a chain: the next one, and the word that points here.
///
/// The unsafe core under [`HList`](super::HList), for those who build another list on it.
/// Debug builds check both neighbours before they change anything, as those of [`Links`](super::raw::Links) do.
///
/// Contexts: any, as far as there is one writer. Cost: O(1). Linux: `struct hlist_node`. Size: two words.
///
/// ```
/// use core::ptr::NonNull;
/// use sync::list::raw::{HHead, HLinks};
///
/// let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
/// let (a, b) = (NonNull::from(&a), NonNull::from(&b));
/// // SAFETY: head and nodes stay in place until both nodes are removed, and nobody else knows of them.
/// unsafe {
///     head.add(a)?;
///     HLinks::add_behind(b, a)?;
///     assert_eq!((head.first(), HLinks::next(a), HLinks::next(b)), (Some(a), Some(b), None));
///     HLinks::del(a)?; // needs no head
///     assert_eq!(head.first(), Some(b));
///     HLinks::del(b)?;
/// }
/// # Ok::<(), sync::list::Corruption>(())
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct HLinks {
    next: Word,
    pprev: AtomicPtr<Word>,
    // As in `Links`: neighbours write here while somebody holds a `&mut` to the object.
    _pinned: PhantomPinned,
}

/// The head of a chain. One word. Linux: `struct hlist_head`.
///
/// ```
/// use core::ptr::NonNull;
/// use sync::list::raw::{HHead, HLinks};
///
/// let (head, node) = (HHead::new(), HLinks::new());
/// let node = NonNull::from(&node);
/// // SAFETY: head and node stay in place to the end, and nobody else knows of them.
/// unsafe { head.add(node)? };
/// assert_eq!(head.first(), Some(node));
/// assert_eq!(size_of::<HHead>(), size_of::<usize>());
/// # Ok::<(), sync::list::Corruption>(())
/// ```
#[repr(transparent)]
#[derive(Debug)]
pub struct HHead {
    first: Word,
    _pinned: PhantomPinned,
}

impl HHead {
    const_fn! {
        /// The head of an empty chain that ends in null.
        ///
        /// ```
        /// use sync::list::raw::HHead;
        /// static TABLE: [HHead; 8] = [const { HHead::new() }; 8];
        /// assert!(TABLE.iter().all(|head| head.first_or_end() == Err(0)));
        /// ```
        pub fn new() -> HHead {
            HHead { first: Word::new(ptr::null_mut()), _pinned: PhantomPinned }
        }

        /// The head of an empty chain whose end marker carries `value`, of which the highest bit is lost.
        /// Linux: `INIT_HLIST_NULLS_HEAD`.
        ///
        /// ```
        /// use sync::list::raw::HHead;
        /// let head = HHead::with_nulls(7);
        /// assert!(head.is_empty());
        /// assert_eq!(head.first_or_end(), Err(7));
        /// assert_eq!(HHead::with_nulls(usize::MAX).first_or_end(), Err(usize::MAX >> 1));
        /// ```
        pub fn with_nulls(value: usize) -> HHead {
            HHead { first: Word::new(marker(value << 1 | 1)), _pinned: PhantomPinned }
        }
    }

    /// Whether there is no member. One load. Linux: `hlist_empty`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// assert!(head.is_empty());
    /// // SAFETY: head and node stay in place to the end, and nobody else knows of them.
    /// unsafe { head.add(a)? };
    /// assert!(!head.is_empty());
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub fn is_empty(&self) -> bool {
        node_or_end(self.first.load(Ordering::Relaxed)).is_err()
    }

    /// The first member. Acquire ordering, so that no exclusion from the writer is needed. Linux: `hlist_first_rcu`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// assert_eq!(head.first(), None);
    /// // SAFETY: head and node stay in place to the end, and nobody else knows of them.
    /// unsafe { head.add(a)? };
    /// assert_eq!(head.first(), Some(a));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub fn first(&self) -> Option<NonNull<HLinks>> {
        self.first_or_end().ok()
    }

    /// The first member, or the value of the end marker.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// let head = HHead::with_nulls(3);
    /// assert_eq!(head.first_or_end(), Err(3));
    /// // SAFETY: head and node stay in place to the end, and nobody else knows of them.
    /// unsafe { head.add(a)? };
    /// assert_eq!(head.first_or_end(), Ok(a));
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub fn first_or_end(&self) -> Result<NonNull<HLinks>, usize> {
        // Acquire pairs with the release in `publish`.
        node_or_end(self.first.load(Ordering::Acquire))
    }

    /// Adds `new` as the first member. Linux: `hlist_add_head`.
    ///
    /// # Errors
    /// Debug builds: `new` is in a list, or the first member does not know the head.
    ///
    /// # Safety
    /// H1 to H3 hold for the chain; the head stays in place while the chain has members; `new` is valid, in no chain
    /// (claimed by the caller if others could claim it), and H2 holds for it from here on.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(a)?;
    ///     head.add(b)?;
    ///     assert_eq!((head.first(), HLinks::next(b), HLinks::next(a)), (Some(b), Some(a), None));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn add(&self, new: NonNull<HLinks>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe { insert(new, &raw const self.first) }
    }

    /// Tells the first member where the head is: after the head has been moved, and before the chain is changed.
    ///
    /// # Safety
    /// H2 and H3 hold for the chain, and H1 up to the head's address; the head stays here.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: nobody else knows of head and node; the head is anchored where it came to stay.
    /// unsafe {
    ///     head.add(a)?;
    ///     let moved = head;
    ///     moved.anchor();
    ///     HLinks::del(a)?; // changes the new head
    ///     assert!(moved.is_empty());
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn anchor(&self) {
        if let Ok(first) = node_or_end(self.first.load(Ordering::Relaxed)) {
            // SAFETY: a member is valid.
            unsafe { set_pprev(first, &raw const self.first) };
        }
    }

    /// Moves the whole chain to a new head and leaves this one empty, with the same end marker. The new head is to be
    /// [anchored](HHead::anchor) where it comes to stay. Cost: O(n), to find the end marker. Linux: `hlist_move_list`.
    ///
    /// # Safety
    /// H1 to H3 hold for the chain, H1 up to the head's address.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// let head = HHead::with_nulls(3);
    /// // SAFETY: nobody else knows of heads and node; the new head is anchored where it came to stay.
    /// unsafe {
    ///     head.add(a)?;
    ///     let new = head.take();
    ///     new.anchor();
    ///     assert_eq!((head.first_or_end(), new.first_or_end()), (Err(3), Ok(a)));
    ///     HLinks::del(a)?;
    ///     assert_eq!(new.first_or_end(), Err(3));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    pub unsafe fn take(&self) -> HHead {
        let first = self.first.load(Ordering::Relaxed);
        let mut end = first;
        while let Ok(member) = node_or_end(end) {
            // SAFETY: a member is valid.
            end = unsafe { member.as_ref() }.next.load(Ordering::Relaxed);
        }
        // Release: pairs with the acquire in `first_or_end`, as each store to this word does.
        self.first.store(end, Ordering::Release);
        HHead { first: Word::new(first), _pinned: PhantomPinned }
    }
}

impl Default for HHead {
    fn default() -> HHead {
        HHead::new()
    }
}

impl HLinks {
    const_fn! {
        /// Links in no chain.
        ///
        /// ```
        /// use sync::list::raw::HLinks;
        /// static NODE: HLinks = HLinks::new();
        /// assert!(!NODE.is_linked());
        /// ```
        pub fn new() -> HLinks {
            HLinks {
                next: Word::new(ptr::null_mut()),
                pprev: AtomicPtr::new(ptr::null_mut()),
                _pinned: PhantomPinned,
            }
        }
    }

    /// Whether the node is in a chain, or about to be. Linux: `!hlist_unhashed`.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and node stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(a)?;
    ///     assert!(a.as_ref().is_linked());
    ///     HLinks::del(a)?;
    ///     assert!(!a.as_ref().is_linked());
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub fn is_linked(&self) -> bool {
        !is_free(self.pprev.load(Ordering::Relaxed))
    }

    /// Claims the node, as [`Links::claim`](super::raw::Links::claim) does.
    ///
    /// ```
    /// use sync::list::raw::HLinks;
    /// let node = HLinks::new();
    /// assert!(node.claim() && !node.claim());
    /// assert!(node.is_linked()); // or about to be
    /// ```
    #[inline]
    #[must_use = "the node is claimed until it is added or unclaimed"]
    pub fn claim(&self) -> bool {
        let seen = self.pprev.load(Ordering::Relaxed);
        // Acquire pairs with the release store in `del`: the remover is done with the node.
        is_free(seen)
            && self
                .pprev
                .compare_exchange(seen, marker(CLAIMED), Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Gives a claim back. Does nothing to a node that is not claimed.
    ///
    /// ```
    /// use sync::list::raw::HLinks;
    /// let node = HLinks::new();
    /// assert!(node.claim());
    /// node.unclaim();
    /// assert!(!node.is_linked());
    /// ```
    #[inline]
    pub fn unclaim(&self) {
        if self.pprev.load(Ordering::Relaxed).addr() == CLAIMED {
            // Release: pairs with the acquire in `claim`.
            self.pprev.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// The next member. Acquire ordering, so that no exclusion from the writer is needed.
    ///
    /// # Safety
    /// `node` is a member; or was one, and the chain's owner keeps removed nodes readable.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(b)?;
    ///     head.add(a)?;
    ///     assert_eq!((HLinks::next(a), HLinks::next(b)), (Some(b), None));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn next(node: NonNull<HLinks>) -> Option<NonNull<HLinks>> {
        // SAFETY: the contract is the same.
        unsafe { HLinks::next_or_end(node) }.ok()
    }

    /// The next member, or the value of the end marker.
    ///
    /// # Safety
    /// As for [`next`](HLinks::next).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// let head = HHead::with_nulls(3);
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(b)?;
    ///     head.add(a)?;
    ///     assert_eq!((HLinks::next_or_end(a), HLinks::next_or_end(b)), (Ok(b), Err(3)));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn next_or_end(node: NonNull<HLinks>) -> Result<NonNull<HLinks>, usize> {
        // Acquire pairs with the release in `publish`.
        // SAFETY: valid by the contract.
        node_or_end(unsafe { node.as_ref() }.next.load(Ordering::Acquire))
    }

    /// The pointer that the chain has to `node`, which is the one that was added.
    ///
    /// # Safety
    /// `node` is a member of a chain for which H1 to H3 hold, and the caller is its writer.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a) = (HHead::new(), HLinks::new());
    /// # let a = NonNull::from(&a);
    /// // SAFETY: head and node stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(a)?;
    ///     assert_eq!(HLinks::as_known(a), a);
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline(always)]
    pub unsafe fn as_known(node: NonNull<HLinks>) -> NonNull<HLinks> {
        // SAFETY: valid, and not null by H1.
        unsafe {
            let word = node.as_ref().pprev.load(Ordering::Relaxed);
            NonNull::new_unchecked((*word).load(Ordering::Relaxed))
        }
    }

    /// Adds `new` directly behind `member`. Linux: `hlist_add_behind`.
    ///
    /// # Errors
    /// Debug builds: `member` is in no chain, `new` is in one, or the neighbours disagree.
    ///
    /// # Safety
    /// As for [`HHead::add`]; `member` is in the chain.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(a)?;
    ///     HLinks::add_behind(b, a)?;
    ///     assert_eq!((head.first(), HLinks::next(a), HLinks::next(b)), (Some(a), Some(b), None));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn add_behind(new: NonNull<HLinks>, member: NonNull<HLinks>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_member(member)?;
            insert(new, &raw const (*member.as_ptr()).next)
        }
    }

    /// Adds `new` directly in front of `member`. Linux: `hlist_add_before`.
    ///
    /// # Errors
    /// As for [`add_behind`](HLinks::add_behind).
    ///
    /// # Safety
    /// As for [`add_behind`](HLinks::add_behind).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(a)?;
    ///     HLinks::add_before(b, a)?;
    ///     assert_eq!((head.first(), HLinks::next(b), HLinks::next(a)), (Some(b), Some(a), None));
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn add_before(new: NonNull<HLinks>, member: NonNull<HLinks>) -> Result<(), Corruption> {
        // SAFETY: as the contract says; the word that points to a member is in the chain.
        unsafe {
            check_member(member)?;
            insert(new, member.as_ref().pprev.load(Ordering::Relaxed))
        }
    }

    /// Removes `node` from its chain. Debug builds poison both of its links. Linux: `hlist_del`.
    ///
    /// # Errors
    /// Debug builds: `node` is in no chain, was removed before, or the neighbours disagree.
    ///
    /// # Safety
    /// H1 to H3 hold for `node`'s chain, and `node` is a member. In debug builds it may also be in no chain.
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(b)?;
    ///     head.add(a)?;
    ///     HLinks::del(a)?;
    ///     assert_eq!(head.first(), Some(b));
    ///     if cfg!(debug_assertions) {
    ///         assert!(HLinks::del(a).is_err()); // once was enough
    ///     }
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn del(node: NonNull<HLinks>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_member(node)?;
            unlink(node);
            if CHECKED {
                node.as_ref().next.store(marker(POISON_NEXT), Ordering::Relaxed);
            }
            mark_removed(node);
        }
        Ok(())
    }

    /// Removes `node` and leaves its `next` as it is, for lockless readers that are on it. Linux: `hlist_del_rcu`.
    ///
    /// # Errors
    /// As for [`del`](HLinks::del).
    ///
    /// # Safety
    /// As for [`del`](HLinks::del).
    ///
    /// ```
    /// # use core::ptr::NonNull;
    /// # use sync::list::raw::{HHead, HLinks};
    /// # let (head, a, b) = (HHead::new(), HLinks::new(), HLinks::new());
    /// # let (a, b) = (NonNull::from(&a), NonNull::from(&b));
    /// // SAFETY: head and nodes stay in place to the end, and nobody else knows of them.
    /// unsafe {
    ///     head.add(b)?;
    ///     head.add(a)?;
    ///     HLinks::del_rcu(a)?;
    ///     assert_eq!(head.first(), Some(b));
    ///     assert_eq!(HLinks::next(a), Some(b)); // a reader that is on `a` goes on
    /// }
    /// # Ok::<(), sync::list::Corruption>(())
    /// ```
    #[inline]
    pub unsafe fn del_rcu(node: NonNull<HLinks>) -> Result<(), Corruption> {
        // SAFETY: as the contract says.
        unsafe {
            check_member(node)?;
            unlink(node);
            mark_removed(node);
        }
        Ok(())
    }
}

impl Default for HLinks {
    fn default() -> HLinks {
        HLinks::new()
    }
}

// ---- The machinery ----

#[inline(always)]
fn is_free(pprev: *mut Word) -> bool {
    pprev.is_null() || (CHECKED && pprev.addr() == POISON_PREV)
}

/// What a word says: a node, or an end marker's value.
#[inline(always)]
pub(super) fn node_or_end(word: *mut HLinks) -> Result<NonNull<HLinks>, usize> {
    match NonNull::new(word) {
        Some(node) if word.addr() & 1 == 0 => Ok(node),
        _ => Err(word.addr() >> 1),
    }
}

/// # Safety
/// `node` is valid and the caller is its chain's writer.
#[inline(always)]
unsafe fn set_pprev(node: NonNull<HLinks>, word: *const Word) {
    // Relaxed: who reads it excludes the writer, apart from claims, which only look whether it is free.
    // SAFETY: valid by the contract.
    unsafe { node.as_ref() }.pprev.store(word.cast_mut(), Ordering::Relaxed);
}

/// Writes a word that readers follow.
///
/// # Safety
/// `word` is valid and the caller is its chain's writer.
#[inline(always)]
unsafe fn publish(word: *const Word, to: *mut HLinks) {
    // Release pairs with the acquire in `first_or_end` and `next_or_end`: the reader sees `to` complete.
    // SAFETY: valid by the contract.
    unsafe { &*word }.store(to, Ordering::Release);
}

/// Puts `new` behind the word at `place`.
///
/// # Safety
/// As for [`HHead::add`]; `place` is a word of the chain.
#[inline(always)]
unsafe fn insert(new: NonNull<HLinks>, place: *const Word) -> Result<(), Corruption> {
    // SAFETY: valid by the contract.
    let (node, following) = unsafe { (new.as_ref(), (*place).load(Ordering::Relaxed)) };
    if CHECKED {
        let state = node.pprev.load(Ordering::Relaxed);
        if !is_free(state) && state.addr() != CLAIMED {
            return Err(Corruption::DoubleAdd { node: new.addr().get() });
        }
        if let Ok(next) = node_or_end(following) {
            // SAFETY: a member is valid.
            let found = unsafe { next.as_ref() }.pprev.load(Ordering::Relaxed);
            if !ptr::eq(found, place) {
                let (node, next, found) = (place.addr(), next.addr().get(), found.addr());
                return Err(Corruption::NextDisagrees { node, next, found });
            }
        }
    }
    // Release: pairs with the acquire in `next_or_end` of a reader that stands on a node which was moved here from another
    // chain: it has only this store to see what follows by.
    node.next.store(following, Ordering::Release);
    // SAFETY: all are valid. The reader's way in is last.
    unsafe {
        set_pprev(new, place);
        if let Ok(next) = node_or_end(following) {
            set_pprev(next, &raw const node.next);
        }
        publish(place, new.as_ptr());
    }
    Ok(())
}

/// # Safety
/// `node` is a member of a chain for which H1 to H3 hold.
#[inline(always)]
unsafe fn unlink(node: NonNull<HLinks>) {
    // SAFETY: a member and its neighbours are valid.
    unsafe {
        let (word, following) =
            (node.as_ref().pprev.load(Ordering::Relaxed), node.as_ref().next.load(Ordering::Relaxed));
        // Published, and not just stored: a reader that comes this way has only this store to see what follows by.
        publish(word, following);
        if let Ok(next) = node_or_end(following) {
            set_pprev(next, word);
        }
    }
}

/// # Safety
/// `node` is valid and has been unlinked by the caller.
#[inline(always)]
unsafe fn mark_removed(node: NonNull<HLinks>) {
    let mark = if CHECKED { marker(POISON_PREV) } else { ptr::null_mut() };
    // Release pairs with the acquire in `claim`.
    // SAFETY: valid by the contract.
    unsafe { node.as_ref() }.pprev.store(mark, Ordering::Release);
}

/// Whether `node` is in a chain and both neighbours agree.
///
/// # Safety
/// `node` is valid, and if it is in a chain then H2 and H3 hold for that.
#[inline(always)]
unsafe fn check_member(node: NonNull<HLinks>) -> Result<(), Corruption> {
    if CHECKED {
        // SAFETY: valid by the contract.
        let links = unsafe { node.as_ref() };
        let (pprev, next) = (links.pprev.load(Ordering::Relaxed), links.next.load(Ordering::Relaxed));
        let address = node.addr().get();
        if pprev.addr() == POISON_PREV || next.addr() == POISON_NEXT {
            return Err(Corruption::DoubleRemove { node: address });
        }
        if pprev.is_null() || pprev.addr() == CLAIMED {
            return Err(Corruption::NotInList { node: address });
        }
        // SAFETY: not a marker, so the node is in a chain and its neighbours are valid.
        let found = unsafe { &*pprev }.load(Ordering::Relaxed);
        if found != node.as_ptr() {
            return Err(Corruption::PrevDisagrees { node: address, prev: pprev.addr(), found: found.addr() });
        }
        if let Ok(next) = node_or_end(next) {
            // SAFETY: a member is valid.
            let found = unsafe { next.as_ref() }.pprev.load(Ordering::Relaxed);
            if !ptr::eq(found, &raw const links.next) {
                let (next, found) = (next.addr().get(), found.addr());
                return Err(Corruption::NextDisagrees { node: address, next, found });
            }
        }
    }
    Ok(())
}
