//! The trace on the machine: every context writes, and what it says is what happened.

use core::sync::atomic::{AtomicU32, Ordering};

use ::rcu::{Domain, RcuBox, Retired};
use alloc::vec::Vec;
use hal::x86_64::{apic, vectors};
use hal::{CpuId, Native, Platform, percpu};
use sync::preempt;
use sync::softirq::{Running, Tasklet};

use crate::rcu::Kernel;
use crate::softirq::{self, Vector};
use crate::task::{self, Builder, State};
use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::nmi;
use crate::testing::{PATIENCE_NS, comes_true_by_others};
use crate::trace::event::{Event, Record};
use crate::{check, check_eq, cpus, hotplug, kernel_test, skip, trace};

/// More than all rings hold.
const EVERYTHING: usize = usize::MAX;
/// Marks of these tests begin above this, and have the CPU's number in bits 32 and up, and the context in bits 28 to 31.
const BASE: u64 = 0xabcd << 48;
percpu! {
    /// Marks that this CPU has made, by context: task, interrupt, NMI.
    static IN_TASK: AtomicU32 = AtomicU32::new(0);
    static IN_IRQ: AtomicU32 = AtomicU32::new(0);
    static IN_NMI: AtomicU32 = AtomicU32::new(0);
}

fn mark(context: u64, count: u32) {
    trace::mark(BASE | u64::from(Native::cpu().as_u32()) << 32 | context << 28 | u64::from(count));
}

kernel_test! {
    everywhere,
    fn every_context_writes_and_nothing_is_lost_or_mixed(cpu) {
        set_hook(Source::Timer, None);
        set_hook(Source::Call, {
            static IN_CALL: fn() = || {
                IN_IRQ.inc();
                mark(1, IN_IRQ.read());
            };
            Some(&IN_CALL)
        });
        nmi::set_hook(Some(|_| {
            IN_NMI.inc();
            mark(2, IN_NMI.read());
        }));
        let here = preempt::disable();
        let before = [IN_TASK.read(), IN_IRQ.read(), IN_NMI.read()];
        let mut came = true;
        for _ in 0..20 {
            IN_TASK.inc();
            mark(0, IN_TASK.read());
            let (irqs, nmis) = (IN_IRQ.read(), IN_NMI.read());
            send_call(cpu);
            apic::send_nmi_to_cpu(cpu);
            let end = Native::now_ns() + PATIENCE_NS;
            while (IN_IRQ.read() == irqs || IN_NMI.read() == nmis) && Native::now_ns() < end {
                IN_TASK.inc();
                mark(0, IN_TASK.read());
            }
            came &= IN_IRQ.read() != irqs && IN_NMI.read() != nmis;
        }
        let after = [IN_TASK.read(), IN_IRQ.read(), IN_NMI.read()];
        drop(here);
        check!(came, "an interrupt did not come");
        check!(after[1] - before[1] >= 20 && after[2] - before[2] >= 20, "{before:?} {after:?}");
        let story = trace::tail(EVERYTHING);
        // The newest of each context are there, without a gap, in order and in this CPU's name.
        for context in 0..3_u64 {
            let prefix = BASE | u64::from(cpu.as_u32()) << 32 | context << 28;
            let mine = |record: &Record| match record.event {
                Event::Mark(value) if value & !0xfff_ffff == prefix => Some((record.cpu, (value & 0xfff_ffff) as u32)),
                _ => None,
            };
            let marks: Vec<_> = story.records.iter().filter_map(mine).collect();
            check!(marks.iter().all(|(place, _)| *place == cpu.as_u32()), "{marks:?}");
            check!(marks.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1) || story.dropped > 0, "{marks:?}");
            check_eq!(marks.last().map(|(_, count)| *count), Some(after[context as usize]));
        }
        Ok(())
    }
}

kernel_test! {
    fn smoke_nothing_is_written_while_tracing_is_off() {
        trace::stop();
        // Who has found it on just before writes one more record.
        crate::services::run_on_all(&|_| {});
        let before = trace::tail(0).before;
        trace::mark(BASE);
        crate::services::run_on_all(&|_| {});
        let after = trace::tail(0).before;
        trace::start();
        check!(trace::is_on());
        check_eq!(before, after);
        trace::mark(BASE);
        check!(trace::tail(0).before > after);
        Ok(())
    }
}

kernel_test! {
    fn interrupts_begin_and_end_in_pairs() {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        static COUNT: fn() = || _ = CALLS.fetch_add(1, Ordering::Relaxed);
        set_hook(Source::Call, Some(&COUNT));
        let here = preempt::disable();
        let cpu = here.cpu();
        for _ in 0..10 {
            let before = CALLS.load(Ordering::Relaxed);
            send_call(cpu);
            while CALLS.load(Ordering::Relaxed) == before {
                Native::relax();
            }
        }
        let story = trace::tail(EVERYTHING);
        drop(here);
        let mine = story.records.iter().filter(|record| record.cpu == cpu.as_u32());
        let (mut open, mut calls, mut wrong) = (Vec::new(), 0, None);
        for record in mine {
            match record.event {
                Event::IrqEnter(vector) => open.push(vector),
                // The beginning may have been overwritten.
                Event::IrqExit(vector) => match open.pop() {
                    Some(begun) if begun != vector => wrong = Some((begun, vector)),
                    _ => calls += u32::from(vector == vectors::CALL),
                },
                _ => {}
            }
        }
        check_eq!(wrong, None);
        check!(calls >= 10, "{calls} calls");
        Ok(())
    }
}

/// Where in the story the first record is that `is_it`, from `from` on.
fn place(story: &[Record], from: usize, is_it: impl Fn(&Record) -> bool) -> Option<usize> {
    story.iter().skip(from).position(is_it).map(|place| place + from)
}

kernel_test! {
    task,
    fn who_is_woken_runs_and_both_are_in_the_trace(cx) {
        let woken = Builder::new("woken").spawn(task::park);
        let Ok(woken) = woken else { skip!("no memory for a task") };
        check!(comes_true_by_others(|| woken.task().state() == State::Blocked));
        let number = woken.task().number();
        let before = trace::tail(EVERYTHING).records.len();
        woken.unpark();
        woken.join(cx);
        let story = trace::tail(EVERYTHING).records;
        let wakes = |record: &Record| matches!(record.event, Event::Wakeup { task, .. } if task == number);
        let comes = |record: &Record| matches!(record.event, Event::Switch { to, .. } if to == number);
        // The last of each: it has run before, until it parked.
        let (wake, come) = (story.iter().rposition(wakes), story.iter().rposition(comes));
        check!(wake.is_some() && come > wake, "woken: {wake:?}, came: {come:?}, of {} after {before}", story.len());
        Ok(())
    }
}

kernel_test! {
    fn a_softirq_and_its_end_are_in_the_trace() {
        static RAN: AtomicU32 = AtomicU32::new(0);
        static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| _ = RAN.fetch_add(1, Ordering::Relaxed));
        RAN.store(0, Ordering::Relaxed);
        let here = preempt::disable();
        softirq::schedule(&TASKLET);
        check!(RAN.load(Ordering::Relaxed) == 1);
        let story = trace::tail(EVERYTHING).records;
        let cpu = here.cpu().as_u32();
        drop(here);
        let vector = Vector::Tasklet.index() as u8;
        let enter = story.iter().rposition(|record| record.cpu == cpu && record.event == Event::SoftirqEnter(vector));
        let exit = story.iter().rposition(|record| record.cpu == cpu && record.event == Event::SoftirqExit(vector));
        check!(enter.is_some() && exit > enter, "begins: {enter:?}, ends: {exit:?}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_cpu_that_goes_and_comes_is_in_the_trace(cx) {
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU") };
        let gone = hotplug::take_offline(cpu, cx);
        let left = trace::tail(EVERYTHING).records;
        let back = hotplug::bring_online(cpu, cx);
        let came = trace::tail(EVERYTHING).records;
        check_eq!((gone, back), (Ok(()), Ok(())));
        let number = cpu.as_u32();
        check!(place(&left, 0, |record| record.event == Event::Offline(number)).is_some());
        check!(place(&came, 0, |record| record.event == Event::Online(number)).is_some());
        Ok(())
    }
}

kernel_test! {
    task,
    fn grace_periods_and_callbacks_are_in_the_trace(cx) {
        for _ in 0..10 {
            Retired::<_, Kernel>::new(RcuBox::new(0_u64)).free_after_grace_period();
        }
        Kernel::barrier(cx);
        let story = trace::tail(EVERYTHING).records;
        let called = story.iter().map(|record| match record.event {
            Event::Callbacks { called, .. } => called,
            _ => 0,
        });
        // Those, and the barrier's own, one for each CPU that has some.
        let called: u32 = called.sum();
        check!(called >= 10, "{called} callbacks");
        // Who ended it says so when everybody may know, and may be late.
        let is_end = |record: &Record| matches!(record.event, Event::GracePeriod(_));
        let ended = comes_true_by_others(|| trace::tail(EVERYTHING).records.iter().any(is_end));
        check!(ended || cfg!(feature = "rcu-tiny"), "no grace period");
        Ok(())
    }
}
