use std::sync::atomic::{AtomicU32, Ordering};

use hal::{Native, Platform};
use sync::Semaphore;
use sync::wait::{Limits, WaitError};

use super::*;

#[test]
fn as_many_as_there_are_permits() {
    let (slots, inside, most) = (Semaphore::<Native>::new(2), AtomicU32::new(0), AtomicU32::new(0));
    tasks(5, |_, cx| {
        for _ in 0..2_000 {
            slots.down(cx);
            let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            Native::relax();
            inside.fetch_sub(1, Ordering::Relaxed);
            slots.up();
        }
    });
    assert_eq!((most.into_inner(), slots.permits()), (2, 2));
}

#[test]
fn a_permit_goes_to_who_waits_and_not_to_who_comes() {
    let slots = Semaphore::<Native>::new(0);
    tasks(2, |number, cx| {
        if number == 0 {
            slots.down(cx);
        } else {
            // The other one is in line when a permit that is given back does not show up.
            loop {
                slots.up();
                // Or it comes between the two looks, and takes the permit like anybody.
                if slots.permits() == 0 || !slots.try_down() {
                    break;
                }
            }
            assert!(!slots.try_down());
        }
    });
}

#[test]
fn limits_take_no_permit() {
    let slots = Semaphore::<Native>::new(0);
    let result = task(|cx| slots.down_with(Limits::NONE.until(passed()), cx));
    assert_eq!(result, Err(WaitError::TimedOut));
    slots.up();
    assert!(slots.try_down() && !slots.try_down());
}
