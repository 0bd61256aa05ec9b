//! The guard comes first, because everything else goes through it.

use sync::SpinLock;

static QUEUE: SpinLock<Vec<u32>> = SpinLock::new(Vec::new());

pub(crate) fn main() {
    let mut queue = QUEUE.lock();
    let is_first = queue.is_empty();
    queue.push(1);
    if is_first {
        queue.push(2);
    }
}
