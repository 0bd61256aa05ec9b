//! Work queues on the machine: where functions run, that they may sleep, and what happens when a CPU leaves.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use spin::Once;
use sync::{Completion, IrqSpinLock, context, irq};

use crate::testing::comes_true_by_others;
use crate::testing::expect_report;
use crate::testing::irq::{Source, set_hook};
use crate::workqueue::{self, Running, Work, WorkQueue};
use crate::{check, check_eq, cpus, hotplug, kernel_test};

/// Queues that tests make once.
fn an_ordered_queue() -> &'static WorkQueue {
    static QUEUE: Once<&'static WorkQueue> = Once::new();
    QUEUE.call_once(|| workqueue::ordered("test-order"))
}

kernel_test! {
    task,
    fn smoke_work_runs_in_a_task_on_the_cpu_that_was_asked_for(cx) {
        for cpu in cpus::online() {
            let ran_on = Arc::new(AtomicU32::new(u32::MAX));
            let there = Arc::clone(&ran_on);
            let work = Arc::new(Work::new(move |running: &mut Running<'_>| {
                let right = context::in_task() && context::preemptible();
                // It may sleep.
                running.cx().block(Some(Native::now_ns() + 100_000));
                there.store(if right { Native::cpu().as_u32() } else { u32::MAX - 1 }, Ordering::Relaxed);
            }));
            check!(workqueue::system().queue_on(cpu, Arc::clone(&work)));
            work.flush(cx);
            check_eq!(ran_on.load(Ordering::Relaxed), cpu.as_u32());
            // The worker lets go of it after it has said that it is done.
            check!(comes_true_by_others(|| Arc::strong_count(&work) == 1));
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn work_that_sleeps_holds_up_nobody(cx) {
        for queue in [workqueue::system(), workqueue::unbound()] {
            let event = Arc::new(Completion::new());
            let sleepers: Vec<_> = (1..workqueue::CPU_WORKERS)
                .map(|_| {
                    let event = Arc::clone(&event);
                    let work = Arc::new(Work::new(move |running: &mut Running<'_>| event.wait(running.cx())));
                    queue.queue_on(CpuId::BOOT, Arc::clone(&work));
                    work
                })
                .collect();
            let last = Box::new(Work::new(move |_: &mut Running<'_>| event.complete_all()));
            check!(queue.queue_on(CpuId::BOOT, last));
            sleepers.iter().for_each(|work| _ = work.flush(cx));
            check!(sleepers.iter().all(|work| !work.is_running() && !work.is_pending()));
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn an_ordered_queue_keeps_the_order(cx) {
        let queue = an_ordered_queue();
        let order = Arc::new(IrqSpinLock::new(Vec::new()));
        for number in 0..50 {
            let order = Arc::clone(&order);
            queue.queue(Box::new(Work::new(move |running: &mut Running<'_>| {
                if number % 8 == 0 {
                    running.cx().block(Some(Native::now_ns() + 200_000));
                }
                order.lock().push(number);
            })));
        }
        queue.flush(cx);
        check_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
        Ok(())
    }
}

kernel_test! {
    task,
    fn work_is_queued_from_interrupts(cx) {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        static TO_QUEUE: AtomicU32 = AtomicU32::new(0);
        static WORK: Work<fn(&mut Running<'_>)> = Work::new(|_| _ = RUNS.fetch_add(1, Ordering::Relaxed));
        static ON_TIMER: fn() = || {
            let take = |left: u32| left.checked_sub(1);
            if TO_QUEUE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                workqueue::queue(&WORK);
            }
        };
        let before = RUNS.load(Ordering::Relaxed);
        TO_QUEUE.store(8, Ordering::Relaxed);
        set_hook(Source::Timer, Some(&ON_TIMER));
        while TO_QUEUE.load(Ordering::Relaxed) > 0 {
            Native::block(Some(Native::now_ns() + 1_000_000));
        }
        set_hook(Source::Timer, None);
        // Whoever was in the interrupt is out of it, and has queued.
        crate::services::run_on_all(&|_| ());
        WORK.flush(cx);
        let runs = RUNS.load(Ordering::Relaxed) - before;
        check!((1..=8).contains(&runs), "{runs} runs");
        // With interrupts off, too.
        let quiet = irq::disable();
        check!(workqueue::queue(&WORK));
        drop(quiet);
        WORK.flush(cx);
        check_eq!(RUNS.load(Ordering::Relaxed) - before, runs + 1);
        Ok(())
    }
}

kernel_test! {
    task,
    fn cancelling_ends_work_that_queues_itself(cx) {
        for queue in [workqueue::system(), workqueue::unbound(), an_ordered_queue()] {
            let calls = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&calls);
            let work = Arc::new(Work::new(move |running: &mut Running<'_>| {
                count.fetch_add(1, Ordering::Relaxed);
                running.again();
            }));
            queue.queue(Arc::clone(&work));
            check!(comes_true_by_others(|| calls.load(Ordering::Relaxed) > 0));
            work.cancel_sync(cx);
            let then = calls.load(Ordering::Relaxed);
            check!(!work.is_pending());
            check!(!work.is_running());
            cx.block(Some(Native::now_ns() + 5_000_000));
            check_eq!(calls.load(Ordering::Relaxed), then);
            check!(comes_true_by_others(|| Arc::strong_count(&work) == 1));
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn work_of_a_cpu_that_leaves_runs_elsewhere(cx) {
        let Some(cpu) = cpus::online().nth(1) else { crate::skip!("one CPU only") };
        let places = Arc::new(IrqSpinLock::new(Vec::new()));
        let queue = |cpu: CpuId| {
            let places = Arc::clone(&places);
            workqueue::system().queue_on(cpu, Box::new(Work::new(move |_: &mut Running<'_>| {
                places.lock().push(Native::cpu());
            })))
        };
        for _ in 0..5 {
            queue(cpu);
            check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
            let done = places.lock().len();
            queue(cpu);
            workqueue::system().flush(cx);
            check_eq!((done, places.lock().len()), (done, 2));
            check_eq!(places.lock()[1], CpuId::BOOT);
            check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
            places.lock().clear();
            queue(cpu);
            workqueue::system().flush(cx);
            check_eq!(*places.lock(), [cpu]);
            places.lock().clear();
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn work_that_waits_for_its_queue_is_reported(cx) {
        expect_report("work queue `test-order` flushed from one of its items");
        let queue = an_ordered_queue();
        queue.queue(Box::new(Work::new(move |running: &mut Running<'_>| queue.flush(running.cx()))));
        queue.flush(cx);
        Ok(())
    }
}
