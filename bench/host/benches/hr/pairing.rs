//! The pairing heap: additions in constant time, and removals that now and then pay for all of them.

use std::ptr::null_mut;

use super::Candidate;

#[repr(C)]
pub(super) struct Node {
    expires: u64,
    child: *mut Node,
    next: *mut Node,
    /// The sibling before, or the one above.
    prev: *mut Node,
}

impl Default for Node {
    fn default() -> Node {
        Node { expires: 0, child: null_mut(), next: null_mut(), prev: null_mut() }
    }
}

pub(super) struct Pairing {
    root: *mut Node,
}

/// The later root becomes the first child of the earlier one.
#[inline(always)]
unsafe fn link(mut a: *mut Node, mut b: *mut Node) -> *mut Node {
    // SAFETY: both are roots.
    unsafe {
        if (*b).expires < (*a).expires {
            (a, b) = (b, a);
        }
        (*b).prev = a;
        (*b).next = (*a).child;
        if !(*b).next.is_null() {
            (*(*b).next).prev = b;
        }
        (*a).child = b;
        a
    }
}

/// Pairs neighbours from left to right, then links the pairs from right to left.
unsafe fn join(mut at: *mut Node) -> *mut Node {
    // SAFETY: siblings in the heap.
    unsafe {
        let mut pairs = null_mut::<Node>();
        while !at.is_null() {
            let a = at;
            let b = (*a).next;
            let pair = if b.is_null() {
                at = null_mut();
                a
            } else {
                at = (*b).next;
                link(a, b)
            };
            (*pair).next = pairs;
            pairs = pair;
        }
        let mut root = pairs;
        if !root.is_null() {
            let mut next = (*root).next;
            while !next.is_null() {
                let after = (*next).next;
                root = link(root, next);
                next = after;
            }
            (*root).next = null_mut();
            (*root).prev = null_mut();
        }
        root
    }
}

impl Candidate for Pairing {
    const NAME: &'static str = "pairing heap";
    type Node = Node;

    fn new(_most: usize) -> Self {
        Pairing { root: null_mut() }
    }

    #[inline(always)]
    unsafe fn insert(&mut self, node: *mut Node, expires: u64) {
        // SAFETY: the node is the caller's.
        unsafe {
            *node = Node { expires, ..Node::default() };
            self.root = if self.root.is_null() { node } else { link(self.root, node) };
        }
    }

    #[inline(always)]
    unsafe fn remove(&mut self, node: *mut Node) {
        // SAFETY: in the heap.
        unsafe {
            let below = join((*node).child);
            if node == self.root {
                self.root = below;
                return;
            }
            let (prev, next) = ((*node).prev, (*node).next);
            if (*prev).child == node {
                (*prev).child = next;
            } else {
                (*prev).next = next;
            }
            if !next.is_null() {
                (*next).prev = prev;
            }
            if !below.is_null() {
                self.root = link(self.root, below);
                (*self.root).next = null_mut();
            }
        }
    }

    #[inline(always)]
    fn first(&mut self) -> *mut Node {
        self.root
    }

    #[inline(always)]
    unsafe fn expires(node: *mut Node) -> u64 {
        // SAFETY: the caller's.
        unsafe { (*node).expires }
    }
}
