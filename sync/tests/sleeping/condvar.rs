use hal::Native;
use sync::wait::{Limits, WaitError};
use sync::{Condvar, Mutex};

use super::*;

#[test]
fn no_change_is_missed() {
    let (value, changed) = (Mutex::<u32>::new(0), Condvar::<Native>::new());
    tasks(4, |number, cx| {
        for round in 0..1_000 {
            let guard = value.lock(cx);
            // Each in its turn; the others wait for theirs.
            let mut guard = changed.wait_while(guard, cx, |value| *value != round * 4 + number as u32);
            *guard += 1;
            changed.notify_all();
        }
    });
    assert_eq!(value.into_inner(), 4_000);
    assert!(!changed.notify_one());
}

#[test]
fn a_limit_ends_the_wait_with_the_mutex_held() {
    let (value, changed) = (Mutex::<u32>::new(0), Condvar::<Native>::new());
    task(|cx| {
        let guard = value.lock(cx);
        let (mut guard, result) = changed.wait_with(Limits::NONE.until(in_ms(5)), guard, cx);
        assert_eq!(result, Err(WaitError::TimedOut));
        *guard += 1;
        assert!(value.is_locked());
    });
    assert_eq!(value.into_inner(), 1);
}
