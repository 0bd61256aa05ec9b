//! The same story with the number itself: it was read earlier, and by now it may be another CPU's.

use std::cell::Cell;

use sync::preempt;

hal::percpu! {
    static COUNT: Cell<u64> = Cell::new(0);
}

fn main() {
    let number = preempt::disable().cpu();
    // Here the task may be moved.
    let mine = COUNT.on(number);
    mine.set(mine.get() + 1);
}
