//! Two ways that do not work, kept so that the models show it: a lock inside of each timer.
//!
//! Both are what one writes first. Each has a queue under a lock of its own, and then locks the timer.
//!
//! * **Held over the call**: nobody can delete the timer while its function runs, so its memory is there. But the function may
//!   free the timer itself, and then the unlock is in memory that is gone; and a function that deletes its own timer waits
//!   for the lock that is held for it.
//! * **Released before the call**: the function may do what it wants. But another CPU's delete, which waits for the timer's
//!   lock, has a pointer that the function frees.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

/// A timer that locks itself. `memory` stands for all of it.
struct Draft {
    locked: AtomicU32,
    armed: AtomicU32,
    memory: UnsafeCell<bool>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for Draft {}
// SAFETY: as above.
unsafe impl Sync for Draft {}

impl Draft {
    fn new() -> Arc<Draft> {
        Arc::new(Draft { locked: AtomicU32::new(0), armed: AtomicU32::new(1), memory: UnsafeCell::new(true) })
    }

    fn look(&self) {
        // SAFETY: the model checker reports accesses that are not ordered.
        self.memory.with(|memory| assert!(unsafe { *memory }, "freed memory was read"));
    }

    fn lock(&self) {
        let mut turns = 0;
        loop {
            self.look();
            if self.locked.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
            turns += 1;
            assert!(turns < 20, "a deadlock");
            thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.look();
        self.locked.store(0, Ordering::Release);
    }

    fn free(&self) {
        // SAFETY: as above.
        self.memory.with_mut(|memory| unsafe { *memory = false });
    }

    /// What `delete` is in both drafts.
    fn delete(&self) {
        self.lock();
        self.armed.store(0, Ordering::Relaxed);
        self.unlock();
    }
}

fn run(timer: &Draft, held_over_the_call: bool, function: impl Fn(&Draft)) {
    timer.lock();
    if timer.armed.swap(0, Ordering::Relaxed) == 0 {
        timer.unlock();
        return;
    }
    if held_over_the_call {
        function(timer);
        timer.unlock();
    } else {
        timer.unlock();
        function(timer);
    }
}

#[test]
#[should_panic(expected = "freed memory was read")]
fn a_lock_held_over_the_call_is_released_in_freed_memory() {
    test_support::model(|| {
        let timer = Draft::new();
        thread::spawn(move || run(&timer, true, Draft::free)).join().unwrap();
    });
}

#[test]
#[should_panic(expected = "a deadlock")]
fn a_lock_held_over_the_call_is_waited_for_by_a_delete_from_inside() {
    test_support::model(|| {
        let timer = Draft::new();
        thread::spawn(move || run(&timer, true, Draft::delete)).join().unwrap();
    });
}

#[test]
#[should_panic(expected = "Concurrent read and write accesses")]
fn a_lock_released_before_the_call_is_waited_for_in_memory_that_the_call_frees() {
    test_support::model(|| {
        let timer = Draft::new();
        let deleter = {
            let timer = Arc::clone(&timer);
            thread::spawn(move || timer.delete())
        };
        let runner = thread::spawn(move || run(&timer, false, Draft::free));
        deleter.join().unwrap();
        runner.join().unwrap();
    });
}
