//! Which CPU a task should be on.
//!
//! Two occasions, and one rule: a task moves only if that gains something now, because moving costs it what it has in the
//! caches.
//!
//! 1. **Waking**: [`choose_cpu`]. The CPU that it was on if that is idle, else an idle one, else one where it runs at once
//!    because what runs there is less urgent, else where it was, unless the waker's CPU has much less to do.
//! 2. **Having little to do**: [`find_busiest`]. A CPU that is idle, or at times each CPU, looks for one that has more to
//!    do, and takes so much that both have the same: [`Pull`] counts it.
//!
//! What is known of other CPUs may be out of date, so all answers are hints: whoever follows one locks the queue and
//! looks again.

use hal::CpuId;
use hal::cpumask::CpuMask;

use super::class::Level;
use super::queue::Summary;

/// At most so many CPUs are looked at for one that is idle, and so many for one that is less busy.
const LOOKS: usize = 8;

/// A task is to run somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// How urgent it is.
    pub level: Level,
    /// Where it ran last.
    pub previous: CpuId,
    /// Who wakes it.
    pub waker: CpuId,
    /// Where it may run. At least one of these must be online.
    pub allowed: &'a CpuMask,
    /// It has nothing in any cache: a new task, so it may as well go to where there is least to do.
    pub fresh: bool,
}

/// The CPU for a task that becomes ready. `idle` are the CPUs that seem to be idle, `look` tells about one, `None` if it
/// is not online. `None` only if no allowed CPU is online. O(1): a bounded number of CPUs is looked at, unless most of the
/// allowed ones are not online.
///
/// ```
/// use hal::CpuId;
/// use hal::cpumask::CpuMask;
/// use kernel::sched::policy::{Level, Summary};
/// use kernel::sched::policy::balance::{Placement, choose_cpu};
///
/// let cpu = |number| CpuId::new(number).unwrap();
/// let busy = Summary { level: Level::FAIR, load: 1024, fair: 1, urgent: 0 };
/// let look = |at: CpuId| Some(if at == cpu(2) { Summary::default() } else { busy });
/// let allowed = CpuMask::all(4);
/// let task = Placement { level: Level::FAIR, previous: cpu(0), waker: cpu(1), allowed: &allowed, fresh: false };
/// assert_eq!(choose_cpu(&task, [cpu(2)].into_iter(), look), Some(cpu(2)));
/// ```
pub fn choose_cpu(
    task: &Placement<'_>,
    idle: impl Iterator<Item = CpuId>,
    look: impl Fn(CpuId) -> Option<Summary>,
) -> Option<CpuId> {
    let look = |cpu: CpuId| if task.allowed.contains(cpu) { look(cpu) } else { None };
    let previous = look(task.previous);
    if previous.is_some_and(|there| there.is_idle()) {
        return Some(task.previous);
    }
    let mut idle = idle.filter(|cpu| task.allowed.contains(*cpu)).take(LOOKS);
    if let Some(cpu) = idle.find(|cpu| look(*cpu).is_some_and(|there| there.is_idle())) {
        return Some(cpu);
    }
    let near = [task.previous, task.waker].into_iter();
    let others = || {
        core::iter::successors(task.allowed.next_wrapping(task.previous), |cpu| {
            task.allowed.next_wrapping(*cpu)
        })
    };
    if task.level > Level::FAIR {
        // Where it interrupts the least urgent one, and near if that is as good as far.
        let seen = near.chain(others().take(LOOKS)).filter_map(|cpu| look(cpu).map(|there| (cpu, there)));
        if let Some((cpu, there)) = seen.min_by_key(|(_, there)| (there.level, there.urgent))
            && (there.level < task.level || previous.is_none())
        {
            return Some(cpu);
        }
    } else if task.fresh {
        let seen = near.chain(others().take(LOOKS)).filter_map(|cpu| look(cpu).map(|there| (cpu, there)));
        if let Some((cpu, _)) = seen.min_by_key(|(_, there)| (there.level > Level::FAIR, there.load)) {
            return Some(cpu);
        }
    } else if let (Some(here), Some(there)) = (look(task.waker), previous) {
        let closer =
            here.level < there.level || (here.level == there.level && here.load + here.load / 4 < there.load);
        return Some(if closer { task.waker } else { task.previous });
    }
    if previous.is_some() {
        return Some(task.previous);
    }
    // Its CPU is gone, or no longer allowed: anywhere.
    task.allowed.iter().find(|cpu| look(*cpu).is_some())
}

/// What a CPU should take from another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pull {
    /// From where.
    pub from: CpuId,
    /// How much of the load to take in all.
    pub load: u64,
    /// How many tasks at most.
    pub tasks: u32,
}

/// At most so many tasks move at once: both queues are locked meanwhile.
const MOST_TASKS: u32 = 32;

/// Two loads that differ by less than so many halvings of the greater one are the same: 3 %.
const WORTH_MOVING: u32 = 5;

impl Pull {
    /// Whether a task of that load ([`Entity::load`](super::Entity::load)) is to be taken too; if so, it counts as taken.
    pub fn take(&mut self, load: u64) -> bool {
        // Taking it must bring the two closer together: by at least half of it.
        let takes = self.tasks != 0 && load <= 2 * self.load;
        if takes {
            self.tasks -= 1;
            self.load = self.load.saturating_sub(load);
        }
        takes
    }
}

/// From which of `others` a CPU whose own summary is `mine` should take tasks, and how many. `None`: leave it.
///
/// Asked by idle CPUs as soon as they are, and by each CPU at times. O(CPUs).
pub fn find_busiest(
    mine: &Summary,
    others: impl Iterator<Item = CpuId>,
    look: impl Fn(CpuId) -> Option<Summary>,
) -> Option<Pull> {
    let (mut busiest, mut most) = (None, 0);
    for cpu in others {
        let Some(there) = look(cpu) else { continue };
        // Two real-time tasks there, and one of them could run here at once.
        if there.urgent > 1 && mine.level <= Level::FAIR {
            return Some(Pull { from: cpu, load: 0, tasks: 1 });
        }
        let waiting = there.fair + there.urgent > 1 && there.fair != 0;
        if waiting && (busiest.is_none() || there.load > most) {
            (busiest, most) = (Some((cpu, there.fair)), there.load);
        }
    }
    let (from, there) = busiest?;
    if mine.is_idle() {
        // What is usual does not matter now: anybody who waits there is better off here.
        return Some(Pull { from, load: u64::MAX / 2, tasks: (there / 2).clamp(1, MOST_TASKS) });
    }
    let more = most.checked_sub(mine.load)?;
    (more > most >> WORTH_MOVING).then_some(Pull { from, load: more / 2, tasks: MOST_TASKS })
}
