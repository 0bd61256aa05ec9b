//! Softirqs: which are pending on this CPU, and where they are served.
//!
//! 1. Raising one sets its bit. In an interrupt, or with bottom halves off, somebody serves on the way out; elsewhere
//!    nobody would come by, so the CPU interrupts itself.
//! 2. They are served where bottom halves are enabled, and at the end of an outermost interrupt that hit code with
//!    bottom halves and interrupts on. Interrupts are on meanwhile, and one unit of the softirq count keeps other
//!    softirqs and the scheduler off.
//! 3. The bits are taken, all at once, with interrupts off and before any is served: what is raised while they are
//!    served sets them again, and is served in the next round. The count goes down with interrupts off too, after a look
//!    that found none: who raises one after that is an interrupt, and serves at its own end.
//!
//! After [`ROUNDS`] rounds what is still pending waits for the next interrupt, at the latest the tick, so that softirqs
//! that raise themselves do not keep the task out for ever.

use core::sync::atomic::AtomicU32;

use super::upcalls::upcalls;
use crate::context::{PREEMPT_WORD, SOFTIRQ_UNIT};
use crate::{Native, Platform, percpu};

percpu! {
    /// Softirqs that were raised on this CPU and not served yet, a bit each.
    static PENDING: AtomicU32 = AtomicU32::new(0);
}

/// Softirqs are numbered below this.
const VECTORS: u32 = 10;

/// How often in a row what was raised in the meantime is served.
const ROUNDS: u32 = 10;

#[track_caller]
pub(super) fn raise(vector: u32) {
    assert!(vector < VECTORS, "there is no softirq {vector}; vectors are 0..{VECTORS}");
    // The bit and the interrupt concern one CPU.
    Native::irq_disable();
    PENDING.or(1 << vector);
    if !Native::context().in_interrupt() {
        Native::kick(Native::cpu());
    }
    Native::irq_enable();
}

#[inline(always)]
pub(super) fn pending() -> bool {
    PENDING.read() != 0
}

/// Serves what is pending, if the context allows it.
pub(super) fn serve() {
    if pending() && !Native::context().in_interrupt() && Native::irq_depth() == 0 {
        Native::irq_disable();
        serve_rounds();
        Native::irq_enable();
    }
}

/// Serves what is pending at the end of an interrupt that hit code with bottom halves and interrupts on. Interrupts are
/// off, counted once.
pub(super) fn serve_rounds() {
    PREEMPT_WORD.add(SOFTIRQ_UNIT);
    for _ in 0..ROUNDS {
        // Not one step, but no interrupt can come in between.
        let vectors = PENDING.read();
        if vectors == 0 {
            break;
        }
        PENDING.write(0);
        Native::irq_enable();
        (upcalls().softirq)(vectors);
        Native::irq_disable();
    }
    PREEMPT_WORD.sub(SOFTIRQ_UNIT);
}
