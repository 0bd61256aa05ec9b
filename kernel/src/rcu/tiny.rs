//! Grace periods of one CPU whose readers are not preempted: [`::rcu::tiny`], told where no reader is left.
//!
//! 1. A section is a region without preemption. So is every handler and softirq a region in which the CPU does not switch:
//!    a switch of tasks, and the idle task before it halts, are outside of all readers.
//! 2. A tick that has hit the idle task is too. One that has hit something else asks for a reschedule if callbacks wait;
//!    and where ticks rest, who queues a callback has them come back.
//! 3. Callbacks are called in the softirq `rcu`, all that are due at once.
//!
//! There is no driver, nobody who waits, and so nothing that stalls, is boosted, expedited or off-loaded.
//!
//! Linux: `kernel/rcu/tiny.c`.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ::rcu::domain::check_may_wait;
use ::rcu::tiny::{Tiny, TinyHooks, TinyState};
use ::rcu::{AtomicReaders, Callback, Domain, Head};
use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform, percpu};
use sync::context::SoftirqGuard;
use sync::softirq::Vector;
use sync::{IrqGuard, TaskCx};

use super::Figures;
use crate::softirq::Handler;
use crate::{sched, tick, trace};

static TINY: Tiny<Native> =
    Tiny::new(TinyHooks { softirq: Vector::Rcu.index(), is_idle: sched::is_idle_here });

/// Grace periods that callbacks have waited for.
static ENDED: AtomicU64 = AtomicU64::new(0);

percpu! {
    /// The idle task is about to halt, or halts.
    static IDLING: AtomicU32 = AtomicU32::new(0);
    /// The interrupt that is being served has hit it there.
    static HIT_IDLE: AtomicU32 = AtomicU32::new(0);
}

/// The readers of this machine, and their grace periods.
///
/// Regions in which preemption, bottom halves or interrupts are off are sections too, so that their guards, and those of
/// spin locks, serve as proof.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {}

/// The callbacks and grace periods, for who wants to look at them.
pub fn tiny() -> &'static Tiny<Native> {
    &TINY
}

/// Takes the softirq. On the boot CPU, before it has tasks.
pub(crate) fn prepare() {
    static RUN: Handler = run;
    assert!(Native::cpu_count() == 1, "readers of `rcu-tiny` on more than one CPU");
    crate::softirq::set_handler(Vector::Rcu, Some(&RUN));
}

/// There is no task to start.
pub(crate) fn start() {}

/// What has been counted since boot. Out of date at once.
pub fn figures() -> Figures {
    Figures { ended: ENDED.load(Ordering::Relaxed), helped: 0, expedited: 0 }
}

/// No reader is left.
fn quiescent() {
    if TINY.quiescent_state() {
        trace::grace_period(ENDED.fetch_add(1, Ordering::Relaxed) + 1);
    }
}

fn run(_serving: &SoftirqGuard) {
    let called = TINY.process();
    if called != 0 {
        trace::callbacks(called, 0, || TINY.waiting());
    }
}

// ---- What happens ----

/// The running task is about to be replaced, or offers its CPU.
#[inline]
pub(crate) fn note_switch(_quiet: &impl IrqsOff) {
    quiescent();
}

/// The timer's interrupt. Returns when this CPU's callbacks want it to come again, in any case.
pub(crate) fn on_tick(_quiet: &impl IrqsOff, _now: u64) -> u64 {
    if HIT_IDLE.read() != 0 {
        quiescent();
    } else {
        TINY.tick(false);
    }
    u64::MAX
}

/// The idle task is about to halt. What is due then rouses it.
pub(crate) fn idle_enter(_quiet: &impl IrqsOff) {
    IDLING.write(1);
    quiescent();
}

/// The idle loop goes on, or an interrupt begins.
#[inline(always)]
pub(crate) fn idle_leave() {
    HIT_IDLE.write(IDLING.read());
    IDLING.write(0);
}

/// The idle loop has nothing else to do: callbacks are asked for when it halts.
#[inline(always)]
pub(crate) fn ask() {}

/// Whether callbacks wait, so that this CPU needs a tick.
pub(crate) fn need_tick() -> bool {
    TINY.waiting() != 0
}

/// An NMI ends no grace period.
#[inline(always)]
pub(crate) fn nmi_enter() -> bool {
    false
}

/// Nor does its end.
#[inline(always)]
pub(crate) fn nmi_exit(_was_idle: bool) {}

/// The only CPU comes up.
pub(crate) fn cpu_comes() {}

/// It does not go.
pub(crate) fn cpu_goes(_quiet: &IrqGuard) {}

/// There is no other one.
pub(crate) fn cpu_gone(_cpu: CpuId) {}

/// A task that blocks in a section is one that is scheduled while atomic, and is reported as such.
#[inline(always)]
pub(crate) fn check_before_block() {}

/// The same holds for its end.
#[inline(always)]
pub(crate) fn end_of_task() {}

// ---- The domain ----

// SAFETY: the guarantee of `Tiny`, as long as it is told the truth: switches of tasks, and the idle task where it halts or
// was hit there, are outside of regions without preemption, bottom halves or interrupts.
unsafe impl Domain for Kernel {
    type Platform = Native;
    type Section = ();
    type State = TinyState;

    const NAME: &'static str = "kernel";

    #[inline(always)]
    fn read_lock() {
        Native::preempt_disable();
    }

    #[inline(always)]
    unsafe fn read_unlock((): ()) {
        Native::preempt_enable();
    }

    fn is_reading() -> bool {
        Native::context().preempt_depth() != 0
    }

    #[inline]
    #[track_caller]
    unsafe fn call(head: NonNull<Head>, function: Callback) {
        // SAFETY: the same contract.
        unsafe { TINY.call(head, function) };
        if tick::rests_here() && !sched::is_idle_here() {
            tick::resume_for(&sync::irq::disable(), CpuId::BOOT);
        }
    }

    #[track_caller]
    fn synchronize(cx: &mut TaskCx) {
        check_may_wait::<Kernel>("synchronize");
        TINY.synchronize(cx);
    }

    #[track_caller]
    fn barrier(cx: &mut TaskCx) {
        check_may_wait::<Kernel>("barrier");
        TINY.barrier(cx);
    }

    fn get_state() -> TinyState {
        TINY.get_state()
    }

    fn start_poll() -> TinyState {
        TINY.start_poll()
    }

    fn poll(state: TinyState) -> bool {
        TINY.poll(state)
    }
}

// SAFETY: no switch and no halt comes in the middle of such a region.
unsafe impl AtomicReaders for Kernel {}
