//! What a CPU does when nobody wants it.

use hal::x86_64::native;
use hal::{Native, Platform};

use super::placement::pull;
use super::queue::{Quiet, quietly, switch_to_next};
use crate::rcu;

/// The idle task's body, on the stack that its CPU started on.
///
/// Between the look for something to do and the halt lies a window in which a wake-up must not be lost. An interrupt that
/// comes in it waits, because interrupts are off until the very instruction before the halt, and then ends it. A request
/// by another CPU without an interrupt is only made while this CPU does not say that it halts, which it does before it
/// looks for the last time.
pub(crate) fn idle() -> ! {
    loop {
        Native::chaos_point();
        let due = quietly(|quiet| {
            rcu::idle_leave();
            native::accept_resched_request();
            let due = Native::context().resched_due();
            if due {
                rcu::note_switch(quiet);
                switch_to_next(quiet.lock(), quiet, Native::now_ns());
            }
            due
        });
        if !due {
            rcu::ask();
        }
        if !due && !pull() {
            Native::irq_disable();
            // An interrupt may have queued one since. What this raises comes as an interrupt, and ends the halt at once.
            rcu::ask();
            // SAFETY: off just now, until the halt, which turns them on.
            rcu::idle_enter(&unsafe { Quiet::assume() });
            native::halt_unless_roused();
        }
    }
}
