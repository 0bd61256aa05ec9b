//! CPUs that come and go, in the middle of whatever is going on.
//!
//! A grace period waits for the CPUs that were up when it reached their leaf; that set is fixed then. A CPU that comes up
//! later begins its readers later. A CPU that goes down reports for itself, last thing, so that nobody has to find out
//! that it is gone.

use hal::Platform;

use super::faults::faulty;
use super::quiescent::Kinds;
use super::{Due, Tree};
use crate::primitives::Ordering;

impl<P: Platform> Tree<'_, P> {
    /// `cpu` comes up, and is not idle. Before its first reader.
    ///
    /// Linux: `rcutree_report_cpu_starting`. Contexts: on that CPU, interrupts off; or elsewhere, if what that CPU does
    /// next happens after this.
    pub fn cpu_up(&self, cpu: u32) {
        let percpu = self.percpu(cpu);
        let (leaf, bit) = (percpu.leaf, percpu.bit);
        let mut state = self.lock(leaf);
        debug_assert!(state.present & bit == 0, "a CPU that is up comes up");
        let watching = percpu.watching.load(Ordering::Relaxed);
        percpu.watching.store(watching | 1, Ordering::Relaxed);
        percpu.expedited.store(false, Ordering::Relaxed);
        percpu.reported.store(self.number_of(leaf), Ordering::Relaxed);
        state.present |= bit;
    }

    /// `cpu` goes down: there will be no reader on it until it comes up again. Its callbacks are then to be
    /// [adopted](Tree::adopt_callbacks) by another CPU.
    ///
    /// Linux: `rcutree_report_cpu_dead`. Contexts: on that CPU, interrupts off; or elsewhere, if what that CPU did
    /// happened before this.
    pub fn cpu_down(&self, cpu: u32) -> Due {
        let percpu = self.percpu(cpu);
        let (leaf, bit) = (percpu.leaf, percpu.bit);
        let mut state = self.lock(leaf);
        debug_assert!(state.present & bit != 0, "a CPU that is down goes down");
        state.present &= !bit;
        if faulty!(self, SilentDeath) {
            return Due::NOTHING;
        }
        let complete = state.clear(bit, Kinds { normal: true, expedited: true });
        self.climb(leaf, state, complete)
    }

    /// Whether `cpu` is up, as far as grace periods are concerned. Any CPU; out of date at once.
    pub fn is_up(&self, cpu: u32) -> bool {
        let percpu = self.percpu(cpu);
        self.lock(percpu.leaf).present & percpu.bit != 0
    }
}
