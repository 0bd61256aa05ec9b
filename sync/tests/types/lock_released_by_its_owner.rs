//! The remedy: who took it releases it, and the other task is told by an event.

use std::thread;

use sync::{Completion, SpinLock, TaskCx};

static BUSY: SpinLock<u32> = SpinLock::new(0);
static WORK_IS_DONE: Completion = Completion::new();

pub(crate) fn main() {
    let worker = thread::spawn(|| {
        *BUSY.lock() += 1;
        WORK_IS_DONE.complete();
    });
    // SAFETY: this thread is a task of the hosted machine and has no other token.
    let mut cx = unsafe { TaskCx::new() };
    WORK_IS_DONE.wait(&mut cx);
    assert_eq!(*BUSY.lock(), 1);
    worker.join().unwrap();
}
