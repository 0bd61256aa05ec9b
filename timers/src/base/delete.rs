//! Deleting, waiting for the end of a call, and shutting down.

use core::panic::Location;
use core::ptr::NonNull;

use hal::Platform;
use hal::percpu::IrqsOff;
use hal::platform::{Report, Severity};
use sync::Cpu;
use sync::irq::IrqGuard;
use sync::lockdep::Acquire;

use super::batch::Place;
use super::parts::{exposed, nothing};
use super::{Base, Core, Flags, Inner, Reference};
use crate::faults::{Fault, is_planted};
use crate::queue::{Entry, Queue};

/// What [`try_delete_sync`](crate::Timer::try_delete_sync) found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletion {
    /// It was not armed, and is not running.
    Idle,
    /// It was armed, is not any more, and is not running.
    Deleted,
    /// Its function is being called. Nothing was done.
    Running,
}

/// Who waits for the end of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// A task that may sleep.
    Task,
    /// Somebody who has interrupts off.
    IrqsOff,
}

/// How many turns a waiter looks before it lets the host run others: tens of microseconds.
const TURNS_BEFORE_YIELD: u32 = 1 << 10;

impl<Q: Queue, P: Platform> Core<Q, P> {
    /// Takes the timer out of the armed state. The caller holds its base's lock, and lets go of the reference after it.
    #[inline(always)]
    fn disarm(&self, base: &Base<Q, P>, inner: &mut Inner<Q, P>) -> Option<Reference<Q, P>> {
        let core = NonNull::from(self);
        if self.entry.is_linked() {
            // SAFETY: linked in its base's queue (B2), whose lock is held.
            unsafe { inner.queue.remove(core.cast()) };
            if inner.handed && base.place(inner, self) == Place::Running {
                // What the armed state had is the call's reference, and stays the call's (B4).
                inner.handed = false;
                if !is_planted(Fault::ReleaseRunning) {
                    return Some(Reference { core, ops: nothing() });
                }
            }
        } else if !base.take(inner, self) {
            return None;
        }
        Some(Reference { core: exposed(core), ops: self.ops() })
    }

    /// Disarms the timer. Returns whether it was armed. Its function may be running.
    #[inline(never)]
    pub(crate) fn delete(&self) -> bool {
        let quiet = Cpu::<P>::disable_interrupts();
        match self.disarm_at_once(&quiet) {
            // So that nothing is to be remembered while interrupts are switched on, which may be a long way.
            Some(reference) if reference.ops.release.is_none() => true,
            Some(reference) => Self::let_go_of(reference, quiet),
            None => self.delete_anywhere(quiet),
        }
    }

    /// Switches interrupts on, and lets go of what the armed state had. Returns `true`.
    #[inline(never)]
    fn let_go_of(reference: Reference<Q, P>, quiet: IrqGuard<P>) -> bool {
        drop(quiet);
        reference.let_go();
        true
    }

    /// What [`delete`](Core::delete) comes to for most timers that are armed: nobody calls timers of the base, and its lock is
    /// free. If so, disarms the timer and returns what the armed state had.
    #[inline(always)]
    fn disarm_at_once(&self, quiet: &impl IrqsOff) -> Option<Reference<Q, P>> {
        let word = self.word();
        if word.has(Flags::MOVING) {
            return None;
        }
        let base = word.base()?;
        P::chaos_point();
        let mut locked = base.try_lock(quiet)?;
        // Still so (B1).
        if self.word() != word && !is_planted(Fault::LookOnce) || locked.busy || !self.entry.is_linked() {
            return None;
        }
        let core = NonNull::from(self);
        // SAFETY: linked in its base's queue (B2), whose lock is held.
        unsafe { locked.queue.remove(core.cast()) };
        Some(Reference { core: exposed(core), ops: self.ops() })
    }

    /// As [`delete`](Core::delete), whatever the timer does.
    #[inline(never)]
    fn delete_anywhere(&self, quiet: IrqGuard<P>) -> bool {
        let Some((mut locked, base)) = self.lock_base(&quiet) else { return false };
        let Some(reference) = self.disarm(base, &mut locked) else { return false };
        drop(locked);
        drop(quiet);
        reference.let_go();
        true
    }

    pub(crate) fn try_delete_sync(&self) -> Deletion {
        let quiet = Cpu::<P>::disable_interrupts();
        let Some((mut locked, base)) = self.lock_base(&quiet) else { return Deletion::Idle };
        if base.place(&locked, self) == Place::Running {
            return Deletion::Running;
        }
        let disarmed = self.disarm(base, &mut locked);
        // Its turn may have come between the two looks.
        let is_running = base.place(&locked, self) == Place::Running;
        drop(locked);
        drop(quiet);
        match disarmed {
            None if is_running => Deletion::Running,
            None => Deletion::Idle,
            Some(reference) => {
                reference.let_go();
                Deletion::Deleted
            }
        }
    }

    /// Whether it is armed.
    pub(crate) fn is_armed(&self) -> bool {
        if self.entry.is_linked() {
            return true;
        }
        let quiet = Cpu::<P>::disable_interrupts();
        // Under the lock it is not between two places.
        self.lock_base(&quiet).is_some_and(|(locked, base)| self.is_armed_in(base, &locked))
    }

    /// The same, under the lock of its base.
    fn is_armed_in(&self, base: &Base<Q, P>, inner: &Inner<Q, P>) -> bool {
        self.entry.is_linked() || base.place(inner, self) == Place::Waiting
    }

    /// Sets when it is due, unless it is armed. Returns whether it did.
    pub(crate) fn set_expires(&self, expires: u64) -> bool {
        let quiet = Cpu::<P>::disable_interrupts();
        let locked = self.lock_base(&quiet);
        if locked.as_ref().is_some_and(|(locked, base)| self.is_armed_in(base, locked)) {
            return false;
        }
        self.entry.set_expires(expires);
        true
    }

    /// Whether its function is being called.
    pub(crate) fn is_running(&self) -> bool {
        let quiet = Cpu::<P>::disable_interrupts();
        self.lock_base(&quiet).is_some_and(|(locked, base)| base.place(&locked, self) == Place::Running)
    }

    /// From here on it is not armed any more. Returns whether it was.
    pub(crate) fn shut(&self) -> bool {
        loop {
            let word = self.word();
            if word.base().is_none() && !word.has(Flags::MOVING) {
                if word.has(Flags::SHUT) || self.exchange_word(word, word.with(Flags::SHUT)) {
                    return false;
                }
                continue;
            }
            let quiet = Cpu::<P>::disable_interrupts();
            let Some((mut locked, base)) = self.lock_base(&quiet) else { continue };
            self.set_word(self.word().with(Flags::SHUT));
            let disarmed = self.disarm(base, &mut locked);
            drop(locked);
            drop(quiet);
            let was_armed = disarmed.is_some();
            if let Some(reference) = disarmed {
                reference.let_go();
            }
            return was_armed;
        }
    }

    /// Disarms the timer and waits until its function is not being called. Returns whether it was armed; `false`, and
    /// without having waited, if to wait would be to wait for ever, which is reported.
    pub(crate) fn delete_sync(&self, waiting: Waiting, at: &'static Location<'static>) -> bool {
        if sync::lockdep::ENABLED {
            // With interrupts off: unlike the call, the wait is nothing that a handler could come into and then wait for.
            let _quiet = Cpu::<P>::disable_interrupts();
            self.map.acquire::<P>(Acquire::WRITE, at);
            self.map.release::<P>(at);
        }
        let irqs_off = P::irq_depth() != 0;
        let may_wait = !irqs_off || self.word().has(Flags::IRQSAFE);
        if !may_wait || P::context().in_nmi() {
            self.refuse(
                match waiting {
                    Waiting::Task => "with interrupts off",
                    Waiting::IrqsOff => "with interrupts off, and it is not irqsafe",
                },
                at,
            );
        }
        let mut was_armed = false;
        let mut turns = 0_u32;
        loop {
            let quiet = Cpu::<P>::disable_interrupts();
            let Some((mut locked, base)) = self.lock_base(&quiet) else { return was_armed };
            let own = locked.runner == P::cpu();
            if (own || !may_wait) && base.place(&locked, self) == Place::Running {
                drop(locked);
                drop(quiet);
                if own {
                    self.refuse(
                        "from its own function, or from what interrupted it: it would wait for itself",
                        at,
                    );
                }
                return false;
            }
            let disarmed = self.disarm(base, &mut locked);
            // After it was disarmed: until then its turn might come.
            let is_running = base.place(&locked, self) == Place::Running;
            drop(locked);
            drop(quiet);
            if let Some(reference) = disarmed {
                was_armed = true;
                reference.let_go();
            }
            if !is_running || is_planted(Fault::DeleteAndGo) {
                return was_armed;
            }
            turns += 1;
            if turns.is_multiple_of(TURNS_BEFORE_YIELD) {
                P::yield_to_host();
            } else {
                P::relax();
            }
        }
    }

    #[cold]
    fn refuse(&self, why: &str, at: &'static Location<'static>) {
        P::report(&Report {
            severity: Severity::Bug,
            message: format_args!("timer deleted synchronously {why} (made at {})", self.made()),
            location: at,
        });
    }

    /// An embedded timer's memory is about to be given back. Stops the machine if it is armed or running.
    pub(crate) fn check_gone(&self) {
        if !self.word().has(Flags::EMBEDDED) {
            return;
        }
        let quiet = Cpu::<P>::disable_interrupts();
        let Some((locked, base)) = self.lock_base(&quiet) else { return };
        let what = if self.is_armed_in(base, &locked) {
            "armed"
        } else if base.place(&locked, self) == Place::Running {
            "running"
        } else {
            return;
        };
        drop(locked);
        drop(quiet);
        P::report(&Report {
            severity: Severity::Fatal,
            message: format_args!("embedded timer dropped that is {what}, without shutdown_sync"),
            location: self.armed_at().unwrap_or(self.made()),
        });
    }
}
