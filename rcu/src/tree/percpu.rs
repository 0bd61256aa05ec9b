//! What the tree keeps for each CPU.

use core::fmt;

use hal::Platform;
use sync::SpinLock;
use sync::spin::SpinLockGuard;

use super::lock::NodeFlavor;
use crate::callbacks::{Segment, Segmented};
use crate::head::Head;
use crate::primitives::{AtomicBool, AtomicU32, AtomicUsize, const_fn};

/// A CPU's part of a [`Tree`](super::Tree), to be handed to it in a slice of one for each CPU.
///
/// Linux: `struct rcu_data`.
#[repr(align(64))]
pub struct PerCpu<P: Platform> {
    /// The node that it reports to, and its bit there.
    pub(super) leaf: usize,
    pub(super) bit: u64,
    /// Counts the beginnings and ends of extended quiescent states: odd while the CPU may be in a reader. Changed by its
    /// own CPU, NMIs included, and read by all.
    pub(super) watching: AtomicUsize,
    /// The grace period that this CPU has nothing more to say about: its leaf's number when it last looked.
    pub(super) reported: AtomicUsize,
    /// Whether it has to report for an expedited grace period.
    pub(super) expedited: AtomicBool,
    /// Whether callbacks here wait for a grace period.
    pub(super) has_waiting: AtomicBool,
    /// What callbacks there are, as [`Has`] says. Written under the lock; who does not hold it may find something where
    /// there is nothing any more, and finds what was queued before.
    pub(super) has: AtomicU32,
    /// The running barrier has asked for these callbacks, and not yet for somebody to look after them. Its beginner's.
    pub(super) asked: AtomicBool,
    /// Whether the callbacks are run by a thread and not here.
    pub(super) is_offloaded: AtomicBool,
    /// What `watching` was when the running grace period began; the grace-period thread's.
    pub(super) watched: AtomicUsize,
    /// The callback that tells a barrier that those before it have been called.
    pub(super) barrier: Head,
    own: SpinLock<Own, NodeFlavor<P>>,
}

/// What callbacks a CPU has, for who does not hold its lock.
pub(super) struct Has;

impl Has {
    /// None, and none are being called.
    pub(super) const NONE: u32 = 0;
    /// Lazy ones, and perhaps others before them.
    pub(super) const LAZY: u32 = 1;
    /// Some, and nothing is lazy.
    pub(super) const SOME: u32 = 2;
}

/// What the lock of a CPU's part protects: its callbacks.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) callbacks: Segmented,
    /// How many have been taken out and are being called.
    pub(super) in_flight: usize,
    /// Whether a batch is being called: by one execution at a time.
    pub(super) is_running: bool,
    /// Callbacks came faster than they went; there is no limit to a batch until they have become few.
    pub(super) is_flooded: bool,
    /// When the oldest lazy callback came, in nanoseconds.
    pub(super) lazy_since: u64,
}

/// A CPU's lock is held.
pub(super) type OwnLocked<'a, P> = SpinLockGuard<'a, Own, NodeFlavor<P>>;

/// How many callbacks a CPU has, and what they wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// By segment, in the order of [`Segment::ALL`].
    pub segments: [usize; 4],
    /// Lazy ones.
    pub lazy: usize,
    /// Taken out, and being called.
    pub in_flight: usize,
}

impl Backlog {
    /// All of them.
    pub fn total(&self) -> usize {
        self.segments.iter().sum::<usize>() + self.lazy + self.in_flight
    }
}

impl<P: Platform> PerCpu<P> {
    const_fn! {
        /// The part of a CPU that is not up.
        pub fn new() -> PerCpu<P> {
            PerCpu {
                leaf: 0,
                bit: 0,
                watching: AtomicUsize::new(1),
                reported: AtomicUsize::new(0),
                expedited: AtomicBool::new(false),
                has_waiting: AtomicBool::new(false),
                has: AtomicU32::new(Has::NONE),
                asked: AtomicBool::new(false),
                is_offloaded: AtomicBool::new(false),
                watched: AtomicUsize::new(1),
                barrier: Head::new(),
                own: SpinLock::new(Own {
                    callbacks: Segmented::new(),
                    in_flight: 0,
                    is_running: false,
                    is_flooded: false,
                    lazy_since: 0,
                }),
            }
        }
    }

    #[inline]
    #[track_caller]
    pub(super) fn lock(&self) -> OwnLocked<'_, P> {
        self.own.lock()
    }

    /// The lock, for one that is taken while that of a lower-numbered CPU is held.
    pub(super) fn lock_second(&self) -> OwnLocked<'_, P> {
        self.own.lock_nested(sync::lockdep::Subclass::NESTED)
    }
}

impl Own {
    /// How many callbacks have not returned yet.
    pub(super) fn total(&self) -> usize {
        self.callbacks.len() + self.in_flight
    }

    pub(super) fn backlog(&self) -> Backlog {
        Backlog {
            segments: Segment::ALL.map(|segment| self.callbacks.len_of(segment)),
            lazy: self.callbacks.lazy_len(),
            in_flight: self.in_flight,
        }
    }
}

impl<P: Platform> Default for PerCpu<P> {
    fn default() -> PerCpu<P> {
        PerCpu::new()
    }
}

impl<P: Platform> fmt::Debug for PerCpu<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu").field("watching", &self.watching).finish_non_exhaustive()
    }
}
