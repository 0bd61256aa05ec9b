//! Who a grace period waits for, for reports and for people who look.

use hal::Platform;
use hal::platform::TaskId;

use super::Tree;
use super::driver::bits;
use super::reader::Blocked;
use crate::seq::running;

/// Which kind of grace period is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Those that the driver begins and ends.
    Normal,
    /// Those that are begun by who wants one.
    Expedited,
}

/// Something that a grace period waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holdout {
    /// This CPU has not reported.
    Cpu(u32),
    /// This task was preempted inside of a reader. A name, to be looked up: it may have left the reader, and ended, since.
    Task(TaskId),
}

/// How many tasks of one leaf are named at the most.
const TASKS: usize = 16;

/// What a node knows, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// Its level; the root's is 0.
    pub level: usize,
    /// Whether a grace period runs here.
    pub running: bool,
    /// Who has not reported for it.
    pub waiting: u64,
    /// Who has not reported for the expedited one.
    pub expedited: u64,
    /// CPUs that are up, or children.
    pub present: u64,
    /// How many preempted readers are entered here.
    pub blocked: usize,
    /// How many of them hold up the running grace period.
    pub holding_up: usize,
    /// How often the node's lock was taken.
    pub acquisitions: u64,
}

impl<P: Platform> Tree<'_, P> {
    /// Names those that the running grace period waits for: CPUs, and up to 16 tasks of each leaf. `tell` is called while
    /// no lock is held. Nothing stands still meanwhile.
    ///
    /// Linux: `print_other_cpu_stall`. Contexts: task, softirq, hardirq. Cost: each leaf's lock.
    pub fn holdouts(&self, which: Which, mut tell: impl FnMut(Holdout)) {
        for leaf in self.shape.first_leaf()..self.nodes.len() {
            let mut tasks = [None; TASKS];
            let state = self.lock(leaf);
            let mut readers = state.blocked.holding_up(self.number_of(leaf), which == Which::Expedited);
            tasks.fill_with(|| readers.next().and_then(Blocked::task));
            drop(readers);
            let cpus = if which == Which::Expedited { state.expedited } else { state.waiting };
            drop(state);
            bits(cpus).for_each(|bit| tell(Holdout::Cpu(self.shape.cpu_at(leaf, bit))));
            tasks.into_iter().flatten().for_each(|task| tell(Holdout::Task(task)));
        }
    }

    /// What node number `node` knows. For the console, and for tests.
    pub fn node(&self, node: usize) -> NodeView {
        let number = self.number_of(node);
        let state = self.lock(node);
        NodeView {
            level: self.shape.level_of(node),
            running: running(number),
            waiting: state.waiting,
            expedited: state.expedited,
            present: state.present,
            blocked: state.blocked.len(),
            holding_up: state.blocked.normal,
            acquisitions: state.acquisitions,
        }
    }

    /// How many grace periods have ended, modulo half the range of `usize`.
    pub fn completed(&self) -> usize {
        self.grace_periods.completed()
    }
}
