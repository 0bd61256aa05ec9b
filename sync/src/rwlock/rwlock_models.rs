//! Readers and writers under every schedule and every value that a load may return.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sync --lib models`. Each property has a twin in which one rule is
//! broken, and which the model must refuse.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::test_platform::Modelled;

/// A lock around a cell whose accesses the model checks against each other.
struct Guarded<R: Rules> {
    lock: RawRw<R>,
    data: UnsafeCell<u32>,
}

// SAFETY: the model checks what this claims.
unsafe impl<R: Rules> Sync for Guarded<R> {}
// SAFETY: as above.
unsafe impl<R: Rules> Send for Guarded<R> {}

impl<R: Rules + 'static> Guarded<R> {
    fn new() -> Arc<Guarded<R>> {
        Arc::new(Guarded { lock: RawRw::new(), data: UnsafeCell::new(0) })
    }

    fn increment(&self) {
        self.lock.write::<Modelled>();
        self.finish_write();
    }

    /// The rest of a writer's section.
    fn finish_write(&self) {
        // SAFETY: the model reports any other access that is not ordered with this one.
        self.data.with_mut(|data| unsafe { *data += 1 });
        // SAFETY: the callers are inside.
        unsafe { self.lock.unlock_write() };
    }

    fn get(&self, passes_line: bool) -> u32 {
        self.lock.read::<Modelled>(|| passes_line);
        self.finish_read()
    }

    /// The rest of a reader's section.
    fn finish_read(&self) -> u32 {
        // SAFETY: the model reports a write that is not ordered with this one.
        let found = self.data.with(|data| unsafe { *data });
        // SAFETY: the callers are inside.
        unsafe { self.lock.unlock_read() };
        found
    }
}

/// Everybody joins the line as soon as they have to wait.
enum Impatient {}
impl Rules for Impatient {
    const PATIENCE: u32 = 0;
}

/// Broken: what a writer did is not published.
enum RelaxedWriter {}
impl Rules for RelaxedWriter {
    const UNLOCK_WRITE: Ordering = Ordering::Relaxed;
}

/// Broken: a reader may go on reading after it has left.
enum RelaxedReader {}
impl Rules for RelaxedReader {
    const UNLOCK_READ: Ordering = Ordering::Relaxed;
}

/// Broken: latecomers do not look at the line.
enum Rude {}
impl Rules for Rude {
    const PATIENCE: u32 = 0;
    const HONOUR_LINE: bool = false;
}

/// Broken: readers in interrupt handlers queue.
enum Queueing {}
impl Rules for Queueing {
    const PATIENCE: u32 = 0;
    const INTERRUPTS_PASS: bool = false;
}

fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 5_000;
    test_support::check(&builder, f);
}

/// A writer beside a reader and, if `second_writer`, another writer.
fn write_beside_read<R: Rules + 'static>(preemptions: usize, passes_line: bool, second_writer: bool) {
    model(preemptions, move || {
        let shared = Guarded::<R>::new();
        let reader = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (shared.get(passes_line), shared.get(passes_line)))
        };
        let writer = second_writer.then(|| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.increment())
        });
        shared.increment();
        let (first, second) = reader.join().unwrap();
        assert!(first <= second);
        if let Some(writer) = writer {
            writer.join().unwrap();
        }
        assert_eq!(shared.get(false), 1 + u32::from(second_writer));
        assert!(!shared.lock.is_locked() && !shared.lock.has_line());
    });
}

#[test]
fn a_reader_and_a_writer_exclude_each_other() {
    write_beside_read::<Sound>(3, false, false);
}

#[test]
fn a_reader_and_a_writer_exclude_each_other_in_line() {
    write_beside_read::<Impatient>(2, false, false);
}

#[test]
fn a_reader_in_an_interrupt_and_a_writer_exclude_each_other() {
    write_beside_read::<Impatient>(2, true, false);
}

#[test]
fn two_writers_and_a_reader_exclude_each_other_in_line() {
    write_beside_read::<Impatient>(1, false, true);
}

#[test]
fn two_writers_and_a_reader_in_an_interrupt_exclude_each_other() {
    write_beside_read::<Impatient>(1, true, true);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_writer_that_does_not_publish_is_noticed() {
    write_beside_read::<RelaxedWriter>(2, false, false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_reader_that_does_not_end_is_noticed() {
    write_beside_read::<RelaxedReader>(2, false, false);
}

/// The last of two readers releases for both: what both read was before what the writer writes.
#[test]
fn a_writer_comes_after_all_readers() {
    model(2, || {
        let shared = Guarded::<Sound>::new();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                // A try, because two that wait at once are more than the checker can follow.
                thread::spawn(move || shared.lock.try_read(|| false).then(|| shared.finish_read()))
            })
            .collect();
        if shared.lock.try_write() {
            shared.finish_write();
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A downgraded writer reads on beside a reader that came later; the next writer waits for both.
#[test]
fn a_downgraded_writer_excludes_writers() {
    model(2, || {
        let shared = Guarded::<Sound>::new();
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if shared.lock.try_read(|| false) {
                    shared.finish_read();
                }
                shared.increment();
            })
        };
        shared.lock.write::<Modelled>();
        // SAFETY: entered above; the model checks.
        shared.data.with_mut(|data| unsafe { *data += 10 });
        // SAFETY: entered above.
        unsafe { shared.lock.downgrade() };
        assert!(shared.finish_read() >= 10);
        other.join().unwrap();
        assert_eq!(shared.get(false), 11);
    });
}

/// A writer draws a ticket and tells another CPU, which then reads or writes: it must not be before the writer.
fn latecomer<R: Rules + 'static>(reads: bool) {
    model(2, move || {
        let shared = Guarded::<R>::new();
        let told = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        shared.lock.read::<Modelled>(|| false);
        let late = {
            let (shared, told) = (Arc::clone(&shared), Arc::clone(&told));
            thread::spawn(move || {
                // Acquire: pairs with the Release below; the ticket was drawn before.
                if !told.load(Ordering::Acquire) {
                    return;
                }
                if reads && shared.lock.try_read(|| false) {
                    assert_ne!(shared.finish_read(), 0, "passed by a latecomer");
                } else if !reads && shared.lock.try_write() {
                    // SAFETY: inside.
                    assert_ne!(shared.data.with(|data| unsafe { *data }), 0, "passed by a latecomer");
                    shared.finish_write();
                }
            })
        };
        // What waiting comes to, taken apart so that the ticket can be told of.
        let line = shared.lock.line();
        let mut waiter = Waiter::new(0);
        let Step::ChangeLine(to, ticket) = waiter.look(line, false, false) else { panic!("joins at once") };
        assert!(shared.lock.change_line(line, to));
        waiter.line_changed(ticket);
        // Release: pairs with the Acquire above.
        told.store(true, Ordering::Release);
        // SAFETY: entered above.
        unsafe { shared.lock.unlock_read() };
        while !shared.lock.enter_writer() {
            thread::yield_now();
        }
        shared.lock.leave_line(&waiter);
        shared.finish_write();
        late.join().unwrap();
    });
}

#[test]
fn who_knows_of_the_line_does_not_pass_it() {
    latecomer::<Impatient>(true);
    latecomer::<Impatient>(false);
}

#[test]
#[should_panic(expected = "passed by a latecomer")]
fn a_reader_that_passes_a_writer_in_line_is_noticed() {
    latecomer::<Rude>(true);
}

#[test]
#[should_panic(expected = "passed by a latecomer")]
fn a_writer_that_passes_a_writer_in_line_is_noticed() {
    latecomer::<Rude>(false);
}

/// A task reads; a writer queues; an interrupt comes to the reader's CPU, and its handler reads too.
fn interrupted_reader<R: Rules + 'static>() {
    model(2, || {
        let shared = Guarded::<R>::new();
        // The task is inside before anybody else comes.
        shared.lock.read::<Modelled>(|| false);
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.increment())
        };
        let reader = thread::spawn(move || {
            // The handler, on the task's CPU: the task does not go on until it returns.
            shared.get(true);
            shared.finish_read();
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_handler_reads_although_a_writer_waits() {
    interrupted_reader::<Impatient>();
}

/// The model does not end, which it says in these words.
#[test]
#[should_panic(expected = "exceeded maximum number of branches")]
fn a_handler_that_queues_deadlocks() {
    interrupted_reader::<Queueing>();
}
