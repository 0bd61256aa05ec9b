//! While the guard lives the CPU stays the same one. A number may be kept: it opens only what is made to be shared.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use sync::{irq, preempt};

hal::percpu! {
    static COUNT: Cell<u64> = Cell::new(0);
    static SHARED: AtomicU64 = AtomicU64::new(0);
}

pub(crate) fn main() {
    {
        let here = irq::disable();
        let mine = COUNT.get_local(&here);
        mine.set(mine.get() + 1);
    }
    let number = preempt::disable().cpu();
    SHARED.on(number).fetch_add(1, Ordering::Relaxed);
}
