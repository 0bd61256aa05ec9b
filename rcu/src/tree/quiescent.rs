//! Reports: from a CPU to its leaf, and from node to node.

use core::pin::Pin;

use hal::Platform;
use hal::platform::TaskId;

use super::faults::faulty;
use super::node::{Locked, State};
use super::{Due, Reader, Tree};
use crate::primitives::Ordering;
use crate::seq::{ended_between, running};

/// Which of the two kinds of grace period something is said of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kinds {
    pub(super) normal: bool,
    pub(super) expedited: bool,
}

impl State {
    /// Clears bits and says what that has made complete.
    pub(super) fn clear(&mut self, bits: u64, kinds: Kinds) -> Kinds {
        self.after(|state| {
            if kinds.normal {
                state.waiting &= !bits;
            }
            if kinds.expedited {
                state.expedited &= !bits;
            }
        })
    }

    /// Makes a change and says what that has made complete.
    pub(super) fn after(&mut self, change: impl FnOnce(&mut State)) -> Kinds {
        let (was_done, was_expedited) = (self.is_done(), self.is_expedited());
        change(self);
        Kinds { normal: !was_done && self.is_done(), expedited: !was_expedited && self.is_expedited() }
    }
}

impl<P: Platform> Tree<'_, P> {
    /// The executing CPU is in a quiescent state at this moment: it is in no reader, except for such as have been
    /// preempted and are [entered](Reader). Regions in which preemption, bottom halves or interrupts are off are readers
    /// too; the caller's own, that keeps it on this CPU, does not count. Reports it, if a grace period waits for it.
    ///
    /// A task that offers its CPU calls this (Linux: `rcu_all_qs`), and an unlock to which [`Due::attention`] was paid.
    ///
    /// Contexts: task, softirq, hardirq; preemption is off. Cost: three loads if nobody waits; otherwise the leaf's lock,
    /// once for each grace period.
    #[inline]
    pub fn quiescent(&self, cpu: u32) -> Due {
        if self.has_reported(cpu) {
            return Due::NOTHING;
        }
        self.report(cpu, None)
    }

    /// Whether the CPU has nothing to say about what its leaf's number tells.
    #[inline]
    pub(super) fn has_reported(&self, cpu: u32) -> bool {
        let percpu = self.percpu(cpu);
        // Relaxed, as with the other looks here: who reads an old number reports the next time, and who reads the new
        // one takes the lock under which it was written.
        let number = self.number_of(percpu.leaf);
        number == percpu.reported.load(Ordering::Relaxed) && !percpu.expedited.load(Ordering::Relaxed)
    }

    /// The slow half of [`quiescent`](Tree::quiescent): enters a reader, if one is to be, and reports.
    #[cold]
    pub(super) fn report(&self, cpu: u32, preempted: Option<(Pin<&Reader>, TaskId)>) -> Due {
        match self.look(cpu).filter(|_| preempted.is_none()) {
            Some(number) => self.note_end(cpu, number),
            None => self.report_locked(cpu, preempted),
        }
    }

    /// The first step of a report, without a lock: the leaf's number, if a period has ended since the last look and there
    /// is nothing to report. Anything may happen between this and the second step.
    #[inline]
    pub(super) fn look(&self, cpu: u32) -> Option<usize> {
        let percpu = self.percpu(cpu);
        let number = self.number_of(percpu.leaf);
        let has_ended = !running(number)
            && percpu.reported.load(Ordering::Relaxed) != number
            && !percpu.expedited.load(Ordering::Relaxed);
        has_ended.then_some(number)
    }

    /// The second step, with the leaf's lock.
    #[inline]
    pub(super) fn report_locked(&self, cpu: u32, preempted: Option<(Pin<&Reader>, TaskId)>) -> Due {
        let percpu = self.percpu(cpu);
        let (leaf, bit) = (percpu.leaf, percpu.bit);
        let mut due = Due::NOTHING;
        let mut state = self.lock(leaf);
        // Not the number of the first step: this one is that of the state, and what is stored below is what has been acted
        // upon. A period that ended just before the lock would not be noticed again.
        let number = self.number_of(leaf);
        if ended_between(percpu.reported.load(Ordering::Relaxed), number) && !faulty!(self, EndGoesUnnoticed)
        {
            due |= self.waiting_due(cpu);
        }
        if let Some((reader, task)) = preempted {
            let normal = state.waiting & bit != 0 && !faulty!(self, ForgottenReader);
            let expedited = state.expedited & bit != 0 && !faulty!(self, ExpeditedForgetsReaders);
            state.blocked.enter(reader, task, leaf, number, normal, expedited);
        }
        percpu.reported.store(number, Ordering::Relaxed);
        percpu.expedited.store(false, Ordering::Relaxed);
        let complete = state.clear(bit, Kinds { normal: true, expedited: true });
        due |= self.climb(leaf, state, complete);
        due
    }

    /// Something has become complete at `node`: tells the nodes above, as far as that makes them complete too.
    pub(super) fn climb<'a>(&'a self, mut node: usize, mut state: Locked<'a, P>, mut complete: Kinds) -> Due {
        while complete.normal || complete.expedited {
            let Some((parent, bit)) = self.shape.parent_of(node) else {
                drop(state);
                if complete.expedited {
                    self.expedited.end();
                }
                return Due {
                    wake_driver: complete.normal,
                    wake_expedited: complete.expedited,
                    ..Due::NOTHING
                };
            };
            // The parent's bit is ours until it is cleared there, so that neither period can end, nor another begin,
            // while no lock is held.
            drop(state);
            state = self.lock(parent);
            complete = state.clear(bit, complete);
            node = parent;
        }
        Due::NOTHING
    }

    /// A reader that was preempted has left its outermost section. Nothing happens if it was not entered.
    ///
    /// Called by the task itself, when nothing protects any more what it has read. So if it left its section where
    /// preemption, bottom halves or interrupts are off, it calls this later: at the end of that region, or at the next
    /// tick or context switch. Until then grace periods wait. (There is another reason: the answer may be to wake the
    /// driver, and the caller may hold the lock that takes.) Linux: `rcu_read_unlock_special`.
    ///
    /// Contexts: task, softirq, hardirq. Cost: a load if it was not entered; otherwise the lock of a leaf.
    #[inline]
    pub fn reader_done(&self, reader: Pin<&Reader>) -> Due {
        match reader.leaf() {
            None => Due::NOTHING,
            Some(leaf) => self.remove_reader(reader, leaf),
        }
    }

    #[cold]
    fn remove_reader(&self, reader: Pin<&Reader>, leaf: usize) -> Due {
        let mut state = self.lock(leaf);
        let number = self.number_of(leaf);
        let complete = state.after(|state| state.blocked.leave(&reader, number));
        self.climb(leaf, state, complete)
    }
}
