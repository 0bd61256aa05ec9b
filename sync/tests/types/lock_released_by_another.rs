//! The story: one task takes a lock, and another one releases it when the work is done. The first task's CPU would keep
//! preemption off for ever, and the second's would turn on what it never turned off.

use std::thread;

use sync::SpinLock;

static BUSY: SpinLock<()> = SpinLock::new(());

fn main() {
    let busy = BUSY.lock();
    let worker = thread::spawn(move || drop(busy));
    worker.join().unwrap();
}
