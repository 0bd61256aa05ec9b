//! Sleeping readers under every schedule and every value that loads may return.
//!
//! Run with `cargo xtask models rcu --filter srcu`. Each claim has twins in which one rule is broken, and which the model
//! must refuse. Light and heavy fences are full ones here: what an asymmetric pair orders is the platform's promise.

use core::ptr::NonNull;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::core::Core;
use super::machine::{COUNTERS, Rules, Sound};
use crate::Head;
use crate::modelled::Modelled;
use crate::primitives::{AtomicUsize, Ordering};

macro_rules! twins {
    ($($(#[$meta:meta])* $Name:ident: $RULE:ident;)+) => {$(
        $(#[$meta])*
        enum $Name {}
        impl Rules for $Name {
            const $RULE: bool = false;
        }
    )+};
}
twins! {
    /// Broken: the counting of the beginning and the loads behind it may change places.
    NoEnterFence: ENTER_FENCE;
    /// Broken: the end may be counted before the section's accesses.
    NoLeaveFence: LEAVE_FENCE;
    /// Broken: the end is counted in the rank that is current then.
    EndsElsewhere: SAME_RANK;
    /// Broken: the beginning is counted before the rank is looked at that the end is counted in.
    CountsFirst: LOOK_FIRST;
    /// Broken: who begins and ends between the two sums stands for one who has not ended.
    BeginningsFirst: ENDS_FIRST;
    /// Broken: a reader that looked at the rank long ago is in the one that nobody waits for.
    OneRank: BOTH_RANKS;
    /// Broken: a barrier ends before the last callback does.
    CalledTooEarly: CALLED_AFTER;
}

/// Two objects, one of which is published at a time, and what guards them.
struct World<R: Rules> {
    core: Core<Modelled, R>,
    /// The counters of two CPUs.
    cpus: [[AtomicUsize; COUNTERS]; 2],
    /// How many CPUs count.
    in_use: usize,
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
    fn new(in_use: usize) -> Arc<World<R>> {
        Arc::new(World {
            core: Core::new(),
            cpus: core::array::from_fn(|_| core::array::from_fn(|_| AtomicUsize::new(0))),
            in_use,
            published: AtomicUsize::new(0),
            objects: [UnsafeCell::new(1), UnsafeCell::new(1)],
        })
    }

    fn count(&self, cpu: usize) -> impl FnOnce(usize) {
        move |counter| _ = self.cpus[cpu][counter].fetch_add(1, Ordering::Relaxed)
    }

    /// One section, which looks at what it finds.
    fn read(&self, begins_on: usize, ends_on: usize) {
        let rank = self.core.machine.enter(self.count(begins_on));
        let found = self.published.load(Ordering::Acquire);
        self.objects[found].with(|object| {
            // SAFETY: the model reports any write that is not ordered with this.
            assert_eq!(unsafe { *object }, 1, "a reader found a freed object");
        });
        self.core.machine.leave(rank, self.count(ends_on));
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

    fn sum(&self, counter: usize) -> usize {
        self.cpus[..self.in_use].iter().map(|cpu| cpu[counter].load(Ordering::Relaxed)).sum()
    }

    /// Waits for a grace period, but gives up after a few looks: loops without end are too much for the checker.
    fn has_synchronized(&self) -> bool {
        let cookie = self.core.machine.snapshot();
        self.core.request(cookie);
        (0..3).any(|look| {
            if look > 0 {
                thread::yield_now();
            }
            if let Some(mut seat) = self.core.sit() {
                seat.turn(|counter| self.sum(counter));
            }
            self.core.machine.done(cookie)
        })
    }

    fn replace(&self) {
        self.unlink();
        if self.has_synchronized() {
            self.free();
        }
    }

    /// What a driver does.
    fn work(&self) {
        if let Some(mut seat) = self.core.sit() {
            seat.turn(|counter| self.sum(counter));
            // SAFETY: nothing is off in the model.
            unsafe { seat.call_ready() };
        }
    }
}

fn check(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    test_support::check(&builder, f);
}

fn spawn<R: Rules>(world: &Arc<World<R>>, f: impl FnOnce(&World<R>) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

/// A reader against who replaces what it reads.
fn read_against_synchronize<R: Rules>() {
    check(3, || {
        let world = World::<R>::new(1);
        let reader = spawn(&world, |world| world.read(0, 0));
        let writer = spawn(&world, World::replace);
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
fn a_beginning_without_its_fence_is_refused() {
    read_against_synchronize::<NoEnterFence>();
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn an_end_without_its_fence_is_refused() {
    read_against_synchronize::<NoLeaveFence>();
}

#[test]
fn a_reader_may_end_on_another_cpu() {
    check(2, || {
        let world = World::<Sound>::new(2);
        let reader = spawn(&world, |world| world.read(0, 1));
        let writer = spawn(&world, World::replace);
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// A reader that looks at the rank before one grace period and counts itself after it, against the next one.
fn read_against_two_in_a_row<R: Rules>() {
    check(3, || {
        let world = World::<R>::new(1);
        let reader = spawn(&world, |world| world.read(0, 0));
        let writer = spawn(&world, |world| {
            if world.has_synchronized() {
                world.replace();
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn an_old_look_at_the_rank_does_no_harm() {
    read_against_two_in_a_row::<Sound>();
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn a_change_of_ranks_without_the_other_scan_is_refused() {
    read_against_two_in_a_row::<OneRank>();
}

/// Two readers, one of which comes and goes between the sums.
fn two_readers<R: Rules>() {
    check(3, || {
        let world = World::<R>::new(1);
        let reader = spawn(&world, |world| world.read(0, 0));
        let passer_by = spawn(&world, |world| {
            let rank = world.core.machine.enter(world.count(0));
            world.core.machine.leave(rank, world.count(0));
        });
        let writer = spawn(&world, World::replace);
        reader.join().unwrap();
        passer_by.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn readers_do_not_stand_for_each_other() {
    two_readers::<Sound>();
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn beginnings_summed_before_ends_are_refused() {
    two_readers::<BeginningsFirst>();
}

/// When all readers have gone the counters must say so, whatever grace periods there were meanwhile.
fn counters_balance<R: Rules>() {
    check(3, || {
        let world = World::<R>::new(1);
        let reader = spawn(&world, |world| {
            let count = world.count(0);
            let rank = world.core.machine.enter(|counter| {
                count(counter);
                thread::yield_now(); // it is preempted
            });
            thread::yield_now(); // it sleeps
            world.core.machine.leave(rank, world.count(0));
        });
        let writer = spawn(&world, |world| _ = world.has_synchronized());
        reader.join().unwrap();
        writer.join().unwrap();
        for rank in 0..2 {
            assert_eq!(world.sum(rank), world.sum(rank + 2), "the rank is never drained again");
        }
    });
}

#[test]
fn counters_balance_when_all_are_gone() {
    counters_balance::<Sound>();
}

#[test]
#[should_panic(expected = "never drained again")]
fn an_end_in_another_rank_is_refused() {
    counters_balance::<EndsElsewhere>();
}

#[test]
#[should_panic(expected = "never drained again")]
fn counting_before_looking_is_refused() {
    counters_balance::<CountsFirst>();
}

/// Two that wait share the driver's seat, and each gets its full grace period.
#[test]
fn two_that_wait_get_a_full_grace_period_each() {
    check(1, || {
        let world = World::<Sound>::new(1);
        let other = spawn(&world, |world| _ = world.has_synchronized());
        let reader = spawn(&world, |world| world.read(0, 0));
        let writer = spawn(&world, World::replace);
        other.join().unwrap();
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// A head in an object, and the world that its callback frees something in.
#[repr(C)]
struct Call<R: Rules> {
    head: Head,
    world: Arc<World<R>>,
}

unsafe fn free<R: Rules>(head: NonNull<Head>) {
    // SAFETY: the head is the first field of a call that the model keeps.
    unsafe { head.cast::<Call<R>>().as_ref() }.world.free();
}

/// One task queues a callback and works; another waits by a barrier for what has been queued, and touches what the callback
/// wrote.
fn callback_against_barrier<R: Rules>() {
    check(2, || {
        let world = World::<R>::new(1);
        let call = Arc::new(Call { head: Head::new(), world: Arc::clone(&world) });
        // SAFETY: the call lives until the callback is called, or is never called.
        unsafe { world.core.call(NonNull::from(&*call).cast(), free::<R>) };
        let worker = spawn(&world, World::work);
        let waiter = spawn(&world, |world| {
            let queued = world.core.queued();
            world.work();
            thread::yield_now();
            world.work();
            if world.core.have_called(queued) {
                world.free(); // ordered after the callback's own
            }
        });
        worker.join().unwrap();
        waiter.join().unwrap();
        world.work();
        assert_eq!(world.core.waiting(), 0, "nobody reads, and it was not called");
    });
}

#[test]
fn a_barrier_comes_after_the_callback() {
    callback_against_barrier::<Sound>();
}

#[test]
#[should_panic(expected = "Concurrent write accesses")]
fn a_barrier_that_counts_too_early_is_refused() {
    callback_against_barrier::<CalledTooEarly>();
}

/// A callback and the reader that it waits for.
#[test]
fn a_callback_waits_for_the_reader() {
    check(2, || {
        let world = World::<Sound>::new(1);
        let call = Arc::new(Call { head: Head::new(), world: Arc::clone(&world) });
        let reader = spawn(&world, |world| world.read(0, 0));
        let writer = {
            let call = Arc::clone(&call);
            spawn(&world, move |world| {
                world.unlink();
                // SAFETY: the call lives until the callback is called, or is never called.
                unsafe { world.core.call(NonNull::from(&*call).cast(), free::<Sound>) };
                world.work();
                thread::yield_now();
                world.work();
            })
        };
        reader.join().unwrap();
        writer.join().unwrap();
        world.work();
        assert_eq!(world.core.waiting(), 0, "nobody reads, and it was not called");
    });
}
