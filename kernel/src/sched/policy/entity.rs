//! What a run queue knows about one task.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomPinned;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use sync::list::raw::Links;

use super::class::{Level, Policy};
use super::virtual_time::{VirtualTime, Weight};
use super::{ROUND_ROBIN_SLICE_NS, SLICE_NS};
use crate::sched::tree::Node;

/// A task as a run queue sees it; to be embedded in the task.
///
/// # Invariants
///
/// * **E1, place**: from [`RunQueue::enqueue`](super::RunQueue::enqueue) to the
///   [`dequeue`](super::RunQueue::dequeue) or [`steal`](super::RunQueue::steal) that takes it out it stays in place.
/// * **E2, one user**: its cells are touched by whoever may use the queue that it is in, while it is in none by whoever
///   took it out, and before it was in one by its maker. Handing it over from one to another orders their accesses.
/// * **E3**: what is read by others are atomics.
pub struct Entity {
    /// In the fair tree: by deadline, with the least virtual time below.
    pub(super) node: Node<VirtualTime, VirtualTime>,
    /// In the list of its level.
    pub(super) links: Links,
    pub(super) place: Cell<Place>,
    pub(super) level: Cell<Level>,
    pub(super) weight: Cell<Weight>,
    /// How much it has had, on the clock of its queue.
    pub(super) had: Cell<VirtualTime>,
    /// Until when it should have had what it requests.
    pub(super) deadline: Cell<VirtualTime>,
    /// What it is owed (or owes, if negative) while it is in no queue, in its own virtual units.
    pub(super) lag: Cell<i64>,
    /// How far its deadline was when it was taken out of a queue to be moved.
    pub(super) ahead: Cell<i64>,
    /// The queue in which it went to sleep in debt, and with which of those who are absent there; 0: with nobody.
    pub(super) left: Cell<(usize, u64)>,
    /// The real time that it requests at once.
    pub(super) slice_ns: Cell<u64>,
    /// What is left of its turn among its equals; no end to it for [`Policy::Fifo`].
    pub(super) turn_ns: Cell<u64>,
    policy: AtomicU16,
    run_ns: AtomicU64,
    _pinned: PhantomPinned,
}

/// Where an entity is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In no queue.
    Away,
    /// Waits in a queue.
    Queued,
    /// Is a queue's current one.
    Running,
}

// SAFETY: the cells have one user at a time (E2), the rest are atomics (E3).
unsafe impl Sync for Entity {}
// SAFETY: the links lead to entities with the same rules.
unsafe impl Send for Entity {}

sync::link_field! {
    /// The field that the fair class uses.
    pub(super) struct ByDeadline = Entity => node: Node<VirtualTime, VirtualTime>;
}

impl Entity {
    /// An entity in no queue.
    pub const fn new(policy: Policy) -> Entity {
        Entity {
            node: Node::new(VirtualTime::START, VirtualTime::START),
            links: Links::new(),
            place: Cell::new(Place::Away),
            level: Cell::new(policy.level()),
            weight: Cell::new(weight_of(policy)),
            had: Cell::new(VirtualTime::START),
            deadline: Cell::new(VirtualTime::START),
            lag: Cell::new(0),
            ahead: Cell::new(0),
            left: Cell::new((0, 0)),
            slice_ns: Cell::new(SLICE_NS),
            turn_ns: Cell::new(turn_of(policy)),
            policy: AtomicU16::new(policy.encode()),
            run_ns: AtomicU64::new(0),
            _pinned: PhantomPinned,
        }
    }

    /// Its policy. Any context, any CPU.
    #[inline]
    pub fn policy(&self) -> Policy {
        Policy::decode(self.policy.load(Ordering::Relaxed))
    }

    /// How long it has run, in nanoseconds, up to the last time that its queue was told the time. Any context, any CPU.
    #[inline]
    pub fn run_ns(&self) -> u64 {
        self.run_ns.load(Ordering::Relaxed)
    }

    /// The weight of its policy: what the load of its CPU grows by when it comes. Any context, any CPU.
    #[inline]
    pub fn load(&self) -> u64 {
        match self.policy() {
            Policy::Fair(nice) => u64::from(nice.weight()),
            _ => 0,
        }
    }

    /// Whether it waits in a queue. For whoever may use that queue.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.place.get() == Place::Queued
    }

    pub(super) fn adopt_policy(&self, policy: Policy) {
        self.policy.store(policy.encode(), Ordering::Relaxed);
        self.level.set(policy.level());
        self.weight.set(weight_of(policy));
        self.turn_ns.set(turn_of(policy));
    }

    /// Adds to the time that it ran. The queue's user only.
    #[inline(always)]
    pub(super) fn add_run_ns(&self, ns: u64) {
        self.run_ns.store(self.run_ns.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
    }

    /// How far virtual time goes while it has its slice once.
    #[inline(always)]
    pub(super) fn request(&self) -> i64 {
        self.weight.get().virtual_units(self.slice_ns.get())
    }
}

/// Which turn a policy has among its equals.
pub(super) const fn turn_of(policy: Policy) -> u64 {
    match policy {
        Policy::RoundRobin(_) => ROUND_ROBIN_SLICE_NS,
        _ => u64::MAX,
    }
}

const fn weight_of(policy: Policy) -> Weight {
    match policy {
        Policy::Fair(nice) => Weight::new(nice.weight()),
        _ => Weight::new(super::class::WEIGHT_OF_NICE_0),
    }
}

impl Drop for Entity {
    fn drop(&mut self) {
        if self.place.get() != Place::Away {
            // One report is enough.
            self.node.abandon();
            panic!("sched: a task ended while it is in a run queue");
        }
    }
}

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entity")
            .field("policy", &self.policy())
            .field("run_ns", &self.run_ns())
            .finish_non_exhaustive()
    }
}

/// An entity that a queue may touch.
///
/// INVARIANT: E1 and E2 hold for it, and it is this queue that may use it. The pointer is good for the whole entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Handle(NonNull<Entity>);

impl Handle {
    /// # Safety
    /// The invariant of the type.
    #[inline(always)]
    pub(super) unsafe fn new(entity: NonNull<Entity>) -> Handle {
        Handle(entity)
    }

    #[inline(always)]
    pub(super) fn pointer(self) -> NonNull<Entity> {
        self.0
    }
}

impl core::ops::Deref for Handle {
    type Target = Entity;

    #[inline(always)]
    fn deref(&self) -> &Entity {
        // SAFETY: live, by this type's invariant. Only shared references are made, and all fields are cells or atomics.
        unsafe { self.0.as_ref() }
    }
}
