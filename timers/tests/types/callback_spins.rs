//! A spinning lock of softirqs takes it as proof that they are off.
use sync::BhSpinLock;
use timers::{Firing, Ticks, Timers};

static TIMERS: Timers = Timers::new();
static TOTAL: BhSpinLock<u32> = BhSpinLock::new(0);

fn begin() {
    TIMERS.after(Ticks(1), |fired| *TOTAL.lock_with(fired) += 1);
}

pub(crate) fn main() {
    let _ = begin;
    let _: Option<&Firing<'_>> = None;
}
