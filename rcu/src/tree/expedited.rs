//! Grace periods in a hurry: who wants one asks the CPUs, by interrupt.
//!
//! They have a sequence, bits and counts of their own in the same nodes, and nothing else to do with the others. The task
//! that wants one begins it, and interrupts the CPUs that are neither idle nor its own; the interrupt reports, or sees to
//! it that the task reports as soon as it can. The last report ends the period.

use hal::Platform;

use super::driver::bits;
use super::quiescent::Kinds;
use super::{Action, Tree};
use crate::primitives::Ordering;
use crate::seq::Cookie;

impl<P: Platform> Tree<'_, P> {
    /// Names an expedited grace period that begins from now on.
    pub fn expedited_state(&self) -> Cookie {
        self.expedited.snapshot()
    }

    /// Whether the expedited grace period of `cookie` has ended. If so, the call is a full memory barrier.
    pub fn expedited_done(&self, cookie: Cookie) -> bool {
        self.expedited.done(cookie)
    }

    /// Begins an expedited grace period, unless one is running. Interrupts CPUs that may be in readers; their handlers
    /// call [`check_interrupt`](Tree::check_interrupt). Its end is said by [`Due::wake_expedited`](super::Due) or
    /// [`Action::WakeExpedited`].
    ///
    /// Linux: `synchronize_rcu_expedited`, which is: name one, and until it has ended try to begin one, and block.
    /// Contexts: task, outside of readers, with preemption off so that `cpu` is the executing CPU. Cost: each node's lock
    /// once, an interrupt for each CPU that is busy.
    ///
    /// ```
    /// # use hal::Native;
    /// # use rcu::tree::{Action, Geometry, Interrupted, Node, PerCpu, Readers, Tree};
    /// # let shape = Geometry::new(3);
    /// # let mut nodes = [Node::<Native>::new()];
    /// # let mut cpus: Vec<_> = (0..3).map(|_| PerCpu::<Native>::new()).collect();
    /// # let tree = Tree::new(shape, Readers::Preemptible, &mut nodes, &mut cpus);
    /// (0..3).for_each(|cpu| tree.cpu_up(cpu));
    /// let _ = tree.idle_enter(2);
    /// let cookie = tree.expedited_state();
    /// let mut interrupted = Vec::new();
    /// assert!(tree.try_expedite(0, |action| interrupted.push(action)));
    /// assert_eq!(interrupted, [Action::Interrupt(1)]); // 0 is here, and 2 is idle
    /// assert!(!tree.expedited_done(cookie));
    /// // What the handler does on CPU 1, where it interrupted a task that is in no reader.
    /// let due = tree.check_interrupt(1, Interrupted::Kernel { preemptible: true, in_reader: false });
    /// assert!(due.wake_expedited && tree.expedited_done(cookie));
    /// ```
    pub fn try_expedite(&self, cpu: u32, mut act: impl FnMut(Action)) -> bool {
        if !self.expedited.try_start() {
            return false;
        }
        // The root first, as with the others; it cannot become complete before the last leaf has been told.
        for node in 0..self.nodes.len() {
            let mut state = self.lock(node);
            state.expedited = state.present;
            let mut complete = Kinds { normal: false, expedited: false };
            let mut busy = 0;
            if node >= self.shape.first_leaf() {
                state.blocked.begin_expedited();
                for bit in bits(state.present) {
                    let other = self.shape.cpu_at(node, bit);
                    let mark = &self.percpu(other).expedited;
                    // Before the look: a CPU that is found busy and becomes idle at this moment sees the mark then, by
                    // the fences of `observe` and `idle_enter`, and reports.
                    mark.store(true, Ordering::Relaxed);
                    if other == cpu || self.observe(other).0 {
                        state.expedited &= !(1 << bit);
                        mark.store(false, Ordering::Relaxed);
                    }
                }
                busy = state.expedited;
                complete.expedited = state.is_expedited();
            }
            self.climb(node, state, complete).wake_ups(&mut act);
            bits(busy).for_each(|bit| act(Action::Interrupt(self.shape.cpu_at(node, bit))));
        }
        true
    }
}
