//! What the tree wants done. It does none of it itself, and says it when its locks have been dropped.

use core::ops::BitOrAssign;

use hal::platform::TaskId;

use crate::seq::Cookie;

/// What is to be done now, by the caller, on its CPU.
#[must_use = "a grace period, or callbacks, may wait for it"]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// Wake the grace-period thread, which calls [`Driver::step`](super::Driver::step).
    pub wake_driver: bool,
    /// Wake those who wait for an expedited grace period: one has ended.
    pub wake_expedited: bool,
    /// Wake those who wait for a barrier: one has been passed.
    pub wake_barrier: bool,
    /// Have [`process`](super::Tree::process) called soon on this CPU, in a softirq.
    pub process: bool,
    /// Wake the thread that runs this CPU's callbacks, to do the same.
    pub wake_offload: bool,
    /// Ask for a reschedule of this CPU: a grace period waits for it, and it cannot report from here.
    pub reschedule: bool,
    /// The interrupted task is in a reader that a grace period waits for: have its outermost unlock call
    /// [`quiescent`](super::Tree::quiescent), or what ends the region without preemption, bottom halves or interrupts in
    /// which that unlock is.
    pub attention: bool,
    /// The CPU has more callbacks than [`Limits::flood`](super::Limits): who may sleep should wait, others be counted.
    pub flooded: bool,
    /// The grace-period thread has something to do and has not run for the time after which a grace period is called
    /// stalled.
    pub driver_starves: bool,
}

impl Due {
    /// Nothing is.
    pub const NOTHING: Due = Due {
        wake_driver: false,
        wake_expedited: false,
        wake_barrier: false,
        process: false,
        wake_offload: false,
        reschedule: false,
        attention: false,
        flooded: false,
        driver_starves: false,
    };
}

impl BitOrAssign for Due {
    fn bitor_assign(&mut self, other: Due) {
        self.wake_driver |= other.wake_driver;
        self.wake_expedited |= other.wake_expedited;
        self.wake_barrier |= other.wake_barrier;
        self.process |= other.process;
        self.wake_offload |= other.wake_offload;
        self.reschedule |= other.reschedule;
        self.attention |= other.attention;
        self.flooded |= other.flooded;
        self.driver_starves |= other.driver_starves;
    }
}

/// What is to be done about another CPU or a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Note that this CPU should reschedule, without interrupting it.
    Nudge(u32),
    /// Interrupt this CPU; the handler calls [`check_interrupt`](super::Tree::check_interrupt).
    Interrupt(u32),
    /// Have [`process`](super::Tree::process) called for this CPU, which is idle or off-loaded: its callbacks may have
    /// become due.
    Process(u32),
    /// The callbacks of this CPU, which is neither idle nor off-loaded, may have become due. It notices by itself at its
    /// next quiescent state or tick; only if it has no ticks this is as [`Process`](Action::Process).
    MayBeDue(u32),
    /// A grace period waits long for this task, which was preempted inside of a reader: let it run. By the time that this
    /// is said the task may have ended: it is a name, to be looked up.
    Boost(TaskId),
    /// The grace period of this cookie has ended: wake those who wait for it.
    Ended(Cookie),
    /// The running grace period has lasted this many nanoseconds. [`holdouts`](super::Tree::holdouts) says who it waits
    /// for.
    Stalled(u64),
    /// Wake those who wait for an expedited grace period: one has ended.
    WakeExpedited,
    /// Wake those who wait for a barrier: one has been passed.
    WakeBarrier,
    /// Wake the grace-period thread.
    WakeDriver,
}

impl Due {
    /// The same for the driver, which is awake.
    pub(super) fn but_the_driver(self) -> Due {
        Due { wake_driver: false, ..self }
    }

    /// The wake-ups among what is due, as actions.
    pub(super) fn wake_ups(self, mut act: impl FnMut(Action)) {
        if self.wake_driver {
            act(Action::WakeDriver);
        }
        if self.wake_expedited {
            act(Action::WakeExpedited);
        }
        if self.wake_barrier {
            act(Action::WakeBarrier);
        }
    }
}
