//! "This code may sleep", as a value.
//!
//! Guards say what is switched off. The opposite, that nothing is, cannot be a guard: a guard that somebody else made
//! would make it untrue. It can be a unique borrow.
//!
//! 1. A task's body receives `&mut TaskCx`. There is one [`TaskCx`] for each task, made by whoever starts it.
//! 2. A function that sleeps asks for `&mut TaskCx`.
//! 3. What forbids sleeping while it lives borrows the token: a lock that is taken with `lock_in(&cx)` holds a shared
//!    borrow of it until the guard is dropped. Meanwhile nobody has a `&mut TaskCx`, so that a sleep under the lock does
//!    not compile.
//!
//! The token catches this where it is used. The forms that do without it ([`SpinLock::lock`](crate::SpinLock::lock),
//! [`preempt::disable`](crate::preempt::disable)) switch off just the same, and the token does not know: for these
//! [`might_sleep`](crate::context::might_sleep), which each sleeping function calls first, looks at run time.

use core::fmt;
use core::marker::PhantomData;

use hal::platform::{TaskId, Wakeup};
use hal::{Native, Platform};

use crate::Cpu;
use crate::cpu::CpuBound;

/// The right to sleep, of one task on platform `P`. Functions that may sleep ask for `&mut TaskCx`.
///
/// It is neither `Send` nor `Sync`: in another task it would speak about the wrong one. It takes no room.
///
/// ```
/// use hal::platform::Wakeup;
/// use sync::TaskCx;
///
/// /// Sleeps, as its argument says.
/// fn pause_for_ns(cx: &mut TaskCx, ns: u64) {
///     let until = <hal::Native as hal::Platform>::now_ns() + ns;
///     while cx.block(Some(until)) == Wakeup::Woken {}
/// }
/// // SAFETY: this thread is a task of the hosted machine and has no other token.
/// let mut cx = unsafe { TaskCx::new() };
/// pause_for_ns(&mut cx, 1_000);
/// ```
///
/// # Invariants
/// The value belongs to the executing task, and is the only one that does.
pub struct TaskCx<P: Platform = Native> {
    platform: PhantomData<fn() -> P>,
    _bound: CpuBound,
}

impl TaskCx {
    /// The executing task's token, on [`Native`]. Other platforms have [`new_in`](TaskCx::new_in).
    ///
    /// Contexts: task.
    ///
    /// # Safety
    /// For whoever starts a task, once, before its body runs: the executing task has no other token, and is in no
    /// section that forbids sleeping (a lock held, preemption, bottom halves or interrupts off).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// // SAFETY: this thread is a task, and this its only token.
    /// let cx = unsafe { sync::TaskCx::new() };
    /// assert_eq!(cx.task(), Native::current_task());
    /// ```
    pub unsafe fn new() -> TaskCx {
        // SAFETY: by the contract.
        unsafe { TaskCx::new_in() }
    }
}

impl<P: Platform> TaskCx<P> {
    /// The executing task's token, on platform `P`.
    ///
    /// # Safety
    /// As for [`new`](TaskCx::new).
    ///
    /// ```
    /// use hal::{Native, Platform};
    /// // SAFETY: this thread is a task, and this its only token.
    /// let cx = unsafe { sync::TaskCx::<Native>::new_in() };
    /// assert_eq!(cx.task(), Native::current_task());
    /// ```
    pub unsafe fn new_in() -> TaskCx<P> {
        // INVARIANT: by the contract.
        TaskCx { platform: PhantomData, _bound: CpuBound::NEW }
    }

    /// The task that the token belongs to.
    ///
    /// Contexts: task. Cost: [`Platform::current_task`].
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// assert_eq!(cx.task(), <hal::Native as hal::Platform>::current_task());
    /// ```
    #[inline(always)]
    pub fn task(&self) -> TaskId {
        P::current_task()
    }

    /// Says that what follows may sleep; reports if it must not, because something is switched off without the token's
    /// knowledge. See [`might_sleep`](crate::context::might_sleep).
    ///
    /// It asks for the unique borrow, so that it does not compile where a sleep would not.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// cx.might_sleep(); // nothing is switched off: nothing is said
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn might_sleep(&mut self) {
        Cpu::<P>::might_sleep();
    }

    /// Lets another task run if one should; returns whether that was so. For long computations. See
    /// [`cond_resched`](crate::context::cond_resched).
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use hal::{Native, Platform};
    /// assert!(!cx.cond_resched());
    /// Native::set_need_resched(Native::cpu());
    /// assert!(cx.cond_resched());
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn cond_resched(&mut self) -> bool {
        Cpu::<P>::cond_resched()
    }

    /// Blocks this task until somebody [wakes](Platform::wake) it, or until the deadline (ns, on the clock of
    /// [`Platform::now_ns`]) has passed. Consumes one wake-up, also one that came before.
    ///
    /// Linux: `schedule` and `schedule_hrtimeout` in `TASK_UNINTERRUPTIBLE`. Contexts: task, with nothing switched off;
    /// otherwise the platform stops with `scheduling while atomic`.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use hal::platform::Wakeup;
    /// assert_eq!(cx.block(Some(0)), Wakeup::TimedOut);
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn block(&mut self, deadline_ns: Option<u64>) -> Wakeup {
        P::block(deadline_ns)
    }

    /// Blocks this task until it is woken, as [`block`](TaskCx::block) without a deadline does, and says that nothing is
    /// wrong however long that takes: the task waits to be given something to do. Watchdogs for tasks that are blocked for
    /// long leave it out. Linux: `schedule` in `TASK_IDLE`. Contexts: as `block`.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use hal::{Native, Platform, platform::Wakeup};
    /// // SAFETY: the executing task has not ended.
    /// unsafe { Native::wake(cx.task()) }; // before it blocks
    /// assert_eq!(cx.block_idle(), Wakeup::Woken);
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn block_idle(&mut self) -> Wakeup {
        P::block_idle()
    }
}

impl<P: Platform> fmt::Debug for TaskCx<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskCx").field("task", &self.task()).finish()
    }
}
