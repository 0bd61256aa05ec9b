//! Preemption points.

use core::sync::atomic::{AtomicU32, Ordering};

use hal::percpu::IrqsOff;
use hal::platform::ReschedPoint;
use hal::{Native, Platform, percpu};

use super::placement::{offer, pull};
use super::queue::{self, Quiet, RESCHEDULES, quietly, switch_to_next};
use super::{IDLE, Preemption, wake};
use crate::{rcu, tick};

static MODE: AtomicU32 = AtomicU32::new(Preemption::Full as u32);

/// The present mode.
pub fn preemption() -> Preemption {
    match MODE.load(Ordering::Relaxed) {
        1 => Preemption::Voluntary,
        2 => Preemption::None,
        _ => Preemption::Full,
    }
}

/// Changes the mode, at any time: it says what later points do. Linux: `preempt=`.
pub fn set_preemption(mode: Preemption) {
    MODE.store(mode as u32, Ordering::Relaxed);
}

/// Whether the running task is replaced at this point.
fn counts(point: ReschedPoint) -> bool {
    match preemption() {
        Preemption::Full => true,
        Preemption::Voluntary => point != ReschedPoint::Enable,
        Preemption::None => point == ReschedPoint::Asked,
    }
}

/// How many timer interrupts pass between two looks of a busy CPU for more to do.
const BALANCE_TICKS: u32 = 16;

percpu! {
    static TICKS: AtomicU32 = AtomicU32::new(0);
}

/// A point of a task, found to be due and allowed. An interrupt may have served it since.
pub(crate) fn reschedule(point: ReschedPoint) {
    Native::irq_disable();
    if Native::context().resched_due() && (counts(point) || !queue::is_started()) {
        // SAFETY: off just now, and on below; a point with interrupts off is not allowed.
        replace(&unsafe { Quiet::assume() });
    }
    Native::irq_enable();
}

/// The way out of an interrupt that hit preemptible code, with a reschedule due; interrupts are off, counted by the
/// interrupt's entry.
pub(crate) fn interrupt_exit() {
    if preemption() == Preemption::Full || IDLE.test(Native::cpu()) || !queue::is_started() {
        // SAFETY: as said above, until the interrupt returns.
        replace(&unsafe { Quiet::assume() });
    }
}

fn replace(quiet: &Quiet) {
    RESCHEDULES.inc();
    if !queue::is_started() {
        // Before there are tasks nobody else could run.
        return Native::clear_need_resched();
    }
    // Somebody more urgent may have been woken in the middle of the switch back.
    while Native::context().resched_due() {
        rcu::note_switch(quiet);
        switch_to_next(quiet.lock(), quiet, Native::now_ns());
    }
}

/// The running task goes behind those of its own standing.
pub(crate) fn yield_now() {
    quietly(|quiet| {
        rcu::note_switch(quiet);
        let now = Native::now_ns();
        let mut queue = quiet.lock();
        queue.ready.yield_current(now);
        switch_to_next(queue, quiet, now);
    });
}

/// The timer's interrupt: who waits for this moment becomes ready, and who has run for long enough is replaced. Says
/// whether the tick may rest, and returns when the scheduler wants to be asked again in any case.
pub(crate) fn on_timer(quiet: &impl IrqsOff) -> u64 {
    if !queue::is_started() {
        return u64::MAX;
    }
    let here = Native::cpu();
    let now = Native::now_ns();
    let mut queue = queue::queue_of(here).lock_with(quiet);
    wake::wake_due(&mut queue, now);
    let due = queue.ready.tick(now);
    if due {
        Native::set_need_resched(here);
    }
    // A turn that has ended is no reason to come again: whoever is next comes as soon as he can.
    let turn_ends = queue.ready.turn_ends(now).filter(|at| !due && *at > now);
    let next = queue.sleepers.first().unwrap_or(u64::MAX).min(turn_ends.unwrap_or(u64::MAX));
    tick::decide(quiet, queue.ready.current().is_none(), queue.ready.len() < 2);
    drop(queue);
    // Each CPU looks for work now and then even if it has some, at a moment of its own. One whose tick rests is asked to
    // by those who have more.
    TICKS.inc();
    if TICKS.read() % BALANCE_TICKS == here.as_u32() % BALANCE_TICKS {
        pull();
        offer();
    }
    next
}
