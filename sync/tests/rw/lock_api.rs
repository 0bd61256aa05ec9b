//! The adapters for the `lock_api` crate: what they switch, exclude and let in.

use std::thread;

use lock_api::{Mutex, RwLock, RwLockWriteGuard};
use sync::lock_api::{RawRwSpinLock, RawSpinLock};
use sync::{Irq, Queued, Task};

use super::support::{Event, Journaling, is_at_rest, journal, reschedule_comes_due};

#[test]
fn a_mutex_switches_as_its_flavour_says_in_the_right_order() {
    let lock = Mutex::<RawSpinLock<Irq<Journaling>>, u32>::new(1);
    journal();
    let guard = lock.lock();
    assert!(lock.is_locked() && lock.try_lock().is_none());
    reschedule_comes_due();
    drop(guard);
    let events = [Event::IrqOff, Event::IrqOff, Event::IrqOn];
    assert_eq!(journal(), [&events[..], &[Event::Scheduled { watched_lock_is_held: false }]].concat());
    assert!(is_at_rest() && lock.try_lock().is_some() && !lock.is_locked());
}

#[test]
fn readers_share_and_a_writer_becomes_one() {
    let lock = RwLock::<RawRwSpinLock<Task<Journaling>>, u32>::new(1);
    {
        let _readers = (lock.read(), lock.try_read().unwrap());
        assert!(lock.try_write().is_none() && !lock.is_locked_exclusive());
    }
    let mut writer = lock.write();
    *writer = 2;
    assert!(lock.try_read().is_none() && lock.try_write().is_none() && lock.is_locked_exclusive());
    let reader = RwLockWriteGuard::downgrade(writer);
    assert_eq!((*reader, *lock.try_read().unwrap()), (2, 2));
    drop(reader);
    assert!(is_at_rest() && !lock.is_locked());
}

#[test]
fn they_exclude() {
    let mutex = Mutex::<RawSpinLock<Queued<Task<Journaling>>>, u32>::new(0);
    let rwlock = RwLock::<RawRwSpinLock<Irq<Journaling>>, [u32; 2]>::new([0; 2]);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    *mutex.lock() += 1;
                    rwlock.write().iter_mut().for_each(|word| *word += 1);
                    let words = rwlock.read();
                    assert_eq!(words[0], words[1]);
                }
            });
        }
    });
    assert_eq!((mutex.into_inner(), rwlock.into_inner()), (15_000, [15_000; 2]));
}
