//! Who runs, when and where.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::cpumask::CpuMask;
use hal::{CpuId, Native, Platform};
use sync::{Completion, PiMutex, TaskCx};

use super::tasks::fail;
use crate::sched::policy::Policy;
use crate::sched::{self, Preemption};
use crate::task::{self, Builder, State};
use crate::testing::{Outcome, PATIENCE_NS, comes_true};
use crate::{boot, check, check_eq, cpus, kernel_test, skip};

/// The CPU for a test that wants one without the task of the tests on it, or the only one.
fn quiet_cpu() -> CpuId {
    cpus::online().last().unwrap_or(CpuId::BOOT)
}

kernel_test! {
    task,
    fn a_task_that_never_gives_way_is_preempted(cx) {
        let cpu = quiet_cpu();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let hog = Builder::new("hog").on(cpu).spawn(move |_cx| {
            while !seen.load(Ordering::Relaxed) {
                Native::relax();
            }
        });
        let hog = hog.map_err(fail)?;
        let other = Builder::new("other").on(cpu).spawn(move |_cx| stop.store(true, Ordering::Relaxed));
        other.map_err(fail)?.join(cx);
        hog.join(cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn the_more_urgent_task_runs_first(cx) {
        let cpu = quiet_cpu();
        static ORDER: [AtomicU32; 7] = [const { AtomicU32::new(0) }; 7];
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.store(0, Ordering::Relaxed);
        if cpu == Native::cpu() {
            skip!("one CPU only, where the task of the tests has to get on in between");
        }
        // A task above all of them holds the CPU until all are ready.
        let go = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&go);
        let holder = Builder::new("holder").on(cpu).policy(Policy::fifo(90)).spawn(move |_cx| {
            comes_true(|| seen.load(Ordering::Relaxed))
        });
        let holder = holder.map_err(fail)?;
        check!(comes_true(|| holder.task().state() == State::Running));
        let mut handles = Vec::new();
        let policies = [
            Policy::fair(0),
            Policy::fifo(10),
            Policy::fifo(30),
            Policy::round_robin(20),
            Policy::fifo(30),
            Policy::fifo(89),
            // Does not wait for the holder either.
            Policy::Stop,
        ];
        for (number, policy) in policies.into_iter().enumerate() {
            let handle = Builder::named(format_args!("{policy}")).on(cpu).policy(policy).spawn(move |_cx| {
                ORDER[NEXT.fetch_add(1, Ordering::Relaxed) as usize].store(number as u32, Ordering::Relaxed);
            });
            handles.push(handle.map_err(fail)?);
        }
        let ran = || NEXT.load(Ordering::Relaxed);
        check!(comes_true(|| ran() != 0) && ran() == 1, "{} ran under the holder", ran());
        go.store(true, Ordering::Relaxed);
        check!(holder.join(cx));
        for handle in handles {
            handle.join(cx);
        }
        let order: Vec<u32> = ORDER.iter().map(|place| place.load(Ordering::Relaxed)).collect();
        check_eq!(order, [6, 5, 2, 4, 3, 1, 0]);
        Ok(())
    }
}

kernel_test! {
    task,
    fn waking_a_more_urgent_task_preempts_at_once(cx) {
        let cpu = quiet_cpu();
        struct Shared {
            event: Completion,
            woken_at: AtomicU64,
            ran_at: AtomicU64,
            stop: AtomicBool,
        }
        let shared = Arc::new(Shared {
            event: Completion::new(),
            woken_at: AtomicU64::new(0),
            ran_at: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let urgent = Arc::clone(&shared);
        let urgent = Builder::new("urgent").on(cpu).policy(Policy::fifo(50)).spawn(move |cx| {
            urgent.event.wait(cx);
            urgent.ran_at.store(1 + urgent.woken_at.load(Ordering::Relaxed), Ordering::Relaxed);
        });
        let urgent = urgent.map_err(fail)?;
        check!(comes_true(|| {
            sched::yield_now();
            urgent.task().state() == State::Blocked
        }));
        let waker = Arc::clone(&shared);
        let waker = Builder::new("waker").on(cpu).spawn(move |_cx| {
            // With a lock held it is due, and waits for the lock to go.
            let here = sync::preempt::disable();
            waker.woken_at.store(7, Ordering::Relaxed);
            waker.event.complete();
            let inside = waker.ran_at.load(Ordering::Relaxed);
            drop(here);
            waker.stop.store(true, Ordering::Relaxed);
            (inside, waker.ran_at.load(Ordering::Relaxed))
        });
        check_eq!(waker.map_err(fail)?.join(cx), (0, 8));
        urgent.join(cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn fair_tasks_share_by_weight(cx) {
        let cpu = quiet_cpu();
        if cpu == CpuId::BOOT {
            skip!("one CPU only, which the task of the tests uses too");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut handles = Vec::new();
        for nice in [0, 0, 5] {
            let seen = Arc::clone(&stop);
            let hog = Builder::named(format_args!("nice {nice}")).on(cpu).policy(Policy::fair(nice));
            let hog = hog.spawn(move |_cx| {
                while !seen.load(Ordering::Relaxed) {
                    Native::relax();
                }
            });
            handles.push(hog.map_err(fail)?);
        }
        // 1024 to 1024 to 336. The ends of slices blur it, and a host that stops the virtual CPU in the middle of one; but
        // only for a while, and these weights alone lead there.
        let mut times = [0; 3];
        let mut fits = false;
        let until = Native::now_ns() + PATIENCE_NS;
        while !fits && Native::now_ns() < until {
            cx.block(Some(Native::now_ns() + 400_000_000));
            for (time, handle) in times.iter_mut().zip(&handles) {
                *time = handle.task().run_time_ns();
            }
            let sum = times.iter().sum::<u64>().max(1);
            fits = times.iter().zip([430, 430, 140]).all(|(time, part)| (time * 1_000 / sum).abs_diff(part) < 40);
        }
        stop.store(true, Ordering::Relaxed);
        for handle in handles {
            handle.join(cx);
        }
        check!(fits, "{times:?}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_real_time_hog_leaves_the_fair_class_something(cx) {
        let cpu = quiet_cpu();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let hog = Builder::new("hog").on(cpu).policy(Policy::fifo(20)).spawn(move |_cx| {
            while !seen.load(Ordering::Relaxed) {
                Native::relax();
            }
        });
        let hog = hog.map_err(fail)?;
        let fair = Builder::new("fair").on(cpu).spawn(move |_cx| stop.store(true, Ordering::Relaxed));
        fair.map_err(fail)?.join(cx);
        hog.join(cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn idle_cpus_take_work_from_busy_ones(cx) {
        let count = cpus::online_count();
        if count == 1 {
            skip!("one CPU only");
        }
        // All are made for one CPU, and then may go anywhere.
        let stop = Arc::new(AtomicBool::new(false));
        let mut handles = Vec::new();
        for _ in 0..count {
            let seen = Arc::clone(&stop);
            let hog = Builder::new("wanderer").on(quiet_cpu()).spawn(move |_cx| {
                while !seen.load(Ordering::Relaxed) {
                    Native::relax();
                }
            });
            handles.push(hog.map_err(fail)?);
        }
        for handle in &handles {
            handle.task().set_affinity(&cpus::online().collect()).map_err(fail)?;
        }
        let spread = || handles.iter().map(|handle| handle.task().cpu()).collect::<CpuMask>().weight();
        let until = Native::now_ns() + PATIENCE_NS;
        // Each on a CPU of its own, or all but one if the task of the tests has that.
        while spread() + 1 < count && Native::now_ns() < until {
            cx.block(Some(Native::now_ns() + 1_000_000));
        }
        let reached = spread();
        stop.store(true, Ordering::Relaxed);
        for handle in handles {
            handle.join(cx);
        }
        check!(reached + 1 >= count, "{reached} CPUs of {count}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn affinity_moves_tasks_that_run_wait_or_sleep(cx) {
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let runner = Builder::new("runner").on(CpuId::BOOT).spawn(move |_cx| {
            while !seen.load(Ordering::Relaxed) {
                Native::relax();
            }
            Native::cpu()
        });
        let runner = runner.map_err(fail)?;
        let sleeper = Builder::new("sleeper").on(CpuId::BOOT).spawn(|cx| {
            task::park(cx);
            Native::cpu()
        });
        let sleeper = sleeper.map_err(fail)?;
        while sleeper.task().state() != State::Blocked {
            task::yield_now(cx);
        }
        for handle in [&runner, &sleeper] {
            handle.task().set_affinity(&CpuMask::of(other)).map_err(fail)?;
            check_eq!(handle.task().affinity(), CpuMask::of(other));
        }
        let until = Native::now_ns() + PATIENCE_NS;
        while runner.task().cpu() != other && Native::now_ns() < until {
            task::yield_now(cx);
        }
        check_eq!(runner.task().cpu(), other);
        stop.store(true, Ordering::Relaxed);
        sleeper.unpark();
        check_eq!(runner.join(cx), other);
        check_eq!(sleeper.join(cx), other);
        // None of these is there.
        check!(task::current().set_affinity(&CpuMask::new()).is_err());
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_task_stays_while_migration_is_disabled(cx) {
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        let told = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&told);
        let task = Builder::new("stayer").on(CpuId::BOOT).spawn(move |cx| {
            let stay = sync::migrate::disable();
            shared.store(1, Ordering::Relaxed);
            let mut stayed = true;
            while shared.load(Ordering::Relaxed) == 1 {
                task::yield_now(cx);
                stayed &= Native::cpu() == CpuId::BOOT;
            }
            drop(stay);
            let until = Native::now_ns() + PATIENCE_NS;
            while Native::cpu() != other && Native::now_ns() < until {
                task::yield_now(cx);
            }
            (stayed, Native::cpu())
        });
        let task = task.map_err(fail)?;
        while told.load(Ordering::Relaxed) == 0 {
            task::yield_now(cx);
        }
        task.task().set_affinity(&CpuMask::of(other)).map_err(fail)?;
        for _ in 0..20 {
            task::yield_now(cx);
        }
        told.store(2, Ordering::Relaxed);
        check_eq!(task.join(cx), (true, other));
        Ok(())
    }
}

/// In the present mode: when a task that computes is replaced by another one of its CPU.
fn points_are_those_of_the_mode(cpu: CpuId, cx: &mut TaskCx) -> Outcome {
    // The first one runs; the second one has run; the second one has been made.
    let shared = Arc::new([const { AtomicBool::new(false) }; 3]);
    let first = Arc::clone(&shared);
    let first = Builder::new("first").on(cpu).spawn(move |_cx| {
        first[0].store(true, Ordering::Relaxed);
        let made = comes_true(|| first[2].load(Ordering::Relaxed));
        // Long enough for many ticks, each of which finds the second one waiting.
        let until = Native::now_ns() + 60_000_000;
        while Native::now_ns() < until {
            Native::relax();
        }
        let alone = made && !first[1].load(Ordering::Relaxed);
        sync::context::might_sleep();
        let after_might_sleep = first[1].load(Ordering::Relaxed);
        sync::context::cond_resched();
        (alone, after_might_sleep, first[1].load(Ordering::Relaxed))
    });
    let first = first.map_err(fail)?;
    check!(comes_true(|| shared[0].load(Ordering::Relaxed)));
    let second = Arc::clone(&shared);
    let second = Builder::new("second").on(cpu).spawn(move |_cx| second[1].store(true, Ordering::Relaxed));
    let second = second.map_err(fail)?;
    shared[2].store(true, Ordering::Relaxed);
    let seen = first.join(cx);
    second.join(cx);
    let mode = sched::preemption();
    let expected = match mode {
        Preemption::None => (true, false, true),
        Preemption::Voluntary => (true, true, true),
        Preemption::Full => (false, true, true),
    };
    check_eq!((mode, seen), (mode, expected));
    Ok(())
}

kernel_test! {
    task,
    fn smoke_preemption_is_as_the_boot_option_says(cx) {
        check_eq!(sched::preemption(), boot::options().preempt);
        let cpu = quiet_cpu();
        if cpu == CpuId::BOOT {
            skip!("one CPU only, which the task of the tests uses too");
        }
        points_are_those_of_the_mode(cpu, cx)
    }
}

kernel_test! {
    task,
    fn without_preemption_a_task_runs_until_it_asks(cx) {
        let cpu = quiet_cpu();
        if cpu == CpuId::BOOT {
            skip!("one CPU only, which the task of the tests uses too");
        }
        let before = sched::preemption();
        for mode in [Preemption::None, Preemption::Voluntary, Preemption::Full] {
            sched::set_preemption(mode);
            let outcome = points_are_those_of_the_mode(cpu, cx);
            sched::set_preemption(before);
            outcome?;
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn who_holds_up_an_urgent_task_is_as_urgent(cx) {
        // On one CPU: a calm task holds a mutex, an urgent one waits for it, one in between would run for ever.
        let cpu = quiet_cpu();
        struct Shared {
            mutex: PiMutex<u32>,
            held: AtomicBool,
            stop: AtomicBool,
            boosted: AtomicBool,
        }
        let shared = Arc::new(Shared {
            mutex: PiMutex::new(0),
            held: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            boosted: AtomicBool::new(false),
        });
        let calm = Arc::clone(&shared);
        let calm = Builder::new("calm").on(cpu).policy(Policy::fifo(10)).spawn(move |cx| {
            let mut held = calm.mutex.lock(cx);
            calm.held.store(true, Ordering::Relaxed);
            // Until somebody waits who is more urgent than the one in between.
            while task::current().policy() != Policy::fifo(30) {
                cx.block(Some(Native::now_ns() + 100_000));
            }
            calm.boosted.store(true, Ordering::Relaxed);
            *held += 1;
            drop(held);
            task::current().policy()
        });
        let calm = calm.map_err(fail)?;
        while !shared.held.load(Ordering::Relaxed) {
            cx.block(Some(Native::now_ns() + 100_000));
        }
        let middle = Arc::clone(&shared);
        let middle = Builder::new("between").on(cpu).policy(Policy::fifo(20)).spawn(move |_cx| {
            while !middle.stop.load(Ordering::Relaxed) {
                Native::relax();
            }
        });
        let middle = middle.map_err(fail)?;
        let urgent = Arc::clone(&shared);
        let urgent = Builder::new("urgent").on(cpu).policy(Policy::fifo(30)).spawn(move |cx| {
            let mut got = urgent.mutex.lock(cx);
            *got += 1;
            let value = *got;
            drop(got);
            urgent.stop.store(true, Ordering::Relaxed);
            value
        });
        check_eq!(urgent.map_err(fail)?.join(cx), 2);
        middle.join(cx);
        check_eq!(calm.join(cx), Policy::fifo(10));
        check!(shared.boosted.load(Ordering::Relaxed));
        Ok(())
    }
}

kernel_test! {
    task,
    fn time_goes_to_who_had_the_cpu_or_to_idle(cx) {
        let cpu = quiet_cpu();
        if cpu == CpuId::BOOT {
            skip!("one CPU only, which the task of the tests uses too");
        }
        const MS: u64 = 1_000_000;
        let idle_ns = || sched::report(cpu).map_or(0, |report| report.idle_ns);
        // Nothing to do there, for at least 50 ms.
        let (begun, idle_before) = (Native::now_ns(), idle_ns());
        cx.sleep_ns(50 * MS);
        let (idled, passed) = (idle_ns() - idle_before, Native::now_ns() - begun);
        check!(idled <= passed && idled >= 25 * MS, "{idled} of {passed} ns idle");
        // Work for 50 ms.
        let (told, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (tells, waits) = (Arc::clone(&told), Arc::clone(&go));
        let works = Builder::new("works").on(cpu).spawn(move |_cx| {
            tells.store(true, Ordering::Relaxed);
            while !waits.load(Ordering::Relaxed) {
                Native::relax();
            }
        });
        let works = works.map_err(fail)?;
        check!(comes_true(|| told.load(Ordering::Relaxed)));
        let begun = Native::now_ns();
        let (idle_before, ran_before) = (idle_ns(), sched::run_time_ns(works.task()));
        cx.sleep_ns(50 * MS);
        let ran = sched::run_time_ns(works.task()) - ran_before;
        let (idled, passed) = (idle_ns() - idle_before, Native::now_ns() - begun);
        go.store(true, Ordering::Relaxed);
        works.join(cx);
        check!(ran >= 25 * MS, "ran {ran} of {passed} ns");
        check!(idled <= passed / 4, "{idled} of {passed} ns idle while a task ran");
        Ok(())
    }
}
