//! Callbacks: queued anywhere, called with bottom halves off.

use core::cell::Cell;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use ::rcu::tree::Due;
use ::rcu::{Callback, Head};
use hal::platform::{Report, Severity};
use hal::x86_64::reader;
use hal::{CpuId, Native, Platform, percpu};
use sync::context::SoftirqGuard;
use sync::softirq::Vector;
use sync::wait::WaitQueue;
use sync::{IrqGuard, Mutex, TaskCx};

use super::{act, tree};
use crate::softirq::Handler;
use crate::task::{Builder, SpawnError, Task};
use crate::watchdog::Limiter;
use crate::{sched, tick, trace};

/// How long a softirq may call callbacks before it lets others do something.
const BUDGET_NS: u64 = 1_000_000;
/// After how many callbacks the clock is read.
const BETWEEN_LOOKS: usize = 16;

/// Those who have queued too much, and wait.
static RELIEF: WaitQueue = WaitQueue::new();
/// Callbacks that were queued beyond the limit where nobody could wait.
static OVERRUNS: AtomicU64 = AtomicU64::new(0);
/// How often somebody waited.
static WAITS: AtomicU64 = AtomicU64::new(0);
/// The task that calls callbacks of off-loaded CPUs.
static OFFLOAD: AtomicUsize = AtomicUsize::new(0);

/// What too many callbacks led to, since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overrun {
    /// How often a task that queued one waited for there to be fewer.
    pub waits: u64,
    /// How many were queued where nobody could wait.
    pub unbounded: u64,
}

/// What too many callbacks led to, since boot. Out of date at once.
pub fn overruns() -> Overrun {
    Overrun { waits: WAITS.load(Ordering::Relaxed), unbounded: OVERRUNS.load(Ordering::Relaxed) }
}

/// Sets how many callbacks a CPU may have before who queues another one there waits, if he may sleep, until there are half
/// as many; and returns what it was. At the start it is [`Limits::DEFAULT`](::rcu::tree::Limits).
pub fn set_flood_limit(callbacks: usize) -> usize {
    tree().set_flood(callbacks)
}

percpu! {
    /// Callbacks were queued here, and no grace period has been asked for them.
    static UNASKED: AtomicU32 = AtomicU32::new(0);
}

/// See [`Domain::call`](::rcu::Domain::call).
///
/// Nothing is asked for here and now: the tick does that for all that have come until then, or the CPU when it has nothing
/// else to do.
///
/// # Safety
/// As there.
#[inline]
#[track_caller]
pub(super) unsafe fn call(head: NonNull<Head>, function: Callback) {
    let here = sync::irq::disable();
    // SAFETY: passed on.
    let due = unsafe { tree().call(here.cpu().as_u32(), head, function) };
    if due != Due::NOTHING {
        note(due, &here);
    }
    drop(here);
    if due.flooded {
        hold_back();
    }
}

/// What came of a callback that was queued.
#[cold]
fn note(due: Due, here: &IrqGuard) {
    if due.process {
        UNASKED.write(1);
        if tick::rests_here() && !sched::is_idle_here() {
            tick::resume_for(here, here.cpu());
        }
    }
    act(Due { flooded: false, process: false, ..due });
}

/// Has those callbacks of this CPU looked after that nobody has looked after yet. At the tick, and where the CPU would idle.
#[inline]
pub(crate) fn ask() {
    if UNASKED.read() != 0 {
        UNASKED.write(0);
        Native::raise_softirq(Vector::Rcu.index());
    }
}

/// Whether this CPU has callbacks for which it needs a tick: some have to be looked after, or wait.
pub(crate) fn need_tick() -> bool {
    UNASKED.read() != 0 || tree().has_waiting(percpu::current_cpu_number())
}

/// See [`Domain::call_lazy`](::rcu::Domain::call_lazy).
///
/// # Safety
/// As there.
#[inline]
#[track_caller]
pub(super) unsafe fn call_lazy(head: NonNull<Head>, function: Callback) {
    let here = sync::irq::disable();
    let cpu = here.cpu().as_u32();
    // SAFETY: passed on.
    let due = unsafe { tree().call_lazy(cpu, head, function, Native::now_ns()) };
    if due != Due::NOTHING {
        note(due, &here);
    }
    if tick::rests_here() {
        tick::note_deadline(&here, super::next_event(cpu));
    }
    drop(here);
    if due.flooded {
        hold_back();
    }
}

/// This CPU has too many callbacks: waits until there are fewer, if that is possible here.
#[cold]
#[inline(never)]
#[track_caller]
fn hold_back() {
    let may_sleep = Native::context().count() == 0
        && Native::irq_depth() == 0
        && reader::depth() == 0
        && !sched::is_idle_here();
    let cpu = percpu::current_cpu_number();
    trace::flood(tree().backlog(cpu).total(), cpu, may_sleep);
    if may_sleep {
        WAITS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: used up here, in a task in which nothing forbids sleeping, as was looked at above.
        let mut cx = unsafe { TaskCx::new() };
        RELIEF.wait(&mut cx, || tree().backlog(cpu).total() <= tree().flood() / 2);
        return;
    }
    static LIMITER: Limiter = Limiter::new(1);
    let count = OVERRUNS.fetch_add(1, Ordering::Relaxed) + 1;
    // Once each time that there are many more, so that a flood is not one of messages too.
    let limit = tree().flood();
    if count % limit.max(1) as u64 == 1
        && let Some(_turn) = LIMITER.allow(Native::now_ns())
    {
        Native::report(&Report {
            severity: Severity::Warning,
            message: format_args!(
                "rcu: more than {limit} callbacks wait on this CPU, and more are queued where nobody can wait \
                 ({count} so far)"
            ),
            location: Location::caller(),
        });
    }
}

/// The softirq.
pub(super) static RUN: Handler = run;

fn run(serving: &SoftirqGuard) {
    let cpu = percpu::current_cpu_number();
    if look_after(cpu, serving) {
        Native::raise_softirq(Vector::Rcu.index());
    }
    // Its callbacks wait, and it will notice at a tick that they need not any longer.
    if tick::rests_here() && tree().has_waiting(cpu) && !sched::is_idle_here() {
        tick::resume_for(&sync::irq::disable(), Native::cpu());
    }
}

/// Finds out which of the callbacks of `cpu` are due, and calls a batch of them. Says whether more are.
fn look_after(cpu: u32, _bottom_halves_off: &SoftirqGuard) -> bool {
    act(tree().process(cpu));
    let until = Cell::new(0);
    // SAFETY: bottom halves are off, in a softirq or a task.
    let ran = unsafe {
        tree().run_ready(cpu, |called| {
            if called % BETWEEN_LOOKS != 0 {
                return false;
            }
            let now = Native::now_ns();
            if until.get() == 0 {
                until.set(now + BUDGET_NS);
            }
            now >= until.get()
        })
    };
    act(ran.due);
    if ran.called != 0 {
        trace::callbacks(ran.called, cpu, || tree().backlog(cpu).total());
        if RELIEF.has_waiters() {
            RELIEF.wake_all();
        }
    }
    ran.more
}

// ---- Off-loading ----

/// Has the callbacks of `cpu` called by the task `rcu_offload` from now on, or by the CPU itself again.
///
/// Linux: `rcu_nocb_cpu_offload`, `rcu_nocb_cpu_deoffload`. Contexts: task.
///
/// # Errors
/// If the task cannot be made. Then nothing changes.
pub fn offload(cpu: CpuId, offload: bool, cx: &mut TaskCx) -> Result<(), SpawnError> {
    static SWITCH: Mutex<()> = Mutex::new(());
    let _alone = SWITCH.lock(cx);
    // A CPU that goes leaves its callbacks to others, or to the task: it stays what it is meanwhile.
    let _all_stay = crate::hotplug::hold(cx);
    if offload && OFFLOAD.load(Ordering::Relaxed) == 0 {
        let handle = Builder::new("rcu_offload").spawn(|cx| -> () { serve_offloaded(cx) })?;
        // Release: pairs with the Acquire in `wake_offload`.
        OFFLOAD.store(core::ptr::from_ref::<Task>(handle.task()) as usize, Ordering::Release);
    }
    let quiet = sync::irq::disable();
    let mut due = tree().set_offloaded(cpu.as_u32(), offload);
    if core::mem::take(&mut due.process) {
        super::events::process(cpu);
    }
    act(due);
    drop(quiet);
    Ok(())
}

/// Whether the callbacks of `cpu` are called by the task.
pub fn offloaded(cpu: CpuId) -> bool {
    tree().is_offloaded(cpu.as_u32())
}

/// Has the task look.
pub(super) fn wake_offload() {
    // Acquire: pairs with the Release in `offload`.
    // SAFETY: null, or the record of a task that never ends.
    if let Some(task) = unsafe { (OFFLOAD.load(Ordering::Acquire) as *const Task).as_ref() } {
        task.unpark();
    }
}

fn serve_offloaded(cx: &mut TaskCx) -> ! {
    loop {
        let mut more = false;
        // Those that are off line too: their callbacks stayed.
        for cpu in percpu::cpus().filter(|cpu| offloaded(*cpu)) {
            let quiet = sync::irq::disable();
            // SAFETY: a task with nothing switched off but interrupts; dropped before it goes on.
            let serving = unsafe { sync::context::enter_softirq() };
            drop(quiet);
            more |= look_after(cpu.as_u32(), &serving);
            drop(serving);
            Native::serve_softirqs();
            cx.cond_resched();
        }
        if !more {
            cx.block_idle();
        }
    }
}
