//! A borrow keeps nothing alive.
use timers::{Firing, Ticks, Timer, Timers};

static TIMERS: Timers = Timers::new();

fn main() {
    let timer = Timer::new(|_: &Firing<'_>| ());
    TIMERS.add(&timer, Ticks(1));
}
