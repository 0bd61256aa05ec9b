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
}

impl Standing {
    pub(crate) const fn new(own: Policy) -> IrqSpinLock<Standing> {
        IrqSpinLock::new(Standing { own, inherited: Priority::LEAST })
    }

    /// The policy that is in effect.
    fn in_effect(&self) -> Policy {
        if self.inherited > priority(self.own) { policy(self.inherited) } else { self.own }
    }
}

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
    let mut standing = task.standing.lock();
    let before = standing.in_effect();
    standing.inherited = inherited;
    let after = standing.in_effect();
    if before != after {
        placement::set_policy(task, after);
    }
}
