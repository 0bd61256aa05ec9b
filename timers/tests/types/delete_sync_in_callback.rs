//! A function that waits for its own end would need a task's right to sleep, which it cannot have.
use std::sync::Arc;
use sync::TaskCx;
use timers::{Firing, Ticks, Timer, TimerFlags, Timers};

static TIMERS: Timers = Timers::new();

fn begin(cx: &'static mut TaskCx) {
    let other = Arc::new(Timer::new(|_: &Firing<'_>| ()));
    let timer = Timer::new_in(TimerFlags::NONE, move |_: &Firing<'_>| {
        other.delete_sync(cx);
    });
    TIMERS.add(Arc::new(timer), Ticks(1));
}

fn main() {
    let _ = begin;
}
