//! The hosted domain's protocol under every schedule and every value that loads may return.
//!
//! Run with `cargo xtask models rcu --filter hosted`. Each claim has twins in which one rule is broken, and which the model
//! must refuse. Light and heavy fences are full ones here: what an asymmetric pair orders is the platform's promise.

use core::ptr::NonNull;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::callbacks::By;
use super::grace::Grace;
use super::readers::{Record, Rules, Sound};
use crate::Head;
use crate::modelled::Modelled;
use crate::primitives::{AtomicUsize, Ordering};

/// Broken: readers' stores and loads may change places.
enum NoLightFence {}
impl Rules for NoLightFence {
    const LIGHT: bool = false;
}

/// Broken: the end of a section does not come after its accesses.
enum RelaxedLeave {}
impl Rules for RelaxedLeave {
    const LEAVE: Ordering = Ordering::Relaxed;
}

/// Broken: nobody is waited for.
enum FreedWithoutGracePeriod {}
impl Rules for FreedWithoutGracePeriod {
    const LOOKS: bool = false;
}

/// Two objects, one of which is published at a time, and what guards them.
struct World<R: Rules> {
    grace: Grace<Modelled, R>,
    /// Which object readers find.
    published: AtomicUsize,
    /// 1 in an object that is alive. Loom reports accesses that nothing orders.
    objects: [UnsafeCell<usize>; 2],
}

// SAFETY: the models check what this claims.
unsafe impl<R: Rules> Sync for World<R> {}
// SAFETY: as above.
unsafe impl<R: Rules> Send for World<R> {}

impl<R: Rules> World<R> {
    fn new() -> Arc<World<R>> {
        Arc::new(World {
            grace: Grace::new("model"),
            published: AtomicUsize::new(0),
            objects: [UnsafeCell::new(1), UnsafeCell::new(1)],
        })
    }

    /// A thread becomes known. Its record is leaked, as threads' records are.
    fn register(&self) -> &'static Record {
        let record: &'static Record = Box::leak(Box::new(Record::new()));
        self.grace.readers.publish(record);
        record
    }

    /// One section, which looks at what it finds.
    fn read(&self, record: &Record) {
        assert!(self.grace.readers.enter(record));
        let found = self.published.load(Ordering::Acquire);
        self.objects[found].with(|object| {
            // SAFETY: the model reports any write that is not ordered with this.
            assert_eq!(unsafe { *object }, 1, "a reader found a freed object");
        });
        self.grace.readers.leave(record);
    }

    fn unlink(&self) {
        self.published.store(1, Ordering::Release);
    }

    fn free(&self) {
        self.objects[0].with_mut(|object| {
            // SAFETY: as in `read`.
            unsafe { *object = 0 };
        });
    }

    fn synchronize(&self) {
        let cookie = self.grace.snapshot();
        while !self.grace.poll(cookie) {
            thread::yield_now();
        }
    }

    /// As `synchronize`, but gives up after a few looks: two that wait for each other without end are too much for the
    /// checker.
    fn has_synchronized(&self) -> bool {
        let cookie = self.grace.snapshot();
        (0..3).any(|look| {
            if look > 0 {
                thread::yield_now();
            }
            self.grace.poll(cookie)
        })
    }
}

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    test_support::check(&builder, f);
}

/// A reader against `synchronize` and what follows it.
fn read_against_synchronize<R: Rules>() {
    check(3, || {
        let world = World::<R>::new();
        let record = world.register();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.read(record))
        };
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.unlink();
                world.synchronize();
                world.free();
            })
        };
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn synchronize_waits_for_readers() {
    read_against_synchronize::<Sound>();
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn a_reader_without_its_fence_is_refused() {
    read_against_synchronize::<NoLightFence>();
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn a_section_that_ends_relaxed_is_refused() {
    read_against_synchronize::<RelaxedLeave>();
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn freeing_without_a_grace_period_is_refused() {
    read_against_synchronize::<FreedWithoutGracePeriod>();
}

/// A thread becomes known and reads while a grace period is under way: the scan may miss its record.
#[test]
fn a_thread_that_appears_during_a_grace_period_is_safe() {
    check(3, || {
        let world = World::<Sound>::new();
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let record = world.register();
                world.read(record);
            })
        };
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.unlink();
                world.synchronize();
                world.free();
            })
        };
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// Two that wait share the driver's seat, and each gets its full grace period.
fn two_that_wait<R: Rules>() {
    check(2, || {
        let world = World::<R>::new();
        let record = world.register();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.has_synchronized())
        };
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.read(record))
        };
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.unlink();
                if world.has_synchronized() {
                    world.free();
                }
            })
        };
        other.join().unwrap();
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn two_that_wait_get_a_full_grace_period_each() {
    two_that_wait::<Sound>();
}

/// A head in an object, and the world that its callback frees something in.
#[repr(C)]
struct Call {
    head: Head,
    world: Arc<World<Sound>>,
    called: AtomicUsize,
}

unsafe fn free(head: NonNull<Head>) {
    // SAFETY: the head is the first field of a call that the model keeps.
    let call = unsafe { head.cast::<Call>().as_ref() };
    call.world.free();
    call.called.store(1, Ordering::Relaxed);
}

/// The announcement that `barrier` relies on, by itself: one thread takes a callback out of a queue and calls it; another
/// one, which finds the queue empty and nobody calling, knows that it was called. `ANNOUNCED` is the rule.
fn announcement<const ANNOUNCED: bool>() {
    check(3, || {
        let world = World::<Sound>::new();
        let (worker, waiter) = (world.register(), world.register());
        let call =
            Arc::new(Call { head: Head::new(), world: Arc::clone(&world), called: AtomicUsize::new(0) });
        // SAFETY: the call lives to the end of the model, in which the callback is called.
        unsafe { world.grace.call(worker, NonNull::from(&*call).cast(), free) };
        let works = thread::spawn(move || {
            if ANNOUNCED {
                worker.queue.begin_calling();
            }
            let mut taken = worker.queue.take_all::<Modelled>(By::Owner);
            if !ANNOUNCED {
                worker.queue.begin_calling();
            }
            while let Some(head) = taken.pop() {
                // SAFETY: taken out just now; there are no readers.
                unsafe { Head::invoke(head) };
            }
            worker.queue.end_calling();
        });
        let waits = thread::spawn(move || {
            waiter.queue.begin_calling();
            let mut taken = worker.queue.take_all::<Modelled>(By::Another);
            while let Some(head) = taken.pop() {
                // SAFETY: as above.
                unsafe { Head::invoke(head) };
            }
            waiter.queue.end_calling();
            if worker.queue.is_calling().is_none() {
                let called = call.called.load(Ordering::Relaxed);
                assert_eq!(called, 1, "the barrier ends before the callback was called");
                // Another access to what the callback wrote, ordered after it.
                call.world.free();
            }
        });
        works.join().unwrap();
        waits.join().unwrap();
    });
}

#[test]
fn barrier_does_not_miss_a_callback_that_was_taken_out() {
    announcement::<true>();
}

#[test]
#[should_panic(expected = "ends before the callback was called")]
fn an_announcement_after_the_taking_is_refused() {
    announcement::<false>();
}

/// A callback and the reader that it waits for: `work`, as often as it takes, calls it after the section and not before.
#[test]
fn a_callback_waits_for_the_reader() {
    check(3, || {
        let world = World::<Sound>::new();
        let (queues, reads) = (world.register(), world.register());
        let call =
            Arc::new(Call { head: Head::new(), world: Arc::clone(&world), called: AtomicUsize::new(0) });
        let reader = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.read(reads))
        };
        let writer = {
            let (world, call) = (Arc::clone(&world), Arc::clone(&call));
            thread::spawn(move || {
                world.unlink();
                // SAFETY: the call lives until the callback is called, or is never called.
                unsafe { world.grace.call(queues, NonNull::from(&*call).cast(), free) };
                world.grace.work(queues);
                thread::yield_now();
                world.grace.work(queues);
            })
        };
        reader.join().unwrap();
        writer.join().unwrap();
        world.grace.work(queues);
        assert_eq!(call.called.load(Ordering::Relaxed), 1, "nobody reads, and it was not called");
    });
}
