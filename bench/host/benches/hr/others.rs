//! Ours, the balanced tree, the 4-ary heap in an array, and buckets by the highest bit that differs.

use std::ptr::{NonNull, null_mut};

use timers::hr::{HrEntry, HrQueue};
use timers::queue::{Entry, Queue};

use super::{Candidate, tree};

/// Ours.
pub(super) struct Ours(HrQueue);

#[repr(transparent)]
pub(super) struct OurNode(HrEntry);

impl Default for OurNode {
    fn default() -> OurNode {
        OurNode(HrEntry::new(0))
    }
}

impl Candidate for Ours {
    const NAME: &'static str = "leftist heap (`HrQueue`)";
    type Node = OurNode;
    fn new(_most: usize) -> Self {
        Ours(HrQueue::new())
    }
    #[inline(always)]
    unsafe fn insert(&mut self, node: *mut OurNode, expires: u64) {
        // SAFETY: the node is the caller's and stays.
        unsafe {
            (*node).0.set_expires(expires);
            self.0.insert(NonNull::new_unchecked(node.cast()), 0);
        }
    }
    #[inline(always)]
    unsafe fn remove(&mut self, node: *mut OurNode) {
        // SAFETY: in the queue.
        unsafe { self.0.remove(NonNull::new_unchecked(node.cast())) }
    }
    #[inline(always)]
    unsafe fn pop(&mut self) -> *mut OurNode {
        self.0.pop_any().map_or(null_mut(), |entry| entry.as_ptr().cast())
    }
    #[inline(always)]
    unsafe fn expires(node: *mut OurNode) -> u64 {
        // SAFETY: the caller's.
        unsafe { (*node).0.expires() }
    }
}

/// The tree that the scheduler's queues are made of: AVL, the leftmost one at hand.
pub(super) struct Avl(tree::Tree<ByTime, u64>);

#[repr(C)]
pub(super) struct AvlNode {
    at: tree::Node<u64>,
}
sync::link_field! { pub(super) struct ByTime = AvlNode => at: tree::Node<u64>; }

impl Default for AvlNode {
    fn default() -> AvlNode {
        AvlNode { at: tree::Node::new(0, ()) }
    }
}

impl Candidate for Avl {
    const NAME: &'static str = "balanced tree (AVL)";
    type Node = AvlNode;
    fn new(_most: usize) -> Self {
        Avl(tree::Tree::new())
    }
    #[inline(always)]
    unsafe fn insert(&mut self, node: *mut AvlNode, expires: u64) {
        // SAFETY: the node is the caller's and stays.
        unsafe { self.0.insert(NonNull::new_unchecked(node), expires, ()) }
    }
    #[inline(always)]
    unsafe fn remove(&mut self, node: *mut AvlNode) {
        // SAFETY: in the tree.
        unsafe { self.0.remove(NonNull::new_unchecked(node)) }
    }
    #[inline(always)]
    fn first(&mut self) -> *mut AvlNode {
        self.0.first().map_or(null_mut(), NonNull::as_ptr)
    }
    #[inline(always)]
    unsafe fn expires(node: *mut AvlNode) -> u64 {
        // SAFETY: the caller's.
        unsafe { (*node).at.key() }
    }
}

/// A heap in an array, four children each, in which each node knows its index. It allocates: for comparison only.
pub(super) struct FourAry(Vec<(u64, *mut Indexed)>);

#[repr(C)]
#[derive(Default)]
pub(super) struct Indexed {
    expires: u64,
    index: usize,
}

impl FourAry {
    #[inline(always)]
    fn place(&mut self, index: usize, item: (u64, *mut Indexed)) {
        self.0[index] = item;
        // SAFETY: in the heap.
        unsafe { (*item.1).index = index };
    }

    #[inline(always)]
    fn up(&mut self, mut index: usize, item: (u64, *mut Indexed)) {
        while index > 0 {
            let above = (index - 1) / 4;
            if self.0[above].0 <= item.0 {
                break;
            }
            self.place(index, self.0[above]);
            index = above;
        }
        self.place(index, item);
    }

    #[inline(always)]
    fn down(&mut self, mut index: usize, item: (u64, *mut Indexed)) {
        loop {
            let from = index * 4 + 1;
            let to = (from + 4).min(self.0.len());
            if from >= to {
                break;
            }
            let mut least = from;
            for i in from + 1..to {
                if self.0[i].0 < self.0[least].0 {
                    least = i;
                }
            }
            if item.0 <= self.0[least].0 {
                break;
            }
            self.place(index, self.0[least]);
            index = least;
        }
        self.place(index, item);
    }
}

impl Candidate for FourAry {
    const NAME: &'static str = "4-ary heap in an array";
    type Node = Indexed;
    fn new(most: usize) -> Self {
        FourAry(Vec::with_capacity(most + 1))
    }
    #[inline(always)]
    unsafe fn insert(&mut self, node: *mut Indexed, expires: u64) {
        // SAFETY: the node is the caller's.
        unsafe { (*node).expires = expires };
        self.0.push((expires, node));
        self.up(self.0.len() - 1, (expires, node));
    }
    #[inline(always)]
    unsafe fn remove(&mut self, node: *mut Indexed) {
        // SAFETY: in the heap.
        let index = unsafe { (*node).index };
        let last = self.0.pop().expect("it is in the heap");
        if index < self.0.len() {
            if index > 0 && last.0 < self.0[(index - 1) / 4].0 {
                self.up(index, last);
            } else {
                self.down(index, last);
            }
        }
    }
    #[inline(always)]
    fn first(&mut self) -> *mut Indexed {
        self.0.first().map_or(null_mut(), |first| first.1)
    }
    #[inline(always)]
    unsafe fn expires(node: *mut Indexed) -> u64 {
        // SAFETY: the caller's.
        unsafe { (*node).expires }
    }
}

/// A radix heap: bucket k has what differs from the last time taken out in bit k - 1 and none above. Times before the
/// last one that was taken out count as it.
pub(super) struct Buckets {
    last: u64,
    map: u128,
    heads: [*mut Linked; 65],
    /// The earliest of the lowest bucket that is not empty, if known.
    first: *mut Linked,
}

#[repr(C)]
pub(super) struct Linked {
    expires: u64,
    next: *mut Linked,
    prev: *mut Linked,
    bucket: usize,
}

impl Default for Linked {
    fn default() -> Linked {
        Linked { expires: 0, next: null_mut(), prev: null_mut(), bucket: 0 }
    }
}

impl Buckets {
    #[inline(always)]
    unsafe fn file(&mut self, node: *mut Linked) {
        // SAFETY: the node is in no bucket.
        unsafe {
            let bucket = 64 - ((*node).expires.max(self.last) ^ self.last).leading_zeros() as usize;
            let head = self.heads[bucket];
            (*node).bucket = bucket;
            (*node).next = head;
            (*node).prev = null_mut();
            if !head.is_null() {
                (*head).prev = node;
            }
            self.heads[bucket] = node;
            self.map |= 1 << bucket;
        }
    }
}

impl Candidate for Buckets {
    const NAME: &'static str = "radix buckets";
    type Node = Linked;
    fn new(_most: usize) -> Self {
        Buckets { last: 0, map: 0, heads: [null_mut(); 65], first: null_mut() }
    }
    #[inline(always)]
    unsafe fn insert(&mut self, node: *mut Linked, expires: u64) {
        // SAFETY: the node is the caller's.
        unsafe {
            (*node).expires = expires;
            self.file(node);
            if !self.first.is_null() && expires < (*self.first).expires {
                self.first = node;
            }
        }
    }
    #[inline(always)]
    unsafe fn remove(&mut self, node: *mut Linked) {
        // SAFETY: in a bucket.
        unsafe {
            let (next, prev) = ((*node).next, (*node).prev);
            if !next.is_null() {
                (*next).prev = prev;
            }
            if prev.is_null() {
                self.heads[(*node).bucket] = next;
                if next.is_null() {
                    self.map &= !(1 << (*node).bucket);
                }
            } else {
                (*prev).next = next;
            }
            if self.first == node {
                self.first = null_mut();
            }
        }
    }
    #[inline(always)]
    fn first(&mut self) -> *mut Linked {
        if !self.first.is_null() || self.map == 0 {
            return self.first;
        }
        // SAFETY: all are in buckets.
        unsafe {
            let bucket = self.map.trailing_zeros() as usize;
            let mut at = self.heads[bucket];
            let mut first = at;
            while !at.is_null() {
                if (*at).expires < (*first).expires {
                    first = at;
                }
                at = (*at).next;
            }
            if bucket > 0 {
                // What is in the bucket goes to lower ones.
                self.last = (*first).expires.max(self.last);
                at = std::mem::replace(&mut self.heads[bucket], null_mut());
                self.map &= !(1 << bucket);
                while !at.is_null() {
                    let next = (*at).next;
                    self.file(at);
                    at = next;
                }
            }
            self.first = first;
        }
        self.first
    }
    #[inline(always)]
    unsafe fn expires(node: *mut Linked) -> u64 {
        // SAFETY: the caller's.
        unsafe { (*node).expires }
    }
}
