//! The kernel's own tasks, started at boot: one that gives back what ended tasks leave, one that prints the log, and one on
//! each CPU for what must run there.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use alloc::vec::Vec;
use hal::{CpuId, Native, Platform, percpu};
use sync::{IrqSpinLock, Mutex, TaskCx};

use crate::sched::policy::Policy;
use crate::task::{self, Builder, SpawnError, Task, TaskRef};
use crate::{clock_watch, cpus, hotplug, log, rcu, softirq, stop_machine, watchdog, workqueue};

/// Starts them. On the boot CPU, when all CPUs are up.
pub(crate) fn start() {
    task::start_reaper();
    rcu::start();
    keep(Builder::new("log").spawn(print_log), &LOG);
    for cpu in cpus::online() {
        if let Err(error) = start_for(cpu) {
            panic!("a task that the kernel needs: {error}");
        }
    }
    if let Err(error) = watchdog::hung::start() {
        panic!("a task that the kernel needs: {error}");
    }
    if let Err(error) = workqueue::start(cpus::online()) {
        panic!("a task that the kernel needs: {error}");
    }
    clock_watch::keep_looking();
    hotplug::plug::start();
}

percpu! {
    /// How many of this CPU's own tasks there are.
    static STARTED: AtomicU32 = AtomicU32::new(0);
}

/// Starts the tasks that `cpu` must have, as far as it has none: at boot when it is online, later before it comes for the
/// first time. One at a time for each CPU.
///
/// # Errors
/// If there is no memory for one of them. The others wait for the CPU.
pub(crate) fn start_for(cpu: CpuId) -> Result<(), SpawnError> {
    let started = STARTED.on(cpu);
    let tasks: [fn(CpuId) -> Result<(), SpawnError>; 3] =
        [start_worker, softirq::daemon::start, stop_machine::start];
    for start in &tasks[started.load(Ordering::Relaxed) as usize..] {
        start(cpu)?;
        started.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn start_worker(cpu: CpuId) -> Result<(), SpawnError> {
    // What is to happen on a CPU comes before what happens to be there.
    let worker = Builder::named(format_args!("cpu/{cpu}")).policy(Policy::fifo(1)).stack_pages(8);
    remember(&worker.part_of(cpu).spawn(run_jobs)?, WORKER.on(cpu));
    Ok(())
}

/// Remembers a task that never ends.
fn keep(spawned: Result<task::JoinHandle<()>, SpawnError>, place: &AtomicUsize) {
    match spawned {
        Ok(handle) => remember(&handle, place),
        Err(error) => panic!("a task that the kernel needs: {error}"),
    }
}

fn remember(handle: &task::JoinHandle<()>, place: &AtomicUsize) {
    // Release: pairs with the Acquire in `wake`.
    place.store(core::ptr::from_ref::<Task>(handle.task()) as usize, Ordering::Release);
}

/// Wakes a task that was remembered, if one was.
fn wake(place: &AtomicUsize) {
    // Acquire: pairs with the Release in `remember`.
    // SAFETY: null, or the record of a task that never ends.
    if let Some(task) = unsafe { (place.load(Ordering::Acquire) as *const Task).as_ref() } {
        task.unpark();
    }
}

/// The task that prints the log.
static LOG: AtomicUsize = AtomicUsize::new(0);

/// There is something to print. Contexts: any but NMI.
pub(crate) fn wake_log() {
    wake(&LOG);
}

fn print_log(cx: &mut TaskCx) {
    loop {
        log::drain();
        task::park(cx);
    }
}

/// Something that every CPU runs once.
struct Job<'a> {
    work: &'a (dyn Fn(CpuId) + Sync),
    left: AtomicU32,
    /// Who waits for the last one.
    waiting: TaskRef,
}

percpu! {
    /// The job that this CPU has not run yet.
    static JOB: AtomicPtr<Job<'static>> = AtomicPtr::new(core::ptr::null_mut());
    /// The task that runs it.
    static WORKER: AtomicUsize = AtomicUsize::new(0);
}

/// Runs `work` on every online CPU at about the same time, each in a task that stays there, and returns when all are done.
///
/// Contexts: task that may sleep, and does not hold CPUs as they are ([`hotplug::hold`]): this does, until all are done.
/// Several tasks that ask get their turns one after the other. The caller blocks until the last CPU is done.
pub fn run_on_all(work: &(dyn Fn(CpuId) + Sync)) {
    static ALONE: Mutex<()> = Mutex::new(());
    // SAFETY: used up here, while whoever has the task's own token waits for this function to return. That the task may
    // sleep is looked at where it does.
    let mut cx = unsafe { TaskCx::new() };
    let _alone = ALONE.lock(&mut cx);
    let _all_stay = hotplug::hold(&mut cx);
    let cpus: Vec<CpuId> = cpus::online().collect();
    let mut job = Job { work, left: AtomicU32::new(cpus.len() as u32), waiting: task::current() };
    let shared: *mut Job<'_> = &mut job;
    for cpu in &cpus {
        Native::chaos_point();
        // Release: pairs with the Acquire in `run_jobs`; the task sees the job's fields. The lifetime is extended only in
        // the pointer's type: this function does not return before everybody has let go of it.
        let before = JOB.on(*cpu).swap(shared.cast(), Ordering::AcqRel);
        debug_assert!(before.is_null(), "one at a time");
        wake(WORKER.on(*cpu));
    }
    // SAFETY: `job` lives until the end of this function, and only shared references to it are made.
    let left = unsafe { &(*shared).left };
    // Acquire: pairs with the Release in `run_jobs`; what the others did is visible to our caller.
    while left.load(Ordering::Acquire) != 0 {
        Native::block(None);
    }
}

/// Runs `work` on `cpu` and returns its result, under the conditions of [`run_on_all`].
///
/// # Panics
/// If `cpu` is not online.
pub fn run_on<R: Send>(cpu: CpuId, work: impl Fn() -> R + Sync) -> R {
    let result: IrqSpinLock<Option<R>> = IrqSpinLock::new(None);
    run_on_all(&|here| {
        if here == cpu {
            let value = work();
            *result.lock() = Some(value);
        }
    });
    match result.into_inner() {
        Some(value) => value,
        None => panic!("CPU {cpu} is not online"),
    }
}

fn run_jobs(cx: &mut TaskCx) {
    let here = Native::cpu();
    let slot = JOB.on(here);
    loop {
        // Acquire: pairs with the Release in `run_on_all`.
        let job = slot.swap(core::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: null, or a job whose `run_on_all` waits until `left` is 0, which happens below, after the last use.
        let Some(job) = (unsafe { job.as_ref() }) else {
            task::park(cx);
            continue;
        };
        Native::chaos_point();
        (job.work)(here);
        Native::chaos_point();
        let waiting = job.waiting.clone();
        // Release: pairs with the Acquire in `run_on_all`. Nothing of the job is touched after.
        if job.left.fetch_sub(1, Ordering::Release) == 1 {
            waiting.unpark();
        }
    }
}
