//! The story: the first two lines that touch the data stand above the one that takes the lock. Without the guard there
//! is no data to touch.

use sync::SpinLock;

static QUEUE: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());

fn main() {
    let is_first = QUEUE.is_empty();
    QUEUE.push(1);
    let mut queue = QUEUE.lock();
    if is_first {
        queue.push(2);
    }
}
