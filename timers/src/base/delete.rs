//! Deleting, waiting for the end of a call, and shutting down.

use core::panic::Location;

use hal::Platform;
use hal::platform::{Report, Severity};
use sync::Cpu;
use sync::lockdep::Acquire;

use super::parts::exposed;
use super::{Core, Flags, Inner, Reference};
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

/// What one look for a call under way has found.
enum Look {
    Over,
    /// The call is under way on another CPU.
    Running,
    /// The call is what this CPU is executing, or what it has interrupted.
    Own,
}

/// How many turns a waiter looks before it lets the host run others: tens of microseconds.
const TURNS_BEFORE_YIELD: u32 = 1 << 10;

impl<Q: Queue, P: Platform> Core<Q, P> {
    /// Takes the timer out of the armed state. The caller holds the base's lock, and lets go of the reference after it.
    #[inline(always)]
    fn disarm(&self, inner: &mut Inner<Q, P>) -> Option<Reference<Q, P>> {
        let core = core::ptr::NonNull::from(self);
        if Core::is(self, inner.running) {
            // The call's own reference stays the call's (B4).
            let reference = inner.again.take()?.reference;
            return Some(match reference {
                Some(ops) => Reference { core: exposed(core), ops },
                None if is_planted(Fault::ReleaseRunning) => {
                    Reference { core: exposed(core), ops: self.ops() }
                }
                None => Reference { core, ops: nothing() },
            });
        }
        if !self.entry.is_linked() {
            return None;
        }
        // SAFETY: linked in its base's queue (B2), whose lock is held.
        unsafe { inner.queue.remove(core.cast()) };
        Some(Reference { core: exposed(core), ops: self.ops() })
    }

    /// Disarms the timer. Returns whether it was armed. Its function may be running.
    pub(crate) fn delete(&self) -> bool {
        let quiet = Cpu::<P>::disable_interrupts();
        let Some((mut locked, _)) = self.lock_base(&quiet) else { return false };
        let disarmed = self.disarm(&mut locked);
        drop(locked);
        drop(quiet);
        let was_armed = disarmed.is_some();
        if let Some(reference) = disarmed {
            reference.let_go();
        }
        was_armed
    }

    pub(crate) fn try_delete_sync(&self) -> Deletion {
        let quiet = Cpu::<P>::disable_interrupts();
        let Some((mut locked, _)) = self.lock_base(&quiet) else { return Deletion::Idle };
        if Core::is(self, locked.running) {
            return Deletion::Running;
        }
        let disarmed = self.disarm(&mut locked);
        drop(locked);
        drop(quiet);
        match disarmed {
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
        self.lock_base(&quiet).is_some_and(|(locked, _)| {
            self.entry.is_linked() || Core::is(self, locked.running) && locked.again.is_some()
        })
    }

    /// Whether its function is being called.
    pub(crate) fn is_running(&self) -> bool {
        let quiet = Cpu::<P>::disable_interrupts();
        self.lock_base(&quiet).is_some_and(|(locked, _)| Core::is(self, locked.running))
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
            let Some((mut locked, _)) = self.lock_base(&quiet) else { continue };
            self.set_word(self.word().with(Flags::SHUT));
            let disarmed = self.disarm(&mut locked);
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
        self.map.acquire::<P>(Acquire::WRITE, at);
        self.map.release::<P>(at);
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
            let Some((mut locked, _)) = self.lock_base(&quiet) else { return was_armed };
            let look = match Core::is(self, locked.running) {
                false => Look::Over,
                true if locked.runner == P::cpu() => Look::Own,
                true => Look::Running,
            };
            if matches!(look, Look::Own) || matches!(look, Look::Running) && !may_wait {
                drop(locked);
                drop(quiet);
                if matches!(look, Look::Own) {
                    self.refuse(
                        "from its own function, or from what interrupted it: it would wait for itself",
                        at,
                    );
                }
                return false;
            }
            let disarmed = self.disarm(&mut locked);
            drop(locked);
            drop(quiet);
            if let Some(reference) = disarmed {
                was_armed = true;
                reference.let_go();
            }
            if matches!(look, Look::Over) || is_planted(Fault::DeleteAndGo) {
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
        let Some((locked, _)) = self.lock_base(&quiet) else { return };
        let what = if self.entry.is_linked() {
            "armed"
        } else if Core::is(self, locked.running) {
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

/// Of a wish that brought no reference.
fn nothing<Q: Queue, P: Platform>() -> &'static super::Ops<Q, P> {
    struct Nothing<Q, P>(core::marker::PhantomData<(Q, P)>);
    impl<Q: Queue, P: Platform> Nothing<Q, P> {
        const OPS: super::Ops<Q, P> = super::Ops {
            call: |_, _| unreachable!("it has no function"),
            release: None,
            type_name: || "",
            embedded: false,
            nameless: false,
        };
    }
    &Nothing::<Q, P>::OPS
}
