//! Priorities that tasks inherit while somebody more urgent waits for what they hold.
//!
//! A task has a policy of its own, and may have inherited a priority; it is scheduled by whichever is more urgent. The
//! contract's priorities are numbers: 1 to 40 for the fair class, from the least weight to the greatest, 101 to 199 for
//! real-time, 200 for stop tasks.

use hal::Native;
use hal::platform::Priority;
use sync::IrqSpinLock;

use super::placement;
use super::policy::Policy;
use crate::task::Task;

/// What decides about a task's scheduling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    own: Policy,
    inherited: Priority,
    /// It holds up a grace period.
    boosted: bool,
}

impl Standing {
    pub(crate) const fn new(own: Policy) -> IrqSpinLock<Standing> {
        IrqSpinLock::new(Standing { own, inherited: Priority::LEAST, boosted: false })
    }

    /// The policy that is in effect.
    fn in_effect(&self) -> Policy {
        let lent = self.inherited.max(if self.boosted { BOOST } else { Priority::LEAST });
        if lent > priority(self.own) { policy(lent) } else { self.own }
    }

    /// Makes a change, and has `task`, whose standing it is, scheduled by what is in effect then.
    fn change(&mut self, task: &Task, how: impl FnOnce(&mut Standing)) {
        let before = self.in_effect();
        how(self);
        let after = self.in_effect();
        if before != after {
            placement::set_policy(task, after);
        }
    }
}

/// What a reader that holds up a grace period runs with: before the fair class, and behind everything in real time.
const BOOST: Priority = Priority(REAL_TIME + 1);

const REAL_TIME: u32 = 100;
const STOP: u32 = 200;
/// The priority of nice value 0.
const NICE_0: u32 = 20;

fn priority(policy: Policy) -> Priority {
    Priority(match policy {
        Policy::Stop => STOP,
        Policy::Fifo(number) | Policy::RoundRobin(number) => REAL_TIME + u32::from(number.get()),
        Policy::Fair(nice) => NICE_0.saturating_add_signed(-i32::from(nice.get())),
    })
}

fn policy(priority: Priority) -> Policy {
    match priority.0 {
        STOP.. => Policy::Stop,
        number @ 101.. => Policy::fifo((number - REAL_TIME) as u8),
        number => Policy::fair((NICE_0 as i32 - number as i32).clamp(-20, 19) as i8),
    }
}

/// [`Task::set_policy`].
pub(crate) fn set_policy(task: &Task, own: Policy) {
    {
        let mut standing = task.standing.lock();
        standing.own = own;
        placement::set_policy(task, standing.in_effect());
    }
    // SAFETY: the caller's reference keeps the task's record.
    unsafe { sync::pi::priority_changed::<Native>(task.id()) };
}

/// [`Platform::priority_of`](hal::Platform::priority_of).
pub(crate) fn own_priority(task: &Task) -> Priority {
    priority(task.standing.lock().own)
}

/// [`Platform::set_inherited_priority`](hal::Platform::set_inherited_priority).
pub(crate) fn inherit(task: &Task, inherited: Priority) {
    task.standing.lock().change(task, |standing| standing.inherited = inherited);
}

/// `task` was preempted in a read-side section and holds up a grace period: it runs before ordinary tasks until it has
/// left the section. Nothing happens if it has.
#[cfg(not(feature = "rcu-tiny"))]
pub(crate) fn boost(task: &Task) {
    let mut standing = task.standing.lock();
    // Under the lock: it leaves the lists first, and takes the lock then.
    if task.reader.is_queued() {
        standing.change(task, |standing| standing.boosted = true);
    }
}

/// `task`, which runs, has left the section and the lists.
#[cfg(not(feature = "rcu-tiny"))]
pub(crate) fn end_boost(task: &Task) {
    task.standing.lock().change(task, |standing| standing.boosted = false);
}
