//! Grace periods: who drives them, and who waits for them.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ::rcu::Cookie;
use ::rcu::tree::{Action, Driver, Next};
use hal::cpumask::CpuMask;
use hal::{CpuId, Native, Platform};
use sync::wait::WaitQueue;
use sync::{SpinLock, TaskCx};

use super::{act, events, stall, tree};
use crate::rcu::Figures;
use crate::sched::policy::Policy;
use crate::task::{Builder, Task};
use crate::{cpus, tick, trace};

/// What takes the steps. Its lock is held for a step at a time, or, by who helps himself, for those of a whole period.
static DRIVER: SpinLock<Option<Driver<'static, 'static, Native>>> = SpinLock::new(None);
/// `rcu_gp`, which takes the steps that nobody else does.
static THREAD: AtomicUsize = AtomicUsize::new(0);

/// Those who wait for the end of a grace period, by its cookie, so that not all are woken for each.
static ENDED: [WaitQueue; 4] = [const { WaitQueue::new() }; 4];
/// Those who wait for an expedited grace period.
pub(super) static EXPEDITED: WaitQueue = WaitQueue::new();
/// Those who wait for a barrier.
pub(super) static BARRIER: WaitQueue = WaitQueue::new();

/// Up to this many nodes one who waits takes the steps himself, with preemption off: 112 CPUs.
const HELPED_NODES: usize = 8;

static ENDED_COUNT: AtomicU64 = AtomicU64::new(0);
static HELPED: AtomicU64 = AtomicU64::new(0);
static EXPEDITED_COUNT: AtomicU64 = AtomicU64::new(0);

/// What has been counted since boot. Out of date at once.
pub fn figures() -> Figures {
    Figures {
        ended: ENDED_COUNT.load(Ordering::Relaxed),
        helped: HELPED.load(Ordering::Relaxed),
        expedited: EXPEDITED_COUNT.load(Ordering::Relaxed),
    }
}

/// When the grace period that runs was begun, in nanoseconds since boot. `None` if none runs, or somebody takes a step at
/// this moment.
pub fn running_since() -> Option<u64> {
    DRIVER.try_lock()?.as_ref()?.running_since()
}

/// Starts `rcu_gp`. When tasks can be made.
pub(crate) fn start() {
    *DRIVER.lock() = Some(Driver::new(tree()));
    match Builder::new("rcu_gp").policy(Policy::fifo(1)).spawn(|cx| -> () { run(cx) }) {
        // Release: pairs with the Acquire in `thread`.
        Ok(handle) => THREAD.store(core::ptr::from_ref::<Task>(handle.task()) as usize, Ordering::Release),
        Err(error) => panic!("a task that the kernel needs: {error}"),
    }
    // What was asked for before this was asked in vain.
    wake_driver();
}

/// The task, once there is one.
pub(super) fn thread() -> Option<&'static Task> {
    // Acquire: pairs with the Release in `start`.
    // SAFETY: null, or the record of a task that never ends.
    unsafe { (THREAD.load(Ordering::Acquire) as *const Task).as_ref() }
}

/// Has `rcu_gp` look. Contexts: any but NMI; locks of the scheduler are not held.
pub(super) fn wake_driver() {
    if let Some(task) = thread() {
        task.unpark();
    }
}

fn run(cx: &mut TaskCx) -> ! {
    loop {
        let mut later = Later::default();
        let next = DRIVER.lock().as_mut().map_or(Next::Sleep, |driver| step(driver, &mut later));
        later.perform();
        match next {
            Next::Again => {
                cx.cond_resched();
            }
            Next::Sleep => {
                cx.block_idle();
            }
            Next::Until(at) => {
                cx.block(Some(at));
            }
        }
    }
}

/// What a step wants done that takes long, or more than the driver's lock allows.
#[derive(Default)]
struct Later {
    stalled: Option<u64>,
    boost: [Option<hal::platform::TaskId>; 8],
}

impl Later {
    fn is_empty(&self) -> bool {
        self.stalled.is_none() && self.boost[0].is_none()
    }

    fn perform(self) {
        if let Some(ns) = self.stalled {
            stall::report(ns);
        }
        self.boost.into_iter().flatten().for_each(stall::boost);
    }
}

/// One step of the driver, on the executing CPU, with preemption off.
fn step(driver: &mut Driver<'static, 'static, Native>, later: &mut Later) -> Next {
    driver.step(Native::cpu().as_u32(), Native::now_ns(), |action| match action {
        Action::Nudge(cpu) => on(cpu, Native::set_need_resched),
        Action::Interrupt(cpu) => on(cpu, events::interrupt),
        Action::Process(cpu) if tree().is_offloaded(cpu) => super::callbacks::wake_offload(),
        Action::Process(cpu) => on(cpu, events::process),
        // A busy CPU whose tick rests notices nothing. One whose tick goes to rest after this look has looked for
        // callbacks that wait before it does.
        Action::MayBeDue(cpu) => on(cpu, |cpu| {
            if tick::is_resting(cpu) {
                events::process(cpu);
            }
        }),
        Action::Ended(cookie) => ended(cookie),
        Action::Stalled(ns) => later.stalled = Some(ns),
        Action::Boost(task) => {
            if let Some(place) = later.boost.iter_mut().find(|place| place.is_none()) {
                *place = Some(task);
            }
        }
        Action::WakeExpedited => drop(EXPEDITED.wake_all()),
        Action::WakeBarrier => drop(BARRIER.wake_all()),
        // It is awake.
        Action::WakeDriver => (),
    })
}

fn on(cpu: u32, what: impl FnOnce(CpuId)) {
    if let Some(cpu) = CpuId::new(cpu).filter(|cpu| cpus::is_online(*cpu)) {
        what(cpu);
    }
}

fn ended(cookie: Cookie) {
    trace::grace_period(ENDED_COUNT.fetch_add(1, Ordering::Relaxed) + 1);
    place_of(cookie).wake_all();
}

fn place_of(cookie: Cookie) -> &'static WaitQueue {
    &ENDED[cookie.index() % ENDED.len()]
}

/// Takes the steps as far as they go without waiting, if nobody else does; and wakes the one who will go on. What is
/// returned is to be done when preemption is on.
fn drive() -> Later {
    let mut later = Later::default();
    if tree().geometry().nodes() <= HELPED_NODES
        && let Some(mut driver) = DRIVER.try_lock()
        && let Some(driver) = driver.as_mut()
    {
        let before = driver.ended();
        let mut next = Next::Again;
        while next == Next::Again && later.is_empty() {
            next = step(driver, &mut later);
        }
        if next == Next::Sleep {
            HELPED.fetch_add(u64::from(driver.ended() != before), Ordering::Relaxed);
            return later;
        }
    }
    wake_driver();
    later
}

/// See [`Domain::synchronize`](::rcu::Domain::synchronize).
pub(super) fn synchronize(cx: &mut TaskCx) {
    let here = sync::preempt::disable();
    let (cookie, mut due) = tree().start_poll(here.cpu().as_u32());
    let drives = core::mem::take(&mut due.wake_driver);
    act(due);
    let later = drives.then(drive);
    drop(here);
    later.into_iter().for_each(Later::perform);
    wait_for(cookie, cx);
}

/// Waits for a grace period that somebody has asked for.
pub(super) fn wait_for(cookie: Cookie, cx: &mut TaskCx) {
    place_of(cookie).wait(cx, || tree().poll(cookie));
}

/// For how long one who waits for an expedited grace period looks for its end before he blocks: CPUs that run answer
/// within microseconds.
const WATCH_NS: u64 = 20_000;

/// See [`Domain::synchronize_expedited`](::rcu::Domain::synchronize_expedited).
pub(super) fn synchronize_expedited(cx: &mut TaskCx) {
    let cookie = tree().expedited_state();
    let mut limit = stall::Limit::new();
    let mut done = || {
        tree().expedited_done(cookie) || {
            expedite();
            tree().expedited_done(cookie)
        }
    };
    if done() {
        return;
    }
    let begun = Native::now_ns();
    while Native::now_ns() - begun < WATCH_NS && !Native::context().resched_due() {
        if tree().expedited_done(cookie) {
            return;
        }
        Native::relax();
    }
    while EXPEDITED.wait_with(limit.next(), cx, &mut done).is_err() {
        limit.report();
    }
}

/// Begins an expedited grace period, unless one is running.
fn expedite() {
    let mut cpus = CpuMask::new();
    let here = sync::preempt::disable();
    let begun = tree().try_expedite(here.cpu().as_u32(), |action| match action {
        Action::Interrupt(cpu) => drop(CpuId::new(cpu).map(|cpu| cpus.insert(cpu))),
        Action::WakeExpedited => drop(EXPEDITED.wake_all()),
        Action::WakeDriver => wake_driver(),
        _ => (),
    });
    EXPEDITED_COUNT.fetch_add(u64::from(begun), Ordering::Relaxed);
    cpus.iter().for_each(events::interrupt);
}

/// See [`Domain::barrier`](::rcu::Domain::barrier).
pub(super) fn barrier(cx: &mut TaskCx) {
    let cookie = tree().barrier_state();
    BARRIER.wait(cx, || {
        tree().barrier_done(cookie) || {
            pass();
            tree().barrier_done(cookie)
        }
    });
}

/// Begins a barrier, unless one is running.
fn pass() {
    let here = sync::preempt::disable();
    tree().try_barrier(|action| match action {
        Action::Process(cpu) if cpu == here.cpu().as_u32() => {
            Native::raise_softirq(sync::softirq::Vector::Rcu.index());
        }
        Action::Process(cpu) if tree().is_offloaded(cpu) => super::callbacks::wake_offload(),
        Action::Process(cpu) => on(cpu, events::process),
        Action::WakeBarrier => drop(BARRIER.wake_all()),
        _ => (),
    });
}
