//! The callback may want the lock: whoever waits for it must not hold one.
use sync::{SpinLock, TaskCx};
use timers::Timer;

fn end(cx: &mut TaskCx, total: &SpinLock<u32>, timer: &Timer<u32>) {
    let guard = total.lock_in(cx);
    timer.delete_sync(cx);
    drop(guard);
}

fn main() {
    let _ = end;
}
