//! One node of the tree: who below it has not reported yet.

use hal::Platform;
use sync::SpinLock;
use sync::spin::SpinLockGuard;

use super::lock::NodeFlavor;
use super::reader::Blocked;
use crate::primitives::{AtomicUsize, const_fn};
use crate::seq::Sequence;

/// A node of a [`Tree`](super::Tree), to be handed to it in a slice of as many as its
/// [`Geometry`](super::Geometry) says.
///
/// Linux: `struct rcu_node`.
#[repr(align(64))]
pub struct Node<P: Platform> {
    /// The grace period as far as this node knows, for looks without the lock; written under it.
    pub(super) number: AtomicUsize,
    state: SpinLock<State, NodeFlavor<P>>,
}

/// What the lock of a node protects.
///
/// # Invariants
/// * A bit of `waiting` is set from the moment a grace period reaches this node until the CPU, or the child with all that
///   is under it, has passed a quiescent state since. So is one of `expedited` in an expedited grace period.
/// * In its parent a node's bit is set exactly as long as [`is_done`](State::is_done) is `false` here, or who made it
///   `true` is on its way to the parent.
#[derive(Debug)]
pub(super) struct State {
    /// Who has not reported for the running grace period.
    pub(super) waiting: u64,
    /// Who has not reported for the running expedited grace period.
    pub(super) expedited: u64,
    /// Who is there: a leaf's CPUs that are up, an inner node's children.
    pub(super) present: u64,
    /// The latest grace period that was asked for here, as a cookie's number.
    pub(super) requested: usize,
    /// CPUs of a leaf that have callbacks which wait for a grace period.
    pub(super) callbacks: u64,
    /// Readers that were preempted on a leaf's CPUs.
    pub(super) blocked: Blocked,
    /// How often the lock was taken. For statistics.
    pub(super) acquisitions: u64,
}

/// A node's lock is held.
pub(super) type Locked<'a, P> = SpinLockGuard<'a, State, NodeFlavor<P>>;

impl<P: Platform> Node<P> {
    const_fn! {
        /// A node in no tree.
        pub fn new() -> Node<P> {
            Node {
                number: AtomicUsize::new(0),
                state: SpinLock::new(State {
                    waiting: 0,
                    expedited: 0,
                    present: 0,
                    requested: 0,
                    callbacks: 0,
                    blocked: Blocked::new(),
                    acquisitions: 0,
                }),
            }
        }
    }

    /// Prepares the node for a new tree.
    pub(super) fn reset(&mut self, grace_periods: &Sequence, present: u64) {
        *self = Node::new();
        let number = grace_periods.number();
        self.number = AtomicUsize::new(number);
        let mut state = self.state.lock();
        state.requested = number;
        state.present = present;
    }

    /// The lock, without the ordering that [`Tree::lock`](super::Tree) adds.
    #[inline]
    pub(super) fn lock_unordered(&self) -> Locked<'_, P> {
        self.state.lock()
    }
}

impl State {
    /// Nothing under this node holds up the grace period.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.waiting == 0 && self.blocked.normal == 0
    }

    /// Nothing under this node holds up the expedited grace period.
    #[inline]
    pub(super) fn is_expedited(&self) -> bool {
        self.expedited == 0 && self.blocked.expedited == 0
    }
}

impl<P: Platform> Default for Node<P> {
    fn default() -> Node<P> {
        Node::new()
    }
}
