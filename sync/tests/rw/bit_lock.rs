//! Locks in a bit: exclusion, and the rest of the word.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

use proptest::prelude::*;
use sync::{BitSpinLock, Irq, Task};

use super::support::{Event, Journaling, is_at_rest, journal};

#[test]
fn holders_exclude_each_other_while_others_change_the_word() {
    const TIMES: u64 = 20_000;
    let word = AtomicU32::new(0);
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    let _guard = BitSpinLock::<_, Task<Journaling>>::new(&word, 31).lock();
                    count.store(count.load(Relaxed) + 1, Relaxed);
                }
            });
        }
        for _ in 0..TIMES {
            word.fetch_add(1, Relaxed);
        }
    });
    assert_eq!((count.into_inner(), word.into_inner()), (3 * TIMES, TIMES as u32));
}

#[test]
fn a_pointer_keeps_what_it_points_to() {
    let (mut a, mut b) = (5_u64, 6_u64);
    let head = AtomicPtr::new(ptr::from_mut(&mut a));
    let lock = BitSpinLock::<_, Irq<Journaling>>::new(&head, 0);
    journal();
    let mut guard = lock.lock();
    assert_eq!(journal(), [Event::IrqOff]);
    assert!(lock.is_locked() && lock.try_lock().is_none());
    // SAFETY: `a` lives.
    assert_eq!(unsafe { *guard.get() }, 5);
    guard.set(ptr::from_mut(&mut b));
    assert!(lock.is_locked());
    drop(guard);
    assert!(is_at_rest() && !lock.is_locked());
    // SAFETY: `b` lives.
    assert_eq!(unsafe { *head.into_inner() }, 6);
}

#[test]
#[should_panic(expected = "the word has 32 bits, and none of number 32")]
fn a_bit_that_is_not_there_is_refused() {
    let _ = BitSpinLock::<_, Task<Journaling>>::new(&AtomicU32::new(0), 32);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Whatever is in the word, and whichever bits are locked in whatever order: only those bits change.
    #[test]
    fn only_the_bit_changes(word: usize, bits in prop::collection::hash_set(0..usize::BITS, 1..5), other: usize) {
        let mask = bits.iter().fold(0, |mask, bit| mask | 1_usize << bit);
        let shared = AtomicUsize::new(word & !mask);
        let mut guards: Vec<_> =
            bits.iter().map(|bit| BitSpinLock::<_, Task<Journaling>>::new(&shared, *bit).lock()).collect();
        prop_assert_eq!(shared.load(Relaxed), word | mask);
        shared.fetch_xor(other & !mask, Relaxed);
        while let Some(guard) = guards.pop() {
            drop(guard);
        }
        prop_assert_eq!(shared.load(Relaxed), (word ^ other) & !mask);
        prop_assert!(is_at_rest());
    }
}
