//! Who drives grace periods, who shares them, and the callbacks that wait for them.
//!
//! 1. Whoever wants a grace period takes its cookie and raises *wanted* to it. That number is all there is of requests: a
//!    hundred who wait for the same period have raised it once.
//! 2. One execution at a time is in the driver's *seat*. It begins a period while one is wanted, looks at the readers, and
//!    ends the period or leaves it running. Nobody waits for the seat: who finds it taken comes again.
//! 3. Callbacks wait in one list, by periods. They are called in the seat, in the order in which they were queued. So a
//!    barrier is a number too: when as many have been called as had been queued, it is over.

use core::mem;
use core::ptr::NonNull;

use hal::Platform;
use sync::{Cpu, SpinLock};

use super::machine::{Machine, Phase, Rules, Sound, Sum};
use crate::callbacks::{Queue, Segmented};
use crate::head::{Callback, Head};
use crate::primitives::{AtomicBool, AtomicUsize, Cell, Ordering, const_fn};
use crate::seq::{Cookie, ROUND, has_reached};
use crate::tree::lock::NodeFlavor as ListFlavor;

/// The most callbacks that are called in one turn.
const MOST_CALLED: usize = 1_024;

/// What a turn in the seat has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Nobody wants a grace period.
    Idle,
    /// One has ended.
    Ended,
    /// Readers are waited for, and have been for so many ns.
    Waits(u64),
}

/// How far the running grace period has come.
#[derive(Clone, Copy)]
struct Progress {
    phase: Phase,
    /// When readers were first found in its way; 0 if none were.
    waits_since_ns: u64,
    /// When it is next to be reported as stalled.
    stalls_at_ns: u64,
}

struct Callbacks {
    list: Segmented,
    /// How many have been queued since the beginning.
    queued: usize,
}

/// Everything of a domain but its counters.
pub(super) struct Core<P: Platform, R: Rules = Sound> {
    pub(super) machine: Machine<P, R>,
    /// Somebody is in the driver's seat.
    is_driven: AtomicBool,
    /// The driver's.
    progress: Cell<Progress>,
    /// The number of the last cookie that somebody wants.
    wanted: AtomicUsize,
    callbacks: SpinLock<Callbacks, ListFlavor<P>>,
    /// How many have been called since the beginning. Written in the seat.
    called: AtomicUsize,
}

// SAFETY: `progress` is used by who is in the seat only.
unsafe impl<P: Platform, R: Rules> Sync for Core<P, R> {}
// SAFETY: as above; the callbacks may be called by any task (`call`'s contract).
unsafe impl<P: Platform, R: Rules> Send for Core<P, R> {}

impl<P: Platform, R: Rules> Core<P, R> {
    const_fn! {
        pub(super) fn new() -> Core<P, R> {
            Core {
                machine: Machine::new(),
                is_driven: AtomicBool::new(false),
                progress: Cell::new(Progress { phase: Phase::First, waits_since_ns: 0, stalls_at_ns: 0 }),
                // What a sequence begins with, so reached.
                wanted: AtomicUsize::new(0_usize.wrapping_sub(256 * ROUND)),
                callbacks: SpinLock::new(Callbacks { list: Segmented::new(), queued: 0 }),
                called: AtomicUsize::new(0),
            }
        }
    }

    /// Asks for the grace period. Returns whether nobody had, so that somebody may have to be told.
    pub(super) fn request(&self, cookie: Cookie) -> bool {
        let mut seen = self.wanted.load(Ordering::Relaxed);
        while !has_reached(seen, cookie.number()) {
            // Relaxed: what the period is to cover is ordered by the sequence.
            match self.wanted.compare_exchange(seen, cookie.number(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Whether a grace period is wanted that has not ended.
    pub(super) fn is_wanted(&self) -> bool {
        !has_reached(self.machine.rounds.number(), self.wanted.load(Ordering::Relaxed))
    }

    /// Queues a callback and asks for its grace period; returns whether somebody has to be told.
    ///
    /// # Safety
    /// `Domain::call`'s contract.
    #[track_caller]
    pub(super) unsafe fn call(&self, head: NonNull<Head>, function: Callback) -> bool {
        let mut callbacks = self.callbacks.lock();
        // SAFETY: the contract.
        if !unsafe { callbacks.list.push::<P>(head, function) } {
            return false;
        }
        callbacks.queued = callbacks.queued.wrapping_add(1);
        // The cookie is taken when the callback is in the list.
        let needed = callbacks.list.accelerate(self.machine.snapshot());
        drop(callbacks);
        needed.is_some_and(|cookie| self.request(cookie))
    }

    /// How many have been queued, for `have_called`.
    pub(super) fn queued(&self) -> usize {
        self.callbacks.lock().queued
    }

    /// Whether so many have been called. If so, what they did happens before what follows.
    pub(super) fn have_called(&self, queued: usize) -> bool {
        // Acquire: pairs with the Release in `call_ready`.
        has_reached(self.called.load(Ordering::Acquire), queued)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.queued().wrapping_sub(self.called.load(Ordering::Relaxed))
    }

    /// Takes the driver's seat, if it is free.
    pub(super) fn sit(&self) -> Option<Seat<'_, P, R>> {
        // Acquire: pairs with the Release when the seat is left.
        self.is_driven.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        P::chaos_point();
        // INVARIANT: taken just now.
        Some(Seat { core: self })
    }
}

/// The right to drive.
///
/// # Invariants
/// `is_driven` is set by this value.
pub(super) struct Seat<'a, P: Platform, R: Rules> {
    core: &'a Core<P, R>,
}

impl<P: Platform, R: Rules> Seat<'_, P, R> {
    /// Takes the grace period as far as it goes without waiting.
    pub(super) fn turn(&mut self, sum: impl Sum) -> Turn {
        let core = self.core;
        if !core.is_wanted() {
            return Turn::Idle;
        }
        let mut progress = core.progress.get();
        let ended = core.machine.turn(&mut progress.phase, sum);
        let turn = if ended {
            progress.waits_since_ns = 0;
            Turn::Ended
        } else {
            let now = P::now_ns();
            if progress.waits_since_ns == 0 {
                progress.waits_since_ns = now.max(1);
                progress.stalls_at_ns = 0;
            }
            Turn::Waits(now.saturating_sub(progress.waits_since_ns))
        };
        core.progress.set(progress);
        turn
    }

    /// Whether a grace period that has waited so long is to be reported, after `limit_ns`, and each time that it has become
    /// half as long again.
    pub(super) fn is_stalled(&mut self, waited_ns: u64, limit_ns: u64) -> bool {
        let mut progress = self.core.progress.get();
        if waited_ns < limit_ns.max(progress.stalls_at_ns) {
            return false;
        }
        progress.stalls_at_ns = waited_ns.saturating_add(limit_ns.max(waited_ns / 2)).max(1);
        self.core.progress.set(progress);
        true
    }

    /// Calls callbacks whose grace period has ended, with bottom halves off. Returns whether more are ready.
    ///
    /// # Safety
    /// Softirqs may come here.
    pub(super) unsafe fn call_ready(&mut self) -> bool {
        let core = self.core;
        let (ready, needed, is_more) = {
            let mut callbacks = core.callbacks.lock();
            // Only in the seat does the number change: the readers' ends happen before this look at it.
            callbacks.list.advance(core.machine.rounds.number());
            let needed = callbacks.list.accelerate(core.machine.snapshot());
            let ready = callbacks.list.take_done(MOST_CALLED);
            (ready, needed, callbacks.list.len_of(crate::callbacks::Segment::Done) != 0)
        };
        if let Some(cookie) = needed {
            // Whoever is in the seat looks again.
            core.request(cookie);
        }
        if ready.is_empty() {
            return is_more;
        }
        let mut rest = Rest { core, queue: ready };
        let _no_softirqs = Cpu::<P>::disable_bottom_halves();
        while let Some(head) = rest.queue.pop() {
            let called = Called(core);
            let _after = R::CALLED_AFTER.then_some(called);
            // SAFETY: a grace period has passed since it was queued; taken out just now.
            unsafe { Head::invoke(head) };
        }
        is_more
    }
}

impl<P: Platform, R: Rules> Drop for Seat<'_, P, R> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `sit`: one driver's turn comes after the other's.
        self.core.is_driven.store(false, Ordering::Release);
    }
}

/// A callback that is being called, and counts as called even if it panics.
struct Called<'a, P: Platform, R: Rules>(&'a Core<P, R>);

impl<P: Platform, R: Rules> Drop for Called<'_, P, R> {
    fn drop(&mut self) {
        let called = self.0.called.load(Ordering::Relaxed).wrapping_add(1);
        // Release: pairs with the Acquire in `have_called`.
        self.0.called.store(called, Ordering::Release);
    }
}

/// What is left to be called when a callback panics: it goes back to the front of those that are ready.
struct Rest<'a, P: Platform, R: Rules> {
    core: &'a Core<P, R>,
    queue: Queue,
}

impl<P: Platform, R: Rules> Drop for Rest<'_, P, R> {
    fn drop(&mut self) {
        if !self.queue.is_empty() {
            self.core.callbacks.lock().list.put_back(mem::take(&mut self.queue));
        }
    }
}
