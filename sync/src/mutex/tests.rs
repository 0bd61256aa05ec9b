//! What users of a mutex cannot see of it.

use core::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use hal::hosted::{self, TestClock};
use hal::platform::TaskId;
use hal::{Native, Platform};

use super::Mutex;
use super::slow::{PATIENCE_NS, TIME_UNIT_NS, owner, runs_on};
use crate::TaskCx;
use crate::primitives::Ordering;

/// Waits for what another task does.
fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        Native::relax();
    }
}

fn sleeps(task: TaskId) -> bool {
    runs_on::<Native>(task, None).is_none()
}

fn is_watched(mutex: &Mutex<()>) -> bool {
    mutex.spinner.load(Ordering::Relaxed)
}

fn holds(task: TaskId, mutex: &Mutex<()>) -> bool {
    owner(mutex.word.load(Ordering::Relaxed)) == Some(task)
}

/// Each task goes on when it has seen what the others do, and the clock stands: all runs are alike, on any host.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn those_who_watch_pass_a_line_until_its_first_is_due() {
    let mutex = Mutex::<_>::new(());
    let step = AtomicUsize::new(0);
    let names = [const { AtomicUsize::new(0) }; 3];
    let task = |number: usize| {
        until(|| names[number].load(SeqCst) != 0);
        TaskId(NonZeroUsize::new(names[number].load(SeqCst)).expect("it is there"))
    };
    hosted::run_cpus(3, |number| {
        // SAFETY: a thread is a task, this is its only token, and nothing is switched off.
        let mut cx = unsafe { TaskCx::<Native>::new() };
        names[number].store(cx.task().0.get(), SeqCst);
        match number {
            0 => {
                let clock = TestClock::install();
                let held = mutex.lock(&mut cx);
                step.store(1, SeqCst);
                until(|| is_watched(&mutex));
                step.store(2, SeqCst);
                until(|| sleeps(task(2)));
                drop(held);
                // The one that watched has passed the one that sleeps, and this one is about to.
                until(|| holds(task(1), &mutex));
                let held = mutex.lock(&mut cx);
                clock.advance(PATIENCE_NS + 2 * TIME_UNIT_NS);
                step.store(3, SeqCst);
                until(|| {
                    assert!(!is_watched(&mutex), "somebody came when the first in line was due, and watches");
                    step.load(SeqCst) == 4 && sleeps(task(1))
                });
                drop(held);
            }
            1 => {
                until(|| step.load(SeqCst) == 1);
                let held = mutex.lock(&mut cx);
                until(|| is_watched(&mutex));
                drop(held);
                until(|| step.load(SeqCst) == 3);
                step.store(4, SeqCst);
                drop(mutex.lock(&mut cx));
            }
            _ => {
                until(|| step.load(SeqCst) == 2);
                drop(mutex.lock(&mut cx));
            }
        }
    });
    assert_eq!(mutex.word.load(Ordering::Relaxed), 0);
}
