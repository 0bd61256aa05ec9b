//! Arming, and changing when an armed timer is due.

use core::panic::Location;
use core::ptr::{self, NonNull};

use hal::Platform;
use hal::percpu::IrqsOff;
use hal::platform::{Report, Severity};
use sync::irq::IrqGuard;

use super::batch::Place;
use super::parts::{Word, exposed};
use super::{Base, Core, Flags, Locked, Ops, Reference, nothing};
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
    /// It was armed already.
    Before,
    /// It is not armed, and is shut down.
    Refused,
}

/// Arms the timer that `reference` points to, in `target`, or changes when it is due.
///
/// A timer that is running stays with its base (B4), and is not due before the next time that comes: so that a function that
/// arms its timer for what has passed does not keep the CPU for ever. One that is armed and tied to a CPU stays there; all
/// others come to `target`.
///
/// Unless the armed state has the reference afterwards, it is let go of.
#[inline(always)]
pub(crate) fn arm<Q: Queue, P: Platform>(
    quiet: IrqGuard<P>,
    reference: Reference<Q, P>,
    target: &'static Base<Q, P>,
    expires: u64,
    how: How,
    at: &'static Location<'static>,
) -> Armed {
    match how {
        How::Add => add(quiet, reference, target, expires, at),
        How::Modify | How::Reduce => arm_anywhere(quiet, reference, target, expires, how, at),
    }
}

/// As [`arm`]. All that it is given stays where it is until it is given on, so that nothing need be saved.
#[inline(never)]
fn add<Q: Queue, P: Platform>(
    quiet: IrqGuard<P>,
    reference: Reference<Q, P>,
    target: &'static Base<Q, P>,
    expires: u64,
    at: &'static Location<'static>,
) -> Armed {
    if add_at_rest(&quiet, reference.core, reference.ops, target, expires, at) {
        return Armed::Now;
    }
    arm_anywhere(quiet, reference, target, expires, How::Add, at)
}

/// Arms a timer if that takes the fewest steps, as it does for most that are added: it was armed before, in `target`, and is not
/// armed or running; and the lock is free. Returns whether it did.
#[inline(always)]
fn add_at_rest<Q: Queue, P: Platform>(
    quiet: &impl IrqsOff,
    timer: NonNull<Core<Q, P>>,
    ops: &'static Ops<Q, P>,
    target: &'static Base<Q, P>,
    expires: u64,
    at: &'static Location<'static>,
) -> bool {
    // SAFETY: the caller's reference keeps it alive.
    let core = unsafe { timer.as_ref() };
    let word = core.word();
    if !word.rests_in(target) || ops.embedded && !word.has(Flags::EMBEDDED) {
        return false;
    }
    P::chaos_point();
    let Some(mut locked) = target.try_lock(quiet) else { return false };
    // Still so (B1); nobody calls timers, this one perhaps; and there is no heir.
    let is_still = core.word() == word || is_planted(Fault::LookOnce);
    if !is_still || locked.busy || core.entry.is_linked() || locked.heir.is_some() {
        return false;
    }
    let reference = Reference { core: timer, ops };
    core.entry.set_expires(expires);
    take(core, &reference, word.flags(), at);
    let now = target.now(&mut locked);
    // SAFETY: as in `insert`.
    match unsafe { locked.queue.insert_at_once(timer.cast(), now) } {
        Some(false) => true,
        // Not here: what calls functions has registers to save.
        Some(true) => unlock_earlier(target, locked),
        None => false,
    }
}

/// As [`arm`], whatever the timer does.
#[inline(never)]
fn arm_anywhere<Q: Queue, P: Platform>(
    quiet: IrqGuard<P>,
    reference: Reference<Q, P>,
    target: &'static Base<Q, P>,
    expires: u64,
    how: How,
    at: &'static Location<'static>,
) -> Armed {
    let armed = arm_with(&quiet, &reference, target, expires, how, at);
    drop(quiet);
    if armed != Armed::Now {
        reference.let_go();
    }
    armed
}

/// The same, and the reference stays the caller's unless the armed state has it.
#[inline(always)]
fn arm_with<Q: Queue, P: Platform>(
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
                let flags = word.with(added(reference)).flags();
                take(core, reference, flags, at);
                settle(quiet, reference, flags, target);
                return Armed::Now;
            }
            continue;
        };
        P::chaos_point();
        let locked = base.lock(quiet);
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
        let armed = if locked.busy {
            arm_in_busy_base(quiet, base, locked, word, &Wish { reference, target, expires, how, at })
        } else {
            // A value of its own, which is in registers.
            let wish = Wish { reference, target, expires, how, at };
            arm_in(quiet, base, locked, word, Place::Nowhere, &wish)
        };
        if let Some(armed) = armed {
            return armed;
        }
    }
}

/// What is to be armed, where and when.
struct Wish<'a, Q: Queue, P: Platform> {
    reference: &'a Reference<Q, P>,
    target: &'static Base<Q, P>,
    expires: u64,
    how: How,
    at: &'static Location<'static>,
}

/// Somebody calls timers of this base: perhaps this one.
#[cold]
#[inline(never)]
fn arm_in_busy_base<'a, Q: Queue, P: Platform>(
    quiet: &'a impl IrqsOff,
    base: &'static Base<Q, P>,
    locked: Locked<'a, Q, P>,
    word: Word<Q, P>,
    wish: &Wish<'_, Q, P>,
) -> Option<Armed> {
    // SAFETY: the reference keeps it alive.
    let place = base.place(&locked, unsafe { wish.reference.core.as_ref() });
    arm_in(quiet, base, locked, word, place, wish)
}

/// Arms a timer of `base`, whose lock is held, that is at `place` if it is in no queue. `None` if its turn has come while
/// it was looked at.
#[inline(always)]
fn arm_in<'a, Q: Queue, P: Platform>(
    quiet: &'a impl IrqsOff,
    base: &'static Base<Q, P>,
    mut locked: Locked<'a, Q, P>,
    word: Word<Q, P>,
    place: Place,
    wish: &Wish<'_, Q, P>,
) -> Option<Armed> {
    let Wish { reference, target, expires, how, at } = *wish;
    // SAFETY: the reference keeps it alive.
    let core = unsafe { reference.core.as_ref() };
    let is_running = place == Place::Running && !is_planted(Fault::MoveRunning);
    let is_linked = core.entry.is_linked();
    let was_armed = is_linked || place == Place::Waiting;
    let mut stays = ptr::eq(base, target);
    let mut expires = expires;
    if is_running {
        stays = true;
        expires = expires.max(locked.now.saturating_add(1));
    }
    if was_armed {
        match how {
            How::Add => {
                drop(locked);
                report_armed::<Q, P>(core, at);
                return Some(Armed::Before);
            }
            How::Reduce if expires >= core.entry.expires() => return Some(Armed::Before),
            How::Reduce | How::Modify => {}
        }
        stays |= word.has(Flags::PINNED.and(Flags::DEFERRABLE));
        if !is_linked && !base.take(&locked, core) {
            return None;
        }
        if is_linked && stays {
            let now = base.now(&mut locked);
            // SAFETY: linked in the queue of its base (B2), whose lock is held.
            let earlier = unsafe { locked.queue.modify(reference.core.cast(), expires, now) };
            unlock(base, locked, earlier);
            return Some(Armed::Before);
        }
        if is_linked {
            // SAFETY: as above.
            unsafe { locked.queue.remove(reference.core.cast()) };
        }
        core.entry.set_expires(expires);
    } else {
        core.entry.set_expires(expires);
        take(core, reference, word.flags(), at);
        if is_running {
            base.note_requeued(&mut locked, core);
        }
    }
    let armed = if was_armed { Armed::Before } else { Armed::Now };
    if stays && (is_running || locked.heir.is_none()) {
        insert(reference, base, locked);
        return Some(armed);
    }
    // It is ours until it is in the other base (B1).
    core.set_word(word.with(Flags::MOVING));
    drop(locked);
    P::chaos_point();
    settle(quiet, reference, word.flags(), target);
    Some(armed)
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
    flags: Flags,
    at: &'static Location<'static>,
) {
    core.set_ops(reference.ops, flags);
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
    locked: Locked<'_, Q, P>,
    earlier: bool,
) {
    if earlier {
        unlock_earlier(base, locked);
    }
}

/// The same for who knows that it has. Returns `true`.
#[inline(never)]
fn unlock_earlier<Q: Queue, P: Platform>(base: &'static Base<Q, P>, mut locked: Locked<'_, Q, P>) -> bool {
    let told = base.note_earlier(&mut locked);
    drop(locked);
    if let Some(next) = told {
        base.tell(next);
    }
    true
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
        let place = base.place(&locked, self);
        let expires =
            if place == Place::Running { expires.max(locked.now.saturating_add(1)) } else { expires };
        let entry = NonNull::from(&self.entry);
        let now = base.now(&mut locked);
        // This pointer is good for the entry alone; who takes it out of the queue makes the one that it was armed by anew.
        let earlier = if self.entry.is_linked() {
            // SAFETY: linked in the queue of its base (B2), whose lock is held.
            unsafe { locked.queue.modify(entry, expires, now) }
        } else if base.take(&locked, self) {
            self.entry.set_expires(expires);
            // SAFETY: it is armed and in no queue, and the armed state has its reference.
            unsafe { locked.queue.insert(entry, now) }
        } else {
            return false;
        };
        unlock(base, locked, earlier);
        true
    }

    /// Arms the timer, which is running, with its call's reference, of which `ops` are the ways; `None` if it needs none. For
    /// its own function. Returns whether it is armed now.
    pub(crate) fn arm_running(
        this: NonNull<Core<Q, P>>,
        ops: Option<&'static Ops<Q, P>>,
        expires: u64,
        at: &'static Location<'static>,
    ) -> bool {
        // SAFETY: its function is being called, with a reference to it that is let go of afterwards.
        let core = unsafe { this.as_ref() };
        let quiet = sync::Cpu::<P>::disable_interrupts();
        let Some((mut locked, base)) = core.lock_base(&quiet) else { return false };
        debug_assert!(base.place(&locked, core) == Place::Running, "its function is being called");
        let word = core.word();
        if word.has(Flags::SHUT) {
            return false;
        }
        core.set_armed_at(at);
        let expires = expires.max(locked.now.saturating_add(1));
        let now = base.now(&mut locked);
        let earlier = if core.entry.is_linked() {
            // SAFETY: linked in the queue of its base (B2), whose lock is held.
            unsafe { locked.queue.modify(this.cast(), expires, now) }
        } else {
            match ops {
                Some(ops) => {
                    core.set_ops(ops, word.flags());
                    locked.handed = ops.release.is_some();
                }
                // Others may have armed it by a pointer that is let go of, and taken it back.
                None if core.ops().release.is_some() => core.set_ops(nothing(), word.flags()),
                None => {}
            }
            core.entry.set_expires(expires);
            base.note_requeued(&mut locked, core);
            // SAFETY: in no queue, and the armed state has the call's reference.
            unsafe { locked.queue.insert(this.cast(), now) }
        };
        unlock(base, locked, earlier);
        true
    }
}
