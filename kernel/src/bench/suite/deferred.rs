//! What is done later by a softirq, an interrupt or a worker, and how much later.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::{Native, Platform};
use sync::{TaskCx, bh};

use super::{Benchmark, Figures, Place, SINGLES};
use crate::calls::{self, CallData};
use crate::softirq::{self, Running, Tasklet};
use crate::workqueue::{self, Work};

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::task("tasklet_raise_to_run", |place, _| {
        place.batches(|_| {
            let no_softirqs = bh::disable();
            softirq::schedule(&TASKLET);
            drop(no_softirqs);
        })
    }),
    Benchmark::task("irq_work_self_ipi", |place, _| {
        place.batches(|_| {
            calls::irq_work(&CALL);
            while CALL.is_busy() {
                Native::relax();
            }
        })
    }),
    Benchmark::task("workqueue_queue_to_run_same_cpu", queue_to_run),
];

static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
static CALL: CallData = CallData::new(|| ());

/// When the item was called.
static CALLED: AtomicU64 = AtomicU64::new(0);
static WORK: Work<fn(&mut workqueue::Running<'_>)> =
    Work::new(|_| CALLED.store(Native::now_ns(), Ordering::Relaxed));

/// The worker is of the fair class, and comes when this task blocks.
fn queue_to_run(place: Place, cx: &mut TaskCx) -> Figures {
    place.each(SINGLES, || {
        let begun = Native::now_ns();
        workqueue::queue(&WORK);
        WORK.flush(cx);
        CALLED.load(Ordering::Relaxed) - begun
    })
}
