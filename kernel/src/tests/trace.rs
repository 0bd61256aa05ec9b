//! The trace on the machine: every context writes, and what it says is what happened.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::vec::Vec;
use hal::x86_64::{apic, vectors};
use hal::{Native, Platform, percpu};
use sync::preempt;

use crate::testing::PATIENCE_NS;
use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::nmi;
use crate::trace::event::{Event, Record};
use crate::{check, check_eq, kernel_test, trace};

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
