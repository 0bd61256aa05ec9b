//! The hosted domain with five threads, in many random schedules: readers that nest, a task that waits, one that gives objects
//! up, one that waits for callbacks, and one that ends in between.
//!
//! Each rule that such schedules can break is broken in turn, and must be found. What weak memory breaks is loom's part.

use core::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use shuttle::thread;
use sync::TaskCx;

use super::grace::Grace;
use super::readers::{Record, Rules, Sound};
use crate::Head;
use crate::modelled::Modelled;
use crate::primitives::{AtomicUsize, Ordering};

/// Broken: nobody is waited for.
enum FreedWithoutGracePeriod {}
impl Rules for FreedWithoutGracePeriod {
    const LOOKS: bool = false;
}

/// How many objects a schedule has.
const OBJECTS: usize = 6;

/// Objects, one of which is published at a time, and what guards them.
struct World<R: Rules> {
    grace: Grace<Modelled, R>,
    published: AtomicUsize,
    /// Not the checker's: 1 in an object that was freed, and how many were.
    freed: [Plain; OBJECTS],
    count: Plain,
}

/// The place of a callback, and the object that it frees.
#[repr(C)]
struct Call<R: Rules> {
    head: Head,
    world: Arc<World<R>>,
    object: usize,
}

unsafe fn free<R: Rules>(head: NonNull<Head>) {
    // SAFETY: the head is the first field of a leaked call, which nobody else uses.
    let call = unsafe { Box::from_raw(head.cast::<Call<R>>().as_ptr()) };
    call.world.free(call.object);
}

impl<R: Rules> World<R> {
    fn new() -> Arc<World<R>> {
        Arc::new(World {
            grace: Grace::new("schedules"),
            published: AtomicUsize::new(0),
            freed: Default::default(),
            count: Plain::new(0),
        })
    }

    /// A thread becomes known, as `threads.rs` does it.
    fn register(&self) -> &'static Record {
        self.grace.readers.adopt().unwrap_or_else(|| {
            let record: &'static Record = Box::leak(Box::new(Record::new()));
            self.grace.readers.publish(record);
            record
        })
    }

    /// One section with a nested one.
    fn read(&self, record: &Record) {
        assert!(self.grace.readers.enter(record));
        let found = self.published.load(Ordering::Acquire);
        let is_nested = !self.grace.readers.enter(record);
        assert!(is_nested);
        record.nest();
        thread::yield_now();
        self.grace.readers.leave(record);
        assert_eq!(self.freed[found].load(SeqCst), 0, "a reader found a freed object");
        self.grace.readers.leave(record);
    }

    fn free(&self, object: usize) {
        assert_eq!(self.freed[object].swap(1, SeqCst), 0, "freed twice");
        self.count.fetch_add(1, SeqCst);
    }

    /// Publishes another object; the former one is the caller's to give up.
    fn replace(&self, new: usize) -> usize {
        self.published.swap(new, Ordering::AcqRel)
    }

    /// Gives an object up.
    fn retire(self: &Arc<Self>, record: &Record, object: usize) {
        let call = Box::leak(Box::new(Call { head: Head::new(), world: Arc::clone(self), object }));
        // SAFETY: leaked; `free` owns it.
        unsafe { self.grace.call(record, NonNull::from(call).cast(), free::<R>) };
    }
}

fn cx() -> TaskCx<Modelled> {
    // SAFETY: the threads of the schedules are tasks, and use one at a time.
    unsafe { TaskCx::new_in() }
}

/// All of them at once. When they have finished, every object but the published one has been freed, once.
fn everything<R: Rules>() {
    let world = World::<R>::new();
    let spawn = |body: fn(&Arc<World<R>>)| {
        let world = Arc::clone(&world);
        thread::spawn(move || body(&world))
    };
    let threads = [
        spawn(|world| {
            let record = world.register();
            (0..3).for_each(|_| world.read(record));
        }),
        spawn(|world| {
            // It ends, and leaves a callback behind with its record.
            let record = world.register();
            world.read(record);
            let old = world.replace(1);
            world.retire(record, old);
            record.give_back();
        }),
        spawn(|world| {
            // One that waits itself.
            let old = world.replace(2);
            world.grace.wait(world.grace.snapshot(), &mut cx());
            world.free(old);
        }),
        spawn(|world| {
            let record = world.register();
            for new in [3, 4] {
                let old = world.replace(new);
                world.retire(record, old);
                world.grace.work(record);
            }
        }),
        spawn(|world| {
            let record = world.register();
            let old = world.replace(5);
            world.retire(record, old);
            world.grace.barrier(record, &mut cx());
            assert_eq!(world.freed[old].load(SeqCst), 1, "the barrier ended too early");
        }),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let record = world.register();
    world.grace.barrier(record, &mut cx());
    assert_eq!(world.count.load(SeqCst), OBJECTS - 1, "the published one is left");
    assert_eq!(world.freed[world.published.load(Ordering::Relaxed)].load(SeqCst), 0);
}

/// Random schedules, and schedules by priorities that change at three places.
fn check(f: fn()) {
    test_support::schedules(f, 2_000, 2_000);
}

#[test]
fn five_threads_of_all_kinds() {
    check(everything::<Sound>);
}

#[test]
#[should_panic(expected = "a reader found a freed object")]
fn freeing_without_a_grace_period_is_refused() {
    check(everything::<FreedWithoutGracePeriod>);
}
