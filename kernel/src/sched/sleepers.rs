//! The tasks that wait on a CPU with a deadline, by deadline.

use core::ptr::NonNull;

use super::tree::{Node, Tree};
use crate::task::Task;

/// A task's place among the sleepers of its CPU.
pub(crate) type Sleeper = Node<u64>;

sync::link_field! { pub(crate) struct ByDeadline = Task => sleeper: Sleeper; }

/// Tasks by the moment at which they want to go on, in nanoseconds. O(log n) each, the look at the first one O(1).
///
/// # Invariants
/// Whoever is in it is a task of the CPU whose queue this is a part of, cannot end while it is, and is reached under that
/// queue's lock only.
pub(crate) struct Sleepers(Tree<ByDeadline, u64>);

impl Sleepers {
    pub(crate) const fn new() -> Sleepers {
        Sleepers(Tree::new())
    }

    /// Adds the running task, which is about to block.
    pub(crate) fn add(&mut self, task: &Task, deadline_ns: u64) {
        // SAFETY: a task that blocks is in no such tree: it is taken out when it becomes ready. It does not end before.
        unsafe { self.0.insert(NonNull::from(task), deadline_ns, ()) }
    }

    /// Takes a task out that has last blocked on this CPU, if it is in.
    pub(crate) fn remove(&mut self, task: &Task) {
        if task.sleeper.is_linked() {
            // SAFETY: it is in a tree, and can only be in that of its CPU.
            unsafe { self.0.remove(NonNull::from(task)) }
        }
    }

    /// Takes one out whose time has come.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<&'static Task> {
        if self.0.first_key()? > now {
            return None;
        }
        // SAFETY: by the invariant it lives; whoever makes it ready keeps it alive until it runs.
        self.0.pop_first().map(|task| unsafe { task.as_ref() })
    }

    /// Takes out one for which `wanted` says so, and returns its deadline with it. O(n).
    pub(crate) fn take_if(&mut self, wanted: impl Fn(&Task) -> bool) -> Option<(&'static Task, u64)> {
        let mut next = self.0.first();
        while let Some(place) = next {
            // SAFETY: by the invariant; see `take_due`.
            let task: &'static Task = unsafe { place.as_ref() };
            if wanted(task) {
                let deadline = task.sleeper.key();
                self.remove(task);
                return Some((task, deadline));
            }
            // SAFETY: it is in the tree.
            next = unsafe { self.0.next(place) };
        }
        None
    }

    /// When the next one's time comes.
    pub(crate) fn first(&self) -> Option<u64> {
        self.0.first_key()
    }
}
