//! The life of a grace period, step by step: what the grace-period thread does.
//!
//! 1. **Begin**: the number becomes odd, then each node is told, the root first, so that reports find the nodes above
//!    ready. A leaf is told under its lock which CPUs it waits for: those that are up at this moment. The ones among them
//!    that are idle are crossed out at once, and the one that runs the driver, which is in no reader. If nobody is left
//!    the period is over before the driver has looked up.
//! 2. **Wait** until the root is complete, which wakes the driver, or until it is time to look after those who stay away.
//! 3. **Scan** the leaves that are not complete: CPUs that are idle, or have been since, are crossed out; the others are
//!    nudged after a while, and interrupted after a longer one; tasks that were preempted in readers are boosted.
//! 4. **End**: the number becomes even, then each node is told, and asked whether another period is wanted.
//!
//! Each step handles one node and returns, so that nothing else waits for long, and so that a test can do anything
//! between two of them.

use core::fmt;

use hal::Platform;
use hal::platform::TaskId;

use super::faults::faulty;
use super::node::Locked;
use super::quiescent::Kinds;
use super::reader::Blocked;
use super::{Action, Due, Tree};
use crate::primitives::Ordering;
use crate::seq::{Cookie, has_reached, running};

/// How many tasks a scan of a leaf boosts at the most; the next one continues.
const BOOSTED_AT_ONCE: usize = 8;

/// When the driver does what, in nanoseconds since the beginning of the grace period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// From one scan to the next. Linux: `jiffies_till_first_fqs`.
    pub scan: u64,
    /// CPUs that have not reported are asked to reschedule. Linux: `jiffies_till_sched_qs`.
    pub nudge: u64,
    /// They are interrupted.
    pub interrupt: u64,
    /// Preempted readers are boosted. Linux: `CONFIG_RCU_BOOST_DELAY`, 500 ms.
    pub boost: u64,
    /// The period is called stalled, and again after each further such time. Linux: `rcu_cpu_stall_timeout`, 21 s.
    pub stall: u64,
}

impl Timing {
    /// For a tick of 4 ms: a scan each tick, a nudge after 20 ms, interrupts after 100 ms, boosts after 500 ms, stalls
    /// after 21 s.
    pub const DEFAULT: Timing = Timing {
        scan: 4_000_000,
        nudge: 20_000_000,
        interrupt: 100_000_000,
        boost: 500_000_000,
        stall: 21_000_000_000,
    };
}

/// What the grace-period thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Another step, now. It may let others run before.
    Again,
    /// Block until it is woken, because [`Due::wake_driver`] was answered to somebody.
    Sleep,
    /// The same, but not longer than until this time.
    Until(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No period runs.
    Idle,
    /// The nodes from this one on have not been told of the beginning.
    Begin(usize),
    /// Waiting for the root.
    Wait,
    /// The leaves from this one on have not been scanned.
    Scan(usize),
    /// The nodes from this one on have not been told of the end.
    End(usize),
}

/// What begins and ends the grace periods of a [`Tree`]: the grace-period thread without the thread.
///
/// Linux: `rcu_gp_kthread`.
pub struct Driver<'t, 's, P: Platform> {
    tree: &'t Tree<'s, P>,
    phase: Phase,
    begun: u64,
    next_scan: u64,
    next_stall: u64,
    /// The latest grace period that was found to be wanted at the end of this one.
    wanted: usize,
    /// How many it has ended.
    ended: u64,
}

impl<'t, 's, P: Platform> Driver<'t, 's, P> {
    /// The driver of `tree`.
    ///
    /// # Panics
    /// If the tree has one, or had one that was dropped in the middle of a grace period.
    pub fn new(tree: &'t Tree<'s, P>) -> Driver<'t, 's, P> {
        assert!(!tree.is_driven.swap(true, Ordering::Relaxed), "a tree has one driver");
        assert!(!tree.grace_periods.is_running(), "the driver before this one did not end its grace period");
        Driver { tree, phase: Phase::Idle, begun: 0, next_scan: 0, next_stall: 0, wanted: 0, ended: 0 }
    }

    /// Takes one step and says what comes next. `now` is the time in nanoseconds; `act` does what is to be done about
    /// others, and is called while no lock is held.
    ///
    /// Contexts: task, outside of readers, with preemption off so that `cpu` is the executing CPU for the time of the
    /// step. Cost: the lock of one node, and for leaves a look at each CPU.
    pub fn step(&mut self, cpu: u32, now: u64, act: impl FnMut(Action)) -> Next {
        P::chaos_point();
        self.tree.driver_needed.store(0, Ordering::Relaxed);
        match self.phase {
            Phase::Idle => self.look_for_work(now),
            Phase::Begin(node) => self.begin_node(node, cpu, act),
            Phase::Wait => self.wait(now, act),
            Phase::Scan(leaf) => self.scan(leaf, now, act),
            Phase::End(node) => self.end_node(node, act),
        }
    }

    /// How many grace periods this driver has ended.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// The `now` at which the grace period that runs was begun; `None` if none runs.
    pub fn running_since(&self) -> Option<u64> {
        (!matches!(self.phase, Phase::Idle)).then_some(self.begun)
    }

    fn look_for_work(&mut self, now: u64) -> Next {
        let tree = self.tree;
        // Before the look: a request that comes after it sets the mark again, and wakes us.
        tree.is_wanted.store(false, Ordering::Relaxed);
        let requested = tree.lock(0).requested;
        if has_reached(tree.grace_periods.number(), requested) {
            return Next::Sleep;
        }
        tree.grace_periods.start();
        (self.begun, self.next_scan, self.next_stall) =
            (now, now + self.tree.timing.scan, now.saturating_add(self.tree.stall_ns()));
        self.wanted = tree.grace_periods.number();
        self.phase = Phase::Begin(0);
        Next::Again
    }

    fn begin_node(&mut self, node: usize, cpu: u32, act: impl FnMut(Action)) -> Next {
        let tree = self.tree;
        let number = tree.grace_periods.number();
        let mut state = tree.lock(node);
        tree.nodes[node].number.store(number, Ordering::Relaxed);
        state.waiting = state.present;
        let mut complete = Kinds { normal: false, expedited: false };
        if node >= tree.shape.first_leaf() {
            state.blocked.begin_normal();
            for bit in bits(state.present) {
                let other = tree.shape.cpu_at(node, bit);
                let (is_idle, watching) = tree.observe(other);
                tree.percpu(other).watched.store(watching, Ordering::Relaxed);
                if is_idle || other == cpu || (other == 0 && faulty!(tree, SkippedCpu)) {
                    state.waiting &= !(1 << bit);
                }
            }
            complete.normal = state.is_done();
        }
        tree.climb(node, state, complete).but_the_driver().wake_ups(act);
        self.phase = if node + 1 < tree.nodes.len() { Phase::Begin(node + 1) } else { Phase::Wait };
        Next::Again
    }

    fn wait(&mut self, now: u64, mut act: impl FnMut(Action)) -> Next {
        let tree = self.tree;
        if tree.lock(0).is_done() {
            tree.grace_periods.end();
            self.ended += 1;
            self.phase = Phase::End(0);
            return Next::Again;
        }
        if now >= self.next_stall {
            self.next_stall = now.saturating_add(self.tree.stall_ns());
            act(Action::Stalled(now - self.begun));
        }
        if now >= self.next_scan {
            self.phase = Phase::Scan(tree.shape.first_leaf());
            return Next::Again;
        }
        Next::Until(self.next_scan.min(self.next_stall))
    }

    fn scan(&mut self, leaf: usize, now: u64, mut act: impl FnMut(Action)) -> Next {
        let tree = self.tree;
        let age = now - self.begun;
        let (mut away, mut boosted) = (0, [None; BOOSTED_AT_ONCE]);
        let mut state = tree.lock(leaf);
        let due = if state.is_done() {
            Due::NOTHING
        } else {
            let mut quiescent = 0;
            for bit in bits(state.waiting) {
                let percpu = tree.percpu(tree.shape.cpu_at(leaf, bit));
                let (is_idle, watching) = tree.observe(tree.shape.cpu_at(leaf, bit));
                if is_idle || watching != percpu.watched.load(Ordering::Relaxed) {
                    quiescent |= 1 << bit;
                } else {
                    away |= 1 << bit;
                }
            }
            if age >= self.tree.timing.boost && state.waiting & !quiescent == 0 {
                boosted = tasks_to_boost(&state.blocked, tree.number_of(leaf));
            }
            let complete = state.after(|state| state.waiting &= !quiescent);
            tree.climb(leaf, state, complete)
        };
        due.but_the_driver().wake_ups(&mut act);
        boosted.into_iter().flatten().for_each(|task| act(Action::Boost(task)));
        if age >= self.tree.timing.nudge {
            for bit in bits(away) {
                let cpu = tree.shape.cpu_at(leaf, bit);
                // It may believe that it has reported for this number, after having been away for a whole turn of it. Any
                // other number makes it look again.
                tree.percpu(cpu).reported.store(self.begun_number().wrapping_sub(1), Ordering::Relaxed);
                act(if age >= self.tree.timing.interrupt {
                    Action::Interrupt(cpu)
                } else {
                    Action::Nudge(cpu)
                });
            }
        }
        if leaf + 1 < tree.nodes.len() {
            self.phase = Phase::Scan(leaf + 1);
        } else {
            self.next_scan = now + self.tree.timing.scan;
            self.phase = Phase::Wait;
        }
        Next::Again
    }

    fn begun_number(&self) -> usize {
        self.tree.grace_periods.number()
    }

    fn end_node(&mut self, node: usize, mut act: impl FnMut(Action)) -> Next {
        let tree = self.tree;
        let number = tree.grace_periods.number();
        let mut state = tree.lock(node);
        tree.nodes[node].number.store(number, Ordering::Relaxed);
        if has_reached(number, state.requested) {
            // Kept close behind the number, so that comparisons stay right for ever.
            state.requested = number;
        } else if has_reached(state.requested, self.wanted) && !faulty!(tree, LostRequest) {
            self.wanted = state.requested;
        }
        let callbacks = if node >= tree.shape.first_leaf() { state.callbacks } else { 0 };
        drop(state);
        for bit in bits(callbacks) {
            let cpu = tree.shape.cpu_at(node, bit);
            let tells = tree.percpu(cpu).is_offloaded.load(Ordering::Relaxed) || tree.observe(cpu).0;
            act(if tells { Action::Process(cpu) } else { Action::MayBeDue(cpu) });
        }
        if node + 1 < tree.nodes.len() {
            self.phase = Phase::End(node + 1);
            return Next::Again;
        }
        let mut root = tree.lock(0);
        if !has_reached(root.requested, self.wanted) {
            root.requested = self.wanted;
        }
        drop(root);
        act(Action::Ended(Cookie::from_number(number)));
        self.phase = Phase::Idle;
        Next::Again
    }
}

impl<P: Platform> Drop for Driver<'_, '_, P> {
    fn drop(&mut self) {
        self.tree.is_driven.store(false, Ordering::Relaxed);
    }
}

impl<P: Platform> Tree<'_, P> {
    /// Asks for the grace period of `cookie`, on behalf of what is under `node`, whose lock is `state`'s.
    pub(super) fn request<'a>(&'a self, mut node: usize, mut state: Locked<'a, P>, cookie: Cookie) -> Due {
        let wanted = cookie.number();
        // Who has asked before climbs, or has climbed, for us too.
        while !has_reached(state.requested, wanted) {
            state.requested = wanted;
            // As long as a period runs here, its end will look at this node.
            let will_be_seen = running(self.number_of(node));
            let parent = self.shape.parent_of(node);
            drop(state);
            match parent {
                _ if will_be_seen => return Due::NOTHING,
                None => {
                    self.is_wanted.store(true, Ordering::Relaxed);
                    return Due { wake_driver: true, ..Due::NOTHING };
                }
                Some((parent, _)) => {
                    node = parent;
                    state = self.lock(node);
                }
            }
        }
        Due::NOTHING
    }

    /// Whether the driver has had something to do for long, and has not done anything: since it was first looked for.
    pub(super) fn driver_starves(&self, now: u64) -> bool {
        let is_needed = self.is_wanted.load(Ordering::Relaxed) || running(self.grace_periods.number());
        let since = self.driver_needed.load(Ordering::Relaxed);
        if !is_needed || since == 0 {
            let seen = if is_needed { (now as usize).max(1) } else { 0 };
            if since != seen {
                self.driver_needed.store(seen, Ordering::Relaxed);
            }
            return false;
        }
        // Another CPU may have seen it later than `now`.
        let waited = (now as usize).wrapping_sub(since) as isize;
        i64::try_from(self.stall_ns()).is_ok_and(|stall| waited as i64 > stall)
    }
}

impl<P: Platform> fmt::Debug for Driver<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("phase", &self.phase)
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

fn tasks_to_boost(blocked: &Blocked, number: usize) -> [Option<TaskId>; BOOSTED_AT_ONCE] {
    let mut tasks = [None; BOOSTED_AT_ONCE];
    let mut readers = blocked.holding_up(number, false).filter(|reader| Blocked::boost(reader));
    tasks.fill_with(|| readers.next().and_then(Blocked::task));
    tasks
}

/// The numbers of the bits that are set.
pub(super) fn bits(mut mask: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(bit)
    })
}
