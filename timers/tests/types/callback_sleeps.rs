//! A sleeping lock asks for the right to sleep, and a `Firing` is none.
use sync::Mutex;
use timers::{Firing, Ticks, Timers};

static TIMERS: Timers = Timers::new();
static TOTAL: Mutex<u32> = Mutex::new(0);

fn begin() {
    TIMERS.after(Ticks(1), |fired| *TOTAL.lock(fired) += 1);
}

fn main() {
    let _ = begin;
    let _: Option<&Firing<'_>> = None;
}
