//! What becomes of a reader that somebody waits for.

use core::panic::Location;
use core::pin::Pin;

use hal::platform::{Report, Severity};
use hal::x86_64::reader;
use hal::{Native, Platform};

use super::{PREEMPTIBLE, act, tree};
use crate::sched;
use crate::task::Task;

/// The outermost section of the running task has ended, or one in an interrupt that hit no section, and somebody waits for
/// it.
///
/// The report waits for the end of whatever region this is in: a region without preemption, bottom halves or interrupts
/// is a section too, and the caller may hold locks that a wake-up takes. Until then the word stays 0, so that the next
/// outermost section ends here again; a reschedule, which is due from here on, reports.
#[cold]
#[inline(never)]
pub(super) fn attend() {
    let context = Native::context();
    if context.count() != 0 || Native::irq_depth() != 0 {
        if !context.in_nmi() {
            Native::set_need_resched(Native::cpu());
        }
        return;
    }
    Native::irq_disable();
    finish();
    act(tree().quiescent(Native::cpu().as_u32()));
    Native::irq_enable();
    Native::check_resched();
}

/// The running task is in no section any more and takes itself out of the tree. Interrupts are off, and no lock is held.
pub(super) fn finish() {
    let task = Task::current();
    reader::set_word(reader::AT_REST);
    act(tree().reader_done(reader_of(task)));
    // After it has left: who would boost it from here on finds that it has.
    sched::end_boost(task);
}

/// The task's place in the tree's lists.
pub(super) fn reader_of(task: &Task) -> Pin<&::rcu::tree::Reader> {
    // SAFETY: records of tasks stay where they are until they are freed.
    unsafe { Pin::new_unchecked(&task.reader) }
}

/// The running task is about to block. In a section that would make all grace periods wait for what it waits for.
///
/// Linux: "Voluntary context switch within RCU read-side critical section!".
#[inline(always)]
#[track_caller]
pub(crate) fn check_before_block() {
    if PREEMPTIBLE && reader::depth() != 0 {
        report_block();
    }
}

#[cold]
#[track_caller]
fn report_block() {
    Native::report(&Report {
        severity: Severity::Bug,
        message: format_args!(
            "a task blocks in an RCU read-side critical section: {:?}, {} deep",
            Task::current(),
            reader::depth()
        ),
        location: Location::caller(),
    });
}

/// The running task is about to end: a section that it has left open is ended for it.
#[track_caller]
pub(crate) fn end_of_task() {
    if reader::word() == reader::AT_REST {
        return;
    }
    let depth = reader::depth();
    if depth != 0 {
        Native::report(&Report {
            severity: Severity::Bug,
            message: format_args!(
                "{:?} ends in an RCU read-side critical section, {depth} deep",
                Task::current()
            ),
            location: Location::caller(),
        });
    }
    let quiet = sync::irq::disable();
    finish();
    drop(quiet);
}
