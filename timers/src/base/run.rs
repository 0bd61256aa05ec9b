//! Calling what is due.

use core::panic::Location;
use core::ptr::{self, NonNull};

use hal::Platform;
use sync::Cpu;
use sync::context::Balance;

use super::arm::{settle, unlock};
use super::parts::exposed;
use super::{
    Again, Base, Core, Flags, FunctionName, Inner, Locked, NO_LIMIT, Ops, Reference, settled_expires,
};
use crate::faults::{Fault, is_planted};
use crate::queue::{Entry, Queue};

/// What a callback is told.
pub(crate) struct Context<Q: Queue, P: Platform> {
    /// What time it was when the timer was detached.
    pub(crate) now: u64,
    /// When it was due.
    pub(crate) expired: u64,
    pub(crate) core: NonNull<Core<Q, P>>,
}

/// A timer that was taken out of the queue, to be called.
struct Detached<Q: Queue, P: Platform> {
    context: Context<Q, P>,
    ops: &'static Ops<Q, P>,
    flags: Flags,
}

/// How many calls in a row are timed, if any are, and how many of those that follow go untimed for each that is timed: to
/// look at the clock twice costs as much as to call a timer.
const TIMED: u32 = 64;
const UNTIMED: u32 = 8;

impl<Q: Queue, P: Platform> Base<Q, P> {
    /// Calls all timers that are due, one after the other, until none is; returns how many. `now` says what time it is, and is
    /// asked before each call. If somebody else is at it already, that one does it, and this returns 0.
    ///
    /// Contexts: softirq, or hardirq if this base's functions are called there.
    pub(crate) fn run(&'static self, mut now: impl FnMut() -> u64) -> u32 {
        let limit = self.slow_ns.load(core::sync::atomic::Ordering::Relaxed);
        let mut count = 0;
        let mut quiet = Cpu::<P>::disable_interrupts();
        let mut locked = self.lock(&quiet);
        if locked.is_running() && !is_planted(Fault::RunTwice) {
            return 0;
        }
        while let Some(timer) = self.detach(&mut locked, now()) {
            drop(locked);
            // With interrupts off if that is what it was made for.
            let kept = timer.flags.has(Flags::IRQSAFE).then_some(quiet);
            P::chaos_point();
            let stuck = Unwinding { base: self };
            let timed = limit != NO_LIMIT && (count < TIMED || count % UNTIMED == 0);
            let slow = if timed { timer.call_timed() } else { timer.call() };
            core::mem::forget(stuck);
            count += 1;
            P::chaos_point();
            quiet = Cpu::<P>::disable_interrupts();
            drop(kept);
            locked = self.lock(&quiet);
            if let Some((name, ns)) = slow {
                locked.stats.note_slow(name, ns, ns > limit);
            }
            let left;
            (locked, left) = self.finish(&quiet, locked, timer);
            if let Some(left) = left {
                // Without the lock, and before anything else is detached: what is dropped here may shut other timers down,
                // and then none of them is called any more.
                drop(locked);
                drop(quiet);
                left.let_go();
                quiet = Cpu::<P>::disable_interrupts();
                locked = self.lock(&quiet);
                if locked.is_running() {
                    return count;
                }
            }
        }
        let next = locked.next();
        self.set_due(next);
        count
    }
}

impl<Q: Queue, P: Platform> Base<Q, P> {
    /// Takes a timer that is due at `now` out of the queue and notes it as running.
    #[inline(always)]
    fn detach(&'static self, inner: &mut Inner<Q, P>, now: u64) -> Option<Detached<Q, P>> {
        inner.now = now.max(inner.now);
        loop {
            let entry = inner.queue.pop_due(now)?;
            // The pointer that it was armed by, which may reach the whole timer and, of an `Arc`, the counts beside it.
            let core = exposed::<Q, P>(entry.cast());
            // SAFETY: it was in the queue, so it is armed, and its reference, which is ours now, keeps it alive (B2). A core
            // begins with its entry.
            let timer = unsafe { core.as_ref() };
            let expired = settled_expires(&timer.entry);
            if expired > now {
                // It was moved to a later time while the queue gave it up.
                // SAFETY: just taken out, and still armed.
                unsafe { inner.queue.insert(entry, now) };
                continue;
            }
            let ops = timer.ops();
            inner.running = if ops.nameless { ptr::dangling_mut() } else { core.as_ptr() };
            inner.runner = P::cpu();
            inner.stats.note_call(now - expired);
            let context = Context { now, expired, core };
            return Some(Detached { context, ops, flags: timer.word().flags() });
        }
    }

    /// The call is over: the timer runs no more, and is put in again if that is wanted. Returns the reference that is not
    /// needed any more.
    #[inline(always)]
    fn finish<'a>(
        &'static self,
        quiet: &'a sync::IrqGuard<P>,
        mut locked: Locked<'a, Q, P>,
        timer: Detached<Q, P>,
    ) -> (Locked<'a, Q, P>, Option<Reference<Q, P>>) {
        locked.running = ptr::null_mut();
        let own = Reference { core: timer.context.core, ops: timer.ops };
        match locked.again.take() {
            // Of the timer nothing is read: it may be gone.
            None if is_planted(Fault::TouchAfterCall) => {
                // SAFETY: none; it may be gone.
                unsafe { own.core.as_ref() }.expires();
                (locked, Some(own))
            }
            None => (locked, own.ops.release.is_some().then_some(own)),
            Some(again) => self.put_in_again(quiet, locked, own, again),
        }
    }

    #[cold]
    fn put_in_again<'a>(
        &'static self,
        quiet: &'a sync::IrqGuard<P>,
        mut locked: Locked<'a, Q, P>,
        own: Reference<Q, P>,
        again: Again<Q, P>,
    ) -> (Locked<'a, Q, P>, Option<Reference<Q, P>>) {
        // SAFETY: the call's reference, or the one that came with the wish, keeps it alive.
        let core = unsafe { own.core.as_ref() };
        let (armed, left) = match again.reference {
            None => (own, None),
            Some(ops) => (Reference { core: own.core, ops }, Some(own)),
        };
        // Not at once once more: a function that arms its timer for what has passed would keep this CPU for ever.
        core.entry.set_expires(again.expires.max(locked.now.saturating_add(1)));
        core.set_ops(armed.ops);
        if locked.heir.is_some() {
            // The CPU has gone off-line meanwhile. The timer runs no more, so it may leave.
            let word = core.word();
            core.set_word(word.with(Flags::MOVING));
            drop(locked);
            settle(quiet, &armed, word.flags(), self);
            return (self.lock(quiet), left);
        }
        let now = self.now(&mut locked);
        // SAFETY: in no queue (B4); the armed state has its reference.
        let earlier = unsafe { locked.queue.insert(armed.core.cast(), now) };
        if earlier {
            unlock(self, locked, true);
            return (self.lock(quiet), left);
        }
        (locked, left)
    }
}

impl<Q: Queue, P: Platform> Detached<Q, P> {
    /// Calls the function; reports and mends what it leaves switched off.
    #[inline(always)]
    fn call(&self) -> Option<(FunctionName, u64)> {
        let balance = Balance::<P>::now();
        // SAFETY: detached, with its reference.
        let function = unsafe { (self.ops.call)(self.context.core, &self.context) };
        if !balance.is_kept() {
            leaked(balance, self.ops.name(function));
        }
        None
    }

    /// The same, and how long it took.
    #[inline(never)]
    fn call_timed(&self) -> Option<(FunctionName, u64)> {
        let begun = P::now_ns();
        let balance = Balance::<P>::now();
        // SAFETY: as above.
        let function = unsafe { (self.ops.call)(self.context.core, &self.context) };
        if !balance.is_kept() {
            leaked(balance, self.ops.name(function));
        }
        Some((self.ops.name(function), P::now_ns().saturating_sub(begun)))
    }
}

#[cold]
fn leaked<P: Platform>(balance: Balance<P>, name: FunctionName) {
    balance.check(format_args!("timer: {name}"), Location::caller());
}

/// A function that unwinds leaves its timer not running. Its reference is lost with it.
struct Unwinding<Q: Queue, P: Platform> {
    base: &'static Base<Q, P>,
}

impl<Q: Queue, P: Platform> Drop for Unwinding<Q, P> {
    #[cold]
    fn drop(&mut self) {
        let quiet = Cpu::<P>::disable_interrupts();
        let mut locked = self.base.lock(&quiet);
        locked.running = ptr::null_mut();
        locked.again = None;
    }
}
