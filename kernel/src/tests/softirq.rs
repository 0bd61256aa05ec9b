//! Softirqs and tasklets on the machine: budgets, places, and tasklets between CPUs.

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform, percpu};
use sync::softirq::Tasklet;
use sync::{bh, context, irq};

use crate::softirq::{self, Handler, Running, Vector};
use crate::testing::irq::{Source, set_hook};
use crate::testing::{comes_true, comes_true_by_others};
use crate::{calls, check, check_eq, cpus, hotplug, kernel_test, services};

percpu! {
    /// How often this CPU ran the test's function.
    static RUNS: AtomicU32 = AtomicU32::new(0);
    /// Vectors in the order in which this CPU served them, four bits each.
    static ORDER: AtomicU32 = AtomicU32::new(0);
    /// How often this CPU's function shall still schedule itself.
    static AGAIN: AtomicU32 = AtomicU32::new(0);
}

kernel_test! {
    everywhere,
    fn smoke_softirqs_are_served_in_their_order(cpu) {
        static NOTE_OUTPUT: Handler = |_| ORDER.write(ORDER.read() << 4 | Vector::Output.index());
        static NOTE_POLL: Handler = |_| ORDER.write(ORDER.read() << 4 | Vector::Poll.index());
        static NOTE_COMPLETE: Handler = |_| {
            ORDER.write(ORDER.read() << 4 | Vector::Complete.index());
            // The next round's, before it in the order.
            softirq::raise(Vector::Output);
        };
        softirq::set_handler(Vector::Output, Some(&NOTE_OUTPUT));
        softirq::set_handler(Vector::Poll, Some(&NOTE_POLL));
        softirq::set_handler(Vector::Complete, Some(&NOTE_COMPLETE));
        // What an earlier test has left to the task is served first.
        check!(comes_true_by_others(|| hal::x86_64::softirq::left_on(cpu) == (0, 0)));
        ORDER.write(0);
        let no_softirqs = bh::disable();
        softirq::raise(Vector::Poll);
        softirq::raise(Vector::Complete);
        softirq::raise(Vector::Poll);
        check_eq!(ORDER.read(), 0);
        drop(no_softirqs);
        // At once, unless a reschedule was due between the rounds: then the second one is the task's.
        check!(comes_true_by_others(|| ORDER.read() == 0x452), "{:#x}", ORDER.read());
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_a_tasklet_runs_once_where_it_was_scheduled(cpu) {
        let tasklet = Arc::new(Tasklet::new(move |running: &Running<'_>| {
            let right = context::in_serving_softirq() && !context::irqs_disabled() && Native::cpu() == cpu;
            RUNS.add(if right { 1 } else { 1 << 16 });
            if AGAIN.read() != 0 {
                AGAIN.dec();
                running.again();
            }
        }));
        RUNS.write(0);
        AGAIN.write(0);
        // With bottom halves off: when they come on.
        let no_softirqs = bh::disable();
        check!(softirq::schedule(Arc::clone(&tasklet)) && !softirq::schedule(Arc::clone(&tasklet)));
        check_eq!(RUNS.read(), 0);
        drop(no_softirqs);
        check_eq!(RUNS.read(), 1);
        // With nothing off: at once.
        check!(softirq::schedule_high(Arc::clone(&tasklet)));
        check_eq!(RUNS.read(), 2);
        // With interrupts off: when they come on.
        let quiet = irq::disable();
        check!(softirq::schedule(Arc::clone(&tasklet)));
        let inside = RUNS.read();
        drop(quiet);
        check_eq!(inside, 2);
        check!(comes_true(|| RUNS.read() == 3));
        // Again, from itself.
        AGAIN.write(4);
        check!(softirq::schedule(Arc::clone(&tasklet)));
        check!(comes_true(|| RUNS.read() == 8));
        check!(!tasklet.is_scheduled() && comes_true(|| Arc::strong_count(&tasklet) == 1));
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_tasklet_from_an_interrupt_runs_when_it_ends(_) {
        static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| TOTAL.fetch_add_one());
        static ON_TIMER: fn() = || {
            if AGAIN.read() != 0 {
                AGAIN.dec();
                RUNS.inc();
                softirq::schedule(&TASKLET);
            }
        };
        set_hook(Source::Timer, Some(&ON_TIMER));
        RUNS.write(0);
        let before = TOTAL.get();
        AGAIN.write(3);
        check!(comes_true(|| RUNS.read() == 3));
        // Each of this CPU's requests was followed by a run, here or on the CPU that ran it already.
        check!(comes_true(|| !TASKLET.is_scheduled() && !TASKLET.is_running()));
        check!(TOTAL.get() > before);
        Ok(())
    }
}

/// A count that all CPUs share.
struct Total(AtomicU32);

static TOTAL: Total = Total(AtomicU32::new(0));

impl Total {
    fn fetch_add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

kernel_test! {
    everywhere,
    limit_ms = 60_000,
    fn a_flood_goes_to_the_task_and_the_others_are_served_at_once(cpu) {
        const TIMES: u32 = 1_000;
        static FLOOD: Handler = |_| {
            RUNS.inc();
            if AGAIN.read() != 0 {
                AGAIN.dec();
                softirq::raise(Vector::Poll);
            }
        };
        static NOTE: Handler = |_| ORDER.inc();
        softirq::set_handler(Vector::Poll, Some(&FLOOD));
        softirq::set_handler(Vector::Output, Some(&NOTE));
        RUNS.write(0);
        ORDER.write(0);
        AGAIN.write(TIMES);
        let before: u64 = softirq::left(cpu).iter().sum();
        // Ten rounds here, and then the flood is the task's, which cannot run before we let it.
        let here = sync::preempt::disable();
        softirq::raise(Vector::Poll);
        let rounds = RUNS.read();
        // Raised again, it is left to the task; another vector is served here.
        softirq::raise(Vector::Poll);
        let waits = RUNS.read() == rounds;
        softirq::raise(Vector::Output);
        let (served, left) = (ORDER.read(), hal::x86_64::softirq::left_on(cpu));
        drop(here);
        check!((1..=10).contains(&rounds), "{rounds} rounds");
        check!(waits && served == 1, "waits: {waits}, served: {served}");
        check_eq!(left, (Vector::Poll.bit(), Vector::Poll.bit()));
        check!(comes_true_by_others(|| RUNS.read() == TIMES + 1), "{} of {TIMES}", RUNS.read());
        check!(comes_true_by_others(|| hal::x86_64::softirq::left_on(cpu) == (0, 0)));
        check!(softirq::left(cpu).iter().sum::<u64>() > before);
        // It is served at once again.
        RUNS.write(0);
        softirq::raise(Vector::Poll);
        check_eq!(RUNS.read(), 1);
        Ok(())
    }
}

kernel_test! {
    fn killing_a_tasklet_ends_one_that_schedules_itself() {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tasklet = Arc::new(Tasklet::new(|running: &Running<'_>| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            running.again();
        }));
        check!(softirq::schedule(Arc::clone(&tasklet)));
        // SAFETY: the test's task, which has no other token here; nothing is switched off.
        tasklet.kill(&mut unsafe { sync::TaskCx::new() });
        let then = COUNT.load(Ordering::Relaxed);
        check!(then > 0 && !tasklet.is_scheduled() && !tasklet.is_running());
        check!(!softirq::schedule(Arc::clone(&tasklet)));
        Native::block(Some(Native::now_ns() + 10_000_000));
        check_eq!(COUNT.load(Ordering::Relaxed), then);
        check!(comes_true_by_others(|| Arc::strong_count(&tasklet) == 1));
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_tasklet_of_all_cpus_runs_on_one_at_a_time() {
        const TIMES: u32 = 2_000;
        static INSIDE: AtomicU32 = AtomicU32::new(0);
        static BAD: AtomicU32 = AtomicU32::new(0);
        static DONE: AtomicU32 = AtomicU32::new(0);
        static REQUESTS: AtomicU32 = AtomicU32::new(0);
        static SEEN: AtomicU32 = AtomicU32::new(0);
        static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| {
            BAD.fetch_add(INSIDE.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            SEEN.store(REQUESTS.load(Ordering::Relaxed), Ordering::Relaxed);
            Native::chaos_point();
            DONE.fetch_add(1, Ordering::Relaxed);
            INSIDE.fetch_sub(1, Ordering::Relaxed);
        });
        for count in [&BAD, &DONE, &REQUESTS, &SEEN] {
            count.store(0, Ordering::Relaxed);
        }
        services::run_on_all(&|_| {
            for _ in 0..TIMES {
                REQUESTS.fetch_add(1, Ordering::Relaxed);
                softirq::schedule(&TASKLET);
            }
        });
        check!(comes_true(|| !TASKLET.is_scheduled() && !TASKLET.is_running()));
        check_eq!(BAD.load(Ordering::Relaxed), 0);
        check_eq!(SEEN.load(Ordering::Relaxed), TIMES * cpus::online_count() as u32);
        let done = DONE.load(Ordering::Relaxed);
        check!(done >= TIMES && done <= TIMES * cpus::online_count() as u32, "{done} runs");
        Ok(())
    }
}

/// The vectors that run tasklets.
const TASKLETS: u32 = Vector::High.bit() | Vector::Tasklet.bit();
/// How many tasklets leave with a CPU.
const LEAVERS: usize = 100;

kernel_test! {
    task,
    fn the_tasklets_of_a_cpu_that_goes_run_elsewhere_once(cx) {
        static RUNS: [AtomicU32; LEAVERS] = [const { AtomicU32::new(0) }; LEAVERS];
        static ELSEWHERE: AtomicU32 = AtomicU32::new(0);
        let Some(cpu) = cpus::online().find(|cpu| *cpu != CpuId::BOOT) else { crate::skip!("one CPU only") };
        RUNS.iter().chain([&ELSEWHERE]).for_each(|count| count.store(0, Ordering::Relaxed));
        let tasklets: Vec<_> = (0..LEAVERS)
            .map(|number| {
                Arc::new(Tasklet::new(move |_: &Running<'_>| {
                    RUNS[number].fetch_add(1, Ordering::Relaxed);
                    ELSEWHERE.fetch_add((Native::cpu() == CpuId::BOOT).into(), Ordering::Relaxed);
                }))
            })
            .collect();
        // The last thing that the CPU does before it goes: from then on nothing is served there.
        let theirs = tasklets.clone();
        hotplug::set_last_act(Some(Box::new(move || {
            for (number, tasklet) in theirs.iter().enumerate() {
                let scheduled = match number % 2 {
                    0 => softirq::schedule(Arc::clone(tasklet)),
                    _ => softirq::schedule_high(Arc::clone(tasklet)),
                };
                assert!(scheduled);
            }
        })));
        let gone = hotplug::take_offline(cpu, cx);
        hotplug::set_last_act(None);
        check_eq!(gone, Ok(()));
        check!(comes_true(|| tasklets.iter().all(|tasklet| !tasklet.is_scheduled() && !tasklet.is_running())));
        let runs = || RUNS.iter().map(|count| count.load(Ordering::Relaxed));
        check!(runs().all(|count| count == 1), "runs: {:?}", runs().collect::<Vec<_>>());
        check_eq!(ELSEWHERE.load(Ordering::Relaxed), LEAVERS as u32);
        check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        // Neither is there anything left for it to do.
        check_eq!(calls::single(cpu, hal::x86_64::softirq::pending_here).map(|left| left & TASKLETS), Ok(0));
        check!(runs().all(|count| count == 1));
        check!(comes_true(|| tasklets.iter().all(|tasklet| Arc::strong_count(tasklet) == 1)));
        Ok(())
    }
}
