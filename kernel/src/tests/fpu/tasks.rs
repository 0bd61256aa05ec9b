//! Tasks that own vector registers: preempted at any instruction, and moved between CPUs.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use alloc::vec::Vec;
use hal::cpumask::CpuMask;
use hal::platform::TaskId;
use hal::x86_64::fpu::FpuGuard;
use hal::{CpuId, Native, Platform, percpu};
use sync::TaskCx;

use super::{Registers, scribble, try_section};
use crate::sched::policy::Policy;
use crate::testing::irq::{Source, send_call, set_hook};
use crate::{check, cpus, kernel_test, services, task};

/// Rounds of each task of the test below.
const ROUNDS: u64 = 4_500;

percpu! {
    /// The name of this CPU's urgent task, which every interrupt wakes, or 0.
    static URGENT: AtomicUsize = AtomicUsize::new(0);
    /// How often it has run.
    static URGENT_RAN: AtomicU32 = AtomicU32::new(0);
}

/// Where a task found other values than its own: in which round, in which register, and both values.
type Wrong = (u64, (usize, [u64; 4], [u64; 4]));

/// Writes values of its own into the registers again and again, and looks whether they are there after whatever came in
/// between: interrupts, sections, other tasks.
fn compute(cx: &mut TaskCx, who: u64) -> Option<Wrong> {
    let mut expected = Registers::INITIAL;
    for round in 0..ROUNDS {
        match round % 8 {
            0 => task::yield_now(cx),
            // An interrupt that comes a few instructions later, and replaces this task at once.
            1 | 3 | 5 => send_call(Native::cpu()),
            2 => drop(FpuGuard::begin()),
            4 => {
                let guard = FpuGuard::begin();
                scribble(&guard);
            }
            _ => (0..round % 64).for_each(|_| Native::relax()),
        }
        if let Some(difference) = Registers::get().differs(&expected) {
            return Some((round, difference));
        }
        expected = Registers::of(who << 32 | round);
        expected.put();
    }
    None
}

/// Uses registers of its own whenever it is woken.
fn be_urgent(cx: &mut TaskCx, who: u64) -> Option<Wrong> {
    let mut expected = Registers::INITIAL;
    for round in 0.. {
        task::park(cx);
        if task::is_cancelled() {
            break;
        }
        URGENT_RAN.inc();
        if let Some(difference) = Registers::get().differs(&expected) {
            return Some((round, difference));
        }
        expected = Registers::of(who << 32 | round);
        expected.put();
    }
    None
}

kernel_test! {
    task, limit_ms = 120_000,
    fn tasks_with_vector_state_never_see_each_others(cx) {
        // Every interrupt opens a section, and wakes a task that is more urgent than what it hit.
        static PREEMPT: fn() = || {
            try_section();
            if let Some(name) = NonZeroUsize::new(URGENT.read()) {
                // SAFETY: the record is there until the hooks are gone, because the test has a handle.
                unsafe { Native::wake(TaskId(name)) };
            }
        };
        let (mut urgent, mut tasks) = (Vec::new(), Vec::new());
        for cpu in cpus::online() {
            let who = u64::from(cpu.as_u32()) << 2;
            let builder = task::Builder::new("urgent").on(cpu).policy(Policy::fifo(50)).vector_state(true);
            match builder.spawn(move |cx| be_urgent(cx, who)) {
                Ok(handle) => urgent.push((cpu, handle)),
                Err(error) => check!(false, "{error}"),
            }
        }
        for (cpu, handle) in &urgent {
            URGENT.on(*cpu).store(handle.task().id().0.get(), Ordering::Relaxed);
        }
        set_hook(Source::Timer, Some(&PREEMPT));
        set_hook(Source::Call, Some(&PREEMPT));
        let before: Vec<u32> = cpus::online().map(|cpu| URGENT_RAN.on(cpu).load(Ordering::Relaxed)).collect();
        for cpu in cpus::online() {
            for place in 1..4_u64 {
                let who = u64::from(cpu.as_u32()) << 2 | place;
                // One of three has no state of its own, and has sections while the CPU's registers are nobody's.
                let builder = task::Builder::new("vectors").on(cpu).vector_state(place != 3);
                let spawned = builder.spawn(move |cx| match place {
                    3 => {
                        for _ in 0..ROUNDS {
                            let guard = FpuGuard::begin();
                            scribble(&guard);
                            drop(guard);
                            task::yield_now(cx);
                        }
                        None
                    }
                    _ => compute(cx, who),
                });
                match spawned {
                    Ok(handle) => tasks.push(handle),
                    Err(error) => check!(false, "{error}"),
                }
            }
        }
        let mut wrong: Vec<Wrong> = tasks.into_iter().filter_map(|handle| handle.join(cx)).collect();
        set_hook(Source::Timer, None);
        set_hook(Source::Call, None);
        // After this no interrupt is in the middle of a hook.
        services::run_on_all(&|_| {});
        for (cpu, handle) in urgent {
            URGENT.on(cpu).store(0, Ordering::Relaxed);
            handle.cancel();
            wrong.extend(handle.join(cx));
        }
        check!(wrong.is_empty(), "{wrong:x?}");
        for (cpu, before) in cpus::online().zip(before) {
            let ran = URGENT_RAN.on(cpu).load(Ordering::Relaxed) - before;
            check!(ran >= 2_000, "CPU {cpu}: preempted {ran} times");
        }
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 60_000,
    fn vector_state_moves_with_its_task(cx) {
        let cpus: Vec<CpuId> = cpus::online().collect();
        if cpus.len() < 2 {
            crate::skip!("one CPU only");
        }
        let spawned = task::Builder::new("mover").vector_state(true).spawn(move |cx| {
            let me = task::current();
            let mut seen = alloc::collections::BTreeSet::new();
            let mut expected = Registers::INITIAL;
            for round in 0..200_u64 {
                let target = cpus[round as usize % cpus.len()];
                if me.set_affinity(&CpuMask::of(target)).is_err() {
                    return Err((round, None));
                }
                task::yield_now(cx);
                seen.insert(Native::cpu().as_u32());
                if let Some(difference) = Registers::get().differs(&expected) {
                    return Err((round, Some(difference)));
                }
                expected = Registers::of(round);
                expected.put();
            }
            Ok(seen.len())
        });
        match spawned {
            Ok(handle) => match handle.join(cx) {
                Ok(seen) => check!(seen >= 2, "it ran on {seen} CPUs"),
                Err(wrong) => check!(false, "{wrong:x?}"),
            },
            Err(error) => check!(false, "{error}"),
        }
        Ok(())
    }
}
