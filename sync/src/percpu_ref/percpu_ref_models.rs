//! Counting in slots beside a kill, under every schedule and every value that a load may return.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;

/// An object whose destruction is a write that the model checks against the uses.
struct Object<R: Rules> {
    shared: Shared<R>,
    slots: [AtomicIsize; 2],
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

    fn put(&self, slot: usize) -> u32 {
        self.destroy_if(self.shared.put(&self.slots[slot]).expect("counted right"))
    }

    fn kill(&self) -> u32 {
        self.destroy_if(self.shared.kill(self.slots.iter()).expect("counted right"))
    }

    fn destroy_if(&self, was_last: bool) -> u32 {
        if was_last {
            // SAFETY: as above.
            self.data.with_mut(|data| unsafe { *data = DESTROYED });
        }
        u32::from(was_last)
    }
}

/// Broken: the shared count is not held up while slots are being closed.
enum NoBias {}
impl Rules for NoBias {
    const BIAS: isize = 0;
}

/// Broken: what is added to a slot between a look and the closing is lost.
enum NoSwap {}
impl Rules for NoSwap {
    const SWAP: bool = false;
}

/// Broken: uses may come after the reference was given up.
enum RelaxedPut {}
impl Rules for RelaxedPut {
    const PUT: Ordering = Ordering::Relaxed;
}

/// Broken: who finds its slot closed is not counted.
enum CountedOnce {}
impl Rules for CountedOnce {
    const COUNT_AGAIN: bool = false;
}

/// A holder copies its reference on one CPU and gives both up on another, while a killer closes the slots.
fn holder_beside_killer<R: Rules + 'static>() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    test_support::check(&builder, || {
        let object = Arc::new(Object::<R> {
            shared: Shared::new(),
            slots: [AtomicIsize::new(0), AtomicIsize::new(0)],
            data: UnsafeCell::new(0),
        });
        // The holder's reference, made by the creator on CPU 0.
        object.shared.get(&object.slots[0]).unwrap();
        let holder = {
            let object = Arc::clone(&object);
            thread::spawn(move || {
                object.shared.get(&object.slots[1]).expect("counted right");
                object.use_it();
                let destroyed = object.put(0);
                assert_eq!(destroyed, 0, "there is one more");
                object.use_it();
                object.put(1)
            })
        };
        let killer = {
            let object = Arc::clone(&object);
            thread::spawn(move || {
                object.use_it();
                object.kill()
            })
        };
        let destroyed = holder.join().unwrap() + killer.join().unwrap();
        assert_eq!(destroyed, 1, "destroyed once");
        assert_eq!(object.shared.count.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn the_last_one_destroys_after_all_others() {
    holder_beside_killer::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_count_that_is_too_low_for_a_moment_is_noticed() {
    holder_beside_killer::<NoBias>();
}

#[test]
#[should_panic(expected = "destroyed once")]
fn losing_what_came_before_the_closing_is_noticed() {
    holder_beside_killer::<NoSwap>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn giving_up_without_release_is_noticed() {
    holder_beside_killer::<RelaxedPut>();
}

#[test]
#[should_panic(expected = "destroyed")]
fn not_counting_again_is_noticed() {
    holder_beside_killer::<CountedOnce>();
}

/// A finder without a reference, beside the killer: it gets a reference that counts, or nothing.
fn finder_beside_killer(find: fn(&Object<Sound>) -> bool) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    test_support::check(&builder, move || {
        let object = Arc::new(Object::<Sound> {
            shared: Shared::new(),
            slots: [AtomicIsize::new(0), AtomicIsize::new(0)],
            data: UnsafeCell::new(0),
        });
        let finder = {
            let object = Arc::clone(&object);
            thread::spawn(move || {
                if !find(&object) {
                    return 0;
                }
                object.use_it();
                object.put(0)
            })
        };
        let killer = {
            let object = Arc::clone(&object);
            thread::spawn(move || {
                let destroyed = object.kill();
                assert!(!object.shared.try_get_live(&object.slots[1]), "nothing is live any more");
                destroyed
            })
        };
        assert_eq!(finder.join().unwrap() + killer.join().unwrap(), 1, "destroyed once");
        assert!(!object.shared.try_get(&object.slots[0]));
    });
}

#[test]
fn a_finder_gets_a_reference_or_nothing() {
    finder_beside_killer(|object| object.shared.try_get(&object.slots[1]));
}

#[test]
fn a_finder_of_live_objects_gets_a_reference_or_nothing() {
    finder_beside_killer(|object| object.shared.try_get_live(&object.slots[1]));
}

/// A finder beside one that revives a dead object: what the reviver wrote is seen, and every reference counts.
#[test]
fn a_revived_object_counts_from_the_start() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    test_support::check(&builder, || {
        let object = Arc::new(Object::<Sound> {
            shared: Shared::new(),
            slots: [AtomicIsize::new(0), AtomicIsize::new(0)],
            data: UnsafeCell::new(0),
        });
        assert_eq!(object.kill(), 1);
        let finder = {
            let object = Arc::clone(&object);
            thread::spawn(move || {
                if object.shared.try_get(&object.slots[1]) {
                    object.use_it();
                    assert_eq!(object.put(0), 0, "the reviver has one");
                }
            })
        };
        // SAFETY: the object is dead, so that nobody else looks at it; the model checks.
        object.data.with_mut(|data| unsafe { *data = 5 });
        object.shared.revive(object.slots.iter()).unwrap();
        finder.join().unwrap();
        assert_eq!(object.kill(), 1);
    });
}
