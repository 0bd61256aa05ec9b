//! The head, the nodes, and the two atomic operations.
//!
//! # Invariants
//!
//! * **S1**: `next` of a node is `FREE` in a node that is in no list and that nobody is adding; otherwise the node belongs
//!   to one execution that is about to push it, to a list, or to whoever took it.
//! * **S2**: `next` of a node in a list is written before the node is pushed, and not again until the list was taken.
//!   Only whoever took a chain reads or writes the `next`s in it.

use core::marker::PhantomPinned;
use core::ptr::{self, NonNull};

use hal::Platform;

use crate::primitives::{AtomicPtr, Ordering, const_fn};

/// In `next` of a node in no list. Odd, so that it is no node's address; null is the end of a chain.
const FREE: usize = 1;
/// In `next` of a node that somebody is about to push.
const CLAIMED: usize = 3;

#[inline(always)]
const fn marker(address: usize) -> *mut Node {
    ptr::without_provenance_mut(address)
}

/// How the atomic operations are ordered. A parameter only for the models, which show that neither rule can be left out.
pub(super) trait Rules {
    /// Of the exchange that publishes what was pushed.
    const PUSH: Ordering = Ordering::Release;
    /// Of the exchange that takes all.
    const TAKE: Ordering = Ordering::Acquire;
}

/// The rules of the product.
pub(super) enum Sound {}
impl Rules for Sound {}

#[repr(C)]
#[derive(Debug)]
pub(super) struct Node {
    next: AtomicPtr<Node>,
    // Other CPUs write here while somebody holds a `&mut` to the object.
    _pinned: PhantomPinned,
}

impl Node {
    const_fn! {
        pub(super) fn new() -> Node {
            Node { next: AtomicPtr::new(marker(FREE)), _pinned: PhantomPinned }
        }
    }

    #[inline]
    pub(super) fn is_linked(&self) -> bool {
        self.next.load(Ordering::Relaxed).addr() != FREE
    }

    /// At most one of several executions that want to push the node succeeds.
    #[inline]
    pub(super) fn claim(&self) -> bool {
        // Acquire pairs with the release in `detach`: whoever took the node out is done with it.
        self.next
            .compare_exchange(marker(FREE), marker(CLAIMED), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the first node out of a chain and returns what follows.
    ///
    /// # Safety
    /// The chain is the caller's alone.
    #[inline]
    pub(super) unsafe fn detach(node: NonNull<Node>) -> Option<NonNull<Node>> {
        // SAFETY: in the chain, hence valid.
        let links = unsafe { node.as_ref() };
        let rest = NonNull::new(links.next.load(Ordering::Relaxed));
        // Release pairs with the acquire in `claim`.
        links.next.store(marker(FREE), Ordering::Release);
        rest
    }

    /// Turns a chain round and returns its new first node.
    ///
    /// # Safety
    /// As for `detach`.
    #[inline]
    pub(super) unsafe fn reverse(first: NonNull<Node>) -> NonNull<Node> {
        // SAFETY: in the chain, hence valid. Relaxed: nobody else looks.
        if unsafe { first.as_ref() }.next.load(Ordering::Relaxed).is_null() {
            // What consumers that are told at once find nearly always.
            return first;
        }
        // SAFETY: passed on.
        unsafe { Node::reverse_some(first) }
    }

    /// # Safety
    /// As for `detach`.
    unsafe fn reverse_some(first: NonNull<Node>) -> NonNull<Node> {
        let (mut done, mut at) = (ptr::null_mut(), first);
        loop {
            // SAFETY: in the chain, hence valid. Relaxed: nobody else looks.
            let links = unsafe { at.as_ref() };
            let next = links.next.load(Ordering::Relaxed);
            links.next.store(done, Ordering::Relaxed);
            match NonNull::new(next) {
                Some(next) => (done, at) = (at.as_ptr(), next),
                None => return at,
            }
        }
    }

    /// The last node of a chain.
    ///
    /// # Safety
    /// As for `detach`.
    pub(super) unsafe fn last(first: NonNull<Node>) -> NonNull<Node> {
        let mut at = first;
        // SAFETY: in the chain, hence valid. Relaxed: nobody else looks.
        while let Some(next) = NonNull::new(unsafe { at.as_ref() }.next.load(Ordering::Relaxed)) {
            at = next;
        }
        at
    }
}

#[derive(Debug)]
pub(super) struct Head<R: Rules = Sound> {
    first: AtomicPtr<Node>,
    _rules: core::marker::PhantomData<fn() -> R>,
}

impl<R: Rules> Head<R> {
    const_fn! {
        pub(super) fn new() -> Head<R> {
            Head { first: AtomicPtr::new(ptr::null_mut()), _rules: core::marker::PhantomData }
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.load(Ordering::Relaxed).is_null()
    }

    /// Pushes a chain, of one node if `first` and `last` are the same. Returns whether the list was empty.
    ///
    /// # Safety
    /// The chain is the caller's alone, by a claim or because it was taken or never shared; from here on it belongs to the
    /// list, and its nodes stay in place until they come out.
    #[inline]
    pub(super) unsafe fn push<P: Platform>(&self, first: NonNull<Node>, last: NonNull<Node>) -> bool {
        let mut found = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: valid. Nobody looks at it before the exchange below has succeeded.
            unsafe { last.as_ref() }.next.store(found, Ordering::Relaxed);
            P::chaos_point();
            // Release pairs with the acquire in `take_all`, also across pushes in between: they continue the release
            // sequence, being read-modify-writes.
            match self.first.compare_exchange_weak(found, first.as_ptr(), R::PUSH, Ordering::Relaxed) {
                Ok(_) => return found.is_null(),
                Err(now) => found = now,
            }
            P::relax();
        }
    }

    /// Takes the whole chain.
    #[inline]
    pub(super) fn take_all(&self) -> Option<NonNull<Node>> {
        // The read-modify-write is dear, and looking is not: consumers that find nothing are the common case.
        if self.is_empty() {
            return None;
        }
        self.take_all_at_once()
    }

    /// The same for consumers that know better.
    #[inline]
    pub(super) fn take_all_at_once(&self) -> Option<NonNull<Node>> {
        // Acquire pairs with the release in `push`: the nodes and what they are in are as their pushers left them.
        NonNull::new(self.first.swap(ptr::null_mut(), R::TAKE))
    }
}
