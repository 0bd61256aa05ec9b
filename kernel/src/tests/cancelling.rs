//! Whatever a task can wait for, it stops waiting when it is asked to end, if it said that it would; and who comes later gets
//! what it did not.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hal::{Native, Platform};
use sync::wait::{Limits, WaitError, WaitQueue};
use sync::{
    Channel, Completion, Condvar, Mutex, PerCpuRwSemaphore, PiMutex, ReceiveError, RwSemaphore, Semaphore,
    SendError, TaskCx,
};

use super::tasks::fail;
use crate::task::{Builder, State};
use crate::testing::comes_true_by_others;
use crate::{check, check_eq, kernel_test, skip};

/// Everything that can be waited for.
struct Things {
    queue: WaitQueue,
    completion: Completion,
    mutex: Mutex<u32>,
    pi: PiMutex<u32>,
    semaphore: Semaphore,
    rwsem: RwSemaphore<u32>,
    percpu: PerCpuRwSemaphore<u32>,
    condition: Condvar,
    /// Nobody has this one for long.
    state: Mutex<u32>,
    full: Channel<u32, 1>,
    empty: Channel<u32, 1>,
    /// Somebody has all of it.
    taken: Completion,
    /// And gives it back.
    over: Completion,
}

type Wait = fn(&Things, &mut TaskCx) -> Result<(), WaitError>;

const ENDS: Limits = Limits::NONE.cancellable();

/// A way to wait for what does not come.
const WAITS: [(&str, Wait); 13] = [
    ("queue", |all, cx| all.queue.wait_with(ENDS, cx, || false)),
    ("exclusive", |all, cx| all.queue.wait_exclusive(ENDS, cx, || false)),
    ("completion", |all, cx| all.completion.wait_with(ENDS, cx)),
    ("mutex", |all, cx| all.mutex.lock_with(ENDS, cx).map(drop)),
    ("pi-mutex", |all, cx| all.pi.lock_with(ENDS, cx).map(drop)),
    ("semaphore", |all, cx| all.semaphore.down_with(ENDS, cx)),
    ("read", |all, cx| all.rwsem.read_with(ENDS, cx).map(drop)),
    ("write", |all, cx| all.rwsem.write_with(ENDS, cx).map(drop)),
    ("percpu-read", |all, cx| all.percpu.read_with(ENDS, cx).map(drop)),
    ("percpu-write", |all, cx| all.percpu.write_with(ENDS, cx).map(drop)),
    ("condition", |all, cx| {
        let state = all.state.lock(cx);
        all.condition.wait_with(ENDS, state, cx).1
    }),
    ("send", |all, cx| match all.full.send_with(2, ENDS, cx) {
        Err(SendError::Wait(error, 2)) => Err(error),
        _ => Ok(()),
    }),
    ("receive", |all, cx| match all.empty.receive_with(ENDS, cx) {
        Err(ReceiveError::Wait(error)) => Err(error),
        _ => Ok(()),
    }),
];

kernel_test! {
    task,
    fn every_wait_ends_when_its_task_is_to_end(cx) {
        let Ok(percpu) = PerCpuRwSemaphore::new(0) else { skip!("no memory") };
        let all = Arc::new(Things {
            queue: WaitQueue::new(),
            completion: Completion::new(),
            mutex: Mutex::new(0),
            pi: PiMutex::new(0),
            semaphore: Semaphore::new(0),
            rwsem: RwSemaphore::new(0),
            percpu,
            condition: Condvar::new(),
            state: Mutex::new(0),
            full: Channel::new(),
            empty: Channel::new(),
            taken: Completion::new(),
            over: Completion::new(),
        });
        check_eq!(all.full.try_send(1), Ok(()));
        // Not this task: it joins those that wait.
        let theirs = Arc::clone(&all);
        let holder = Builder::new("holder").spawn(move |cx| {
            let held = (theirs.mutex.lock(cx), theirs.pi.lock(cx), theirs.rwsem.write(cx), theirs.percpu.write(cx));
            theirs.taken.complete();
            theirs.over.wait(cx);
            drop(held);
        });
        let holder = holder.map_err(fail)?;
        all.taken.wait(cx);
        let mut waiters = Vec::new();
        for (name, wait) in WAITS {
            let theirs = Arc::clone(&all);
            waiters.push((name, Builder::new(name).spawn(move |cx| wait(&theirs, cx)).map_err(fail)?));
        }
        let mut left = Vec::new();
        for (name, waiter) in waiters {
            check!(comes_true_by_others(|| waiter.task().state() == State::Blocked), "{name} does not wait");
            check!(!waiter.is_finished());
            waiter.cancel();
            if !comes_true_by_others(|| waiter.is_finished()) {
                left.push(name);
                continue;
            }
            let result = waiter.join(cx);
            check!(result == Err(WaitError::Cancelled), "{name}: {result:?}");
        }
        check!(left.is_empty(), "{left:?} go on waiting");
        // Nobody is in line any more who is not there: what comes now is for who asks now.
        all.over.complete();
        holder.join(cx);
        let soon = Limits::NONE.until(Native::now_ns() + 5_000_000_000);
        all.completion.complete();
        check_eq!(all.completion.wait_with(soon, cx), Ok(()));
        all.semaphore.up();
        check_eq!(all.semaphore.down_with(soon, cx), Ok(()));
        check!(all.mutex.lock_with(soon, cx).is_ok());
        check!(all.pi.lock_with(soon, cx).is_ok());
        check!(all.rwsem.read_with(soon, cx).is_ok());
        check!(all.rwsem.write_with(soon, cx).is_ok());
        check!(all.percpu.write_with(soon, cx).is_ok());
        check!(all.percpu.read_with(soon, cx).is_ok());
        check_eq!(all.queue.wake_all(), 0);
        check_eq!(all.condition.notify_all(), 0);
        check_eq!(all.full.receive_with(soon, cx), Ok(1));
        check!(all.full.is_empty());
        check_eq!(all.empty.send_with(3, soon, cx), Ok(()));
        check_eq!(all.empty.receive_with(soon, cx), Ok(3));
        Ok(())
    }
}
