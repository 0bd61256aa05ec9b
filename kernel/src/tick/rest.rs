//! When a CPU's tick rests, and who has it come back.
//!
//! # Invariants
//! * **R1**: the executing CPU alone lets its own tick rest, in its timer's interrupt, and alone has it come back. Others
//!   ask it to, by an interrupt.
//! * **R2**: the decision to rest is made under the lock of the CPU's run queue. Who puts a second task into that queue
//!   holds the same lock, so that either the decision knows of the task, or he knows of the decision.
//! * **R3**: `RESTING` is set before the last look for reasons against it ([`needed`]). Who makes one without that lock (a
//!   message in the log, a function to be called at the next tick, both also from an NMI on this CPU; a wish from another
//!   CPU) does that before he looks at `RESTING`. So one of the two sees the other.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use hal::percpu::IrqsOff;
use hal::{CpuId, Native, Platform, percpu};

use super::TickMode;
use super::live::{arm_by, catch_up, next_tick};
use crate::calls::CallData;
use crate::timer::Look;
use crate::{calls, cpus, log, rcu, timer};

percpu! {
    /// Whether this CPU's tick rests.
    static RESTING: AtomicU32 = AtomicU32::new(0);
    /// This CPU was asked to have its tick back.
    static WANTED: AtomicU32 = AtomicU32::new(0);
    static TICK_BACK: CallData = CallData::new(|| resume(&sync::irq::disable()));
    /// How often it went to rest.
    static RESTS: AtomicU64 = AtomicU64::new(0);
}

static MODE: AtomicU32 = AtomicU32::new(TickMode::Auto as u32);
/// How many want all ticks to go on.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// The present mode.
pub fn mode() -> TickMode {
    match MODE.load(Ordering::Relaxed) {
        0 => TickMode::Auto,
        1 => TickMode::Idle,
        _ => TickMode::Always,
    }
}

/// Changes the mode, at any time. Ticks that rest come back once. Linux: `nohz=`, `nohz_full=`.
///
/// Contexts: any but NMI.
pub fn set_mode(mode: TickMode) {
    MODE.store(mode as u32, Ordering::Relaxed);
    wake_all();
}

/// Keeps the ticks of all CPUs going while it lives.
#[must_use = "the ticks may rest again when this is dropped"]
#[derive(Debug)]
pub struct KeepTicks(());

/// Has all CPUs tick, whatever they do, until the value is dropped: for what looks at each tick. Linux: `tick_dep_set`.
///
/// Contexts: any but NMI. Cost: an interrupt on each CPU whose tick rests.
pub fn keep_all() -> KeepTicks {
    KEPT.fetch_add(1, Ordering::Relaxed);
    wake_all();
    KeepTicks(())
}

impl Drop for KeepTicks {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Has the ticks that rest come back, once. Contexts: any but NMI.
pub(crate) fn wake_all() {
    cpus::online().for_each(want);
}

/// Whether the tick of `cpu` rests at this moment.
pub fn is_resting(cpu: CpuId) -> bool {
    RESTING.on(cpu).load(Ordering::Relaxed) != 0
}

/// How often the tick of `cpu` went to rest.
pub fn rests(cpu: CpuId) -> u64 {
    RESTS.on(cpu).load(Ordering::Relaxed)
}

/// Whether the executing CPU's tick rests. Exact with interrupts off, or in an interrupt.
#[inline(always)]
pub(crate) fn rests_here() -> bool {
    RESTING.read() != 0
}

/// The executing CPU's tick begins anew.
pub(super) fn awake_here(_quiet: &impl IrqsOff) {
    RESTING.write(0);
}

/// For the timer's interrupt, under the lock of the CPU's run queue: whether the tick rests from here on. `idle`: the CPU
/// has no task; `alone`: it has one at most.
pub(crate) fn decide(_quiet: &impl IrqsOff, idle: bool, alone: bool) {
    let may = match mode() {
        TickMode::Auto => alone,
        TickMode::Idle => idle,
        TickMode::Always => false,
    };
    let rested = rests_here();
    if !may || needed(idle) {
        RESTING.write(0);
        WANTED.write(0);
        return;
    }
    RESTING.write(1);
    // R3: the look comes after the store, for other CPUs too: pairs with the fence in `want`.
    fence(Ordering::SeqCst);
    if needed(idle) {
        RESTING.write(0);
        // A tick follows, and with it another look.
        WANTED.write(0);
    } else if !rested {
        RESTS.inc();
    }
}

/// Whether there is something else for which a tick is needed.
fn needed(idle: bool) -> bool {
    // While the CPU idles somebody tells it when its callbacks need not wait any longer.
    let callbacks = !idle && rcu::need_tick();
    callbacks
        || KEPT.load(Ordering::Relaxed) != 0
        || WANTED.read() != 0
        || log::has_pending()
        || calls::has_lazy()
}

/// Has the tick of `cpu` come back, if it rests. Contexts: any but NMI.
pub(crate) fn want(cpu: CpuId) {
    WANTED.on(cpu).store(1, Ordering::Relaxed);
    // R3. Pairs with the fence in `decide`: if that does not see the wish, the tick is seen to rest here.
    fence(Ordering::SeqCst);
    if is_resting(cpu) {
        Native::kick(cpu);
    }
}

/// The queue of `cpu`, which is locked, has more tasks than one: its tick comes back.
#[inline]
pub(crate) fn resume_for(quiet: &impl IrqsOff, cpu: CpuId) {
    if !is_resting(cpu) {
        return;
    }
    if cpu == Native::cpu() {
        resume(quiet);
    } else {
        want(cpu);
    }
}

/// The executing CPU goes from its idle task to another one: where only idle CPUs rest, its tick comes back.
#[inline(always)]
pub(crate) fn leave_idle(quiet: &impl IrqsOff) {
    if rests_here() && mode() != TickMode::Auto {
        resume(quiet);
    }
}

/// The executing CPU's tick comes back.
#[cold]
fn resume(quiet: &impl IrqsOff) {
    RESTING.write(0);
    WANTED.write(0);
    catch_up(quiet, Native::now_ns());
    timer::tick_runs(quiet);
    arm_by(quiet, next_tick(quiet));
}

/// Something has changed about this CPU's coarse timers, and perhaps its timer has to come earlier for them.
pub(crate) fn look_again(look: Look) {
    if rests_here() {
        let quiet = sync::irq::disable();
        if rests_here() {
            arm_by(&quiet, timer::tick_rests(&quiet, look));
        }
    }
}

/// For the kick's interrupt.
pub(super) fn on_kick() {
    if !rests_here() {
        return;
    }
    if WANTED.read() != 0 {
        resume(&sync::irq::disable());
    } else {
        // Perhaps somebody has armed a timer for which this CPU sleeps too long.
        look_again(Look::Interrupted);
    }
}

/// There is a message in the log, which a tick would find: this CPU's comes back. Contexts: any.
pub(crate) fn note_log() {
    if rests_here() {
        // The writer may be anywhere; what it may not do there, an interrupt may.
        calls::irq_work(TICK_BACK.on(Native::cpu()));
    }
}
