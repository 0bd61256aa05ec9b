//! Waiting for callbacks: until all that have been queued so far have been called.
//!
//! 1. On each CPU that has callbacks a callback of the tree's own is put behind all of them. It waits for nothing but
//!    its turn.
//! 2. A count says how many of these have not been called, and is one more until all CPUs have been asked. Who brings it to
//!    zero ends the barrier.
//! 3. Barriers are numbered like grace periods, so that those who want one share it.
//!
//! A CPU's callbacks are visited under its lock. Those that are on their way from one CPU to another are under the locks
//! of both, and who moves them sees to it that they are counted.

use core::ptr::NonNull;

use hal::Platform;

use super::faults::faulty;
use super::percpu::Own;
use super::{Action, Due, Tree};
use crate::head::Head;
use crate::primitives::{Ordering, fence};
use crate::seq::{Cookie, running};

impl<P: Platform> Tree<'_, P> {
    /// Names a barrier that begins from now on. When [`barrier_done`](Tree::barrier_done) all callbacks that were queued
    /// before this call, on any CPU, have returned.
    ///
    /// ```
    /// # use hal::Native;
    /// # use rcu::tree::{Geometry, Node, PerCpu, Readers, Tree};
    /// # let shape = Geometry::new(1);
    /// # let (mut nodes, mut cpus) = ([Node::<Native>::new()], [PerCpu::<Native>::new()]);
    /// # let tree = Tree::new(shape, Readers::NonPreemptible, &mut nodes, &mut cpus);
    /// let cookie = tree.barrier_state();
    /// while !tree.barrier_done(cookie) {
    ///     if !tree.try_barrier(|_| ()) {
    ///         // Somebody else's is running: block until a barrier has been passed.
    ///     }
    /// }
    /// ```
    pub fn barrier_state(&self) -> Cookie {
        self.barriers.snapshot()
    }

    /// Whether the barrier of `cookie` has been passed.
    pub fn barrier_done(&self, cookie: Cookie) -> bool {
        self.barriers.done(cookie)
    }

    /// Begins a barrier, unless one is running. Its end is said by [`Due::wake_barrier`] or
    /// [`Action::WakeBarrier`].
    ///
    /// Linux: `rcu_barrier`. Contexts: task. Cost: each CPU's lock once.
    pub fn try_barrier(&self, mut act: impl FnMut(Action)) -> bool {
        if !self.barriers.try_start() {
            return false;
        }
        if faulty!(self, BarrierCountsLate) {
            self.barrier_left.store(1, Ordering::Relaxed);
        }
        for cpu in 0..self.shape.cpus() {
            P::chaos_point();
            let mut own = self.percpu(cpu).lock();
            if self.join_running_barrier(cpu, &mut own) {
                drop(own);
                act(Action::Process(cpu));
            }
        }
        self.barrier_passed().wake_ups(act);
        true
    }

    /// Puts `cpu`'s own callback behind the others, if a barrier is running that has not done so. Returns whether there
    /// were callbacks.
    pub(super) fn join_running_barrier(&self, cpu: u32, own: &mut Own) -> bool {
        let number = self.barriers.number();
        // Acquire: pairs with the Release of the end before; the count below has been set up since.
        fence(Ordering::Acquire);
        // A number that is out of date does no harm: a barrier that has ended has visited this CPU, and who holds its lock
        // knows.
        if !running(number) || own.barrier == number {
            return false;
        }
        own.barrier = number;
        if own.total() == 0 {
            return false;
        }
        let percpu = self.percpu(cpu);
        percpu.has_lazy.store(false, Ordering::Relaxed);
        self.barrier_left.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the head lives as long as the tree, is in no queue because the barrier before this one ended when it
        // had been called, and this one asks each CPU once. The function does nothing.
        let queued = unsafe { own.callbacks.entrain::<P>(NonNull::from(&percpu.barrier), nothing) };
        debug_assert!(queued);
        true
    }

    /// Whether a head is one of the tree's own.
    pub(super) fn is_barrier(&self, head: NonNull<Head>) -> bool {
        self.cpus.as_ptr_range().contains(&head.as_ptr().cast_const().cast())
    }

    /// One of the barrier's callbacks has been called, or all CPUs have been asked.
    pub(super) fn barrier_passed(&self) -> Due {
        // Release: what was called here comes before the end. Acquire: for the last one, that of all others.
        if self.barrier_left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Due::NOTHING;
        }
        // For the next one, before it can begin: a CPU may join it as soon as it has.
        self.barrier_left.store(1, Ordering::Relaxed);
        self.barriers.end();
        Due { wake_barrier: true, ..Due::NOTHING }
    }
}

/// What the tree's own callbacks do.
unsafe fn nothing(_: NonNull<Head>) {}
