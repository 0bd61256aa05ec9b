//! The machine's steps.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hal::x86_64::{apic, smp};
use hal::{CpuId, Native, Platform};
use sync::{IrqGuard, IrqSpinLock, RwSemaphore, RwSemaphoreReadGuard, TaskCx};

use super::steps::{Refusal, Refused, Step, StepTable};
use crate::task;
use crate::{boot, calls, cpus, memory, rcu, sched, softirq, stop_machine, tick, timer, workqueue};

/// Held for writing while a CPU comes or goes.
static LOCK: RwSemaphore<()> = RwSemaphore::new(());

/// What is done about a CPU by a task on another one, in the order in which it comes.
///
/// A subsystem that has to know adds its own step: behind `CPU` if the CPU must run for it, which is the usual case. Steps
/// that need the CPU itself use [`stop_one_cpu`](stop_machine::stop_one_cpu)'s kind of work in [`HERE`].
static STEPS: StepTable<TaskCx> = StepTable(&[&SOFTIRQS, &TIMERS, &GRACE_PERIODS, &CPU, &WORK, &OBJECTIONS]);

static CPU: Step<TaskCx> = Step { name: "the CPU", up: come, down: go_away };

/// What a CPU that has gone left behind, its pending softirqs and tasklets, is done elsewhere.
static SOFTIRQS: Step<TaskCx> = Step {
    name: "softirqs",
    up: |_, _| Ok(()),
    down: |cpu, _| {
        softirq::inherit(cpu);
        Ok(())
    },
};

/// The timers of a CPU that has gone are this one's.
static TIMERS: Step<TaskCx> = Step {
    name: "timers",
    up: |_, _| Ok(()),
    down: |cpu, _| {
        timer::inherit(cpu);
        Ok(())
    },
};

/// Its callbacks are this one's.
static GRACE_PERIODS: Step<TaskCx> = Step {
    name: "RCU",
    up: |_, _| Ok(()),
    down: |cpu, _| {
        rcu::cpu_gone(cpu);
        Ok(())
    },
};

/// Its workers take no items while it is away.
static WORK: Step<TaskCx> = Step {
    name: "work queues",
    up: |cpu, _| workqueue::join(cpu).map_err(|_| "there is no memory for a worker"),
    down: |cpu, cx| {
        workqueue::leave(cpu, cx);
        Ok(())
    },
};

/// For tests: refuses when it is told to.
static OBJECTIONS: Step<TaskCx> = Step { name: "objections", up: |_, _| object(), down: |_, _| object() };
static OBJECTING: AtomicBool = AtomicBool::new(false);

fn object() -> Result<(), Refusal> {
    if OBJECTING.load(Ordering::Relaxed) { Err("somebody objects") } else { Ok(()) }
}

/// Has the last step refuse, so that what was done before it is taken back.
pub(crate) fn set_objecting(objecting: bool) {
    OBJECTING.store(objecting, Ordering::Relaxed);
}

/// What a CPU does by itself when it comes and goes, in the order in which it comes. Interrupts are off, and nothing here
/// can fail.
struct Here {
    up: fn(&IrqGuard),
    down: fn(&IrqGuard),
}

static HERE: [Here; 7] = [
    // Before anything here reads, and behind the last that does.
    Here { up: |_| rcu::cpu_comes(), down: rcu::cpu_goes },
    // Its interrupts. Going, they are switched off by `smp::park`, as the last thing.
    Here {
        // SAFETY: this CPU, interrupts off, its tables loaded since it first came up.
        up: |quiet| unsafe { apic::enable_this_cpu(quiet.cpu()) },
        down: |_| (),
    },
    // From here on it is asked to forget translations; it has kept none from before.
    Here { up: |_| memory::shootdown::arrive_here(), down: |_| memory::shootdown::leave_here() },
    Here {
        up: |quiet| {
            timer::join(quiet);
            tick::start(quiet);
        },
        down: |quiet| tick::stop(quiet),
    },
    // What was sent to it runs before it goes.
    Here { up: |quiet| calls::open_here(quiet), down: |quiet| calls::close_here(quiet) },
    // Tasks that may run elsewhere do.
    Here { up: |_| sched::join(), down: |_| sched::leave() },
    // Everybody's word for "may be used": the last thing on the way up, the first on the way down.
    Here { up: |quiet| cpus::set_online(quiet.cpu()), down: |quiet| cpus::set_offline(quiet.cpu()) },
];

/// For tests: what a CPU does last, with interrupts off.
static LAST_ACT: IrqSpinLock<Option<Box<dyn Fn() + Send>>> = IrqSpinLock::new(None);

/// From here on each CPU that goes does this as its last act.
pub(crate) fn set_last_act(act: Option<Box<dyn Fn() + Send>>) {
    let before = core::mem::replace(&mut *LAST_ACT.lock(), act);
    drop(before);
}

/// The stopper's part: the CPU goes, stands still, and comes back. Returns when it is back.
pub(crate) fn go_and_come_back() {
    let quiet = sync::irq::disable();
    HERE.iter().rev().for_each(|step| (step.down)(&quiet));
    if let Some(act) = &*LAST_ACT.lock() {
        act();
    }
    smp::park();
    HERE.iter().for_each(|step| (step.up)(&quiet));
}

/// Why a CPU did not come or go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HotplugError {
    /// There is no CPU with this number.
    NoSuchCpu(CpuId),
    /// The boot CPU stays: firmware and devices send their interrupts to it.
    BootCpu,
    /// It is what it should become: online (`true`) or off-line.
    Unchanged(CpuId, bool),
    /// The calling task may run on no other CPU, so that nobody would be left to bring this one back.
    OnlyPlace(CpuId),
    /// It is not plugged in.
    Absent(CpuId),
    /// This task can run on no other CPU, and it is not the CPU's own. It would wait for ever.
    Pinned(CpuId, u32),
    /// A step refused. The CPU is what it was.
    Refused(CpuId, Refused),
}

impl fmt::Display for HotplugError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HotplugError::NoSuchCpu(cpu) => write!(f, "there is no CPU {cpu}"),
            HotplugError::BootCpu => {
                f.write_str("the boot CPU stays online: firmware and devices send their interrupts to it")
            }
            HotplugError::Unchanged(cpu, true) => write!(f, "CPU {cpu} is online already"),
            HotplugError::Unchanged(cpu, false) => write!(f, "CPU {cpu} is off-line already"),
            HotplugError::OnlyPlace(cpu) => {
                write!(f, "the task that asks may run on CPU {cpu} only; ask from another one")
            }
            HotplugError::Absent(cpu) => {
                write!(f, "CPU {cpu} is possible but not there; the host plugs it in (QEMU: `device_add`)")
            }
            HotplugError::Pinned(cpu, task) => {
                write!(f, "task {task} can run on CPU {cpu} only; end it, or give it other CPUs")
            }
            HotplugError::Refused(cpu, refused) => write!(f, "CPU {cpu} stays what it was: {refused}"),
        }
    }
}

impl core::error::Error for HotplugError {}

/// Keeps all CPUs what they are while the guard lives. Linux: `cpus_read_lock`.
///
/// Contexts: task. Waits while a CPU is on its way.
pub fn hold(cx: &mut TaskCx) -> RwSemaphoreReadGuard<'static, (), Native> {
    LOCK.read(cx)
}

/// How often CPUs have come and gone since boot.
pub fn changes() -> u64 {
    CHANGES.load(Ordering::Relaxed)
}
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Takes `cpu` off-line: its tasks go elsewhere, what was sent to it runs, it halts. Tasks that may run nowhere else wait
/// until it is back.
///
/// Linux: `cpu_down`, `echo 0 > /sys/devices/system/cpu/cpuN/online`. Contexts: task on another CPU, or one that may move.
///
/// # Errors
/// See [`HotplugError`].
pub fn take_offline(cpu: CpuId, cx: &mut TaskCx) -> Result<(), HotplugError> {
    change(cpu, false, cx)
}

/// The host wants `cpu` back: takes it off-line if it is online. From then on it is not present.
///
/// Unlike for a CPU that is only off-line, no task may be left that waits for it: it may never come again. A task that must
/// stay where it is for a while gets that while.
///
/// Contexts: task on another CPU, or one that may move.
///
/// # Errors
/// See [`HotplugError`]. The CPU stays what it was.
pub(crate) fn give_up(cpu: CpuId, cx: &mut TaskCx) -> Result<(), HotplugError> {
    const TURNS: u32 = 20;
    const WHILE_NS: u64 = 5_000_000;
    let _alone = LOCK.write(cx);
    let mut turns = 0;
    loop {
        let was_online = match change_alone(cpu, false, cx) {
            Ok(()) => true,
            Err(HotplugError::Unchanged(_, false)) => false,
            Err(error) => return Err(error),
        };
        let Some(stranded) = sched::stranded(cpu) else {
            cpus::set_present(cpu, false);
            return Ok(());
        };
        if was_online {
            change_alone(cpu, true, cx)?;
        }
        turns += 1;
        if !stranded.for_now || !was_online || turns == TURNS {
            return Err(HotplugError::Pinned(cpu, stranded.task));
        }
        cx.block(Some(Native::now_ns() + WHILE_NS));
    }
}

/// Brings `cpu` back, or for the first time, if it was plugged in while the system runs.
///
/// Linux: `cpu_up`, `echo 1 > /sys/devices/system/cpu/cpuN/online`. Contexts: task.
///
/// # Errors
/// See [`HotplugError`].
pub fn bring_online(cpu: CpuId, cx: &mut TaskCx) -> Result<(), HotplugError> {
    change(cpu, true, cx)
}

fn change(cpu: CpuId, online: bool, cx: &mut TaskCx) -> Result<(), HotplugError> {
    let _alone = LOCK.write(cx);
    change_alone(cpu, online, cx)
}

/// Has the steps done, with `LOCK` held for writing.
fn change_alone(cpu: CpuId, online: bool, cx: &mut TaskCx) -> Result<(), HotplugError> {
    if cpu.as_u32() >= Native::cpu_count() {
        return Err(HotplugError::NoSuchCpu(cpu));
    }
    if cpu == CpuId::BOOT {
        return Err(if online { HotplugError::Unchanged(cpu, true) } else { HotplugError::BootCpu });
    }
    if !cpus::is_present(cpu) {
        return Err(HotplugError::Absent(cpu));
    }
    if cpus::is_online(cpu) == online {
        return Err(HotplugError::Unchanged(cpu, online));
    }
    if !online && !task::current().affinity().iter().any(|other| other != cpu && cpus::is_online(other)) {
        return Err(HotplugError::OnlyPlace(cpu));
    }
    let outcome = if online { STEPS.up(cpu, cx) } else { STEPS.down(cpu, cx) };
    CHANGES.fetch_add(1, Ordering::Relaxed);
    outcome.map_err(|refused| HotplugError::Refused(cpu, refused))
}

/// How long a CPU may take to park or to come back.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long to sleep between two looks.
const NAP_NS: u64 = 100_000;

fn go_away(cpu: CpuId, cx: &mut TaskCx) -> Result<(), Refusal> {
    stop_machine::send_away(cpu);
    let parked = || smp::state(cpu) == smp::State::Parked;
    loop {
        let gone = wait_until(parked, "it does not park", cx);
        // A refusal must be true afterwards too: one that has begun to go will go.
        if gone.is_ok() || stop_machine::call_back(cpu) {
            return gone;
        }
    }
}

fn come(cpu: CpuId, cx: &mut TaskCx) -> Result<(), Refusal> {
    if smp::state(cpu) != smp::State::Parked {
        return boot::start_added(cpu, cx);
    }
    if !smp::unpark(cpu) {
        return Err("it does not wake");
    }
    wait_until(|| cpus::is_online(cpu), "it does not go online", cx)
}

/// Waits for a CPU, which answers within microseconds if its host runs it.
fn wait_until(condition: impl Fn() -> bool, otherwise: Refusal, cx: &mut TaskCx) -> Result<(), Refusal> {
    const TURNS: u32 = 200;
    let begun = Native::now_ns();
    let mut turns = 0;
    while !condition() {
        if turns < TURNS {
            turns += 1;
            Native::relax();
            cx.cond_resched();
            continue;
        }
        let now = Native::now_ns();
        if now - begun > PATIENCE_NS {
            return Err(otherwise);
        }
        cx.block(Some(now + NAP_NS));
    }
    Ok(())
}
