//! Work that is queued later.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use core::fmt;

use sync::{IrqSpinLock, TaskCx};
use timers::{Firing, Timer};

use super::{modify, ticks_from_now};
use crate::workqueue::{Running, Work, WorkQueue};

/// A function that a worker calls some time after it is queued, and that may sleep.
///
/// It is waiting from when it is queued until its function begins; meanwhile it is not queued again. Calls of it never
/// overlap. All clones are the same one; when the last is dropped, a call that has not begun does not begin.
///
/// Linux: `struct delayed_work`. Made of a coarse timer and a work item; three allocations when it is made, none later.
#[derive(Clone)]
pub struct DelayedWork(Arc<Inner>);

type OnTime = Box<dyn Fn(&Firing<'_>) + Send + Sync>;
type Body = Box<dyn Fn(&mut Running<'_>) + Send + Sync>;

struct Inner {
    gate: IrqSpinLock<Gate>,
    timer: Arc<Timer<OnTime>>,
    work: Arc<Work<Body>>,
    queue: &'static WorkQueue,
}

/// # Invariants
/// `armed` says that the timer is to queue the item: it was armed, and its function has not come by since. Whoever takes that
/// back clears it under the lock, and the function, which looks under the lock, then does nothing.
struct Gate {
    armed: bool,
    /// How many keep it from being queued.
    refused: u32,
}

impl DelayedWork {
    /// Work that a worker of `queue` does: `function`, which gets the means to queue it again.
    ///
    /// Linux: `INIT_DELAYED_WORK`. Contexts: task.
    #[track_caller]
    pub fn new(
        queue: &'static WorkQueue,
        function: impl Fn(&mut Running<'_>, &DelayedWork) + Send + Sync + 'static,
    ) -> DelayedWork {
        DelayedWork(Arc::new_cyclic(|me: &Weak<Inner>| {
            let (for_timer, for_work) = (me.clone(), me.clone());
            let timer: OnTime = Box::new(move |_| {
                if let Some(inner) = for_timer.upgrade() {
                    inner.time_has_come();
                }
            });
            let work: Body = Box::new(move |running| {
                if let Some(inner) = for_work.upgrade() {
                    function(running, &DelayedWork(inner));
                }
            });
            Inner {
                gate: IrqSpinLock::new(Gate { armed: false, refused: 0 }),
                timer: Arc::new(Timer::new(timer)),
                work: Arc::new(Work::new(work)),
                queue,
            }
        }))
    }

    /// Queues it in `ns` nanoseconds at least. Returns `false`, and changes nothing, if it is waiting already or being
    /// cancelled.
    ///
    /// Linux: `queue_delayed_work`. Contexts: any but NMI.
    pub fn queue_in(&self, ns: u64) -> bool {
        let mut gate = self.0.gate.lock();
        if gate.armed || gate.refused != 0 || self.0.work.is_pending() {
            return false;
        }
        self.0.arm(&mut gate, ns);
        true
    }

    /// Queues it in `ns` nanoseconds at least, from now, whether or not it waits for another time; one that waits for its
    /// worker already goes on doing so. Returns whether it was waiting for a time.
    ///
    /// Linux: `mod_delayed_work`. Contexts: any but NMI.
    pub fn modify(&self, ns: u64) -> bool {
        let mut gate = self.0.gate.lock();
        let was_armed = gate.armed;
        if gate.refused == 0 && !self.0.work.is_pending() {
            self.0.arm(&mut gate, ns);
        }
        was_armed
    }

    /// Whether it is waiting, for its time or for a worker. Out of date at once. Contexts: any but NMI.
    pub fn is_pending(&self) -> bool {
        let gate = self.0.gate.lock();
        gate.armed || self.0.work.is_pending()
    }

    /// Has it called now if it is waiting for its time, and waits until the calls that were asked for before are over.
    /// Returns whether there were any.
    ///
    /// Linux: `flush_delayed_work`. Contexts: task, with nothing held that the function waits for.
    #[track_caller]
    pub fn flush(&self, cx: &mut TaskCx) -> bool {
        let was_armed = self.0.take_back();
        if was_armed {
            self.0.queue.queue(Arc::clone(&self.0.work));
        }
        // A worker may have been faster than this.
        self.0.work.flush(cx) | was_armed
    }

    /// Takes it back if it is waiting. Returns whether it was. Its function may be running.
    ///
    /// Linux: `cancel_delayed_work`. Contexts: any but NMI.
    pub fn cancel(&self) -> bool {
        self.0.take_back() | self.0.work.cancel()
    }

    /// Takes it back if it is waiting, keeps it from being queued meanwhile, by its own function too, and waits until its
    /// function is not being called. Returns whether it was waiting. Afterwards it can be queued again.
    ///
    /// Linux: `cancel_delayed_work_sync`. Contexts: task, with nothing held that the function waits for.
    #[track_caller]
    pub fn cancel_sync(&self, cx: &mut TaskCx) -> bool {
        self.0.gate.lock().refused += 1;
        let was_armed = self.0.take_back();
        let was_queued = self.0.work.cancel_sync(cx);
        self.0.gate.lock().refused -= 1;
        was_armed | was_queued
    }
}

impl Inner {
    fn arm(&self, gate: &mut Gate, ns: u64) {
        // INVARIANT: armed right below, and its function waits for the lock.
        gate.armed = true;
        modify(&self.timer, ticks_from_now(ns));
    }

    /// Disarms the timer. Returns whether that was in time.
    fn take_back(&self) -> bool {
        let mut gate = self.gate.lock();
        self.timer.delete();
        core::mem::take(&mut gate.armed)
    }

    /// The timer's function.
    fn time_has_come(&self) {
        let mut gate = self.gate.lock();
        // A call that was overtaken by a later time comes by too early, and the timer comes again.
        if gate.armed && !self.timer.is_pending() {
            gate.armed = false;
            self.queue.queue(Arc::clone(&self.work));
        }
    }
}

impl fmt::Debug for DelayedWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedWork").field("pending", &self.is_pending()).finish_non_exhaustive()
    }
}
