//! The lock is released first and taken again afterwards.

use sync::{SpinLock, TaskCx};

fn update(cx: &mut TaskCx, totals: &SpinLock<u64>) {
    *totals.lock_in(cx) += 1;
    cx.block(Some(0));
    *totals.lock_in(cx) += 1;
}

pub(crate) fn main() {
    // SAFETY: this thread is a task of the hosted machine and has no other token.
    let mut cx = unsafe { TaskCx::new() };
    update(&mut cx, &SpinLock::new(0));
}
