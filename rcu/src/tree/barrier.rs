//! Waiting for callbacks: until all that have been queued so far have been called.
//!
//! 1. On each CPU that has callbacks a callback of the tree's own is put behind all of them. It waits for nothing but
//!    its turn.
//! 2. A count says how many of these have not been called, and is one more until all CPUs have been asked. Who brings it to
//!    zero ends the barrier.
//! 3. Barriers are numbered like grace periods, so that those who want one share it.
//!
//! Most CPUs have none, and are passed by after a load. That sees what it has to: who queued a callback said so before
//! he asked for the barrier, and the full fences of the barriers' [`Sequence`](crate::Sequence) stand between; who called
//! the last one took that back afterwards. Callbacks that move from one CPU to another do so under a lock that keeps
//! barriers from looking meanwhile, so that they are found on one of the two.

use core::ptr::NonNull;

use hal::Platform;

use super::percpu::Has;
use super::{Action, Due, Tree};
use crate::head::Head;
use crate::primitives::Ordering;
use crate::seq::Cookie;

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
    /// Linux: `rcu_barrier`. Contexts: task. Cost: a lock, a load for each CPU, and the locks of those that
    /// have callbacks.
    pub fn try_barrier(&self, mut act: impl FnMut(Action)) -> bool {
        if !self.barriers.try_start() {
            return false;
        }
        // One for this, until all CPUs have been asked.
        self.barrier_left.store(1, Ordering::Relaxed);
        let mut any = false;
        let here_they_stay = self.moves.lock();
        for cpu in 0..self.shape.cpus() {
            // Acquire: pairs with the Release in `run_ready`; what the callbacks did that were called comes before.
            if self.percpu(cpu).has.load(Ordering::Acquire) != Has::NONE {
                any |= self.stand_in_line(cpu);
            }
        }
        drop(here_they_stay);
        // Not before this: whoever does what is wanted may take any lock.
        for cpu in (0..self.shape.cpus()).filter(|_| any) {
            let asked = &self.percpu(cpu).asked;
            if asked.load(Ordering::Relaxed) {
                asked.store(false, Ordering::Relaxed);
                act(Action::Process(cpu));
            }
        }
        self.barrier_passed().wake_ups(act);
        true
    }

    /// Puts `cpu`'s own callback behind the others, and says whether there were some. Of a barrier, once for each CPU.
    fn stand_in_line(&self, cpu: u32) -> bool {
        P::chaos_point();
        let percpu = self.percpu(cpu);
        let mut own = percpu.lock();
        if own.total() == 0 {
            return false;
        }
        percpu.has.store(Has::SOME, Ordering::Relaxed);
        // Its own barrier's: the next one begins when this one has ended.
        percpu.asked.store(true, Ordering::Relaxed);
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
        self.barriers.end();
        Due { wake_barrier: true, ..Due::NOTHING }
    }
}

/// What the tree's own callbacks do.
unsafe fn nothing(_: NonNull<Head>) {}
