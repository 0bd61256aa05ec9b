//! Preemption off does not keep softirqs away: one would wait for the lock that it interrupted.

use sync::{BottomHalf, SpinLock, preempt};

fn main() {
    let lock = SpinLock::<_, BottomHalf>::new(0);
    let here = preempt::disable();
    *lock.lock_with(&here) += 1;
}
