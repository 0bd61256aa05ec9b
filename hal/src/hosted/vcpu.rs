//! One virtual CPU as the others see it: a place to leave interrupts and wake-ups.
//!
//! Everything that others leave is behind one mutex and announced by one flag. The CPU's thread looks at the flag at its
//! delivery points (one load), and waits on the mutex's condition when it is blocked, so nothing that is left while it
//! goes to sleep is missed.

use core::fmt;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicBool, Ordering};
use std::boxed::Box;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;
use crate::context::{HARDIRQ_MASK, HARDIRQ_UNIT, IRQ_DEPTH, NMI_MASK, NO_RESCHED_NEEDED, PREEMPT_WORD};
use crate::platform::{TaskId, Wakeup};
use crate::{CpuId, MAX_CPUS, Native, Platform};

/// The mailbox of one virtual CPU. Its address names the task that the CPU runs.
#[repr(align(64))]
pub(super) struct Vcpu {
    /// Something was left that the CPU has not looked at.
    pending: AtomicBool,
    /// A copy of `Mail::online` that is read without the mutex.
    online: AtomicBool,
    mail: Mutex<Mail>,
    /// Signalled when something is left, or when time is moved by hand.
    changed: Condvar,
}

struct Mail {
    online: bool,
    interrupts: VecDeque<Interrupt>,
    /// A reschedule was asked for by another CPU.
    resched: bool,
    /// A wake-up that no `block` has consumed.
    woken: bool,
    /// The thread is in `block` and has not been woken.
    blocked: bool,
}

type Interrupt = Box<dyn FnOnce() + Send>;

static VCPUS: [Vcpu; MAX_CPUS] = [const { Vcpu::new() }; MAX_CPUS];

/// The CPU is not bound to a thread, so nobody would take the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotOnline(pub CpuId);

impl fmt::Display for NotOnline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {} is not online; bind a thread to it before sending it interrupts", self.0)
    }
}

impl std::error::Error for NotOnline {}

/// Interrupts `cpu`: its thread runs `handler` at its next delivery point, in hardirq context with interrupts off.
/// Interrupts from one sender are taken in the order in which they were sent. To the executing CPU, with interrupts on,
/// it is delivered before this returns.
///
/// Contexts: any. Everything that the caller stored before is visible to the handler.
///
/// # Errors
/// [`NotOnline`] if the CPU is bound to no thread. An interrupt that was accepted is taken, even by a CPU that is being
/// unbound.
pub fn send_interrupt(cpu: CpuId, handler: impl FnOnce() + Send + 'static) -> Result<(), NotOnline> {
    let accepted = Vcpu::of(cpu).leave(|mail| mail.interrupts.push_back(Box::new(handler)));
    if accepted.is_none() {
        return Err(NotOnline(cpu));
    }
    deliver_if_unmasked();
    Ok(())
}

impl Vcpu {
    const fn new() -> Vcpu {
        Vcpu {
            pending: AtomicBool::new(false),
            online: AtomicBool::new(false),
            mail: Mutex::new(Mail {
                online: false,
                interrupts: VecDeque::new(),
                resched: false,
                woken: false,
                blocked: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn of(cpu: CpuId) -> &'static Vcpu {
        &VCPUS[cpu.index()]
    }

    pub(super) fn task(&'static self) -> TaskId {
        TaskId(NonZeroUsize::new(self as *const Vcpu as usize).expect("a static's address is not 0"))
    }

    /// The CPU whose task this is.
    ///
    /// # Panics
    /// If `task` did not come from [`Vcpu::task`].
    pub(super) fn of_task(task: TaskId) -> &'static Vcpu {
        let offset = task.0.get().wrapping_sub((&raw const VCPUS) as usize);
        let index = offset / size_of::<Vcpu>();
        assert!(
            offset.is_multiple_of(size_of::<Vcpu>()) && index < MAX_CPUS,
            "{task:?} is no task of the hosted machine; pass on what current_task() returned"
        );
        &VCPUS[index]
    }

    /// No code of others runs under the mutex, so a poisoned one is in order.
    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves something for the CPU, if it is online.
    fn leave<R>(&self, what: impl FnOnce(&mut Mail) -> R) -> Option<R> {
        let mut mail = self.mail();
        if !mail.online {
            return None;
        }
        let result = what(&mut mail);
        // Release: pairs with the Acquire in `take_mail`. (The mutex orders what was left; this orders what a bare kick
        // announces.)
        self.pending.store(true, Ordering::Release);
        drop(mail);
        self.changed.notify_all();
        Some(result)
    }

    pub(super) fn is_online(&self) -> bool {
        // Acquire: pairs with the Release in `set_online`: who finds the CPU online finds it booted.
        self.online.load(Ordering::Acquire)
    }

    pub(super) fn set_online(&self) {
        let mut mail = self.mail();
        *mail =
            Mail { online: true, interrupts: VecDeque::new(), resched: false, woken: false, blocked: false };
        self.pending.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `is_online`.
        self.online.store(true, Ordering::Release);
    }

    /// Takes what has been accepted, then accepts no more. What it cannot take, because a leaked guard masks interrupts
    /// for ever, is dropped. Called by the CPU's thread.
    pub(super) fn go_offline(&self) {
        let dropped = loop {
            deliver_if_unmasked();
            let mut mail = self.mail();
            if mail.interrupts.is_empty() || Native::irq_depth() != 0 {
                mail.online = false;
                self.online.store(false, Ordering::Relaxed);
                break core::mem::take(&mut mail.interrupts);
            }
        };
        // Outside the mutex, because what the functions own may do anything when it is dropped.
        drop(dropped);
    }

    /// Interrupts the CPU for nothing but what every interrupt does at its end: softirqs and a due reschedule.
    pub(super) fn kick(&self) {
        self.leave(|_| ());
    }

    pub(super) fn kick_to_reschedule(&self) {
        self.leave(|mail| mail.resched = true);
    }

    /// Makes the CPU, if blocked, look at the clock again.
    pub(super) fn notice_time(&self) {
        // Empty, but not useless: the thread is now before its test of the clock or in its wait.
        drop(self.mail());
        self.changed.notify_all();
    }

    pub(super) fn wake(&self) -> bool {
        let mut mail = self.mail();
        mail.woken = true;
        let was_blocked = core::mem::take(&mut mail.blocked);
        drop(mail);
        self.changed.notify_all();
        was_blocked
    }

    /// The CPU's task, if its thread is there and not blocked.
    pub(super) fn running(&'static self) -> Option<TaskId> {
        let mail = self.mail();
        (mail.online && !mail.blocked).then(|| self.task())
    }

    /// See [`Platform::block`]. Called by the CPU's thread.
    pub(super) fn block(&self, deadline_ns: Option<u64>) -> Wakeup {
        loop {
            deliver_if_unmasked();
            let mut mail = self.mail();
            if core::mem::take(&mut mail.woken) {
                mail.blocked = false;
                return Wakeup::Woken;
            }
            // Tested under the mutex, as everything that ends a wait is stored under it (or stored before `notice_time`
            // takes it).
            if self.pending.load(Ordering::Relaxed) {
                continue;
            }
            let patience = match deadline_ns.map(clock::until) {
                Some(clock::Until::Passed) => {
                    mail.blocked = false;
                    return Wakeup::TimedOut;
                }
                Some(clock::Until::In(ns)) => Some(Duration::from_nanos(ns)),
                Some(clock::Until::ByHand) | None => None,
            };
            mail.blocked = true;
            match patience {
                Some(patience) => drop(self.changed.wait_timeout(mail, patience)),
                None => drop(self.changed.wait(mail)),
            }
        }
    }
}

/// Has the executing CPU take its interrupts, if it does not mask them.
#[inline]
pub(super) fn deliver_if_unmasked() {
    let vcpu = Vcpu::of(Native::cpu());
    // Relaxed: `take_mail` looks again.
    if vcpu.pending.load(Ordering::Relaxed) && Native::irq_depth() == 0 {
        deliver(vcpu);
    }
}

/// Plays the interrupt entry and exit around what was left.
#[cold]
fn deliver(vcpu: &Vcpu) {
    enter();
    // One at a time, so that a handler which panics loses no other.
    let left = Leave;
    while let Some(interrupt) = take_mail(vcpu) {
        interrupt();
    }
    drop(left);
    if !std::thread::panicking() {
        Native::serve_softirqs();
        Native::check_resched();
    }
}

/// The next interrupt. Also takes note of a reschedule that another CPU asked for.
fn take_mail(vcpu: &Vcpu) -> Option<Interrupt> {
    // Acquire: pairs with the Release in `leave`. Cleared before the mail is read: what is left later sets it again.
    vcpu.pending.swap(false, Ordering::Acquire);
    let mut mail = vcpu.mail();
    if core::mem::take(&mut mail.resched) {
        PREEMPT_WORD.and(!NO_RESCHED_NEEDED);
    }
    let interrupt = mail.interrupts.pop_front();
    if !mail.interrupts.is_empty() {
        // Should this one's handler panic, the rest still is announced.
        vcpu.pending.store(true, Ordering::Relaxed);
    }
    interrupt
}

fn enter() {
    debug_assert!(PREEMPT_WORD.read() & (HARDIRQ_MASK | NMI_MASK) == 0, "interrupts are off in interrupts");
    IRQ_DEPTH.inc();
    PREEMPT_WORD.add(HARDIRQ_UNIT);
}

/// Leaves hardirq context when dropped.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        PREEMPT_WORD.sub(HARDIRQ_UNIT);
        IRQ_DEPTH.dec();
    }
}
