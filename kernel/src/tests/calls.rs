//! Calls between CPUs: where they run, in which order, how often, and what is said when they cannot.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::cpumask::CpuMask;
use hal::x86_64::traps::count;
use hal::x86_64::{apic, vectors};
use hal::{CpuId, MAX_CPUS, Native, Platform, percpu};
use sync::{context, irq};

use crate::calls::{self, CallData, CallError};
use crate::testing::{comes_true, expect_report, nmi, told_after};
use crate::{check, check_eq, cpus, kernel_test, tick};

/// Whether this is what a called function may expect.
fn called_properly(on: CpuId) -> bool {
    Native::cpu() == on && context::in_hardirq() && !context::in_nmi() && context::irqs_disabled()
}

kernel_test! {
    everywhere,
    fn smoke_everybody_calls_everybody(me) {
        for cpu in cpus::online() {
            check_eq!(calls::single(cpu, || (Native::cpu(), called_properly(cpu))), Ok((cpu, true)));
        }
        let (ran, wrong) = (AtomicU32::new(0), AtomicU32::new(0));
        let called = calls::all(|cpu| {
            wrong.fetch_add(u32::from(!called_properly(cpu)), Ordering::Relaxed);
            ran.fetch_add(1, Ordering::Relaxed);
        });
        check_eq!(called, Ok(cpus::online_count() as u32));
        check_eq!((ran.into_inner() as usize, wrong.into_inner()), (cpus::online_count(), 0));
        let here = AtomicBool::new(false);
        let others = calls::others(|cpu| here.store(cpu == me, Ordering::Relaxed));
        // The test's task stays on its CPU.
        check_eq!((others, here.into_inner()), (Ok(cpus::online_count() as u32 - 1), false));
        check!(context::preemptible());
        Ok(())
    }
}

percpu! {
    /// This CPU's own descriptor, for all others to use.
    static SHARED: CallData = CallData::new(|| RAN.inc());
    /// How often that ran here.
    static RAN: AtomicU32 = AtomicU32::new(0);
    /// Calls that came to this CPU where or when they should not.
    static WRONG: AtomicU32 = AtomicU32::new(0);
}

/// For target and sender the number of the last call that came; for tests with at most this many CPUs.
static LAST: [[AtomicU64; 16]; 16] = [const { [const { AtomicU64::new(0) }; 16] }; 16];

kernel_test! {
    everywhere, limit_ms = 60_000,
    fn calls_of_one_sender_come_in_order_and_none_is_lost(me) {
        if me.index() >= 16 {
            crate::skip!("orders are kept for 16 CPUs");
        }
        let targets: Vec<CpuId> = cpus::online().take(16).collect();
        let rounds = 600 / targets.len() as u64;
        LAST.iter().for_each(|row| row[me.index()].store(0, Ordering::Relaxed));
        let came = |cpu: CpuId, number: u64| {
            let before = LAST[cpu.index()][me.index()].swap(number, Ordering::Relaxed);
            WRONG.add(u32::from(!called_properly(cpu) || before != number - 1));
        };
        let mut sent = 0;
        for round in 1..=rounds {
            // One number to each target in each round, in all ways.
            let mut left: CpuMask = targets.iter().copied().collect();
            let one = targets[(me.index() + round as usize) % targets.len()];
            check_eq!(calls::single(one, || came(one, round)), Ok(()));
            left.remove(one);
            check_eq!(calls::many(&left, |cpu| came(cpu, round)), Ok(()));
            sent += u32::from(calls::queue(one, SHARED.on(one)).is_ok());
        }
        SENT.fetch_add(sent, Ordering::Relaxed);
        targets.iter().for_each(|cpu| _ = calls::wait_for(SHARED.on(*cpu)));
        for cpu in &targets {
            check_eq!(LAST[cpu.index()][me.index()].load(Ordering::Relaxed), rounds);
        }
        check_eq!(WRONG.read(), 0);
        // The last one finds that every descriptor that was accepted ran, once.
        let parts = if DONE.fetch_add(1, Ordering::AcqRel) + 1 == targets.len() as u32 {
            DONE.store(0, Ordering::Relaxed);
            let ran = targets.iter().map(|cpu| RAN.on(*cpu).swap(0, Ordering::Relaxed)).sum::<u32>();
            (ran, SENT.swap(0, Ordering::Relaxed))
        } else {
            (0, 0)
        };
        check_eq!(parts.0, parts.1);
        Ok(())
    }
}
static SENT: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);

/// The first CPU that is not the executing one.
fn another() -> Option<CpuId> {
    cpus::online().find(|cpu| *cpu != Native::cpu())
}

/// Has `cpu` spin with interrupts off in a task's place, from before this returns until `release` is set.
fn keep_busy(cpu: CpuId, release: &'static AtomicBool) -> crate::task::JoinHandle<()> {
    static THERE: AtomicBool = AtomicBool::new(false);
    THERE.store(false, Ordering::Relaxed);
    release.store(false, Ordering::Relaxed);
    let task = crate::task::Builder::new("deaf").on(cpu).spawn(move |_| {
        let _quiet = irq::disable();
        THERE.store(true, Ordering::Relaxed);
        while !release.load(Ordering::Relaxed) {
            Native::relax();
        }
    });
    let task = task.expect("there is memory for a small task");
    comes_true(|| THERE.load(Ordering::Relaxed));
    task
}

kernel_test! {
    fn a_cpu_with_something_in_its_queue_is_not_interrupted_again() {
        static DATA: [CallData; 5] = [const { CallData::new(|| _ = CAME.fetch_add(1, Ordering::Relaxed)) }; 5];
        static CAME: AtomicU32 = AtomicU32::new(0);
        static RELEASE: AtomicBool = AtomicBool::new(false);
        let Some(other) = another() else { crate::skip!("one CPU only") };
        CAME.store(0, Ordering::Relaxed);
        let busy = keep_busy(other, &RELEASE);
        let (interrupts, sent) = (count(other, vectors::CALL), apic::counters(Native::cpu()).sent);
        for data in &DATA {
            check_eq!(calls::queue(other, data), Ok(()));
            check_eq!(calls::queue(other, data), Err(CallError::Pending));
        }
        let sent = apic::counters(Native::cpu()).sent - sent;
        RELEASE.store(true, Ordering::Relaxed);
        check!(comes_true(|| DATA.iter().all(|data| !data.is_busy())));
        check!(comes_true(|| busy.is_finished()));
        check_eq!(CAME.load(Ordering::Relaxed), 5);
        check_eq!(count(other, vectors::CALL) - interrupts, 1);
        check!((1..=2).contains(&sent), "{sent} interrupts were sent"); // a tick of ours may have sent one
        Ok(())
    }
}

kernel_test! {
    fn a_cpu_that_does_not_answer_is_reported_with_the_function() {
        static RELEASE: AtomicBool = AtomicBool::new(false);
        fn function_without_an_answer() {}
        let Some(other) = another() else { crate::skip!("one CPU only") };
        expect_report(&alloc::format!("CPU#{other} has not answered a call for"));
        let busy = keep_busy(other, &RELEASE);
        let before = calls::set_patience_ns(100_000_000);
        // The caller waits with preemption off; a timer interrupt lets the busy one go when the report must have been made.
        static RELEASE_AT: AtomicU64 = AtomicU64::new(u64::MAX);
        RELEASE_AT.store(Native::now_ns() + 250_000_000, Ordering::Relaxed);
        crate::testing::irq::set_hook(crate::testing::irq::Source::Timer, Some(&RELEASER));
        static RELEASER: fn() = || {
            if Native::now_ns() >= RELEASE_AT.load(Ordering::Relaxed) {
                RELEASE.store(true, Ordering::Relaxed);
            }
        };
        let answer = calls::single(other, function_without_an_answer);
        crate::testing::irq::set_hook(crate::testing::irq::Source::Timer, None);
        calls::set_patience_ns(before);
        check_eq!(answer, Ok(()));
        check!(comes_true(|| busy.is_finished()));
        let told = told_after("has not answered a call for");
        check!(told.lines().next().is_some_and(|line| line.contains("function_without_an_answer")), "{told}");
        Ok(())
    }
}

kernel_test! {
    fn waiting_with_interrupts_off_is_reported_and_ends() {
        let Some(other) = another() else { crate::skip!("one CPU only") };
        expect_report("waiting for a call with interrupts off can deadlock");
        let answer = {
            let _quiet = irq::disable();
            calls::single(other, Native::cpu)
        };
        check_eq!(answer, Ok(other));
        Ok(())
    }
}

kernel_test! {
    fn a_cpu_that_does_not_exist_takes_no_calls() {
        static NOTHING: CallData = CallData::new(|| ());
        let last = CpuId::new(MAX_CPUS as u32 - 1).expect("below the limit");
        if cpus::is_online(last) {
            crate::skip!("every possible CPU is there");
        }
        check_eq!(calls::single(last, || ()), Err(CallError::Offline(last)));
        check_eq!(calls::queue(last, &NOTHING), Err(CallError::Offline(last)));
        check_eq!(calls::many(&CpuMask::from_iter([last]), |_| ()), Err(CallError::Offline(last)));
        check!(!NOTHING.is_busy());
        Ok(())
    }
}

percpu! {
    /// How often this CPU's irq_work ran, and how often not as it should.
    static WORKED: AtomicU32 = AtomicU32::new(0);
    static WORKED_WRONG: AtomicU32 = AtomicU32::new(0);
    static WORK: CallData = CallData::new(|| {
        WORKED_WRONG.add(u32::from(!called_properly(Native::cpu())));
        WORKED.inc();
    });
    static LAZY: CallData = CallData::new(|| LAZY_RAN.inc());
    static LAZY_RAN: AtomicU32 = AtomicU32::new(0);
}

kernel_test! {
    everywhere,
    fn irq_work_leaves_an_nmi_handler(me) {
        nmi::set_hook(Some(|_| {
            calls::irq_work(WORK.on(Native::cpu()));
        }));
        let before = WORKED.read();
        for round in 1..=50 {
            // Where an NMI hits code with interrupts off, the work waits for them.
            let quiet = irq::disable();
            let count_before = count(me, 2);
            apic::send_nmi_to_cpu(me);
            check!(comes_true(|| count(me, 2) > count_before));
            check!(WORKED.read() == before + round - 1 && WORK.on(me).is_pending());
            drop(quiet);
            check!(comes_true(|| WORKED.read() == before + round));
        }
        check_eq!(WORKED_WRONG.read(), 0);
        check_eq!(calls::wait_for(WORK.on(me)), Ok(()));
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn lazy_irq_work_comes_with_a_tick(me) {
        let _kept = tick::keep_all();
        check!(comes_true(|| !tick::is_resting(me)));
        let before = (LAZY_RAN.read(), count(me, vectors::TIMER));
        check!(calls::irq_work_lazy(LAZY.on(me)));
        check!(comes_true(|| LAZY_RAN.read() == before.0 + 1));
        check!(count(me, vectors::TIMER) > before.1);
        Ok(())
    }
}
