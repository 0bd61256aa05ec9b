//! With the lock let go of, it may wait.
use sync::{SpinLock, TaskCx};
use timers::Timer;

fn end(cx: &mut TaskCx, total: &SpinLock<u32>, timer: &Timer<u32>) {
    let guard = total.lock_in(cx);
    drop(guard);
    timer.delete_sync(cx);
}

pub(crate) fn main() {
    let _ = end;
}
