//! What a report says about where it comes from.

use core::fmt;
use core::marker::PhantomData;

use hal::context::{Context, HARDIRQ_MASK, HARDIRQ_UNIT, NMI_MASK, NMI_UNIT};
use hal::platform::TaskId;
use hal::{CpuId, Platform};

use crate::lockdep;

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

/// What the executing task holds, a line for each lock, each after a line break. Nothing where no dependency checker is
/// installed.
pub(crate) struct HeldLocks<P>(PhantomData<P>);

impl<P: Platform> HeldLocks<P> {
    pub(crate) fn now() -> HeldLocks<P> {
        HeldLocks(PhantomData)
    }
}

impl<P: Platform> fmt::Display for HeldLocks<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lockdep::write_held::<P>(&mut Lines { out: f, begins: true })
    }
}

/// Passes lines on, each of them with the line break before it instead of after it.
struct Lines<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    begins: bool,
}

impl fmt::Write for Lines<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            if core::mem::replace(&mut self.begins, line.ends_with('\n')) {
                self.out.write_str("\n  holds ")?;
            }
            self.out.write_str(line.trim_end_matches('\n'))?;
        }
        Ok(())
    }
}
