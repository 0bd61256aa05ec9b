//! Which interrupts a wake-up sends to the CPU where the task is to run, and what they do there.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;
use hal::x86_64::{apic, native, traps, vectors};
use hal::{Native, Platform};
use sync::irq;

use super::tasks::fail;
use crate::sched::policy::Policy;
use crate::task::{self, Builder, State};
use crate::testing::comes_true;
use crate::{check, check_eq, cpus, kernel_test, skip, tick};

kernel_test! {
    task,
    fn waking_a_less_urgent_task_sends_no_interrupt(cx) {
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        let stop = Arc::new(AtomicBool::new(false));
        let running = Arc::new(AtomicBool::new(false));
        let calm = Builder::new("calm").on(other).spawn(task::park).map_err(fail)?;
        while calm.task().state() != State::Blocked {
            task::yield_now(cx);
        }
        let (seen, says) = (Arc::clone(&stop), Arc::clone(&running));
        let hog = Builder::new("hog").on(other).policy(Policy::fifo(40)).spawn(move |_cx| {
            says.store(true, Ordering::Relaxed);
            while !seen.load(Ordering::Relaxed) {
                Native::relax();
            }
        });
        let hog = hog.map_err(fail)?;
        check!(comes_true(|| running.load(Ordering::Relaxed)));
        // A CPU whose tick rests is told to have it back when a second task comes.
        let _kept = tick::keep_all();
        check!(comes_true(|| !tick::is_resting(other)));
        let before = traps::count(other, vectors::KICK);
        calm.unpark();
        let after = traps::count(other, vectors::KICK);
        stop.store(true, Ordering::Relaxed);
        hog.join(cx);
        calm.join(cx);
        check_eq!(after, before);
        Ok(())
    }
}

kernel_test! {
    task,
    fn waking_a_task_of_this_cpu_sends_no_interrupt(cx) {
        let here = Native::cpu();
        let calm = Builder::new("calm").on(here).spawn(task::park).map_err(fail)?;
        while calm.task().state() != State::Blocked {
            task::yield_now(cx);
        }
        let quiet = irq::disable();
        let before = apic::counters(here).sent;
        calm.unpark();
        let sent = apic::counters(here).sent - before;
        drop(quiet);
        calm.join(cx);
        check_eq!(sent, 0);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_cpu_that_idles_is_interrupted_only_while_it_halts(_cx) {
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        // Returns whether it halted, and how many interrupts were sent for it.
        let rouse = || {
            let _quiet = irq::disable();
            let sent = || apic::counters(Native::cpu()).sent;
            let before = sent();
            (native::rouse(other), sent() - before)
        };
        // It halts, and is on its way to halt again after each of these.
        let seen = core::cell::Cell::new([0_u32; 3]);
        let both = || {
            let [mut halted, mut awake, mut wrong] = seen.get();
            match rouse() {
                (true, 1) => halted += 1,
                (false, 0) => awake += 1,
                _ => wrong += 1,
            }
            seen.set([halted, awake, wrong]);
            halted != 0 && awake != 0 || wrong != 0
        };
        check!(comes_true(both), "{seen:?}");
        check_eq!(seen.get()[2], 0);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_task_that_never_gives_way_is_preempted_by_an_interrupt_from_another_cpu(cx) {
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        static STOP: AtomicBool = AtomicBool::new(false);
        static RUNNING: AtomicBool = AtomicBool::new(false);
        /// How many timer interrupts and kicks the CPU had taken when the urgent task ran.
        static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
        static RAN: AtomicU32 = AtomicU32::new(0);
        STOP.store(false, Ordering::Relaxed);
        RUNNING.store(false, Ordering::Relaxed);
        RAN.store(0, Ordering::Relaxed);
        let hog = Builder::new("hog").on(other).spawn(|_cx| {
            RUNNING.store(true, Ordering::Relaxed);
            while !STOP.load(Ordering::Relaxed) {
                Native::relax();
            }
        });
        let hog = hog.map_err(fail)?;
        let taken = move || [vectors::TIMER, vectors::KICK].map(|vector| traps::count(other, vector));
        let urgent = Builder::new("urgent").on(other).policy(Policy::fifo(40)).spawn(move |cx| {
            while !task::is_cancelled() {
                task::park(cx);
                for (seen, count) in SEEN.iter().zip(taken()) {
                    seen.store(count, Ordering::Relaxed);
                }
                // Release: pairs with the Acquire below.
                RAN.fetch_add(1, Ordering::Release);
            }
        });
        let urgent = urgent.map_err(fail)?;
        check!(comes_true(|| RUNNING.load(Ordering::Relaxed)));
        // A timer interrupt that comes in between would do as well: it is to happen without, once at least.
        let mut without = false;
        for round in 0..50 {
            if !comes_true(|| urgent.task().state() == State::Blocked) {
                break;
            }
            let before = taken();
            urgent.unpark();
            // Acquire: pairs with the Release above.
            if !comes_true(|| RAN.load(Ordering::Acquire) > round) {
                break;
            }
            let [timer, kick] = [0, 1].map(|which| SEEN[which].load(Ordering::Relaxed) - before[which]);
            without |= timer == 0 && kick != 0;
            if without {
                break;
            }
        }
        STOP.store(true, Ordering::Relaxed);
        hog.join(cx);
        urgent.task().cancel();
        urgent.unpark();
        urgent.join(cx);
        check!(without, "{} turns, none without a timer interrupt", RAN.load(Ordering::Relaxed));
        Ok(())
    }
}
