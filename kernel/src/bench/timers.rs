//! What arming, moving, taking back and calling timers costs.
//!
//! Each figure is the shortest of several tries, net of the loop, with interrupts off while it is taken, so that no tick comes
//! in between. Timers are armed about a second ahead, as time-outs are. What is called is called by the softirq, as ever; its
//! figures say what passes between the tick in which all timers are due and the end of the last call.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{Native, Platform};
use sync::{TaskCx, irq};
use timers::HZ;

use super::tasks::Figure;
use crate::timer::precise::{self, HrTimer};
use crate::timer::{self, Firing, Ticks, Timer, TimerFlags};

const TIMES: u32 = 500;
const TRIES: usize = 15;
/// How many timers are many.
const MANY: usize = 100_000;

static CALLED: AtomicU64 = AtomicU64::new(0);
/// When the first and the last one was called.
static FIRST: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

type Plain = Timer<()>;

fn note(_: &Plain, _: &Firing<'_>) {
    // Timers of this CPU are called one after the other.
    let before = CALLED.load(Ordering::Relaxed);
    CALLED.store(before + 1, Ordering::Relaxed);
    // The first one and the last one, in one comparison.
    if before.wrapping_sub(1) >= MANY as u64 - 2 {
        note_time(before);
    }
}

#[cold]
fn note_time(before: u64) {
    let end = if before == 0 { &FIRST } else { &LAST };
    end.store(Native::now_ns(), Ordering::Relaxed);
}

fn plain() -> &'static Plain {
    Box::leak(Box::new(Timer::with_state(TimerFlags::NONE, (), note)))
}

/// Tenths of nanoseconds that one of `TIMES` turns takes, the shortest of several tries.
fn shortest(mut once: impl FnMut(u32)) -> u64 {
    let mut time = || {
        let _quiet = irq::disable();
        let begun = Native::now_ns();
        for turn in 0..black_box(TIMES) {
            once(turn);
            black_box(());
        }
        Native::now_ns() - begun
    };
    (0..TRIES).map(|_| time()).min().unwrap_or(0) * 10 / u64::from(TIMES)
}

/// All figures. Task context; takes 6 MB of memory for the many timers, and gives it back.
pub fn measure(cx: &mut TaskCx) -> Vec<Figure> {
    let mut figures = Vec::new();
    let empty = shortest(|_| ());
    let mut add = |name, gross: u64| figures.push(Figure { name, tenths: gross.saturating_sub(empty) });
    let timer = plain();
    // Somebody else is always armed, so that no turn is about an empty wheel.
    let other = plain();
    let far = Ticks(timer::now().0 + 5_000_000);
    timer::add(other, far);
    let base = timer::now().0 + HZ;
    add(
        "add_timer_timer_delete_pair",
        shortest(|_| {
            timer::add(timer, Ticks(base));
            timer.delete();
        }),
    );
    timer::add(timer, Ticks(base));
    add(
        "mod_timer_pending_requeue",
        shortest(|turn| _ = timer::modify(timer, Ticks(base + u64::from(turn % 2) * 4_096))),
    );
    add("mod_timer_pending_same_bucket", shortest(|_| _ = timer::modify(timer, Ticks(base))));
    timer.delete();
    figures.extend(precise_ones());
    figures.extend(many(cx));
    other.delete();
    figures
}

/// Start and cancel of a high-resolution timer: far ones behind another one, for which the CPU's timer is armed already, and
/// near ones, for which it must be armed.
fn precise_ones() -> Vec<Figure> {
    let empty = shortest(|_| ());
    let net = |name, gross: u64| Figure { name, tenths: gross.saturating_sub(empty) };
    let timer = Arc::new(HrTimer::soft(|_| ()));
    let now = Native::now_ns();
    let start_cancel = |at: u64| {
        shortest(|turn| {
            precise::add(&timer, at + u64::from(turn));
            timer.delete();
        })
    };
    let far = start_cancel(now + 3_600_000_000_000);
    let near = start_cancel(now + 1_000_000);
    alloc::vec![net("hrtimer_start_cancel_far", far), net("hrtimer_start_cancel_near", near)]
}

fn many(cx: &mut TaskCx) -> Vec<Figure> {
    let timers: Vec<Plain> = (0..MANY).map(|_| Timer::with_state(TimerFlags::NONE, (), note)).collect();
    let timers = Box::into_raw(timers.into_boxed_slice());
    // SAFETY: freed below, when nobody refers to them any more; a drop of one that is armed would stop the machine.
    let all: &'static [Plain] = unsafe { &*timers };
    let mut figures = Vec::new();
    let base = timer::now().0 + 10 * HZ;
    let mut time = |name, each: &mut dyn FnMut(usize, &'static Plain)| {
        let begun = Native::now_ns();
        all.iter().enumerate().for_each(|(number, timer)| each(number, timer));
        figures.push(Figure { name, tenths: (Native::now_ns() - begun) * 10 / MANY as u64 });
    };
    time("add_timer_1e5", &mut |number, timer| _ = timer::add(timer, Ticks(base + number as u64 % 4_000)));
    time("timer_delete_1e5", &mut |_, timer| _ = timer.delete());
    figures.push(Figure { name: "mass_expiry_1jiffy_1e5", tenths: mass_expiry(all, cx) });
    // SAFETY: from `into_raw`; all timers were called, and none is armed or running.
    drop(unsafe { Box::from_raw(timers) });
    figures
}

/// Tenths of nanoseconds a call, between the first and the last, of timers that are due in the same tick.
fn mass_expiry(timers: &'static [Plain], cx: &mut TaskCx) -> u64 {
    CALLED.store(0, Ordering::Relaxed);
    // Late enough for all of them to be armed before the first is due.
    let base = timer::now().0 + 2 * HZ;
    for timer in timers {
        timer::add(timer, Ticks(base));
    }
    while CALLED.load(Ordering::Relaxed) < MANY as u64 {
        cx.sleep_ns(50_000_000);
    }
    for timer in timers {
        timer.delete_sync(cx);
    }
    let (first, last) = (FIRST.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed));
    (last - first) * 10 / MANY as u64
}
