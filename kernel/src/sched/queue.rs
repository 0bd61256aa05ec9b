//! A CPU's run queue, and the switch from one task to the next.
//!
//! The queue's lock is held over the switch: until the registers of the task that goes are on its stack, nobody else can
//! find it in the queue, and whoever wants to wake it waits for the lock. The task that goes hands the lock over, the
//! one that comes adopts it.
//!
//! Interrupts are off all the while, and counted once: by the task that calls, or by the entry of the interrupt that
//! replaces the task. So the count is the same on both sides of every switch, and needs no saving.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::percpu::{IrqsOff, Pinned};
use hal::x86_64::{fpu, native, reader, switch};
use hal::{CpuId, Native, Platform, percpu};
use sync::list::Owner;
use sync::spin::SpinLockWithGuard;
use sync::{Irq, IrqSpinLock};

use super::IDLE;
use super::placement::{find_home, leave_for_good, publish};
use super::policy::RunQueue;
use super::sleepers::Sleepers;
use crate::task::{self, Task, TaskRef, state};
use crate::{tick, trace};

/// What belongs to one CPU's scheduler.
pub(crate) struct CpuQueue {
    /// The tasks that run or want to, without the idle task.
    pub(crate) ready: RunQueue,
    /// Tasks that wait here with a deadline.
    pub(crate) sleepers: Sleepers,
    /// Runs when nobody else wants to. `None` until the CPU has tasks.
    pub(super) idle: Option<&'static Task>,
    /// From just before a switch to just after it: the task that went.
    last: Option<&'static Task>,
    /// That one may not stay here, and is in no queue.
    homeless: bool,
    /// The CPU is off line: nobody comes.
    pub(crate) closed: bool,
}

// SAFETY: the queues refer to entities and sleepers of tasks, which are reached under this queue's lock only.
unsafe impl Send for CpuQueue {}

pub(crate) type Queue = IrqSpinLock<CpuQueue>;
pub(crate) type LockedQueue<'a> = SpinLockWithGuard<'a, CpuQueue, Irq>;

percpu! {
    static QUEUE: Queue = IrqSpinLock::new(CpuQueue {
        ready: RunQueue::new(),
        sleepers: Sleepers::new(),
        idle: None,
        last: None,
        homeless: false,
        closed: false,
    });
    /// Preemption points at which this CPU was asked to reschedule, and did.
    pub(crate) static RESCHEDULES: AtomicU32 = AtomicU32::new(0);
    /// Switches on this CPU.
    pub(crate) static SWITCHES: AtomicU64 = AtomicU64::new(0);
    /// Whether this CPU has tasks.
    static STARTED: AtomicU32 = AtomicU32::new(0);
}

/// The queue of `cpu`.
pub(crate) fn queue_of(cpu: CpuId) -> &'static Queue {
    QUEUE.on(cpu)
}

/// Interrupts are off, counted exactly once, from before the value was made until it is gone.
///
/// # Invariants
/// That.
pub(crate) struct Quiet(PhantomData<*mut ()>);

// SAFETY: with interrupts off the execution is not moved, except by the switch, which is this value's purpose: on the
// other side of it another value's owner continues. Neither `Send` nor `Sync`.
unsafe impl Pinned for Quiet {}
// SAFETY: by the invariant.
unsafe impl IrqsOff for Quiet {}

impl Quiet {
    /// # Safety
    /// Interrupts are off, counted once, and stay so while the value is there.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Quiet {
        debug_assert_eq!(Native::irq_depth(), 1, "switching with interrupts off more than once");
        // INVARIANT: by the contract.
        Quiet(PhantomData)
    }

    /// Locks the executing CPU's queue.
    #[inline(always)]
    pub(crate) fn lock(&self) -> LockedQueue<'_> {
        QUEUE.get(self).lock_with(self)
    }
}

/// Calls `work` with interrupts off, for a task that has them on. A reschedule that comes due meanwhile, because somebody
/// was woken in the middle of a switch, happens at the end.
#[inline(always)]
pub(crate) fn quietly<R>(work: impl FnOnce(&Quiet) -> R) -> R {
    Native::irq_disable();
    // SAFETY: off just now, until below; the callers had them on.
    let result = work(&unsafe { Quiet::assume() });
    Native::irq_enable();
    Native::check_resched();
    result
}

/// Makes `idle` the task that has been running on this CPU, and tasks possible.
pub(crate) fn start_on_this_cpu(idle: &'static Task) {
    // SAFETY: a CPU comes up with interrupts off, counted once.
    let quiet = unsafe { Quiet::assume() };
    enter(idle);
    quiet.lock().idle = Some(idle);
    IDLE.set(idle.cpu());
    STARTED.write(1);
    // SAFETY: the task that runs is one just now. Tasks are named by their addresses.
    unsafe { native::set_inheritance(const { NonZeroUsize::new(offset_of!(Task, inheritance)).unwrap() }) };
}

/// Whether this CPU has tasks.
pub(crate) fn is_started() -> bool {
    STARTED.read() != 0
}

/// Tells the machine, and the checkers, who runs from now on.
#[inline(always)]
fn enter(next: &'static Task) -> u32 {
    #[cfg(any(feature = "lockdep", debug_assertions))]
    {
        // SAFETY: interrupts are off, so that the record stays this CPU's; records live for ever.
        let record = unsafe { Native::record().as_ref() };
        record.held.store(core::ptr::from_ref(&next.held).cast_mut().cast(), Ordering::Relaxed);
    }
    native::set_current_task(next.id(), next.migration_disabled.load(Ordering::Relaxed))
}

/// Continues whoever the queue picks; returns when the calling task is picked again, perhaps on another CPU. The caller
/// has said in the queue what becomes of it.
pub(crate) fn switch_to_next(mut queue: LockedQueue<'_>, quiet: &Quiet, now: u64) {
    Native::clear_need_resched();
    let here = Native::cpu();
    let previous = Task::current();
    let homeless = previous.must_move.load(Ordering::Relaxed) && leave_for_good(&mut queue, previous, now);
    let next: &'static Task = match queue.ready.pick(now) {
        // SAFETY: tasks' entities, and nothing else, are in run queues.
        Some(entity) => unsafe { Task::from_entity(entity) },
        None => queue.idle.expect("CPUs with tasks have an idle one"),
    };
    publish(&queue, here);
    if core::ptr::eq(previous, next) {
        return;
    }
    let idle = queue.idle;
    let is_idle = |task: &Task| idle.is_some_and(|idle| core::ptr::eq(task, idle));
    if is_idle(previous) {
        IDLE.clear(here);
        tick::leave_idle(quiet);
    } else if is_idle(next) {
        IDLE.set(here);
    }
    let ran = now.saturating_sub(previous.since.load(Ordering::Relaxed));
    previous.run_time.store(previous.run_time.load(Ordering::Relaxed) + ran, Ordering::Relaxed);
    next.since.store(now, Ordering::Relaxed);
    next.switches.store(next.switches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    SWITCHES.inc();
    fpu::switch_to(next.vectors.as_ref(), quiet);
    trace::switch(previous.number(), next.number());
    queue.last = Some(previous);
    queue.homeless = homeless;
    queue.into_handover();
    previous.migration_disabled.store(enter(next), Ordering::Relaxed);
    previous.reader_word.store(reader::word(), Ordering::Relaxed);
    reader::set_word(next.reader_word.load(Ordering::Relaxed));
    Native::chaos_point();
    // SAFETY: interrupts are off. By T1 `next.saved` is where its registers are, and picking it under the lock, which is
    // held, is the only way to this switch. `previous` is the caller, whose stack is in use until the switch.
    unsafe { switch::switch(previous.saved.get(), *next.saved.get()) }
    finish(quiet);
}

/// After a switch, on the stack of the task that came: lets go of the queue, and of a task that has ended.
fn finish(quiet: &Quiet) {
    // SAFETY: whoever switched handed the queue of this CPU over, and each switch is finished once.
    let mut queue = unsafe { QUEUE.get(quiet).adopt_handover_with(quiet) };
    let last = queue.last.take().expect("a switch says who went");
    // Before the lock goes: then others may run the task, and end it.
    let ended = last.state.load(Ordering::Relaxed) == state::ENDED;
    if core::mem::take(&mut queue.homeless) {
        find_home(last, queue, quiet);
        return;
    }
    drop(queue);
    if ended {
        // SAFETY: by T4 the scheduler has a reference, and gives it up with the task.
        task::bury(unsafe { TaskRef::from_raw(last.into()) });
    }
}

/// The rest of the switch to a task that has not run before, which turns interrupts on.
pub(crate) fn finish_first_switch() {
    // SAFETY: a switch continues with interrupts off, counted once.
    finish(&unsafe { Quiet::assume() });
    Native::irq_enable();
    Native::check_resched();
}
