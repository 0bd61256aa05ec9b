//! Lock-ups on purpose, which are reported once each, while they last.

use core::sync::atomic::{AtomicBool, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::wait::Limits as WaitLimits;
use sync::{Completion, TaskCx, irq, preempt};

use crate::testing::{comes_true_by_others, expect_report, leads_through, told_after};
use crate::watchdog::hung::{self, hung_count, set_hung_limit_ms};
use crate::watchdog::{Limits, counts, set_limits};
use crate::{check, check_eq, cpus, kernel_test, task};

const PATIENCE_NS: u64 = 30_000_000_000;
/// Ticks: short for a test, and longer than a busy host makes a CPU wait.
const SHORT: u64 = 500;

/// Waits without giving way until `condition` holds. Reports are to name it.
#[inline(never)]
fn spin_until(condition: &dyn Fn() -> bool) -> bool {
    let end = Native::now_ns() + PATIENCE_NS;
    while !condition() {
        if Native::now_ns() > end {
            return false;
        }
        Native::relax();
    }
    true
}

/// Waits for what does not come. Reports are to name it.
#[inline(never)]
fn wait_for(event: &Completion, cx: &mut TaskCx) {
    event.wait(cx);
    // Comes back here, with something to do.
    core::hint::black_box(event);
}

kernel_test! {
    task, limit_ms = 90_000,
    fn a_task_that_keeps_its_cpu_is_reported_once(cx) {
        static STARTED: AtomicBool = AtomicBool::new(false);
        STARTED.store(false, Ordering::Relaxed);
        let target = cpus::online().last().unwrap_or(CpuId::BOOT);
        let headline = alloc::format!("soft lockup - CPU#{target} ");
        expect_report(&headline);
        let before = counts();
        let usual = set_limits(Limits { soft: SHORT, hard: u64::MAX });
        let hog = task::Builder::new("hog").on(target).spawn(move |_| {
            let _here = preempt::disable();
            STARTED.store(true, Ordering::Relaxed);
            spin_until(&|| counts().0 != before.0)
        });
        // Somebody has to want the CPU, or it is nobody's trouble.
        let waits = task::Builder::new("waits").on(target).spawn(|cx| {
            while !STARTED.load(Ordering::Relaxed) {
                task::yield_now(cx);
            }
        });
        let told = match (hog, waits) {
            (Ok(hog), Ok(waits)) => {
                let told = hog.join(cx);
                waits.join(cx);
                told
            }
            _ => false,
        };
        set_limits(usual);
        check!(told, "nothing was reported");
        check_eq!(counts(), (before.0 + 1, before.1));
        let told = told_after(&headline);
        check!(leads_through(&told, spin_until as *const ()), "{told}");
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 90_000,
    fn a_cpu_without_interrupts_is_reported_by_its_neighbour(cx) {
        let online: Vec<CpuId> = cpus::online().collect();
        let [_, .., target] = online[..] else { crate::skip!("one CPU only") };
        let headline = alloc::format!("hard lockup - CPU#{target} ");
        expect_report(&headline);
        let before = counts();
        let usual = set_limits(Limits { soft: u64::MAX, hard: SHORT });
        let stuck = task::Builder::new("stuck").on(target).spawn(move |_| {
            let _quiet = irq::disable();
            spin_until(&|| counts().1 != before.1)
        });
        let told = stuck.map(|stuck| stuck.join(cx));
        set_limits(usual);
        check_eq!(told, Ok(true));
        check_eq!(counts(), (before.0, before.1 + 1));
        let told = told_after(&headline);
        check!(leads_through(&told, spin_until as *const ()), "{told}");
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 90_000,
    fn a_task_that_nobody_wakes_is_reported_and_an_idle_one_is_not(cx) {
        let event = Arc::new(Completion::new());
        let waiting = event.clone();
        let stuck = task::spawn("stuck", move |cx| wait_for(&waiting, cx));
        // All the ways to wait for something to do, and one to wait for a moment.
        let waiting = event.clone();
        let idle = [
            task::spawn("parked", |cx| {
                while !task::is_cancelled() {
                    task::park(cx);
                }
            }),
            task::spawn("told", move |cx| {
                let never = Completion::new();
                let _ = never.wait_with(WaitLimits::NONE.cancellable(), cx);
                drop(waiting);
            }),
            task::spawn("sleeps", |cx| {
                while !task::is_cancelled() {
                    cx.block(Some(Native::now_ns() + 3_600_000_000_000));
                }
            }),
        ];
        let Ok(stuck) = stuck else { crate::skip!("no memory") };
        expect_report("hung task - task");
        let headline = alloc::format!("hung task - task {} (stuck)", stuck.task().number());
        expect_report(&headline);
        let before = hung_count();
        // Looks come a quarter of it apart.
        let usual = set_hung_limit_ms(Some(400));
        let mut told = comes_true_by_others(|| hung_count() != before);
        let listed: Vec<u32> = hung::stuck_tasks().iter().map(|(task, _)| task.number()).collect();
        // As long again: it is not told twice, and nobody else comes.
        comes_true_by_others(|| {
            let stuck = hung::stuck_tasks();
            stuck.iter().any(|(_, ms)| *ms >= 1_000)
        });
        let count = hung_count();
        set_hung_limit_ms(usual);
        event.complete();
        stuck.join(cx);
        for task in idle.into_iter().flatten() {
            told &= !listed.contains(&task.task().number());
            task.cancel();
            task.join(cx);
        }
        check!(told, "{listed:?}");
        check_eq!(count, before + 1);
        let told = told_after(&headline);
        check!(leads_through(&told, wait_for as *const ()), "{told}");
        Ok(())
    }
}
