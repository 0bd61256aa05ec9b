//! CPUs that come and go, and the machine that stands still.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::cpumask::CpuMask;
use hal::x86_64::traps::count;
use hal::x86_64::{smp, unswitched, vectors};
use hal::{CpuId, MAX_CPUS, Native, Platform, percpu};
use sync::{TaskCx, context, delay};

use crate::calls::{self, CallData, CallError};
use crate::hotplug::{self, HotplugError};
use crate::task::{self, Builder, JoinHandle};
use crate::testing::{Outcome, Verdict, comes_true, comes_true_by_others};
use crate::{check, check_eq, cpus, kernel_test, memory, services, stop_machine, tick};

/// A CPU that may go.
fn another() -> Option<CpuId> {
    cpus::online().find(|cpu| *cpu != CpuId::BOOT)
}

fn spawn<R: Send + 'static>(
    builder: Builder,
    body: impl FnOnce(&mut TaskCx) -> R + Send + 'static,
) -> JoinHandle<R> {
    builder.spawn(body).expect("there is memory for a few tasks")
}

kernel_test! {
    task,
    fn a_cpu_goes_and_comes_back(cx) {
        static NOTHING: CallData = CallData::new(|| ());
        static PINNED_RAN: AtomicU32 = AtomicU32::new(0);
        let Some(cpu) = another() else { crate::skip!("one CPU only") };
        let before = cpus::online_count();
        PINNED_RAN.store(0, Ordering::Relaxed);
        let pinned = spawn(Builder::new("pinned").on(cpu), |cx| {
            task::park(cx);
            PINNED_RAN.store(1, Ordering::Relaxed);
            Native::cpu()
        });
        check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
        check_eq!((cpus::online_count(), cpus::state_name(cpu)), (before - 1, "offline"));
        check_eq!(smp::state(cpu), smp::State::Parked);
        check_eq!(calls::single(cpu, || ()), Err(CallError::Offline(cpu)));
        check_eq!(calls::queue(cpu, &NOTHING), Err(CallError::Offline(cpu)));
        check_eq!(stop_machine::stop_one_cpu(cpu, || (), cx), Err(CallError::Offline(cpu)));
        check_eq!(hotplug::take_offline(cpu, cx), Err(HotplugError::Unchanged(cpu, false)));
        // Nobody else waits for it.
        memory::shootdown::fence_all();
        check_eq!(calls::all(|_| ()), Ok(before as u32 - 1));
        let ticks = tick::count(cpu);
        pinned.unpark();
        delay::mdelay(30);
        check_eq!((tick::count(cpu), PINNED_RAN.load(Ordering::Relaxed)), (ticks, 0));
        check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        check_eq!(hotplug::bring_online(cpu, cx), Err(HotplugError::Unchanged(cpu, true)));
        check_eq!((cpus::online_count(), cpus::state_name(cpu)), (before, "online"));
        check_eq!(pinned.join(cx), cpu);
        check_eq!(calls::single(cpu, Native::cpu), Ok(cpu));
        let _kept = tick::keep_all();
        check!(comes_true(|| tick::count(cpu) > ticks + 1));
        Ok(())
    }
}

kernel_test! {
    task,
    fn some_cpus_do_not_go_or_come(cx) {
        check_eq!(hotplug::take_offline(CpuId::BOOT, cx), Err(HotplugError::BootCpu));
        if let Some(cpu) = another() {
            let itself = spawn(Builder::new("there").on(cpu), move |cx| hotplug::take_offline(cpu, cx));
            check_eq!(itself.join(cx), Err(HotplugError::OnlyPlace(cpu)));
        }
        let last = CpuId::new(MAX_CPUS as u32 - 1).expect("below the limit");
        if Native::cpu_count() < MAX_CPUS as u32 {
            check_eq!(hotplug::bring_online(last, cx), Err(HotplugError::NoSuchCpu(last)));
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_refusal_leaves_a_cpu_as_it_was(cx) {
        let Some(cpu) = another() else { crate::skip!("one CPU only") };
        hotplug::set_objecting(true);
        let down = hotplug::take_offline(cpu, cx);
        check!(matches!(down, Err(HotplugError::Refused(_, refused)) if refused.step == "objections"), "{down:?}");
        check_eq!(calls::single(cpu, Native::cpu), Ok(cpu));
        hotplug::set_objecting(false);
        check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
        hotplug::set_objecting(true);
        // It comes, and because of the refusal goes again.
        let up = hotplug::bring_online(cpu, cx);
        hotplug::set_objecting(false);
        check!(matches!(up, Err(HotplugError::Refused(_, refused)) if refused.stuck.is_none()), "{up:?}");
        check_eq!((smp::state(cpu), cpus::is_online(cpu)), (smp::State::Parked, false));
        check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        check_eq!(calls::single(cpu, Native::cpu), Ok(cpu));
        Ok(())
    }
}

/// The host's part, played here: the CPU has gone, and another one is in its place. To a CPU a start is a reset, whatever
/// it did before.
fn exchange(cpu: CpuId, cx: &mut TaskCx) -> Result<u64, Verdict> {
    check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
    let down = Native::now_ns();
    cpus::set_present(cpu, false);
    check!(smp::note_removed(cpu));
    check_eq!((smp::state(cpu), cpus::state_name(cpu)), (smp::State::Removed, "absent"));
    check_eq!(hotplug::bring_online(cpu, cx), Err(HotplugError::Absent(cpu)));
    check_eq!(hotplug::take_offline(cpu, cx), Err(HotplugError::Absent(cpu)));
    cpus::set_present(cpu, true);
    check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
    check_eq!(calls::single(cpu, Native::cpu), Ok(cpu));
    Ok(down)
}

kernel_test! {
    task,
    fn a_cpu_for_which_a_task_would_wait_is_not_given_up(cx) {
        let Some(cpu) = another() else { crate::skip!("one CPU only") };
        let pinned = spawn(Builder::new("pinned").on(cpu), task::park);
        let refused = hotplug::give_up(cpu, cx);
        check_eq!(refused, Err(HotplugError::Pinned(cpu, pinned.task().number())));
        check!(cpus::is_online(cpu) && cpus::is_present(cpu));
        check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
        // What waits already is no better off.
        check_eq!(hotplug::give_up(cpu, cx), refused);
        check_eq!((cpus::is_present(cpu), cpus::state_name(cpu)), (true, "offline"));
        check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        pinned.unpark();
        pinned.join(cx);
        // In the middle of something that keeps it there, for longer than the first look.
        let busy = spawn(Builder::new("busy").on(cpu), |cx| {
            let stays = sync::migrate::disable();
            check!(task::current().set_affinity(&percpu::cpus().collect()).is_ok());
            STAYING.store(true, Ordering::Release);
            cx.block(Some(Native::now_ns() + 20_000_000));
            drop(stays);
            Ok(())
        });
        check!(comes_true_by_others(|| STAYING.load(Ordering::Acquire)));
        check_eq!(hotplug::give_up(cpu, cx), Ok(()));
        check_eq!((cpus::is_present(cpu), cpus::state_name(cpu)), (false, "absent"));
        cpus::set_present(cpu, true);
        check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        STAYING.store(false, Ordering::Relaxed);
        busy.join(cx)
    }
}

/// A task is where it must stay.
static STAYING: AtomicBool = AtomicBool::new(false);

kernel_test! {
    task, limit_ms = 60_000,
    fn a_cpu_after_reset_goes_on_where_another_was_parked(cx) {
        let Some(cpu) = another() else { crate::skip!("one CPU only") };
        let pinned = spawn(Builder::new("pinned").on(cpu).vector_state(true), |cx| {
            let mut turns = 0_u64;
            while !task::is_cancelled() {
                turns += 1;
                cx.block(Some(Native::now_ns() + 1_000_000));
            }
            (Native::cpu(), turns)
        });
        let registers = |cpu| services::run_on(cpu, || unswitched::read(&sync::preempt::disable()));
        let before = registers(CpuId::BOOT);
        for _ in 0..10 {
            exchange(cpu, cx)?;
            let after = registers(cpu);
            let broken = unswitched::broken_rule(&before, &after);
            check!(broken.is_none(), "{broken:?}: {before:x?} and {after:x?}");
            let _kept = tick::keep_all();
            let ticks = tick::count(cpu);
            check!(comes_true(|| tick::count(cpu) > ticks + 1));
            memory::shootdown::fence_all();
        }
        pinned.cancel();
        let (place, turns) = pinned.join(cx);
        check_eq!(place, cpu);
        check!(turns > 0);
        Ok(())
    }
}

/// What the load does, and how often.
static OVER: AtomicBool = AtomicBool::new(false);
static CALLED: AtomicU64 = AtomicU64::new(0);
static ANSWERED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static HOPS: AtomicU64 = AtomicU64::new(0);
static FLUSHES: AtomicU64 = AtomicU64::new(0);
static WORKED: AtomicU64 = AtomicU64::new(0);

percpu! {
    static WORK: CallData = CallData::new(|| _ = WORKED.fetch_add(1, Ordering::Relaxed));
}

/// Calls that are waited for, to CPUs that may be gone.
fn call_all(cx: &mut TaskCx) -> (u64, u64) {
    let (mut sent, mut queued) = (0, 0);
    while !OVER.load(Ordering::Relaxed) {
        for cpu in percpu::cpus() {
            match calls::single(cpu, || _ = ANSWERED.fetch_add(1, Ordering::Relaxed)) {
                Ok(()) => sent += 1,
                Err(_) => _ = REFUSED.fetch_add(1, Ordering::Relaxed),
            }
            queued += u64::from(calls::queue(cpu, WORK.on(cpu)).is_ok());
        }
        CALLED.fetch_add(1, Ordering::Relaxed);
        // The machine has other things to do as well.
        cx.block(Some(Native::now_ns() + 100_000));
    }
    (sent, queued)
}

/// Blocks, wakes up by time, and lets others on: wherever it is put.
fn hop(cx: &mut TaskCx) {
    while !OVER.load(Ordering::Relaxed) {
        cx.block(Some(Native::now_ns() + 200_000));
        HOPS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Interrupts all CPUs, and counts what is not there afterwards.
fn flush(cx: &mut TaskCx) {
    while !OVER.load(Ordering::Relaxed) {
        memory::shootdown::fence_all();
        FLUSHES.fetch_add(1, Ordering::Relaxed);
        cx.block(Some(Native::now_ns() + 300_000));
    }
}

/// Has CPUs go and come `times` times by `change`, which returns when one went off-line, while tasks call, hop and flush.
fn under_load(
    times: usize,
    mut change: impl FnMut(CpuId, &mut TaskCx) -> Result<u64, Verdict>,
    cx: &mut TaskCx,
) -> Outcome {
    let movable: Vec<CpuId> = cpus::online().filter(|cpu| *cpu != CpuId::BOOT).collect();
    if movable.is_empty() {
        crate::skip!("one CPU only");
    }
    let before = cpus::online_count();
    for counter in [&CALLED, &ANSWERED, &REFUSED, &HOPS, &FLUSHES, &WORKED] {
        counter.store(0, Ordering::Relaxed);
    }
    OVER.store(false, Ordering::Relaxed);
    let callers: Vec<_> = (0..2).map(|_| spawn(Builder::new("caller"), call_all)).collect();
    let hoppers: Vec<_> = (0..8).map(|_| spawn(Builder::new("hopper"), hop)).collect();
    let flusher = spawn(Builder::new("flusher"), flush);
    let mut worst = (0, 0);
    for round in 0..times {
        let begun = Native::now_ns();
        let down = change(movable[round % movable.len()], cx)?;
        worst = (worst.0.max(down - begun), worst.1.max(Native::now_ns() - down));
    }
    OVER.store(true, Ordering::Relaxed);
    let (mut sent, mut queued) = (0, 0);
    for caller in callers {
        let (s, q) = caller.join(cx);
        (sent, queued) = (sent + s, queued + q);
    }
    hoppers.into_iter().for_each(|hopper| hopper.join(cx));
    flusher.join(cx);
    check_eq!(cpus::online_count(), before);
    check!(comes_true(|| percpu::cpus().all(|cpu| !WORK.on(cpu).is_busy())));
    // No call was lost, and none ran twice.
    check_eq!(ANSWERED.load(Ordering::Relaxed), sent);
    check_eq!(WORKED.load(Ordering::Relaxed), queued);
    // The load was one.
    let figures = [&CALLED, &HOPS, &FLUSHES, &REFUSED].map(|counter| counter.load(Ordering::Relaxed));
    check!(figures[..3].iter().all(|figure| *figure > 0), "{figures:?}");
    log::info!(
        "{times} times: at most {} us down, {} us up; {} rounds of calls, {} refused, {} hops, {} flushes",
        worst.0 / 1_000,
        worst.1 / 1_000,
        figures[0],
        figures[3],
        figures[1],
        figures[2]
    );
    Ok(())
}

kernel_test! {
    task, limit_ms = 120_000,
    fn a_cpu_goes_and_comes_back_a_thousand_times_under_load(cx) {
        under_load(
            1_000,
            |cpu, cx| {
                check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
                let down = Native::now_ns();
                check!(!cpus::is_online(cpu));
                check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
                Ok(down)
            },
            cx,
        )
    }
}

kernel_test! {
    task, limit_ms = 120_000,
    fn a_cpu_is_exchanged_a_hundred_times_under_load(cx) {
        under_load(100, exchange, cx)
    }
}

percpu! {
    /// What the spinning task of this CPU counts.
    static SPINS: AtomicU64 = AtomicU64::new(0);
}

/// A task on each CPU that does nothing but count.
fn spinners() -> Vec<JoinHandle<()>> {
    OVER.store(false, Ordering::Relaxed);
    let spin = |cx: &mut TaskCx| {
        while !OVER.load(Ordering::Relaxed) {
            SPINS.inc();
            cx.cond_resched();
        }
    };
    cpus::online().map(|cpu| spawn(Builder::new("spinner").on(cpu), spin)).collect()
}

kernel_test! {
    task,
    fn nothing_moves_while_the_machine_is_stopped(cx) {
        let spinners = spinners();
        // What every CPU has done so far, as tasks and in interrupts.
        let look = || -> Vec<(u64, u64)> {
            cpus::online().map(|cpu| (SPINS.on(cpu).load(Ordering::Relaxed), count(cpu, vectors::TIMER))).collect()
        };
        let mut moved = 0;
        for _ in 0..10 {
            let (before, after) = stop_machine::stop_machine(
                || {
                    let before = look();
                    // Several ticks, for those that would take them.
                    delay::mdelay(5);
                    memory::shootdown::fence_all();
                    (before, look())
                },
                cx,
            );
            check_eq!(before, after);
            let running = look();
            check!(comes_true(|| look() != running));
            moved += 1;
        }
        OVER.store(true, Ordering::Relaxed);
        spinners.into_iter().for_each(|spinner| spinner.join(cx));
        check_eq!(moved, 10);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_stopper_replaces_whatever_runs(cx) {
        let spinners = spinners();
        for cpu in cpus::online().collect::<Vec<_>>() {
            let seen = stop_machine::stop_one_cpu(cpu, || (Native::cpu(), context::preemptible(), context::in_task()), cx);
            check_eq!(seen, Ok((cpu, true, true)));
        }
        OVER.store(true, Ordering::Relaxed);
        spinners.into_iter().for_each(|spinner| spinner.join(cx));
        Ok(())
    }
}

kernel_test! {
    task,
    fn tasks_leave_a_cpu_that_goes(cx) {
        /// A bit for each wanderer, which it sets at each turn.
        static TURNED: AtomicU32 = AtomicU32::new(0);
        const ALL: u32 = (1 << 6) - 1;
        let Some(cpu) = another() else { crate::skip!("one CPU only") };
        OVER.store(false, Ordering::Relaxed);
        let both = CpuMask::from_iter([CpuId::BOOT, cpu]);
        let wanderers: Vec<_> = (0..ALL.count_ones())
            .map(|number| {
                spawn(Builder::new("wanderer").affinity(both.clone()), move |cx| {
                    while !OVER.load(Ordering::Relaxed) {
                        cx.block(Some(Native::now_ns() + 100_000));
                        TURNED.fetch_or(1 << number, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        delay::mdelay(5);
        check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
        let outcome = (|| {
            check!(comes_true(|| wanderers.iter().all(|task| task.task().cpu() == CpuId::BOOT)));
            // And go on there, each of them.
            TURNED.store(0, Ordering::Relaxed);
            check!(comes_true_by_others(|| TURNED.load(Ordering::Relaxed) == ALL));
            Ok(())
        })();
        OVER.store(true, Ordering::Relaxed);
        wanderers.into_iter().for_each(|wanderer| wanderer.join(cx));
        check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        outcome
    }
}
