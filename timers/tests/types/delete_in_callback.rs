//! A function may delete timers without waiting.
use std::sync::Arc;
use timers::{Firing, Ticks, Timer, TimerFlags, Timers};

static TIMERS: Timers = Timers::new();

fn begin() {
    let other = Arc::new(Timer::new(|_: &Firing<'_>| ()));
    let timer = Timer::new_in(TimerFlags::NONE, move |_: &Firing<'_>| {
        other.try_delete_sync();
    });
    TIMERS.add(Arc::new(timer), Ticks(1));
}

pub(crate) fn main() {
    let _ = begin;
}
