//! Calling what is due.

use core::panic::Location;
use core::ptr::NonNull;

use hal::Platform;
use sync::Cpu;
use sync::context::Balance;
use sync::irq::IrqGuard;
use sync::lockdep::Acquire;

use super::batch::{Batch, Slot};
use super::parts::{Call, Kinds, exposed};
use super::{Base, Core, Flags, FunctionName, Inner, NO_LIMIT, Ops, Reference};
use crate::faults::{Fault, is_planted};
use crate::queue::{DueNow, Entry, Queue};
use crate::timer::Firing;

/// How many calls in a row are timed, if any are, and how many of those that follow go untimed for each that is timed: to
/// look at the clock twice costs as much as to call a timer.
const TIMED: u32 = 64;
const UNTIMED: u32 = 8;

/// A timer that is running.
///
/// # Invariants
/// It was claimed in `slot` by who has this, and has not been called.
struct Claimed<'a, Q: Queue, P: Platform> {
    core: NonNull<Core<Q, P>>,
    slot: &'a Slot,
    /// When it was due.
    expired: u64,
    /// Interrupts are off during the call.
    kept: Option<IrqGuard<P>>,
}

impl<Q: Queue, P: Platform> Base<Q, P> {
    /// Calls all timers that are due, one after the other, until none is; returns how many. `now` says what time it is, and is
    /// asked before each batch. If somebody else is at it already, that one does it, and this returns 0.
    ///
    /// Contexts: softirq, or hardirq if this base's functions are called there.
    pub(crate) fn run(&'static self, mut now: impl FnMut() -> u64) -> u32 {
        let limit = self.slow_ns.load(core::sync::atomic::Ordering::Relaxed);
        let mut count = 0;
        let mut batch = Batch::new();
        let mut quiet = Cpu::<P>::disable_interrupts();
        let mut locked = self.lock(&quiet);
        if locked.busy && !is_planted(Fault::RunTwice) {
            return 0;
        }
        (locked.busy, locked.runner) = (true, P::cpu());
        let stuck = Unwinding { base: self };
        loop {
            let at = now();
            match locked.queue.pop_single(at) {
                DueNow::Nothing => {
                    locked.now = at.max(locked.now);
                    break;
                }
                DueNow::Single(entry) => {
                    locked.now = at.max(locked.now);
                    let core = exposed::<Q, P>(entry.cast());
                    // SAFETY: it was in the queue, so it is armed, and its reference keeps it alive (B2).
                    let timer = unsafe { core.as_ref() };
                    let slot = self.slots.single();
                    slot.begin(timer);
                    let (expired, irqsafe) = (timer.entry.expires(), timer.kinds().has(Kinds::IRQSAFE));
                    drop(locked);
                    let kept = if irqsafe {
                        Some(quiet)
                    } else {
                        drop(quiet);
                        None
                    };
                    P::chaos_point();
                    let claimed = Claimed { core, slot, expired, kept };
                    self.call_one(claimed, &mut Firing::new(at), limit, count);
                    count += 1;
                    P::chaos_point();
                    quiet = Cpu::<P>::disable_interrupts();
                    locked = self.lock(&quiet);
                    continue;
                }
                DueNow::Perhaps => {}
            }
            let all = self.fill(&mut locked, at, &mut batch);
            if batch.is_empty() && all {
                break;
            }
            drop(locked);
            drop(quiet);
            P::chaos_point();
            count += if batch.kinds.is_plain() && !batch.mixed && limit == NO_LIMIT && !sync::lockdep::ENABLED
            {
                self.call_plain(&batch, at)
            } else {
                self.call_each(&batch, &mut Firing::new(at), limit, count)
            };
            P::chaos_point();
            quiet = Cpu::<P>::disable_interrupts();
            locked = self.lock(&quiet);
        }
        core::mem::forget(stuck);
        if self.stop(&mut locked) {
            drop(locked);
            drop(quiet);
            self.hand_over();
        }
        count
    }

    /// The runner has nothing more to do here. Returns whether the CPU has gone off-line: then what is left here was left to
    /// the runner.
    fn stop(&self, inner: &mut Inner<Q, P>) -> bool {
        inner.busy = false;
        let next = inner.next();
        self.set_due(next);
        inner.heir.is_some()
    }

    /// Calls what is in the slots: timers of no special kind, all of which were due at one time. Returns how many.
    fn call_plain(&'static self, batch: &Batch, now: u64) -> u32 {
        let mut firing = Firing::<Q, P>::due_at(now, batch.due);
        let called = batch.len() - call_in_a_row(self.slots.filled(batch), &mut firing);
        // If none was due after all, or all were taken back, nothing was late.
        if called != 0 {
            self.stats.note_calls(now - batch.due, called);
        }
        called
    }

    /// The same, for timers of all kinds. `limit` is what is slow, `count` how many were called before.
    #[inline(never)]
    fn call_each(&'static self, batch: &Batch, firing: &mut Firing<'_, Q, P>, limit: u64, count: u32) -> u32 {
        let mut called = 0;
        for (slot, expired) in self.slots.filled_when(batch) {
            // From the claim on, if that is what it was made for: until its call is over nothing else happens on this CPU.
            let quiet = batch.kinds.has(Kinds::IRQSAFE).then(Cpu::<P>::disable_interrupts);
            let Some(core) = slot.claim::<Q, P>() else { continue };
            // SAFETY: claimed, so that it is armed no more and its reference is ours.
            let kept = quiet.filter(|_| unsafe { core.as_ref() }.word().has(Flags::IRQSAFE));
            self.call_one(Claimed { core, slot, expired, kept }, firing, limit, count + called);
            called += 1;
        }
        called
    }

    /// Calls a timer of any kind. `limit` is what is slow, `before` how many were called before.
    #[inline(always)]
    fn call_one(
        &'static self,
        claimed: Claimed<'_, Q, P>,
        firing: &mut Firing<'_, Q, P>,
        limit: u64,
        before: u32,
    ) {
        let Claimed { core, slot, expired, kept } = claimed;
        // SAFETY: claimed, so that it is armed no more and its reference is ours.
        let timer = unsafe { core.as_ref() };
        let (function, ops) = (timer.function(), timer.ops());
        let nameless = ops.kinds.has(Kinds::NAMELESS);
        self.stats.note_calls(firing.now_word() - expired, 1);
        firing.begin(expired);
        firing.set_timer(core);
        firing.set_ops(ops);
        if nameless || is_planted(Fault::EndEarly) {
            // Its memory is about to be another timer's, which does not run.
            slot.end();
        } else {
            timer.map.acquire::<P>(Acquire::TRY_WRITE, timer.made());
        }
        P::chaos_point();
        let timed = limit != NO_LIMIT && (before < TIMED || before.is_multiple_of(UNTIMED));
        let begun = if timed { P::now_ns() } else { 0 };
        let balance = Balance::<P>::now();
        // SAFETY: its function, and it is ours to call.
        unsafe { function(core, firing) };
        if !balance.is_kept() {
            leaked::<Q, P>(balance, ops, function);
        }
        let slow = timed.then(|| (ops.name(function), P::now_ns().saturating_sub(begun)));
        P::chaos_point();
        if !nameless {
            // The call's reference keeps it alive.
            timer.map.release::<P>(timer.made());
        }
        let left = self.finish(slot, firing, Reference { core, ops });
        drop(kept);
        if let Some(reference) = left {
            // With interrupts as they were. What is dropped here may shut down timers that wait in other slots, and then
            // they are not called any more.
            reference.let_go();
        }
        if let Some((name, ns)) = slow {
            self.note_slow(name, ns, ns > limit);
        }
    }

    /// The call is over. Returns its reference, unless the armed state has it now.
    #[inline(always)]
    fn finish(
        &'static self,
        slot: &Slot,
        firing: &Firing<'_, Q, P>,
        own: Reference<Q, P>,
    ) -> Option<Reference<Q, P>> {
        if is_planted(Fault::TouchAfterCall) {
            // SAFETY: none; it may be gone.
            unsafe { own.core.as_ref() }.expires();
        }
        if own.ops.kinds.has(Kinds::NAMELESS) {
            return None;
        }
        if !firing.was_rearmed() {
            slot.end();
            return own.ops.release.is_some().then_some(own);
        }
        let quiet = Cpu::<P>::disable_interrupts();
        let mut locked = self.lock(&quiet);
        // In one step: from here on the armed state's reference is like any other (B4).
        slot.end();
        let handed = core::mem::take(&mut locked.handed);
        drop(locked);
        (!handed && own.ops.release.is_some()).then_some(own)
    }

    #[cold]
    fn note_slow(&self, name: FunctionName, ns: u64, beyond_limit: bool) {
        let quiet = Cpu::<P>::disable_interrupts();
        self.lock(&quiet).slowest.note(name, ns, beyond_limit);
    }
}

/// The part of [`call_plain`](Base::call_plain) that is done for each timer that becomes due. A function of its own, which
/// keeps what it needs in registers.
#[inline(never)]
fn call_in_a_row<Q: Queue, P: Platform>(slots: &[Slot], firing: &mut Firing<'_, Q, P>) -> u32 {
    let mut balance = Balance::<P>::now();
    let mut left = slots.len();
    while left != 0 {
        // SAFETY: not 0, and at most as many as there are.
        let slot = unsafe { slots.get_unchecked(left - 1) };
        if let Some(core) = slot.claim::<Q, P>() {
            firing.set_timer(core);
            // SAFETY: claimed, so that it is armed no more and its reference is ours; of this kind it stays until `end`.
            let function = unsafe { core.as_ref() }.function();
            // SAFETY: its function, and it is ours to call.
            unsafe { function(core, firing) };
            if !balance.is_kept() {
                // SAFETY: as above.
                let timer = unsafe { firing.timer().as_ref() };
                leaked::<Q, P>(balance, timer.ops(), timer.function());
                balance = Balance::now();
            }
            slot.end();
        } else {
            firing.skip();
        }
        // Last, so that what counts down also ends the loop.
        left -= 1;
    }
    firing.skipped()
}

/// A function has left something switched off: that is reported under its name, and mended.
#[cold]
#[inline(never)]
fn leaked<Q: Queue, P: Platform>(balance: Balance<P>, ops: &'static Ops<Q, P>, function: Call<Q, P>) {
    balance.check(format_args!("timer: {}", ops.name(function)), Location::caller());
}

/// A function that unwinds leaves its timer not running. Its reference is lost with it. Those whose turn has not come go
/// back to the queue.
struct Unwinding<Q: Queue, P: Platform> {
    base: &'static Base<Q, P>,
}

impl<Q: Queue, P: Platform> Drop for Unwinding<Q, P> {
    #[cold]
    fn drop(&mut self) {
        let base = self.base;
        let quiet = Cpu::<P>::disable_interrupts();
        let mut locked = base.lock(&quiet);
        let now = base.now(&mut locked);
        base.slots.clear::<Q, P>(|core| {
            // SAFETY: it is armed and in no queue, and the armed state has its reference.
            _ = unsafe { locked.queue.insert(core.cast(), now) };
        });
        locked.handed = false;
        if base.stop(&mut locked) {
            drop(locked);
            drop(quiet);
            base.hand_over();
        }
    }
}
