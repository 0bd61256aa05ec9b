//! What a report says about where it comes from.

use core::fmt;
use core::marker::PhantomData;

use hal::context::{Context, HARDIRQ_MASK, HARDIRQ_UNIT, NMI_MASK, NMI_UNIT};
use hal::platform::TaskId;
use hal::{CpuId, Platform};

/// One look at the executing CPU: its task and its counts.
pub(crate) struct State<P> {
    task: TaskId,
    cpu: CpuId,
    context: Context,
    irq_depth: u32,
    platform: PhantomData<fn() -> P>,
}

impl<P: Platform> State<P> {
    /// As it is now. What it says belongs together if the caller is pinned.
    pub(crate) fn now() -> State<P> {
        State {
            task: P::current_task(),
            cpu: P::cpu(),
            context: P::context(),
            irq_depth: P::irq_depth(),
            platform: PhantomData,
        }
    }
}

impl<P> fmt::Display for State<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.context.count();
        write!(f, "task {:#x} on CPU#{}, preempt count {count:#x} (", self.task.0, self.cpu)?;
        let parts = [
            ("preemption off", self.context.preempt_depth()),
            ("bottom halves off", self.context.bottom_half_depth()),
            ("in softirq", u32::from(self.context.in_serving_softirq())),
            ("in hardirq", (count & HARDIRQ_MASK) / HARDIRQ_UNIT),
            ("in NMI", (count & NMI_MASK) / NMI_UNIT),
        ];
        let mut separator = "";
        for (name, times) in parts.into_iter().filter(|(_, times)| *times != 0) {
            write!(f, "{separator}{name} {times}")?;
            separator = ", ";
        }
        if count == 0 {
            f.write_str("nothing")?;
        }
        write!(f, "), interrupt depth {}", self.irq_depth)
    }
}
