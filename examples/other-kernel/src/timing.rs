//! Timers on two CPUs: what `timers` asks of a kernel, and an exercise.
//!
//! Three calls bind it: [`start_on_this_cpu`] gives a CPU its wheels, [`on_tick`] says what time it is, in the timer
//! interrupt, and [`serve`] calls what is due, where softirqs are served.

use core::sync::atomic::{AtomicU32, Ordering};

use hal::{CpuId, Platform, percpu};
use sync::Cpu;
use sync::context::{HardirqGuard, SoftirqGuard};
use timers::wheel::Wheel;
use timers::{CpuTimers, Deletion, Firing, Ticks, Timer, TimerFlags, Timers};

use crate::exercises::Exercise;
use crate::interrupts::TICK_NS;
use crate::platform::Own;

static TIMERS: Timers<Own> = Timers::new_in();

percpu! {
    static WHEELS: CpuTimers<Own> = CpuTimers::new_in();
}

/// The softirq that calls timers, by its number.
const TIMER_SOFTIRQ: u32 = 1;

/// The executing CPU gets its wheels. Before its first timer interrupt.
pub(crate) fn start_on_this_cpu() {
    let quiet = Cpu::<Own>::disable_interrupts();
    TIMERS.install(Own::cpu(), WHEELS.on(Own::cpu()));
    TIMERS.start_tick(&quiet, Own::cpu());
}

/// What tick it is: a millisecond each.
fn now() -> Ticks {
    Ticks(Own::now_ns() / TICK_NS)
}

/// The timer interrupt.
pub(crate) fn on_tick(_serving: &HardirqGuard<Own>) {
    if TIMERS.tick(Own::cpu(), now()) {
        Own::raise_softirq(TIMER_SOFTIRQ);
    }
}

/// The softirqs of this CPU whose bits are set.
pub(crate) fn serve(pending: u32, serving: &SoftirqGuard<Own>) {
    if pending & 1 << TIMER_SOFTIRQ != 0 {
        TIMERS.run(serving);
    }
}

type Plain = Timer<fn(&Firing<'_, Wheel, Own>), Wheel, Own>;

/// Timers that both CPUs arm, put off and delete.
static SHARED: [Plain; 16] = [const { Timer::new_in(TimerFlags::NONE, called) }; 16];

static ARMED: AtomicU32 = AtomicU32::new(0);
static CALLED: AtomicU32 = AtomicU32::new(0);
static DELETED: AtomicU32 = AtomicU32::new(0);
static EARLY: AtomicU32 = AtomicU32::new(0);

fn called(firing: &Firing<'_, Wheel, Own>) {
    CALLED.fetch_add(1, Ordering::Relaxed);
    EARLY.fetch_add(u32::from(now() < firing.expired_at()), Ordering::Relaxed);
}

/// What the exercise goes on for, in ticks.
const LASTS: u64 = 60;

pub(crate) const EXERCISE: Exercise = Exercise { name: "timers", work, on_timer: None, judge };

fn work(cpu: CpuId) {
    let end = now() + Ticks(LASTS);
    let mut draw = u64::from(cpu.as_u32()) + 1;
    while now() < end {
        // Xorshift: any order will do.
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        let timer = &SHARED[draw as usize % SHARED.len()];
        match draw >> 32 & 3 {
            0 | 1 => {
                let armed_before = TIMERS.modify(timer, now() + Ticks(draw >> 40 & 15));
                ARMED.fetch_add(u32::from(!armed_before), Ordering::Relaxed);
            }
            2 => _ = DELETED.fetch_add(u32::from(timer.delete()), Ordering::Relaxed),
            _ => {
                let deleted = timer.try_delete_sync() == Deletion::Deleted;
                DELETED.fetch_add(u32::from(deleted), Ordering::Relaxed);
            }
        }
    }
    // What is armed now is called within 16 ticks.
    while SHARED.iter().any(|timer| timer.is_pending() || timer.is_running()) && now() < end + Ticks(1_000) {
        Own::relax();
    }
}

fn judge() -> Result<u32, &'static str> {
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    if count(&EARLY) != 0 {
        Err("a timer was called early")
    } else if count(&ARMED) != count(&CALLED) + count(&DELETED) {
        Err("a timer was lost, or called twice")
    } else if count(&CALLED) == 0 || count(&DELETED) == 0 {
        Err("no timer was called, or none deleted")
    } else {
        Ok(0)
    }
}
