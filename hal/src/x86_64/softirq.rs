//! Softirqs: which are pending on this CPU, and where they are served.
//!
//! 1. Raising one sets its bit. In an interrupt, or with bottom halves off, somebody serves on the way out. Elsewhere
//!    nobody would come by, so it is served at once; with interrupts off the CPU interrupts itself instead.
//! 2. They are served where bottom halves are enabled, and at the end of an outermost interrupt that hit code with
//!    bottom halves and interrupts on. Interrupts are on meanwhile, and one unit of the softirq count, which is the
//!    kernel's to add, keeps other softirqs and the scheduler off.
//! 3. The bits are taken, all at once and before any is served: what is raised while they are served sets them again, and is
//!    served in the next round. At the end of an interrupt the count goes down with interrupts off, after a look that
//!    found none: who raises one after that is an interrupt, and serves at its own end. Where a task enables bottom halves,
//!    interrupts stay on, and the look comes *after* the count has gone down: an interrupt before that left its bit, and one after
//!    that serves at its own end.
//! 4. How many rounds there are is the kernel's decision. What it does not want to serve here it leaves to a task of its
//!    own, by [`leave_to_task`]: from then on these vectors, and no others, wait for that task, until it has found none of
//!    them raised. So a flood of one kind holds up its own kind and not the timers.

use core::sync::atomic::{AtomicU32, Ordering};

use super::upcalls::upcalls;
use super::{apic, vectors};
use crate::{CpuId, Native, Platform, percpu};

percpu! {
    /// Softirqs that were raised on this CPU, not served yet, and not left to the task; a bit each.
    pub(super) static PENDING: AtomicU32 = AtomicU32::new(0);
    /// The vectors that are the task's at present.
    static LEFT: AtomicU32 = AtomicU32::new(0);
    /// Those of them that are raised.
    static LEFT_PENDING: AtomicU32 = AtomicU32::new(0);
}

/// Softirqs are numbered below this.
pub const VECTORS: u32 = 10;

/// [`Platform::raise_softirq`].
#[inline]
#[track_caller]
pub(super) fn raise(vector: u32) {
    assert!(vector < VECTORS, "there is no softirq {vector}; vectors are 0..{VECTORS}");
    let bit = 1 << vector;
    // Whoever this one interrupts, or the end of the section, serves. No softirq is served on this CPU meanwhile, not by
    // an interrupt that comes in between either, so whose the vector is does not change.
    if Native::context().in_interrupt() && LEFT.read() & bit == 0 {
        PENDING.or(bit);
    } else {
        raise_in_task(bit);
    }
}

/// The same for a CPU on which nobody is about to serve, and for the task's vectors.
fn raise_in_task(bit: u32) {
    // The bit, the look at the context and what follows concern one CPU.
    Native::irq_disable();
    if LEFT.read() & bit != 0 {
        // The task looks again before it sleeps.
        LEFT_PENDING.or(bit);
    } else {
        PENDING.or(bit);
        if !Native::context().in_interrupt() {
            if Native::irq_depth() == 1 {
                serve_rounds();
                if Native::irq_enable() {
                    Native::check_resched();
                }
                return;
            }
            kick_self();
        }
    }
    Native::irq_enable();
}

/// Interrupts this CPU when its interrupts come on; the end of that serves.
fn kick_self() {
    // Before there is an APIC: the end of the first interrupt serves.
    if let Some(apic) = apic::try_local() {
        apic.interrupt_self(vectors::SOFTIRQ);
    }
}

#[inline(always)]
pub(super) fn pending() -> bool {
    PENDING.read() != 0
}

/// Serves what is pending, if the context allows it.
#[inline(always)]
pub(super) fn serve() {
    if !Native::context().in_interrupt() && Native::irq_depth() == 0 {
        (upcalls().softirq_in_task)();
    }
}

/// Serves what is pending, if the context allows it; if only interrupts are off, when they come on.
#[inline(always)]
pub(super) fn serve_held_up() {
    if Native::context().in_interrupt() {
        // Inside of another section or of an interrupt, which will.
    } else if Native::irq_depth() == 0 {
        (upcalls().softirq_in_task)();
    } else {
        kick_self();
    }
}

/// Serves what is pending at the end of an interrupt that hit code with bottom halves and interrupts on. Interrupts are
/// off, counted once.
pub(super) fn serve_rounds() {
    (upcalls().softirq)();
}

/// Which softirqs are pending on this CPU, a bit each; those that are left to the task are not among them.
///
/// Contexts: any. Exact with interrupts off.
#[inline]
pub fn pending_here() -> u32 {
    PENDING.read()
}

/// Takes what is pending on this CPU, to serve it. Interrupts are off.
#[inline]
pub fn take_pending() -> u32 {
    // Not one step, but no interrupt can come in between.
    let vectors = PENDING.read();
    PENDING.write(0);
    vectors
}

/// The same with interrupts on: in one step.
#[inline]
pub fn take_pending_at_once() -> u32 {
    PENDING.exchange(0)
}

/// Leaves what is pending on this CPU, and these vectors altogether, to the task. Interrupts are off.
pub fn leave_to_task() {
    let vectors = take_pending();
    LEFT.or(vectors);
    LEFT_PENDING.or(vectors);
}

/// Which of the vectors that were left to the task are raised; takes them, for the task to serve. 0: none, and none are
/// the task's any more. Interrupts are off.
pub fn take_left() -> u32 {
    let vectors = LEFT_PENDING.read();
    LEFT_PENDING.write(0);
    if vectors == 0 {
        LEFT.write(0);
    }
    vectors
}

/// Which vectors are left to the task of `cpu`, and which of them are raised; out of date at once.
pub fn left_on(cpu: CpuId) -> (u32, u32) {
    (LEFT.on(cpu).load(Ordering::Relaxed), LEFT_PENDING.on(cpu).load(Ordering::Relaxed))
}

/// Raises on this CPU what was pending on `cpu`, which has gone off-line and serves nothing any more.
///
/// Contexts: any but NMI. Whoever calls it knows, with an acquire, that the CPU has stopped.
pub fn inherit(cpu: CpuId) {
    let mut vectors = PENDING.on(cpu).swap(0, Ordering::Relaxed);
    vectors |= LEFT_PENDING.on(cpu).swap(0, Ordering::Relaxed);
    LEFT.on(cpu).store(0, Ordering::Relaxed);
    (0..VECTORS).filter(|vector| vectors & 1 << vector != 0).for_each(raise);
}
