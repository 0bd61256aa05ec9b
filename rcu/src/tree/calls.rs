//! Callbacks: queued by anybody on their CPU, given a grace period to wait for, and called.
//!
//! Queuing is short, because it is done in the middle of something else: the callback is put into a list. What it has to
//! wait for is found out later and for all that have come meanwhile at once, by [`process`](Tree::process). The order
//! matters: the grace period is chosen *after* the callback is in the list, and [`Sequence`](crate::Sequence) skips the
//! one that is running.

use core::ptr::NonNull;

use hal::Platform;

use super::faults::faulty;
use super::percpu::{Has, Own};
use super::{Backlog, Due, Tree};
use crate::callbacks::Segment;
use crate::head::{Callback, Head};
use crate::primitives::Ordering;
use crate::seq::{ROUND, has_reached};

/// What [`run_ready`](Tree::run_ready) did.
#[must_use = "what is left wants another call"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ran {
    /// How many callbacks were called.
    pub called: usize,
    /// More may be called at once.
    pub more: bool,
    /// What is to be done.
    pub due: Due,
}

impl<P: Platform> Tree<'_, P> {
    /// Has `function` called with `head` after a grace period, on this CPU, or on the one that takes over when this one
    /// goes down. If the head is queued already that is reported, in debug builds, and nothing else happens.
    ///
    /// Linux: `call_rcu_hurry`. Contexts: task, softirq, hardirq. Cost: this CPU's lock.
    ///
    /// # Safety
    /// As for [`Head::prepare`], to the end of the call of `function`; which may be called in the context in which the
    /// caller calls [`run_ready`](Tree::run_ready).
    // A kernel has one caller of this, which hands the answer on: in memory, if this were a function of its own.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn call(&self, cpu: u32, head: NonNull<Head>, function: Callback) -> Due {
        let percpu = self.percpu(cpu);
        let mut own = percpu.lock();
        let is_first = own.callbacks.len_of(Segment::Next) == 0;
        // SAFETY: passed on.
        if !unsafe { own.callbacks.push::<P>(head, function) } {
            return Due::NOTHING;
        }
        percpu.has.store(Has::SOME, Ordering::Relaxed);
        let flooded = own.total() > self.flood();
        drop(own);
        // Those behind the first one come along when it is processed.
        let mut due = if is_first { self.process_due(cpu) } else { Due::NOTHING };
        due.flooded = flooded;
        due
    }

    /// The same for a callback that nobody is in a hurry for, because it only frees memory: it waits until an ordinary one
    /// comes, or until there are many of them, or the oldest is old. `now` is the time in nanoseconds.
    ///
    /// Linux: `call_rcu`, with `CONFIG_RCU_LAZY`. Contexts and cost: as [`call`](Tree::call).
    ///
    /// # Safety
    /// As for [`call`](Tree::call).
    #[track_caller]
    pub unsafe fn call_lazy(&self, cpu: u32, head: NonNull<Head>, function: Callback, now: u64) -> Due {
        let percpu = self.percpu(cpu);
        let mut own = percpu.lock();
        if own.callbacks.lazy_len() == 0 {
            own.lazy_since = now;
        }
        // SAFETY: passed on.
        if !unsafe { own.callbacks.push_lazy::<P>(head, function) } {
            return Due::NOTHING;
        }
        percpu.has.store(Has::LAZY, Ordering::Relaxed);
        let many = own.callbacks.lazy_len() > self.limits.lazy;
        let flooded = own.total() > self.flood();
        drop(own);
        let due = if many { self.hurry(cpu) } else { Due::NOTHING };
        Due { flooded, ..due }
    }

    /// Makes `cpu`'s lazy callbacks ordinary ones: memory is short, say. Any CPU.
    pub fn hurry(&self, cpu: u32) -> Due {
        let percpu = self.percpu(cpu);
        let mut own = percpu.lock();
        own.callbacks.hurry();
        percpu.has.store(Has::SOME, Ordering::Relaxed);
        drop(own);
        self.process_due(cpu)
    }

    /// A tick has found lazy callbacks.
    #[cold]
    pub(super) fn check_lazy(&self, cpu: u32, now: u64) -> Due {
        let since = self.percpu(cpu).lock().lazy_since;
        if now.saturating_sub(since) >= self.limits.lazy_ns { self.hurry(cpu) } else { Due::NOTHING }
    }

    /// Whoever processes `cpu`'s callbacks has something to look at.
    pub(super) fn process_due(&self, cpu: u32) -> Due {
        let percpu = self.percpu(cpu);
        let offloaded = percpu.is_offloaded.load(Ordering::Relaxed);
        Due { process: !offloaded, wake_offload: offloaded, ..Due::NOTHING }
    }

    /// The same, if there are callbacks that wait.
    pub(super) fn waiting_due(&self, cpu: u32) -> Due {
        let waiting = self.percpu(cpu).has_waiting.load(Ordering::Relaxed);
        if waiting { self.process_due(cpu) } else { Due::NOTHING }
    }

    /// Looks after `cpu`'s callbacks: finds those whose grace period has ended, and gives those that are new one to wait
    /// for. Then [`run_ready`](Tree::run_ready) is to be called.
    ///
    /// Linux: `rcu_core`. Contexts: softirq, task; for a CPU that is off-loaded its thread, anywhere. Cost: two locks.
    pub fn process(&self, cpu: u32) -> Due {
        let percpu = self.percpu(cpu);
        let (leaf, bit) = (percpu.leaf, percpu.bit);
        let mut own = percpu.lock();
        let mut state = self.lock(leaf);
        let number = self.number_of(leaf);
        if faulty!(self, CalledOnePeriodEarly) {
            own.callbacks.advance(number.wrapping_add(ROUND));
        } else {
            own.callbacks.advance(number);
        }
        // What was queued is in the list before this; a full fence is in the snapshot.
        let wanted = own.callbacks.accelerate(self.grace_periods.snapshot());
        percpu.has_waiting.store(wanted.is_some(), Ordering::Relaxed);
        match wanted {
            Some(_) => state.callbacks |= bit,
            None => state.callbacks &= !bit,
        }
        // Only the CPU's own lock keeps another processor of its callbacks from doing the same; the rest is the tree's.
        drop(own);
        match wanted {
            Some(cookie) if !has_reached(number, cookie.number()) => self.request(leaf, state, cookie),
            _ => Due::NOTHING,
        }
    }

    /// Calls `cpu`'s callbacks whose grace period has ended: a batch of them, or fewer, when `enough`, which is asked
    /// after each one with their number so far, says so.
    ///
    /// A batch is [`Limits::batch`](super::Limits) or an eighth of what waits, whichever is more; without limit once
    /// there are more than `high`, until there are not more than `low`. One batch of a CPU is called at a time: while
    /// another execution is at it nothing happens.
    ///
    /// Linux: `rcu_do_batch`. Contexts: softirq, or a task with bottom halves off.
    ///
    /// # Safety
    /// The context is one in which the callbacks that were queued may be called.
    pub unsafe fn run_ready(&self, cpu: u32, mut enough: impl FnMut(usize) -> bool) -> Ran {
        let mut ran = Ran { called: 0, more: false, due: Due::NOTHING };
        let percpu = self.percpu(cpu);
        let mut own = percpu.lock();
        if own.is_running || own.callbacks.len_of(Segment::Done) == 0 {
            return ran;
        }
        let limit = self.batch_limit(&mut own);
        let mut batch = own.callbacks.take_done(limit);
        own.is_running = true;
        if !faulty!(self, BarrierMissesInFlight) {
            own.in_flight = batch.len();
        }
        drop(own);
        while let Some(head) = batch.pop() {
            let is_barrier = self.is_barrier(head);
            // SAFETY: the head was prepared by a push, and `pop` gives it once. It was in *done*, where it comes when
            // its grace period has ended. The context is the caller's promise.
            unsafe { Head::invoke(head) };
            ran.called += 1;
            if is_barrier {
                ran.due |= self.barrier_passed();
            }
            if enough(ran.called) {
                break;
            }
        }
        let mut own = percpu.lock();
        own.callbacks.put_back(batch);
        own.in_flight = 0;
        own.is_running = false;
        if own.total() == 0 {
            // Release: pairs with the Acquire in `try_barrier`, which passes by.
            percpu.has.store(Has::NONE, Ordering::Release);
        }
        ran.more = own.callbacks.len_of(Segment::Done) != 0;
        ran
    }

    fn batch_limit(&self, own: &mut Own) -> usize {
        let waiting = own.callbacks.len();
        own.is_flooded = if own.is_flooded { waiting > self.limits.low } else { waiting > self.limits.high };
        if own.is_flooded { usize::MAX } else { self.limits.batch.max(waiting / 8) }
    }

    /// How many callbacks `cpu` has. Any CPU. Linux: `rcu_segcblist` in the trace of `rcu_nocb_rdp_offload` and others.
    pub fn backlog(&self, cpu: u32) -> Backlog {
        self.percpu(cpu).lock().backlog()
    }

    /// When something has to be done for `cpu`'s callbacks that nothing else will bring about: at once, which is 0, or at
    /// this time, in nanoseconds, when lazy ones become old. A CPU that is about to be idle for longer keeps its tick until
    /// then. Callbacks that wait for a grace period need none: [`Action::Process`](super::Action) comes for them.
    ///
    /// Linux: `rcu_needs_cpu`. Contexts: task, softirq, hardirq. Any CPU.
    pub fn next_event(&self, cpu: u32) -> Option<u64> {
        let percpu = self.percpu(cpu);
        let own = percpu.lock();
        let ready = own.callbacks.len_of(Segment::Done);
        let unasked = own.callbacks.len_of(Segment::Next);
        let waiting = percpu.has_waiting.load(Ordering::Relaxed);
        if percpu.is_offloaded.load(Ordering::Relaxed) {
            None
        } else if ready != 0 || (unasked != 0 && !waiting) {
            Some(0)
        } else {
            (own.callbacks.lazy_len() != 0).then(|| own.lazy_since + self.limits.lazy_ns)
        }
    }

    /// Has `cpu`'s callbacks run by a thread from now on, or by itself again. The thread is to be woken once after this:
    /// it calls [`process`](Tree::process) and [`run_ready`](Tree::run_ready) for that CPU, from anywhere, each time that
    /// [`Due::wake_offload`] or [`Action::Process`](super::Action) says so. While the switch is being made either may do
    /// it. A CPU that is down is switched back when it is up again, or its callbacks are
    /// [adopted](Tree::adopt_callbacks) then.
    ///
    /// Linux: `rcu_nocb_cpu_offload`, `rcu_nocb_cpu_deoffload`. Any CPU.
    pub fn set_offloaded(&self, cpu: u32, offloaded: bool) -> Due {
        self.percpu(cpu).is_offloaded.store(offloaded, Ordering::Relaxed);
        self.process_due(cpu)
    }

    /// Whether `cpu`'s callbacks are run by a thread. Any CPU.
    pub fn is_offloaded(&self, cpu: u32) -> bool {
        self.percpu(cpu).is_offloaded.load(Ordering::Relaxed)
    }

    /// Whether callbacks of `cpu` wait for a grace period. The CPU finds out that it has ended at a quiescent state, a
    /// tick; one that idles by [`Action::Process`](super::Action). A CPU that is busy and has no ticks needs one as long
    /// as this is so, or [`Action::MayBeDue`](super::Action). Any CPU; out of date at once. Cost: a load.
    #[inline]
    pub fn has_waiting(&self, cpu: u32) -> bool {
        self.percpu(cpu).has_waiting.load(Ordering::Relaxed)
    }

    /// Takes over the callbacks of `from`, which is down, on the executing CPU. Those of an off-loaded CPU stay, because
    /// their thread does.
    ///
    /// Linux: `rcutree_migrate_callbacks`. Contexts: task. `from` is neither the executing CPU nor up.
    pub fn adopt_callbacks(&self, cpu: u32, from: u32) -> Due {
        assert!(cpu != from, "a CPU cannot take over from itself");
        let (here, there) = (self.percpu(cpu), self.percpu(from));
        if there.is_offloaded.load(Ordering::Relaxed) {
            return Due::NOTHING;
        }
        // A barrier that looks at one CPU after the other finds each callback on one of them.
        let _no_barrier_looks = (!faulty!(self, BarrierMissesMoved)).then(|| self.moves.lock());
        let (mut own, mut other);
        if cpu < from {
            own = here.lock();
            other = there.lock_second();
        } else {
            other = there.lock();
            own = here.lock_second();
        }
        debug_assert!(!other.is_running, "callbacks are called on a CPU that is down");
        own.callbacks.adopt(&mut other.callbacks);
        // Something or nothing: as it was here if there was nothing to adopt.
        if own.total() != 0 {
            here.has.store(Has::SOME, Ordering::Relaxed);
        }
        there.has.store(Has::NONE, Ordering::Relaxed);
        there.has_waiting.store(false, Ordering::Relaxed);
        let mut state = self.lock(there.leaf);
        state.callbacks &= !there.bit;
        drop(state);
        drop((own, other));
        self.process_due(cpu)
    }
}
