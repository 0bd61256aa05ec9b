//! `stop/N`: a task on each CPU that nothing else can keep from running; and what it is for.
//!
//! 1. [`stop_one_cpu`] runs a function on a CPU in place of whatever runs there, in task context: no task of that CPU is
//!    in the middle of anything that forbids preemption.
//! 2. [`stop_machine`] has all CPUs stand with interrupts off while one of them works ([`sync::call::Rendezvous`]). A call in
//!    an interrupt ([`calls::all`](crate::calls::all)) is not enough for that: it may hit a task that holds a spin lock, which
//!    the work would then find taken.
//! 3. A CPU that goes off-line stops inside of this task ([`hotplug`](crate::hotplug)), so that nothing else runs there any
//!    more.
//!
//! Linux: `migration/N`, `stop_machine`, `stop_one_cpu`.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use alloc::vec::Vec;
use hal::{CpuId, Native, Platform, percpu};
use sync::call::Rendezvous;
use sync::{Completion, IrqSpinLock, Mutex, TaskCx, preempt};

use crate::calls::CallError;
use crate::sched::policy::Policy;
use crate::task::{self, Builder, SpawnError, Task};
use crate::{cpus, hotplug, memory};

/// A function that stoppers run, once each.
struct Job<'a> {
    work: &'a (dyn Fn(CpuId) + Sync),
    left: AtomicU32,
    done: Completion,
}

percpu! {
    /// What this CPU's stopper is to run, or null.
    static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(core::ptr::null_mut());
    /// Whether this CPU is to go off-line.
    static GO: AtomicU32 = AtomicU32::new(0);
    /// The record of this CPU's stopper, or 0. It never ends.
    static STOPPER: AtomicUsize = AtomicUsize::new(0);
}

/// Jobs come one after the other, so that no stopper is in two, in different orders.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Starts the stopper of `cpu`, which has none. It waits while the CPU is off-line.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn start(cpu: CpuId) -> Result<(), SpawnError> {
    let stopper = Builder::named(format_args!("stop/{cpu}")).part_of(cpu).policy(Policy::Stop).spawn(run)?;
    let record: &Task = stopper.task();
    // Release: pairs with the Acquire in `wake`.
    STOPPER.on(cpu).store(core::ptr::from_ref(record) as usize, Ordering::Release);
    Ok(())
}

fn wake(cpu: CpuId) {
    // Acquire: pairs with the Release in `start`.
    // SAFETY: null, or the record of a task that never ends.
    if let Some(task) = unsafe { (STOPPER.on(cpu).load(Ordering::Acquire) as *const Task).as_ref() } {
        task.unpark();
    }
}

/// The stopper's body.
fn run(cx: &mut TaskCx) {
    let here = Native::cpu();
    loop {
        // Acquire: pairs with the Release in `in_stoppers`; the task sees the job's fields.
        let job = JOB.on(here).swap(core::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: null, or a job whose `in_stoppers` waits until all have run it, which is said below, after the last use.
        if let Some(job) = unsafe { job.as_ref() } {
            Native::chaos_point();
            (job.work)(here);
            // Release and Acquire: what all did comes before the completion. Only the last one touches the job after this.
            if job.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                job.done.complete();
            }
        } else if GO.exchange(0) != 0 {
            hotplug::go_and_come_back();
        } else {
            task::park(cx);
        }
    }
}

/// Has the stopper of `cpu` take the CPU off-line.
pub(crate) fn send_away(cpu: CpuId) {
    GO.on(cpu).store(1, Ordering::Relaxed);
    // The wake-up orders the store before the stopper's look.
    wake(cpu);
}

/// Takes that back. `false` if the CPU is on its way already.
pub(crate) fn call_back(cpu: CpuId) -> bool {
    GO.on(cpu).swap(0, Ordering::Relaxed) != 0
}

/// Runs `work` in the stoppers of `cpus`, which stay online, and returns when all are through.
fn in_stoppers(cpus: &[CpuId], work: &(dyn Fn(CpuId) + Sync), cx: &mut TaskCx) {
    let job = Job { work, left: AtomicU32::new(cpus.len() as u32), done: Completion::new() };
    let shared: *const Job<'_> = &job;
    // This CPU's stopper would replace us as soon as it is woken, and might wait for one that we have not told yet.
    let here = preempt::disable();
    for cpu in cpus {
        Native::chaos_point();
        // Release: pairs with the Acquire in `run`. The lifetime is extended only in the pointer's type: this function does
        // not return before everybody has let go of the job.
        JOB.on(*cpu).store(shared.cast_mut().cast(), Ordering::Release);
        wake(*cpu);
    }
    drop(here);
    job.done.wait(cx);
}

/// Runs `work` on `cpu`, in a task that replaces whatever runs there, with preemption and interrupts on, and returns its
/// result. It must not sleep for long: nothing else runs there meanwhile.
///
/// Linux: `stop_one_cpu`. Contexts: task.
///
/// # Errors
/// [`CallError::Offline`].
pub fn stop_one_cpu<R: Send>(
    cpu: CpuId,
    work: impl FnOnce() -> R + Send,
    cx: &mut TaskCx,
) -> Result<R, CallError> {
    let _hold = hotplug::hold(cx);
    if !cpus::is_online(cpu) {
        return Err(CallError::Offline(cpu));
    }
    let _one = ONE_AT_A_TIME.lock(cx);
    let once = Once::new(work);
    in_stoppers(&[cpu], &|_| once.run(), cx);
    Ok(once.result())
}

/// Runs `work` on one CPU while all others stand with interrupts off, and returns its result.
///
/// No task is inside of a section that forbids preemption while it runs, and no handler runs. The work must not sleep, nor
/// wait for another CPU other than by a TLB shoot-down, which standing CPUs answer.
///
/// Linux: `stop_machine`. Contexts: task. Cost: two switches on every CPU, and nothing happens anywhere until the slowest
/// has come; not for anything frequent.
pub fn stop_machine<R: Send>(work: impl FnOnce() -> R + Send, cx: &mut TaskCx) -> R {
    let _hold = hotplug::hold(cx);
    let _one = ONE_AT_A_TIME.lock(cx);
    let cpus: Vec<CpuId> = cpus::online().collect();
    let meeting = Rendezvous::<Native>::new(cpus.len() as u32);
    let once = Once::new(work);
    in_stoppers(
        &cpus,
        &|cpu| {
            meeting.stand((cpu == cpus[0]).then_some(|| once.run()), memory::shootdown::handle_shootdown_ipi)
        },
        cx,
    );
    once.result()
}

/// A function that runs once, on some CPU, and its result.
struct Once<F, R> {
    work: IrqSpinLock<Option<F>>,
    result: IrqSpinLock<Option<R>>,
}

impl<F: FnOnce() -> R, R> Once<F, R> {
    fn new(work: F) -> Once<F, R> {
        Once { work: IrqSpinLock::new(Some(work)), result: IrqSpinLock::new(None) }
    }

    fn run(&self) {
        let work = self.work.lock().take();
        let result = work.map(|work| work());
        *self.result.lock() = result;
    }

    fn result(self) -> R {
        self.result.into_inner().expect("whoever waits for a job waits until it was run")
    }
}
