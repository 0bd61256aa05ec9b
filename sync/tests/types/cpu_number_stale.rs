//! The story: a counter for each CPU in an array, and a task that asks for its CPU's number, is moved, and then counts on
//! the CPU that it left, in the middle of that one's own update. Here a CPU's data is reached by a guard and not by a
//! number, and the guard is gone.

use std::cell::Cell;

use sync::irq;

hal::percpu! {
    static COUNT: Cell<u64> = Cell::new(0);
}

fn main() {
    let mine = {
        let here = irq::disable();
        COUNT.get_local(&here)
    };
    mine.set(mine.get() + 1);
}
