//! The heap that melds at random (Gambin and Malinowski): two children and a way up, and no balance at all.
//!
//! As the leftist heap, but a coin decides on which side to go down. So no entry has a rank, and nothing is put right on
//! the way up. The expected length of the way down is log2(n + 1) whatever the shape.

use std::ptr::null_mut;

use super::Candidate;

#[repr(C)]
pub(super) struct Node {
    expires: u64,
    up: *mut Node,
    child: [*mut Node; 2],
}

impl Default for Node {
    fn default() -> Node {
        Node { expires: 0, up: null_mut(), child: [null_mut(); 2] }
    }
}

pub(super) struct Heap {
    root: *mut Node,
    coins: u64,
}

impl Heap {
    #[inline(always)]
    fn toss(coins: &mut u64) -> usize {
        let side = (*coins >> 63) as usize;
        *coins = coins.rotate_left(1);
        side
    }

    /// Puts `below` in the place of `old` under `up`.
    #[inline(always)]
    unsafe fn put(&mut self, up: *mut Node, old: *mut Node, below: *mut Node) {
        // SAFETY: `up` is null or in the heap.
        unsafe {
            if up.is_null() {
                self.root = below;
            } else {
                let side = ((*up).child[1] == old) as usize;
                (*up).child[side] = below;
            }
        }
    }

    /// Melds two heaps, of which none is empty, into one that hangs below `up`. Returns its root.
    #[inline(always)]
    unsafe fn meld(&mut self, mut a: *mut Node, mut b: *mut Node, up: *mut Node) -> *mut Node {
        // SAFETY: both are in the heap.
        unsafe {
            if (*b).expires < (*a).expires {
                (a, b) = (b, a);
            }
            let root = a;
            (*a).up = up;
            let mut coins = self.coins;
            loop {
                // `b` goes somewhere below `a`.
                let side = Self::toss(&mut coins);
                let next = (*a).child[side];
                if next.is_null() {
                    (*a).child[side] = b;
                    (*b).up = a;
                    break;
                }
                if (*b).expires < (*next).expires {
                    (*a).child[side] = b;
                    (*b).up = a;
                    (a, b) = (b, next);
                } else {
                    a = next;
                }
            }
            self.coins = coins.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
            root
        }
    }
}

impl Candidate for Heap {
    const NAME: &'static str = "randomised heap";
    type Node = Node;

    fn new(_most: usize) -> Self {
        Heap { root: null_mut(), coins: 0x1234_5678_9abc_def1 }
    }

    #[inline(always)]
    unsafe fn insert(&mut self, node: *mut Node, expires: u64) {
        // SAFETY: the node is the caller's, all others are in the heap.
        unsafe {
            (*node).expires = expires;
            (*node).child = [null_mut(); 2];
            let mut a = self.root;
            if a.is_null() || expires < (*a).expires {
                (*node).child[0] = a;
                (*node).up = null_mut();
                if !a.is_null() {
                    (*a).up = node;
                }
                self.root = node;
                return;
            }
            let mut coins = self.coins;
            let side = loop {
                let side = Self::toss(&mut coins);
                let next = (*a).child[side];
                if next.is_null() {
                    break side;
                }
                if expires < (*next).expires {
                    (*node).child[0] = next;
                    (*next).up = node;
                    break side;
                }
                a = next;
            };
            (*a).child[side] = node;
            (*node).up = a;
            self.coins = coins.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
        }
    }

    #[inline(always)]
    unsafe fn remove(&mut self, node: *mut Node) {
        // SAFETY: all are in the heap.
        unsafe {
            let up = (*node).up;
            let [left, right] = (*node).child;
            let rest = if right.is_null() || left.is_null() {
                let only = if right.is_null() { left } else { right };
                if !only.is_null() {
                    (*only).up = up;
                }
                only
            } else {
                self.meld(left, right, up)
            };
            self.put(up, node, rest);
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
