//! An owner does.
use timers::{Firing, Owned, Ticks, Timer, Timers};

static TIMERS: Timers = Timers::new();

fn begin() {
    let timer = Owned::new(Timer::new(|_: &Firing<'_>| ()));
    TIMERS.add(&timer, Ticks(1));
}

pub(crate) fn main() {
    let _ = begin;
}
