//! The story: a task sleeps while it holds a spin lock, and whoever wants the lock on its CPU spins until it wakes up.
//! A lock that was taken with the token holds it until it is released, and sleeping needs it.

use sync::{SpinLock, TaskCx};

fn update(cx: &mut TaskCx, totals: &SpinLock<u64>) {
    let mut totals = totals.lock_in(cx);
    *totals += 1;
    cx.block(Some(0));
    *totals += 1;
}

fn main() {
    // SAFETY: this thread is a task of the hosted machine and has no other token.
    let mut cx = unsafe { TaskCx::new() };
    update(&mut cx, &SpinLock::new(0));
}
