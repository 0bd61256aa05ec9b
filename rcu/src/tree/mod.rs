//! Grace periods for any number of CPUs: a tree in which each CPU says once that it has been quiescent.
//!
//! 1. A **grace period** ends when every read-side section that had begun before it has ended. Nobody counts readers.
//!    Instead every CPU is asked for one moment since the beginning at which it was in no reader, a *quiescent state*: a
//!    context switch, idleness, an interrupt that came into user mode.
//! 2. One word for all CPUs to report in would be fought for. So CPUs report to a **leaf**, sixteen of them to one, and
//!    the last one of a leaf reports for it to the node above, and so on. When the root has all reports, the
//!    [`Driver`], which is one task, ends the period and begins the next if somebody asked for it.
//! 3. A CPU notices that a period has begun by the **number** that its leaf carries, in one look at each quiescent state,
//!    and reports there and then. CPUs that are **idle** look at nothing: a counter of theirs says that they are, and the
//!    driver reads it. They are not woken. CPUs that stay away are nudged, then interrupted.
//! 4. A task that is **preempted inside of a reader** is entered in its leaf's list, and holds up that leaf's report until
//!    it has left the reader ([`Reader`]).
//! 5. What is to be done after a grace period is a **callback**, queued on the CPU that asks and called there.
//!
//! The tree is a value: it has no statics, reads no clock, wakes nobody. It is entered by all CPUs at once, through
//! `&self`, told what happens ([`note_context_switch`](Tree::note_context_switch), [`check_tick`](Tree::check_tick), ..)
//! and answers what is to be done ([`Due`], [`Action`]), after its locks have been dropped. So a kernel keeps one, a test
//! makes its own, and a simulation drives 4,096 CPUs.
//!
//! # Who calls what
//!
//! `cpu` is always the executing CPU's number, unless said otherwise, and the caller keeps itself there: preemption or
//! interrupts are off. CPUs are down when the tree is made.
//!
//! | when | call |
//! |---|---|
//! | a CPU comes up, before its first reader; goes down, after its last one | [`cpu_up`](Tree::cpu_up); [`cpu_down`](Tree::cpu_down), then elsewhere [`adopt_callbacks`](Tree::adopt_callbacks) |
//! | a task is about to be replaced | [`note_context_switch`](Tree::note_context_switch) |
//! | a task offers its CPU | [`quiescent`](Tree::quiescent) |
//! | the tick, or [`Action::Interrupt`]'s interrupt | [`check_tick`](Tree::check_tick), [`check_interrupt`](Tree::check_interrupt) |
//! | the idle loop | [`idle_enter`](Tree::idle_enter), [`idle_exit`](Tree::idle_exit) |
//! | interrupts and NMIs | [`interrupt_enter`](Tree::interrupt_enter), [`interrupt_exit`](Tree::interrupt_exit) |
//! | a reader that was preempted leaves its outermost section | [`reader_done`](Tree::reader_done) |
//! | the softirq, or the off-load thread | [`process`](Tree::process), [`run_ready`](Tree::run_ready) |
//! | the grace-period thread | [`Driver::step`] |
//!
//! # What is ordered
//!
//! *What the caller did before it asked for a grace period is visible to every reader that begins after that period's
//! beginning; what every earlier reader did has happened before the period's end.*
//!
//! * **From the caller to the driver**: the request climbs the tree under node locks; and who only looks at the number
//!   is served by the fences of [`Sequence`].
//! * **From the driver to each CPU, and back**: the driver numbers each leaf under its lock. A CPU that reports takes the
//!   same lock after it. If it did so before, the period finds the report missing. So a CPU's readers from before the
//!   report happen before the report, by lock after lock before the end; those from after it happen after the number.
//! * **Full ordering at each node** (`lock` in `tree/mod.rs`): a full fence follows the taking of each node's lock. So a
//!   critical section there and the ones before it, of other CPUs and under other nodes' locks, are ordered for third
//!   parties as well, and a grace period is a full memory barrier on every CPU that takes part, as Linux promises.
//! * **Idle CPUs** take no lock. There two full fences face each other: *number, fence, read the counter* in the driver,
//!   and *count, fence, first reader* in [`idle_exit`](Tree::idle_exit). If the driver read "idle", the first reader sees
//!   what came before the number. The same two fences serve [`idle_enter`](Tree::idle_enter): if the driver read "not
//!   idle", the CPU sees the number, and reports while it goes.
//!
//! # Locks
//!
//! A CPU's own lock comes first (two of them: the lower number first), then one node's. Never two nodes' at once. All are
//! taken with interrupts off, and never while something is called that is not of this crate.
//!
//! Read in this order: `geometry.rs`, `node.rs`, `quiescent.rs` (reports), `driver.rs` (the life of a grace period),
//! `events.rs`, `reader.rs`; then `calls.rs`, `barrier.rs`, `expedited.rs`, `hotplug.rs`, `holdouts.rs`.

mod action;
mod barrier;
mod calls;
mod driver;
mod events;
mod expedited;
mod faults;
mod geometry;
mod holdouts;
mod hotplug;
pub(crate) mod lock;
mod node;
mod percpu;
mod polled;
mod quiescent;
mod reader;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod sim;
#[cfg(all(test, not(loom)))]
mod tests;

use core::fmt;

use hal::Platform;
use sync::SpinLock;

pub use action::{Action, Due};
pub use calls::Ran;
pub use driver::{Driver, Next, Timing};
pub use events::Interrupted;
pub use geometry::{Geometry, MAX_CPUS, MAX_LEVELS};
pub use holdouts::{Holdout, NodeView, Which};
pub use node::Node;
pub use percpu::{Backlog, PerCpu};
pub use polled::FullCookie;
pub use reader::Reader;

use crate::primitives::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::seq::Sequence;
use faults::Faults;
use lock::NodeFlavor;
use node::Locked;

/// Whether a task may be replaced while it is in a read-side section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readers {
    /// It may not: sections are regions without preemption.
    NonPreemptible,
    /// It may. Its task is then entered in a list, with its [`Reader`].
    Preemptible,
}

/// From which numbers on callbacks are treated differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How many callbacks a batch has at the least, if there are so many. Linux: `blimit`.
    pub batch: usize,
    /// With more than these a batch has no limit.. Linux: `qhimark`.
    pub high: usize,
    /// .. until no more than these are left. Linux: `qlowmark`.
    pub low: usize,
    /// With more than these [`Due::flooded`] is answered to who queues more.
    pub flood: usize,
    /// With more than these lazy callbacks they are lazy no more. Linux: part of `rcu_nocb_try_bypass`.
    pub lazy: usize,
    /// Nor when the oldest is this many nanoseconds old. Linux: `jiffies_lazy_flush`, 10 s.
    pub lazy_ns: u64,
}

impl Limits {
    /// The limits that are used unless others are set.
    pub const DEFAULT: Limits =
        Limits { batch: 32, high: 10_000, low: 100, flood: 50_000, lazy: 1_000, lazy_ns: 10_000_000_000 };
}

/// A number that may be set at any time. It orders nothing, and models need not know of it: not the model checker's.
type Setting = core::sync::atomic::AtomicU64;

/// The grace periods of a set of CPUs. See the [module](self).
///
/// Linux: `struct rcu_state`. It borrows its nodes and per-CPU parts for `'s`, so that they may be static, or allocated
/// for the machine's number of CPUs; nothing is allocated later.
///
/// ```
/// use hal::Native;
/// use rcu::tree::{Driver, Due, Geometry, Next, Node, PerCpu, Readers, Tree};
///
/// let shape = Geometry::new(2);
/// let mut nodes: Vec<Node<Native>> = (0..shape.nodes()).map(|_| Node::new()).collect();
/// let mut cpus: Vec<PerCpu<Native>> = (0..2).map(|_| PerCpu::new()).collect();
/// let tree = Tree::new(shape, Readers::NonPreemptible, &mut nodes, &mut cpus);
/// let mut driver = Driver::new(&tree);
/// tree.cpu_up(0);
/// tree.cpu_up(1);
///
/// // Somebody on CPU 0 wants a grace period.
/// let (cookie, due) = tree.start_poll(0);
/// assert!(due.wake_driver && !tree.poll(cookie));
/// // CPU 0 runs the driver: that CPU is in no reader. CPU 1 may be, for all that is known.
/// let mut now = 0;
/// while driver.step(0, now, |_| ()) == Next::Again {}
/// assert!(!tree.poll(cookie));
/// // CPU 1 switches tasks.
/// let due = tree.note_context_switch(1, None);
/// assert_eq!(due, Due { wake_driver: true, ..Due::NOTHING });
/// while driver.step(0, now, |_| ()) == Next::Again {}
/// assert!(tree.poll(cookie));
/// ```
pub struct Tree<'s, P: Platform> {
    shape: Geometry,
    readers: Readers,
    limits: Limits,
    timing: Timing,
    /// [`Timing::stall`] as it is set at present.
    stall_ns: Setting,
    /// [`Limits::flood`] likewise.
    flood: Setting,
    nodes: &'s [Node<P>],
    cpus: &'s [PerCpu<P>],
    /// Numbers the grace periods. Only the driver starts and ends them.
    grace_periods: Sequence,
    /// Numbers the expedited ones. Who starts one is who found none running; who reports last ends it.
    expedited: Sequence,
    /// Numbers the barriers, likewise.
    barriers: Sequence,
    /// How many callbacks of the running barrier have not been called; one more while CPUs are being asked.
    barrier_left: AtomicUsize,
    /// Held while callbacks move from one CPU to another, and while a barrier looks at the CPUs.
    moves: SpinLock<(), NodeFlavor<P>>,
    /// Whether a driver exists.
    is_driven: AtomicBool,
    /// When it was first seen, since the driver's last step, that the driver has something to do: in nanoseconds cut to
    /// the size of a word; 0 if that was not seen.
    driver_needed: AtomicUsize,
    /// Whether a request has reached the root since.
    is_wanted: AtomicBool,
    faults: Faults,
}

impl<'s, P: Platform> Tree<'s, P> {
    /// A tree of this shape, whose CPUs are all down.
    ///
    /// # Panics
    /// If there are not exactly as many nodes and CPUs as `shape` says.
    pub fn new(
        shape: Geometry,
        readers: Readers,
        nodes: &'s mut [Node<P>],
        cpus: &'s mut [PerCpu<P>],
    ) -> Tree<'s, P> {
        assert!(nodes.len() == shape.nodes(), "the shape needs another number of nodes");
        assert!(cpus.len() == shape.cpus() as usize, "the shape is one for another number of CPUs");
        let grace_periods = Sequence::new();
        for (index, node) in nodes.iter_mut().enumerate() {
            let is_leaf = index >= shape.first_leaf();
            node.reset(&grace_periods, if is_leaf { 0 } else { shape.children_of(index) });
        }
        for (number, cpu) in cpus.iter_mut().enumerate() {
            *cpu = PerCpu::new();
            (cpu.leaf, cpu.bit) = (shape.leaf_of(number as u32), shape.bit_of(number as u32));
            cpu.reported = AtomicUsize::new(grace_periods.number());
        }
        Tree {
            shape,
            readers,
            limits: Limits::DEFAULT,
            timing: Timing::DEFAULT,
            stall_ns: Setting::new(Timing::DEFAULT.stall),
            flood: Setting::new(Limits::DEFAULT.flood as u64),
            nodes,
            cpus,
            grace_periods,
            expedited: Sequence::new(),
            barriers: Sequence::new(),
            barrier_left: AtomicUsize::new(0),
            moves: SpinLock::new(()),
            is_driven: AtomicBool::new(false),
            driver_needed: AtomicUsize::new(0),
            is_wanted: AtomicBool::new(false),
            faults: Faults::NONE,
        }
    }

    /// The same tree with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Tree<'s, P> {
        self.limits = limits;
        self.set_flood(limits.flood);
        self
    }

    /// The same tree with another timing.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Tree<'s, P> {
        self.timing = timing;
        self.set_stall_ns(timing.stall);
        self
    }

    /// After how many nanoseconds a grace period is called stalled.
    pub fn stall_ns(&self) -> u64 {
        self.stall_ns.load(Ordering::Relaxed)
    }

    /// Changes that, for grace periods that begin from now on, and returns what it was. Contexts: any.
    pub fn set_stall_ns(&self, ns: u64) -> u64 {
        self.stall_ns.swap(ns, Ordering::Relaxed)
    }

    /// With how many callbacks a CPU is flooded.
    pub fn flood(&self) -> usize {
        self.flood.load(Ordering::Relaxed) as usize
    }

    /// Changes that, and returns what it was. Contexts: any.
    pub fn set_flood(&self, callbacks: usize) -> usize {
        self.flood.swap(callbacks as u64, Ordering::Relaxed) as usize
    }

    /// Its shape.
    pub fn geometry(&self) -> &Geometry {
        &self.shape
    }

    /// Whether readers may be preempted.
    pub fn readers(&self) -> Readers {
        self.readers
    }

    /// Takes a node's lock, with full ordering: see "What is ordered".
    #[inline]
    fn lock(&self, node: usize) -> Locked<'_, P> {
        P::chaos_point();
        let mut locked = self.nodes[node].lock_unordered();
        // Pairs with itself in every other critical section, and with the fences of `idle_enter` and `idle_exit`.
        fence(Ordering::SeqCst);
        locked.acquisitions += 1;
        locked
    }

    /// The number that a node knows, for who holds its lock, or only looks.
    #[inline]
    fn number_of(&self, node: usize) -> usize {
        self.nodes[node].number.load(Ordering::Relaxed)
    }

    #[inline]
    #[track_caller]
    fn percpu(&self, cpu: u32) -> &'s PerCpu<P> {
        &self.cpus[cpu as usize]
    }
}

impl<P: Platform> fmt::Debug for Tree<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("cpus", &self.shape.cpus())
            .field("grace_periods", &self.grace_periods)
            .field("expedited", &self.expedited)
            .finish_non_exhaustive()
    }
}
