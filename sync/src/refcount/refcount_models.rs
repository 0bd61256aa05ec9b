//! Counting under every schedule and every value that a load may return.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;

/// An object whose destruction is a write that the model checks against the uses.
struct Object<R: Rules> {
    refs: Counter<R>,
    data: UnsafeCell<u32>,
}

// SAFETY: the model checks what this claims.
unsafe impl<R: Rules> Sync for Object<R> {}
// SAFETY: as above.
unsafe impl<R: Rules> Send for Object<R> {}

const DESTROYED: u32 = 99;

impl<R: Rules> Object<R> {
    fn use_it(&self) {
        // SAFETY: the model reports a write that is not ordered with this.
        let data = self.data.with(|data| unsafe { *data });
        assert_ne!(data, DESTROYED, "used after it was destroyed");
    }

    fn put(&self) -> u32 {
        if self.refs.put().unwrap() {
            // SAFETY: as above.
            self.data.with_mut(|data| unsafe { *data = DESTROYED });
            return 1;
        }
        0
    }
}

/// Broken: uses may come after the reference was given up.
enum RelaxedPut {}
impl Rules for RelaxedPut {
    const PUT: Ordering = Ordering::Relaxed;
}

/// Broken: the destruction may come before the others' uses.
enum NoFence {}
impl Rules for NoFence {
    const FENCE_AT_ZERO: bool = false;
}

/// Broken: a lookup brings a dying object back.
enum FromZero {}
impl Rules for FromZero {
    const UNLESS_ZERO: bool = false;
}

/// Two with a reference each use the object and let go, and a third tries to get one.
fn last_one_destroys<R: Rules + 'static>(looks_up: bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(if looks_up { 2 } else { 3 });
    test_support::check(&builder, move || {
        let object = Arc::new(Object::<R> { refs: Counter::new(2), data: UnsafeCell::new(0) });
        let holders: Vec<_> = (0..2)
            .map(|i| {
                let object = Arc::clone(&object);
                thread::spawn(move || {
                    if i == 0 {
                        // A copy, made from a reference that is there.
                        object.refs.get().unwrap();
                        object.use_it();
                        assert_eq!(object.put(), 0);
                    }
                    object.use_it();
                    object.put()
                })
            })
            .collect();
        let finder = thread::spawn({
            let object = Arc::clone(&object);
            move || {
                if looks_up && object.refs.try_get().unwrap() {
                    object.use_it();
                    return object.put();
                }
                0
            }
        });
        let mut destroyed = finder.join().unwrap();
        for holder in holders {
            destroyed += holder.join().unwrap();
        }
        assert_eq!(destroyed, 1, "destroyed once");
        assert_eq!(object.refs.load(), 0);
    });
}

#[test]
fn the_last_one_destroys_after_all_others() {
    last_one_destroys::<Sound>(false);
}

#[test]
fn a_lookup_gets_a_reference_or_nothing() {
    last_one_destroys::<Sound>(true);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn giving_up_without_release_is_noticed() {
    last_one_destroys::<RelaxedPut>(false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn destroying_without_acquire_is_noticed() {
    last_one_destroys::<NoFence>(false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn coming_back_from_zero_is_noticed() {
    last_one_destroys::<FromZero>(true);
}

/// One gives up without the lock, one with it; and one looks the object up under the lock.
#[test]
fn who_looks_up_under_the_lock_never_finds_a_dead_object() {
    use crate::Task;
    use crate::spin::SpinLock;
    use crate::test_platform::Modelled;

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    test_support::check(&builder, || {
        let refs = Arc::new(RefCount::<Modelled>::with_count(1));
        let table = Arc::new(SpinLock::<bool, Task<Modelled>>::new(true));
        let finder = {
            let (refs, table) = (Arc::clone(&refs), Arc::clone(&table));
            thread::spawn(move || {
                let found = *table.lock();
                let found = found && {
                    let listed = table.lock();
                    *listed && {
                        assert!(refs.try_get(), "listed, and dead");
                        true
                    }
                };
                found && refs.put_and_lock(&table).map(|mut table| *table = false).is_some()
            })
        };
        let mine = refs.put_and_lock(&table).map(|mut table| *table = false).is_some();
        let theirs = finder.join().unwrap();
        assert!(mine != theirs, "one of them took it out");
        assert!(!*table.lock());
    });
}
