//! A balanced tree whose nodes lie inside of the objects: for what must come out in order, cannot allocate, and may not
//! take long.
//!
//! 1. **Ordered by a key, first in reach.** [`Tree::first`] is one load. Objects with equal keys come out in the order in
//!    which they went in.
//! 2. **A bound, not an average.** Heights of siblings differ by at most one (an AVL tree), so no operation takes more
//!    than 1.44 log2 n steps: 20 at 10,000 objects. What heaps promise is an average, and the one long operation is the
//!    one with interrupts off.
//! 3. **A second value, and the least of it below.** Each node also carries a value that its keys do not order, and the
//!    least one of its subtree. That answers "the first in order whose value is at most x" in one walk down
//!    ([`Tree::first_where`]). A tree that needs none of it has the value `()`, which takes no room and no time.
//!
//! Two users: a CPU's run queue (by virtual deadline, least virtual time), and what waits for a moment in time.
//!
//! # Invariants
//!
//! * **T1, place**: a node that is in a tree is live and stays where it is. [`Tree::insert`] demands it.
//! * **T2, one user**: what is in a tree is touched through that tree only, by one execution at a time.
//! * **T3, shape**: `height` is 0 in a node that is in no tree, else one more than the higher child's, and the two
//!   children's differ by at most one. `least` is the least `value` of the subtree. `first` is the leftmost.

use core::cell::Cell;
use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::ptr::NonNull;

use sync::list::Field;

/// An object's place in a [`Tree`] ordered by `K`, with a value `A` whose least one of a subtree is known.
///
/// A node that is dropped while it is in a tree panics: its neighbours would point into freed memory.
///
/// Size: four words, the key, and twice the value.
pub struct Node<K, A = ()> {
    parent: Cell<Link<K, A>>,
    children: [Cell<Link<K, A>>; 2],
    key: Cell<K>,
    value: Cell<A>,
    least: Cell<A>,
    height: Cell<u8>,
    // Neighbours write here through pointers of their own.
    _pinned: PhantomPinned,
}

impl<K: Copy, A: Copy> Node<K, A> {
    /// A node in no tree. [`Tree::insert`] sets both values; these here are not looked at.
    pub const fn new(key: K, value: A) -> Node<K, A> {
        Node {
            parent: Cell::new(None),
            children: [const { Cell::new(None) }; 2],
            key: Cell::new(key),
            value: Cell::new(value),
            least: Cell::new(value),
            height: Cell::new(0),
            _pinned: PhantomPinned,
        }
    }

    /// Whether the object is in a tree by this node. To be asked by whoever may use that tree.
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.height.get() != 0
    }

    /// Makes the node drop silently, for an object that reports by itself that it is dropped too early.
    pub(super) fn abandon(&self) {
        self.height.set(0);
    }

    /// The key that the object was last inserted with.
    #[inline]
    pub fn key(&self) -> K {
        self.key.get()
    }
}

impl<K: Copy + fmt::Debug, A> fmt::Debug for Node<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut node = f.debug_struct("Node");
        if self.height.get() != 0 {
            node.field("key", &self.key.get());
        }
        node.finish_non_exhaustive()
    }
}

impl<K, A> Drop for Node<K, A> {
    fn drop(&mut self) {
        assert!(self.height.get() == 0, "tree: a node was dropped while it is in a tree");
    }
}

/// Which child.
type Side = usize;
const LEFT: Side = 0;
const RIGHT: Side = 1;

type Link<K, A> = Option<At<K, A>>;

/// A node in a tree, or one that is about to be.
///
/// INVARIANT: T1 holds for the node. The pointer is good for the whole object.
struct At<K, A>(NonNull<Node<K, A>>);

impl<K, A> Clone for At<K, A> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, A> Copy for At<K, A> {}
impl<K, A> PartialEq for At<K, A> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K, A> fmt::Debug for At<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Copy + Ord, A: Copy + Ord> At<K, A> {
    #[inline(always)]
    fn node(&self) -> &Node<K, A> {
        // SAFETY: live, by this type's invariant. Only shared references are made, and all fields are cells.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn child(self, side: Side) -> Link<K, A> {
        self.node().children[side].get()
    }

    #[inline(always)]
    fn parent(self) -> Link<K, A> {
        self.node().parent.get()
    }

    #[inline(always)]
    fn height(link: Link<K, A>) -> u8 {
        link.map_or(0, |at| at.node().height.get())
    }

    /// Hangs `below` there.
    #[inline(always)]
    fn adopt(self, side: Side, below: Link<K, A>) {
        self.node().children[side].set(below);
        if let Some(below) = below {
            below.node().parent.set(Some(self));
        }
    }

    /// The outermost one of this subtree, on that side.
    #[inline(always)]
    fn outermost(mut self, side: Side) -> Self {
        while let Some(next) = self.child(side) {
            self = next;
        }
        self
    }

    /// Height and least value from what the children say.
    #[inline(always)]
    fn recompute(self) {
        let node = self.node();
        let (left, right) = (self.child(LEFT), self.child(RIGHT));
        let mut least = node.value.get();
        for below in [left, right].into_iter().flatten() {
            least = least.min(below.node().least.get());
        }
        node.least.set(least);
        node.height.set(1 + Self::height(left).max(Self::height(right)));
    }
}

/// Objects in the order of their keys. `F` names the field, see [`sync::link_field!`].
///
/// ```
/// use core::ptr::NonNull;
/// use kernel::sched::tree::{Node, Tree};
///
/// struct Sleeper {
///     name: &'static str,
///     until: Node<u64>,
/// }
/// sync::link_field! { struct ByTime = Sleeper => until: Node<u64>; }
///
/// let late = Sleeper { name: "late", until: Node::new(0, ()) };
/// let soon = Sleeper { name: "soon", until: Node::new(0, ()) };
/// let mut sleepers = Tree::<ByTime, u64>::new();
/// // SAFETY: both stay in place until they are removed, and nobody else uses their nodes.
/// unsafe {
///     sleepers.insert(NonNull::from(&late), 200, ());
///     sleepers.insert(NonNull::from(&soon), 100, ());
///     assert_eq!(sleepers.first_key(), Some(100));
///     let first = sleepers.pop_first().unwrap();
///     assert_eq!(first.as_ref().name, "soon");
///     sleepers.remove(NonNull::from(&late));
/// }
/// assert!(sleepers.is_empty());
/// ```
pub struct Tree<F, K, A = ()>
where
    F: Field<Link = Node<K, A>>,
{
    root: Link<K, A>,
    first: Link<K, A>,
    len: usize,
    _objects: PhantomData<fn() -> F>,
}

// SAFETY: the tree refers to its objects and owns none; whoever inserts one promises that it may be used by whoever has
// the tree (T2).
unsafe impl<F: Field<Link = Node<K, A>>, K: Send, A: Send> Send for Tree<F, K, A> {}

impl<F, K, A> Tree<F, K, A>
where
    F: Field<Link = Node<K, A>>,
    K: Copy + Ord,
    A: Copy + Ord,
{
    /// A tree without objects.
    pub const fn new() -> Self {
        Tree { root: None, first: None, len: 0, _objects: PhantomData }
    }

    /// How many objects are in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The object with the least key; of several such, the one that was inserted first. O(1).
    #[inline]
    pub fn first(&self) -> Option<NonNull<F::Object>> {
        self.first.map(object::<F, K, A>)
    }

    /// The least key. O(1).
    #[inline]
    pub fn first_key(&self) -> Option<K> {
        self.first.map(|at| at.node().key.get())
    }

    /// The least value of all objects. O(1).
    #[inline]
    pub fn least(&self) -> Option<A> {
        self.root.map(|at| at.node().least.get())
    }

    /// The first object in order whose value passes. A test that a value passes must be passed by each lesser one too.
    /// O(log n), O(1) if the very first object passes.
    #[inline]
    pub fn first_where(&self, passes: impl Fn(A) -> bool) -> Option<NonNull<F::Object>> {
        let first = self.first?;
        if passes(first.node().value.get()) {
            return Some(object::<F, K, A>(first));
        }
        let mut at = self.root.filter(|root| passes(root.node().least.get()))?;
        // One in this subtree passes: on the left if the least of there does, else here or on the right.
        loop {
            if let Some(left) = at.child(LEFT)
                && passes(left.node().least.get())
            {
                at = left;
            } else if passes(at.node().value.get()) {
                return Some(object::<F, K, A>(at));
            } else {
                at = at.child(RIGHT)?;
            }
        }
    }

    /// The object behind `object` in order. O(log n), amortised O(1) over a walk.
    ///
    /// # Safety
    /// `object` is in this tree.
    pub unsafe fn next(&self, object: NonNull<F::Object>) -> Option<NonNull<F::Object>> {
        // SAFETY: T1: it is in the tree.
        let mut at = unsafe { node_of::<F, K, A>(object) };
        if let Some(right) = at.child(RIGHT) {
            return Some(self::object::<F, K, A>(right.outermost(LEFT)));
        }
        // The next one is the nearest above that has this one on its left.
        loop {
            let above = at.parent()?;
            if above.child(LEFT) == Some(at) {
                return Some(self::object::<F, K, A>(above));
            }
            at = above;
        }
    }

    /// Adds an object. O(log n).
    ///
    /// # Panics
    /// In debug builds, if it is in a tree already.
    ///
    /// # Safety
    /// The object is in no tree by this field. Until it is removed it stays live and in place, and its node is used
    /// through this tree only. `object` is good for the whole object.
    #[inline]
    pub unsafe fn insert(&mut self, object: NonNull<F::Object>, key: K, value: A) {
        // SAFETY: T1 holds from here on, by the contract.
        let at = unsafe { node_of::<F, K, A>(object) };
        let node = at.node();
        debug_assert!(!node.is_linked(), "tree: an object was inserted that is in a tree already");
        node.key.set(key);
        node.value.set(value);
        node.least.set(value);
        node.height.set(1);
        for child in &node.children {
            child.set(None);
        }
        self.len += 1;
        let Some(mut above) = self.root else {
            node.parent.set(None);
            self.root = Some(at);
            self.first = Some(at);
            return;
        };
        let mut leftmost = true;
        let side = loop {
            // Equals go to the right: first in, first out.
            let side = if key < above.node().key.get() { LEFT } else { RIGHT };
            leftmost &= side == LEFT;
            match above.child(side) {
                Some(below) => above = below,
                None => break side,
            }
        };
        above.adopt(side, Some(at));
        if leftmost {
            self.first = Some(at);
        }
        self.climb(above);
    }

    /// Removes an object. O(log n).
    ///
    /// # Panics
    /// In debug builds, if it is in no tree.
    ///
    /// # Safety
    /// The object is in this tree.
    #[inline]
    pub unsafe fn remove(&mut self, object: NonNull<F::Object>) {
        // SAFETY: T1: it is in the tree.
        let at = unsafe { node_of::<F, K, A>(object) };
        let node = at.node();
        debug_assert!(node.is_linked(), "tree: an object was removed that is in no tree");
        self.len -= 1;
        node.height.set(0);
        let (parent, left, right) = (at.parent(), at.child(LEFT), at.child(RIGHT));
        if self.first == Some(at) {
            self.first = right.map(|right| right.outermost(LEFT)).or(parent);
        }
        match (left, right) {
            (Some(_), Some(right)) => self.replace_by_next(at, right),
            (only, None) | (None, only) => {
                self.put(parent, at, only);
                if let Some(parent) = parent {
                    self.climb(parent);
                }
            }
        }
    }

    /// Removes and returns the first object. O(log n).
    #[inline]
    pub fn pop_first(&mut self) -> Option<NonNull<F::Object>> {
        let first = self.first()?;
        // SAFETY: the first one is in the tree.
        unsafe { self.remove(first) };
        Some(first)
    }

    /// Puts the next one in order into the place of `at`, which has two children, of which `right` is one.
    fn replace_by_next(&mut self, at: At<K, A>, right: At<K, A>) {
        let next = right.outermost(LEFT);
        // Where the tree became lower by taking `next` away.
        let lower = if next == right {
            next
        } else {
            let above = next.parent().expect("it is below `right`");
            above.adopt(LEFT, next.child(RIGHT));
            next.adopt(RIGHT, Some(right));
            above
        };
        next.adopt(LEFT, at.child(LEFT));
        // What those above believe of this place; the climbs compare with it.
        next.node().height.set(1 + At::height(at.child(LEFT)).max(At::height(Some(right))));
        next.node().least.set(at.node().least.get());
        self.put(at.parent(), at, Some(next));
        self.climb(lower);
        // The first climb may have ended below.
        self.climb(next);
    }

    /// Hangs `new` in the place of `old` below `parent`.
    #[inline(always)]
    fn put(&mut self, parent: Link<K, A>, old: At<K, A>, new: Link<K, A>) {
        match parent {
            Some(parent) => {
                let side = if parent.child(LEFT) == Some(old) { LEFT } else { RIGHT };
                parent.adopt(side, new);
            }
            None => {
                self.root = new;
                if let Some(new) = new {
                    new.node().parent.set(None);
                }
            }
        }
    }

    /// Makes T3 true again from `at` upwards, below which it is true. Ends where nothing changes for those above.
    fn climb(&mut self, at: At<K, A>) {
        let mut next = Some(at);
        while let Some(at) = next {
            let before = (at.node().height.get(), at.node().least.get());
            let top = self.balance(at);
            if before == (top.node().height.get(), top.node().least.get()) {
                break;
            }
            next = top.parent();
        }
    }

    /// Makes the subtree's root have T3; returns its root, which may be another one.
    #[inline]
    fn balance(&mut self, at: At<K, A>) -> At<K, A> {
        let (left, right) = (At::height(at.child(LEFT)), At::height(at.child(RIGHT)));
        if left.abs_diff(right) <= 1 {
            at.recompute();
            return at;
        }
        let heavy = if left > right { LEFT } else { RIGHT };
        let below = at.child(heavy).expect("the higher side is not empty");
        if At::height(below.child(1 - heavy)) > At::height(below.child(heavy)) {
            self.rotate(below, 1 - heavy);
        }
        self.rotate(at, heavy)
    }

    /// The child on that side takes the place of `at`, which becomes its child on the other side. Returns it.
    fn rotate(&mut self, at: At<K, A>, side: Side) -> At<K, A> {
        let up = at.child(side).expect("rotated towards a child");
        self.put(at.parent(), at, Some(up));
        at.adopt(side, up.child(1 - side));
        up.adopt(1 - side, Some(at));
        at.recompute();
        up.recompute();
        up
    }
}

impl<F, K, A> Default for Tree<F, K, A>
where
    F: Field<Link = Node<K, A>>,
    K: Copy + Ord,
    A: Copy + Ord,
{
    fn default() -> Self {
        Tree::new()
    }
}

impl<F: Field<Link = Node<K, A>>, K, A> fmt::Debug for Tree<F, K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The object's node.
///
/// # Safety
/// T1 holds for the object, and the pointer is good for all of it.
#[inline(always)]
unsafe fn node_of<F: Field<Link = Node<K, A>>, K, A>(object: NonNull<F::Object>) -> At<K, A> {
    // SAFETY: the field lies inside of the object, by `Field`'s contract. INVARIANT: the contract is the same.
    At(unsafe { object.byte_add(F::OFFSET).cast() })
}

/// The object of a node.
#[inline(always)]
fn object<F: Field<Link = Node<K, A>>, K, A>(at: At<K, A>) -> NonNull<F::Object> {
    // SAFETY: each `At` of this tree was made by `node_of`, with the same `F`.
    unsafe { at.0.byte_sub(F::OFFSET).cast() }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
