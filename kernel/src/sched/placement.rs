//! Which CPU a task goes to, and how it gets there.
//!
//! A task has a home, the CPU in its `cpu` word, and whoever has the lock of that CPU's queue has the task (T2). It moves in
//! two steps, each under one lock: it leaves home, and is nowhere; it enters the next home. Nobody holds two queues' locks
//! at once, so that there is no order of them to keep.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::cpumask::CpuMask;
use hal::percpu::IrqsOff;
use hal::x86_64::native;
use hal::{CpuId, Native, Platform, percpu};

use super::IDLE;
use super::policy::balance::{Placement, choose_cpu, find_busiest};
use super::policy::{Departure, Policy, Summary, Why};
use super::queue::{LockedQueue, Quiet, queue_of};
use crate::task::{MOVING, SpawnError, Task, state};
use crate::{cpus, task, tick};

percpu! {
    /// What others may know of this CPU's queue, in one word. Written under the queue's lock.
    static SUMMARY: AtomicU64 = AtomicU64::new(0);
    /// Another CPU has work for this one.
    static OFFERED: AtomicU32 = AtomicU32::new(0);
    /// Whom this CPU has last offered work.
    static LAST_OFFER: AtomicU32 = AtomicU32::new(0);
}

/// Tells the other CPUs what is in the queue of `cpu`.
#[inline(always)]
pub(super) fn publish(queue: &LockedQueue<'_>, cpu: CpuId) {
    let summary = queue.ready.summary().encode();
    let place = SUMMARY.on(cpu);
    if place.load(Ordering::Relaxed) != summary {
        place.store(summary, Ordering::Relaxed);
    }
}

/// What `cpu` last said of its queue, if it is online.
fn look(cpu: CpuId) -> Option<Summary> {
    cpus::is_online(cpu).then(|| Summary::decode(SUMMARY.on(cpu).load(Ordering::Relaxed)))
}

/// Locks the queue of the task's home, which stays its home until the lock goes.
pub(super) fn lock_home<'a>(task: &Task, quiet: &'a impl IrqsOff) -> (CpuId, LockedQueue<'a>) {
    loop {
        // Relaxed: what counts is the look under the lock.
        if let Some(cpu) = CpuId::new(task.cpu.load(Ordering::Relaxed)) {
            let queue = queue_of(cpu).lock_with(quiet);
            if task.cpu.load(Ordering::Relaxed) == cpu.as_u32() {
                return (cpu, queue);
            }
        }
        // It is on its way; whoever moves it has interrupts off, and waits for a queue's lock at most.
        Native::relax();
    }
}

/// The CPUs on which it may run. The caller has the task (T2).
fn allowed(task: &Task) -> &CpuMask {
    // SAFETY: T2.
    unsafe { &*task.allowed.get() }
}

/// Where a task that becomes ready should run, which is at home in the locked queue.
pub(super) fn choose(task: &Task, _home: &LockedQueue<'_>, last: CpuId, waker: CpuId) -> CpuId {
    let bound = task.bound.load(Ordering::Relaxed);
    if bound || task.migration_disabled.load(Ordering::Relaxed) != 0 {
        return last;
    }
    let allowed = allowed(task);
    if IDLE.test(last) && allowed.contains(last) && cpus::is_online(last) {
        return last;
    }
    let level = task.policy().level();
    let placement = Placement { level, previous: last, waker, allowed, fresh: false };
    choose_cpu(&placement, IDLE.iter(), look).unwrap_or(last)
}

/// Where a new task starts.
pub(crate) fn first_cpu(policy: Policy, allowed: &CpuMask) -> Option<CpuId> {
    let here = Native::cpu();
    let placement = Placement { level: policy.level(), previous: here, waker: here, allowed, fresh: true };
    choose_cpu(&placement, IDLE.iter(), look)
}

/// Puts a task that is at home in the locked `queue` of `home`, and in no queue, into the queue of `target`.
pub(super) fn enter<'a>(
    task: &Task,
    home: CpuId,
    mut queue: LockedQueue<'a>,
    mut target: CpuId,
    why: Why,
    quiet: &'a impl IrqsOff,
) {
    if target != home {
        task.cpu.store(MOVING, Ordering::Relaxed);
        drop(queue);
        queue = queue_of(target).lock_with(quiet);
        // It may have gone off line since it was chosen; then the tasks that were there have left already.
        while queue.closed
            && let Some(other) = first_cpu(task.policy(), allowed(task))
        {
            drop(queue);
            target = other;
            queue = queue_of(target).lock_with(quiet);
        }
        task.cpu.store(target.as_u32(), Ordering::Relaxed);
        task.bound.store(allowed(task).weight() == 1, Ordering::Relaxed);
    }
    // SAFETY: we have the task (T2), it is in no queue and stays in place; see T4 for how long.
    unsafe { queue.ready.enqueue(task.entity(), why, Native::now_ns()) };
    notify(&queue, task, target, Native::cpu());
    publish(&queue, target);
}

/// A task has been put into the queue of `cpu`: has it run at once if it is to. Interrupts the CPU only if it must.
pub(super) fn notify(queue: &LockedQueue<'_>, task: &Task, cpu: CpuId, here: CpuId) {
    if queue.ready.len() > 1 {
        tick::resume_for(queue, cpu);
    }
    let idle = queue.ready.current().is_none();
    // SAFETY: queued, and the lock is held.
    if !idle && !unsafe { queue.ready.should_preempt(task.entity()) } {
        return;
    }
    if idle && cpu != here {
        native::rouse(cpu);
    } else {
        Native::set_need_resched(cpu);
    }
}

/// The running task is to move: takes it out of its CPU's queue, unless it has blocked or ended, or must stay after all.
/// Returns whether it is now in none.
#[cold]
pub(super) fn leave_for_good(queue: &mut LockedQueue<'_>, task: &Task, now: u64) -> bool {
    if queue.ready.current() != Some(task.entity()) || native::migration_disabled() != 0 {
        return false;
    }
    task.must_move.store(false, Ordering::Relaxed);
    if allowed(task).contains(Native::cpu()) && cpus::is_online(Native::cpu()) {
        return false;
    }
    // SAFETY: it is the queue's current one.
    unsafe { queue.ready.dequeue(task.entity(), Departure::Moved, now) };
    true
}

/// Puts the task that [`leave_for_good`] took out, and that is now off its CPU, into another one's queue.
#[cold]
pub(super) fn find_home(task: &Task, queue: LockedQueue<'_>, quiet: &Quiet) {
    let here = Native::cpu();
    let target = choose(task, &queue, here, here);
    enter(task, here, queue, target, Why::Moved, quiet);
}

/// Takes work from the CPU that has most of it, if that is more than the executing one has. Returns whether it got some.
pub(super) fn pull() -> bool {
    let quiet = sync::irq::disable();
    let here = quiet.cpu();
    let others = cpus::online().filter(|cpu| *cpu != here);
    let Some(mine) = look(here) else { return false };
    let Some(mut pull) = find_busiest(&mine, others, look) else { return false };
    let mut got = false;
    loop {
        let mut queue = queue_of(pull.from).lock_with(&quiet);
        let now = Native::now_ns();
        let stolen = queue.ready.steal(now, &mut |entity| {
            // SAFETY: tasks' entities, and nothing else, are in run queues; in this one we have the task.
            let task = unsafe { Task::from_entity(entity) };
            let may = task.migration_disabled.load(Ordering::Relaxed) == 0 && allowed(task).contains(here);
            may && pull.take(task.entity.load())
        });
        let Some(entity) = stolen else { return got };
        publish(&queue, pull.from);
        // SAFETY: as above; a task that is ready does not end before it runs.
        enter(unsafe { Task::from_entity(entity) }, pull.from, queue, here, Why::Moved, &quiet);
        got = true;
    }
}

/// Has CPUs look for work whose tick rests, so that they do not do so by themselves, if they would take some of the
/// executing CPU's: at most as many as it has tasks that wait, and others each time, because what waits may not run
/// everywhere.
pub(super) fn offer() {
    let here = Native::cpu();
    let Some(mine) = look(here) else { return };
    let waiting = (mine.fair + mine.urgent).saturating_sub(1) as usize;
    let wanting = |cpu: &CpuId| {
        let theirs = if *cpu != here && tick::is_resting(*cpu) { look(*cpu) } else { None };
        theirs.is_some_and(|theirs| find_busiest(&theirs, core::iter::once(here), look).is_some())
    };
    let last = LAST_OFFER.read();
    let (before, after) =
        (cpus::online().filter(|cpu| cpu.as_u32() <= last), cpus::online().filter(|cpu| cpu.as_u32() > last));
    for cpu in after.chain(before).filter(wanting).take(waiting) {
        LAST_OFFER.write(cpu.as_u32());
        OFFERED.on(cpu).store(1, Ordering::Relaxed);
        Native::kick(cpu);
    }
}

/// For the kick's interrupt: looks for work if another CPU has said that there is some.
pub(crate) fn accept_offer() {
    if OFFERED.read() != 0 && OFFERED.exchange(0) != 0 {
        pull();
    }
}

/// Has everything leave the executing CPU, which is no longer online, that may run on another one. What may not waits for
/// its return. For the CPU's stop task.
pub(crate) fn leave() {
    let quiet = sync::irq::disable();
    let here = quiet.cpu();
    queue_of(here).lock_with(&quiet).closed = true;
    let movable = |task: &Task| {
        let may = |cpu: CpuId| cpu != here && cpus::is_online(cpu);
        task.migration_disabled.load(Ordering::Relaxed) == 0 && allowed(task).iter().any(may)
    };
    loop {
        let mut queue = queue_of(here).lock_with(&quiet);
        let ready = queue.ready.evict(Native::now_ns(), &mut |entity| {
            // SAFETY: tasks' entities, and nothing else, are in run queues; in this one we have the task.
            movable(unsafe { Task::from_entity(entity) })
        });
        if let Some(entity) = ready {
            // SAFETY: as above; a task that is ready does not end before it runs.
            let task = unsafe { Task::from_entity(entity) };
            let target = choose(task, &queue, here, here);
            enter(task, here, queue, target, Why::Moved, &quiet);
            continue;
        }
        publish(&queue, here);
        let Some((task, deadline)) = queue.sleepers.take_if(movable) else { return };
        let Some(target) = first_cpu(task.policy(), allowed(task)) else { return };
        task.cpu.store(MOVING, Ordering::Relaxed);
        drop(queue);
        // Who has woken the task meanwhile waits for it to have a home, and takes it out again.
        let mut queue = queue_of(target).lock_with(&quiet);
        task.cpu.store(target.as_u32(), Ordering::Relaxed);
        queue.sleepers.add(task, deadline);
        // Its timer is armed for its own ones: at its next tick it looks.
        tick::want(target);
    }
}

/// A task that cannot leave its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stranded {
    /// Its number.
    pub(crate) task: u32,
    /// Whether it is in the middle of something that keeps it there, and may leave when that is done.
    pub(crate) for_now: bool,
}

/// A task that waits for `cpu`, which is not online: nobody else can run it. The CPU's own ones are not meant.
pub(crate) fn stranded(cpu: CpuId) -> Option<Stranded> {
    let mut found: Option<Stranded> = None;
    task::for_each(|task| {
        let here = task.cpu.load(Ordering::Relaxed) == cpu.as_u32();
        if !here || task.is_part || task.state.load(Ordering::Relaxed) == state::ENDED {
            return;
        }
        let quiet = sync::irq::disable();
        let (home, _queue) = lock_home(task, &quiet);
        let for_now = task.migration_disabled.load(Ordering::Relaxed) != 0;
        let stays = for_now || !allowed(task).iter().any(cpus::is_online);
        // One that is pinned stays for good, which is the stronger reason.
        if home == cpu && stays && found.is_none_or(|found| found.for_now) {
            found = Some(Stranded { task: task.number(), for_now });
        }
    });
    found
}

/// The executing CPU, which is online again, takes tasks.
pub(crate) fn join() {
    let quiet = sync::irq::disable();
    let here = quiet.cpu();
    let mut queue = queue_of(here).lock_with(&quiet);
    queue.closed = false;
    publish(&queue, here);
    drop(queue);
    Native::set_need_resched(here);
}

/// Changes the policy by which the task is scheduled.
pub(super) fn set_policy(task: &Task, policy: Policy) {
    let quiet = sync::irq::disable();
    let (home, mut queue) = lock_home(task, &quiet);
    // SAFETY: we have the task (T2).
    let due = unsafe { queue.ready.set_policy(task.entity(), policy, Native::now_ns()) };
    publish(&queue, home);
    if due {
        Native::set_need_resched(home);
    }
}

/// [`Task::affinity`].
pub(crate) fn affinity(task: &Task) -> CpuMask {
    let quiet = sync::irq::disable();
    let (_, _queue) = lock_home(task, &quiet);
    allowed(task).clone()
}

/// [`Task::set_affinity`].
pub(crate) fn set_affinity(task: &Task, cpus: &CpuMask) -> Result<(), SpawnError> {
    first_cpu(task.policy(), cpus).ok_or(SpawnError::NoCpu)?;
    let mut mask = cpus.clone();
    {
        let quiet = sync::irq::disable();
        let (home, queue) = lock_home(task, &quiet);
        // SAFETY: T2.
        core::mem::swap(unsafe { &mut *task.allowed.get() }, &mut mask);
        task.bound.store(false, Ordering::Relaxed);
        if !cpus.contains(home) {
            evict(task, home, queue, &quiet);
        }
    }
    Ok(())
}

/// Has the task leave its home: at once if it waits in the queue, at its next switch if it runs. One that is blocked
/// finds another home when it wakes.
pub(super) fn evict<'a>(task: &Task, home: CpuId, mut queue: LockedQueue<'a>, quiet: &'a impl IrqsOff) {
    if queue.ready.current() == Some(task.entity()) {
        task.must_move.store(true, Ordering::Relaxed);
        Native::set_need_resched(home);
    } else if task.migration_disabled.load(Ordering::Relaxed) != 0 {
        task.must_move.store(true, Ordering::Relaxed);
    } else if task.entity.is_queued() {
        // SAFETY: it waits in this queue.
        unsafe { queue.ready.dequeue(task.entity(), Departure::Moved, Native::now_ns()) };
        publish(&queue, home);
        let target = choose(task, &queue, home, home);
        enter(task, home, queue, target, Why::Moved, quiet);
    }
}
