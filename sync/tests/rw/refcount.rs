//! Reference counts at the ends of their range, and against a plain count.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use proptest::prelude::*;
use sync::{RefCount, SpinLock, Task};

use super::support::Journaling;

type Count = RefCount<Journaling>;

fn report_of<R>(f: impl FnOnce() -> R) -> String {
    *catch_unwind(AssertUnwindSafe(f)).err().expect("reported").downcast::<String>().expect("formatted")
}

#[test]
fn coming_back_from_zero_is_reported_and_the_object_stays_for_ever() {
    let refs = Count::new();
    assert!(refs.put());
    assert!(!refs.try_get());
    let line = line!() + 1;
    let message = report_of(|| refs.get());
    assert!(
        message.starts_with(&format!("BUG: refcount: increment on 0; use after free at {}:{line}:", file!())),
        "{message}"
    );
    assert!(refs.is_saturated() && !refs.put() && refs.is_saturated());
    assert!(refs.try_get());
}

#[test]
fn giving_up_what_is_not_there_is_reported() {
    let refs = Count::new();
    assert!(refs.put());
    let message = report_of(|| refs.put());
    assert!(
        message.starts_with(&format!("BUG: refcount: underflow; use after free at {}:", file!())),
        "{message}"
    );
    assert!(refs.is_saturated());
    let refs = Count::with_count(0);
    assert!(report_of(|| refs.put_unless_last()).contains("underflow"));
    assert!(refs.is_saturated() && refs.put_unless_last());
}

#[test]
fn too_many_references_are_reported_once_and_never_wrap() {
    for overflow in [|refs: &Count| refs.get(), |refs: &Count| assert!(refs.try_get())] {
        let refs = Count::with_count(Count::MAX - 1);
        overflow(&refs);
        assert_eq!(refs.count(), Count::MAX);
        let message = report_of(|| overflow(&refs));
        assert!(
            message.starts_with(&format!("BUG: refcount: overflow; memory will leak at {}:", file!())),
            "{message}"
        );
        for _ in 0..1_000 {
            refs.get();
            assert!(refs.try_get() && !refs.put() && refs.put_unless_last());
            assert!(refs.is_saturated());
        }
    }
}

#[test]
fn an_object_is_revived_when_it_is_dead_only() {
    let refs = Count::with_count(0);
    assert!(!refs.try_get());
    refs.revive();
    assert!(refs.try_get());
    assert!(report_of(|| refs.revive()).starts_with("BUG: refcount: revived with 2 references at "));
    assert_eq!(refs.count(), 2);
}

#[test]
fn of_many_who_give_up_one_destroys_with_the_lock_held() {
    const OBJECTS: u32 = 3_000;
    let table = SpinLock::<u32, Task<Journaling>>::new(0);
    let destroyed = AtomicU32::new(0);
    let objects: Vec<_> = (0..OBJECTS).map(|_| Count::with_count(3)).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for refs in &objects {
                    refs.get();
                    assert!(!refs.put());
                    if let Some(mut table) = refs.put_and_lock(&table) {
                        *table += 1;
                        destroyed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert!(objects.iter().all(|refs| refs.count() == 0));
    assert_eq!((destroyed.into_inner(), table.into_inner()), (OBJECTS, OBJECTS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn counts_as_a_number_does(start in 1..5_u32, steps in prop::collection::vec(0..4_u8, 0..60)) {
        let refs = Count::with_count(start);
        let mut plain = start;
        for step in steps {
            match step {
                _ if plain == 0 => prop_assert!(!refs.try_get()),
                0 => {
                    refs.get();
                    plain += 1;
                }
                1 => {
                    prop_assert!(refs.try_get());
                    plain += 1;
                }
                2 => {
                    plain -= 1;
                    prop_assert_eq!(refs.put(), plain == 0);
                }
                _ => {
                    prop_assert_eq!(refs.put_unless_last(), plain != 1);
                    plain -= u32::from(plain != 1);
                }
            }
            prop_assert_eq!(refs.count(), plain);
        }
    }
}
