//! Arming, and changing when an armed timer is due.

use core::panic::Location;
use core::ptr;

use hal::Platform;
use hal::percpu::IrqsOff;
use hal::platform::{Report, Severity};

use super::parts::{Word, exposed};
use super::{Again, Base, Core, Flags, Inner, Locked, Reference};
use crate::faults::{Fault, is_planted};
use crate::queue::{Entry, Queue};

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// It is not armed: arm it.
    Add,
    /// Arm it, or change when it is due.
    Modify,
    /// Arm it, or change when it is due to an earlier time.
    Reduce,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Armed {
    /// It was not armed and is; the reference is the armed state's.
    Now,
    /// It was armed already. The reference is the caller's to let go of.
    Before,
    /// It is not armed, and is shut down. The reference is the caller's to let go of.
    Refused,
}

/// Arms the timer that `reference` points to, in `target`, or changes when it is due.
///
/// A timer that is running stays with its base (B4); one that is armed and tied to a CPU stays there; all others come to
/// `target`.
#[inline]
pub(crate) fn arm<Q: Queue, P: Platform>(
    quiet: &impl IrqsOff,
    reference: &Reference<Q, P>,
    target: &'static Base<Q, P>,
    expires: u64,
    how: How,
    at: &'static Location<'static>,
) -> Armed {
    // SAFETY: the reference keeps it alive.
    let core = unsafe { reference.core.as_ref() };
    loop {
        let word = core.word();
        if word.has(Flags::MOVING) {
            P::relax();
            continue;
        }
        let Some(base) = word.base() else {
            if word.has(Flags::SHUT) {
                return Armed::Refused;
            }
            if core.exchange_word(word, word.with(Flags::MOVING)) {
                core.entry.set_expires(expires);
                take(core, reference, at);
                settle(quiet, reference, word.with(added(reference)).flags(), target);
                return Armed::Now;
            }
            continue;
        };
        P::chaos_point();
        let mut locked = base.lock(quiet);
        if core.word() != word {
            // It left, or was shut down, while we waited (B1).
            drop(locked);
            P::relax();
            continue;
        }
        if word.has(Flags::SHUT) {
            return Armed::Refused;
        }
        if reference.ops.embedded && !word.has(Flags::EMBEDDED) {
            core.set_word(word.with(Flags::EMBEDDED));
            continue;
        }
        if Core::is(core, locked.running) && !is_planted(Fault::MoveRunning) {
            return arm_again(core, &mut locked, reference, expires, how, at);
        }
        let was_armed = core.entry.is_linked();
        if was_armed {
            match how {
                How::Add => {
                    drop(locked);
                    report_armed::<Q, P>(core, at);
                    return Armed::Before;
                }
                How::Reduce if expires >= core.entry.expires() => return Armed::Before,
                How::Reduce | How::Modify => {}
            }
            if ptr::eq(base, target) || word.has(Flags::PINNED.and(Flags::DEFERRABLE)) {
                let now = base.now(&mut locked);
                // SAFETY: linked in the queue of its base (B2), whose lock is held.
                let earlier = unsafe { locked.queue.modify(reference.core.cast(), expires, now) };
                unlock(base, locked, earlier);
                return Armed::Before;
            }
            // SAFETY: as above.
            unsafe { locked.queue.remove(reference.core.cast()) };
            core.entry.set_expires(expires);
        } else {
            core.entry.set_expires(expires);
            take(core, reference, at);
            if ptr::eq(base, target) && locked.heir.is_none() {
                insert(reference, base, locked);
                return Armed::Now;
            }
        }
        // It is ours until it is in the other base (B1).
        core.set_word(word.with(Flags::MOVING));
        drop(locked);
        P::chaos_point();
        settle(quiet, reference, word.flags(), target);
        return if was_armed { Armed::Before } else { Armed::Now };
    }
}

/// The flags that arming by this pointer adds.
fn added<Q: Queue, P: Platform>(reference: &Reference<Q, P>) -> Flags {
    if reference.ops.embedded { Flags::EMBEDDED } else { Flags::NONE }
}

/// The armed state gets the reference.
#[inline(always)]
fn take<Q: Queue, P: Platform>(
    core: &Core<Q, P>,
    reference: &Reference<Q, P>,
    at: &'static Location<'static>,
) {
    core.set_ops(reference.ops);
    core.set_armed_at(at);
    // Whoever detaches it makes the pointer anew, with all that this one may reach.
    let _ = reference.core.as_ptr().expose_provenance();
}

/// Puts a timer that belongs to the caller, with its time set, into `target`.
pub(super) fn settle<Q: Queue, P: Platform>(
    quiet: &impl IrqsOff,
    reference: &Reference<Q, P>,
    flags: Flags,
    target: &'static Base<Q, P>,
) {
    // SAFETY: the reference keeps it alive.
    let core = unsafe { reference.core.as_ref() };
    let mut target = target;
    let locked = loop {
        let locked = target.lock(quiet);
        match locked.heir {
            None => break locked,
            Some(heir) => target = heir,
        }
    };
    // Before anybody can find it in the queue.
    core.set_word(Word::of(target, flags));
    insert(reference, target, locked);
}

/// Puts a timer into the queue of its base.
#[inline(always)]
fn insert<Q: Queue, P: Platform>(
    reference: &Reference<Q, P>,
    base: &'static Base<Q, P>,
    mut locked: Locked<'_, Q, P>,
) {
    let now = base.now(&mut locked);
    // SAFETY: in no queue, and it neither moves nor ends while the armed state has its reference (or, embedded, until it is
    // dropped, which checks).
    let earlier = unsafe { locked.queue.insert(reference.core.cast(), now) };
    unlock(base, locked, earlier);
}

/// Moves one timer from a base to its heir. Returns whether there was one.
pub(super) fn move_one<Q: Queue, P: Platform>(
    quiet: &impl IrqsOff,
    from: &'static Base<Q, P>,
    mut locked: Locked<'_, Q, P>,
    heir: &'static Base<Q, P>,
) -> bool {
    let Some(entry) = locked.queue.pop_any() else {
        from.set_due(u64::MAX);
        return false;
    };
    let core = exposed(entry.cast());
    // SAFETY: it was in the queue, so it is armed, and the armed state's reference keeps it alive (B2).
    let timer = unsafe { core.as_ref() };
    let word = timer.word();
    // Ours until it is in the other base (B1).
    timer.set_word(word.with(Flags::MOVING));
    let reference = Reference { core, ops: timer.ops() };
    drop(locked);
    P::chaos_point();
    settle(quiet, &reference, word.flags(), heir);
    true
}

/// Lets go of the lock, and tells whoever sleeps too long, if the queue's next has become `earlier`.
#[inline(always)]
pub(super) fn unlock<Q: Queue, P: Platform>(
    base: &'static Base<Q, P>,
    mut locked: Locked<'_, Q, P>,
    earlier: bool,
) {
    if !earlier {
        return;
    }
    let told = base.note_earlier(&mut locked);
    drop(locked);
    if let Some(next) = told {
        base.tell(next);
    }
}

/// Arms a timer that is running (B4).
fn arm_again<Q: Queue, P: Platform>(
    core: &Core<Q, P>,
    inner: &mut Inner<Q, P>,
    reference: &Reference<Q, P>,
    expires: u64,
    how: How,
    at: &'static Location<'static>,
) -> Armed {
    match &mut inner.again {
        Some(again) => {
            match how {
                How::Add => report_armed::<Q, P>(core, at),
                How::Modify => again.expires = expires,
                How::Reduce => again.expires = again.expires.min(expires),
            }
            Armed::Before
        }
        None => {
            inner.again = Some(Again { expires, reference: Some(reference.ops) });
            core.set_armed_at(at);
            Armed::Now
        }
    }
}

#[cold]
fn report_armed<Q: Queue, P: Platform>(core: &Core<Q, P>, at: &'static Location<'static>) {
    let severity = Severity::Bug;
    match core.armed_at() {
        Some(before) => P::report(&Report {
            severity,
            message: format_args!(
                "timer added that is armed already (made at {}, armed at {before})",
                core.made()
            ),
            location: at,
        }),
        None => P::report(&Report {
            severity,
            message: format_args!("timer added that is armed already"),
            location: at,
        }),
    }
}

impl<Q: Queue, P: Platform> Core<Q, P> {
    /// Changes when the timer is due if it is armed. Returns whether it is.
    pub(crate) fn modify_armed(&self, quiet: &impl IrqsOff, expires: u64) -> bool {
        let Some((mut locked, base)) = self.lock_base(quiet) else { return false };
        if Core::is(self, locked.running) {
            let Some(again) = &mut locked.again else { return false };
            again.expires = expires;
            return true;
        }
        if !self.entry.is_linked() {
            return false;
        }
        let now = base.now(&mut locked);
        // SAFETY: linked in the queue of its base (B2), whose lock is held. The pointer is good for the entry alone, and the
        // queue has its own to give back.
        let earlier = unsafe { locked.queue.modify(ptr::NonNull::from(&self.entry), expires, now) };
        unlock(base, locked, earlier);
        true
    }

    /// Arms the timer, which is running, with its call's reference. For its own function. Returns whether it is armed now.
    pub(crate) fn arm_running(&self, expires: u64, at: &'static Location<'static>) -> bool {
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let Some((mut locked, _)) = self.lock_base(&quiet) else { return false };
        debug_assert!(Core::is(self, locked.running), "its function is being called");
        if self.word().has(Flags::SHUT) {
            return false;
        }
        match &mut locked.again {
            Some(again) => again.expires = expires,
            None => locked.again = Some(Again { expires, reference: None }),
        }
        self.set_armed_at(at);
        true
    }
}
