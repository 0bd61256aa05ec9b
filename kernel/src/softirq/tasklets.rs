//! The tasklets of each CPU: two queues, one for each of their vectors.
//!
//! Vectors mark *that* something is queued, so a queue whose CPU went off-line is moved as a whole and raises its vector
//! where it arrives.

use hal::percpu::Pinned;
use hal::{CpuId, percpu};
use sync::context::SoftirqGuard;
use sync::list::Owner;
use sync::preempt;
use sync::softirq::{Disabled, Running, Tasklet, TaskletQueue, Vector};

percpu! {
    static HIGH: TaskletQueue = TaskletQueue::new(Vector::High);
    static NORMAL: TaskletQueue = TaskletQueue::new(Vector::Tasklet);
}

/// For [`Vector::High`].
pub(super) fn run_high(serving: &SoftirqGuard) {
    HIGH.get(serving).run(serving);
}

/// For [`Vector::Tasklet`].
#[inline(always)]
pub(super) fn run(serving: &SoftirqGuard) {
    NORMAL.get(serving).run(serving);
}

/// Has the tasklet's function called soon on this CPU. Returns `false` if it was to run already, or is killed; see
/// [`TaskletQueue::schedule`].
///
/// Linux: `tasklet_schedule`. Contexts: any but NMI. In a task with nothing switched off the function has been called when
/// this returns, unless another CPU calls it.
#[inline]
pub fn schedule<F, O>(tasklet: O) -> bool
where
    O: Owner<Object = Tasklet<F>> + 'static,
    F: Fn(&Running<'_>) + Send + Sync + 'static,
{
    NORMAL.get(&preempt::disable()).schedule(tasklet)
}

/// The same, before other softirqs. Linux: `tasklet_hi_schedule`.
#[inline]
pub fn schedule_high<F, O>(tasklet: O) -> bool
where
    O: Owner<Object = Tasklet<F>> + 'static,
    F: Fn(&Running<'_>) + Send + Sync + 'static,
{
    HIGH.get(&preempt::disable()).schedule(tasklet)
}

/// Lets a disabled tasklet run again; if it was to run meanwhile, then on this CPU. Linux: `tasklet_enable`. Contexts: any
/// but NMI.
pub fn enable(disabled: Disabled<'_>) {
    disabled.enable(NORMAL.get(&preempt::disable()));
}

/// Moves the tasklets of `cpu`, which has gone off-line, to this CPU.
pub(super) fn inherit(cpu: CpuId, here: &impl Pinned) {
    HIGH.get(here).inherit(HIGH.on(cpu));
    NORMAL.get(here).inherit(NORMAL.on(cpu));
}
