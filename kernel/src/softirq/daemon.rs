//! `softirq/N`: the task that serves what CPU N's interrupts have no time for.
//!
//! It is a task like others, so the scheduler sees to it that the CPU's other tasks get their share. It serves one round at
//! a time with bottom halves off, and lets others run in between. When it finds none of its vectors raised, they are no
//! longer its own, and it sleeps.
//!
//! Linux: `ksoftirqd/N`.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering};

use hal::platform::TaskId;
use hal::x86_64::softirq as pending;
use hal::{CpuId, Native, Platform, percpu};
use sync::context::{SoftirqGuard, enter_softirq};
use sync::{TaskCx, irq};

use crate::task::{Builder, SpawnError};

percpu! {
    /// The name of this CPU's task, or 0. A task that is named here does not end.
    static TASK: AtomicUsize = AtomicUsize::new(0);
}

/// Starts the task of `cpu`, which has none. It waits while the CPU is off-line.
///
/// Contexts: task.
///
/// # Errors
/// If there is no memory for it; then what a budget leaves waits for the end of the next interrupt.
pub fn start(cpu: CpuId) -> Result<(), SpawnError> {
    let task = Builder::named(format_args!("softirq/{cpu}")).part_of(cpu).spawn(|cx| -> () { run(cx) })?;
    // It may not have run yet: then it looks before it sleeps. Relaxed: all that is passed on is a name.
    TASK.on(cpu).store(task.task().id().0.get(), Ordering::Relaxed);
    Ok(())
}

/// Leaves what is pending on this CPU to its task, and wakes it. Returns `false` if there is none. Interrupts are off.
pub(super) fn take_over(_serving: &SoftirqGuard) -> bool {
    let Some(task) = NonZeroUsize::new(TASK.read()) else { return false };
    pending::leave_to_task();
    // SAFETY: it does not end.
    unsafe { Native::wake(TaskId(task)) };
    true
}

fn run(cx: &mut TaskCx) -> ! {
    loop {
        if serve_round() {
            cx.cond_resched();
        } else {
            // What is left to the task from here on comes with a wake-up.
            cx.block_idle();
        }
    }
}

/// Serves the vectors that are the task's, once. Returns whether there were any.
fn serve_round() -> bool {
    let quiet = irq::disable();
    let vectors = pending::take_left();
    if vectors == 0 {
        return false;
    }
    // SAFETY: a task with nothing switched off but interrupts; dropped before it goes on.
    let serving = unsafe { enter_softirq() };
    drop(quiet);
    super::run(vectors, &serving);
    drop(serving);
    // What interrupts have raised meanwhile they left to us. The count first, as when bottom halves are enabled.
    Native::serve_softirqs();
    true
}
