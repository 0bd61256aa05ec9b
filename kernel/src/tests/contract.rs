//! The platform contract on the machine: preemption points, blocking and waking, fences.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::platform::{TaskId, Wakeup};
use hal::{CpuId, Native, Platform};

use crate::sched::RESCHEDULES;
use crate::{check, check_eq, cpus, kernel_test, services};

kernel_test! {
    everywhere,
    fn a_due_reschedule_happens_once_at_the_outermost_enable(cpu) {
        let before = RESCHEDULES.read();
        let outer = sync::preempt::disable();
        let inner = sync::preempt::disable();
        Native::set_need_resched(cpu);
        drop(inner);
        check_eq!(RESCHEDULES.read(), before);
        drop(outer);
        check_eq!(RESCHEDULES.read(), before + 1);
        drop(sync::preempt::disable());
        check_eq!(RESCHEDULES.read(), before + 1);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn nothing_reschedules_while_interrupts_are_off(cpu) {
        let before = RESCHEDULES.read();
        let quiet = sync::irq::disable();
        Native::set_need_resched(cpu);
        drop(sync::preempt::disable());
        let inside = RESCHEDULES.read();
        drop(quiet);
        check_eq!(inside, before);
        check_eq!(RESCHEDULES.read(), before + 1);
        Ok(())
    }
}

kernel_test! {
    fn another_cpu_can_ask_for_a_reschedule() {
        let Some(other) = cpus::online().nth(1) else { crate::skip!("one CPU only") };
        // Its idle task may serve a request itself when it happens to be awake, but not each time.
        let asked = || {
            let before = RESCHEDULES.on(other).load(Ordering::Relaxed);
            Native::set_need_resched(other);
            let patience = Native::now_ns() + 100_000_000;
            while RESCHEDULES.on(other).load(Ordering::Relaxed) == before && Native::now_ns() < patience {
                Native::relax();
            }
            RESCHEDULES.on(other).load(Ordering::Relaxed) - before
        };
        check!((0..50).any(|_| asked() == 1));
        Ok(())
    }
}

kernel_test! {
    fn no_wake_up_is_lost() {
        static TASKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
        static TURN: AtomicU32 = AtomicU32::new(0);
        const ROUNDS: u32 = 2_000;
        let Some(other) = cpus::online().nth(1) else { crate::skip!("one CPU only") };
        let me = Native::cpu();
        TURN.store(0, Ordering::Relaxed);
        let play = |cpu: CpuId| {
            let side = usize::from(cpu == other);
            TASKS[side].store(Native::current_task().0.get() as u64, Ordering::Relaxed);
            // Both have to be known before the first wake-up.
            while TASKS[1 - side].load(Ordering::Relaxed) == 0 {
                Native::relax();
            }
            let id = TASKS[1 - side].load(Ordering::Relaxed) as usize;
            let partner = TaskId(core::num::NonZeroUsize::new(id).expect("not 0"));
            for round in 0..ROUNDS {
                // Acquire: pairs with the Release of the partner's store.
                while TURN.load(Ordering::Acquire) != round * 2 + side as u32 {
                    Native::block(None);
                }
                TURN.store(round * 2 + side as u32 + 1, Ordering::Release);
                // SAFETY: the tasks of CPUs never end.
                unsafe { Native::wake(partner) };
            }
        };
        services::run_on_all(&|cpu| if cpu == me || cpu == other { play(cpu) });
        check_eq!(TURN.load(Ordering::Relaxed), ROUNDS * 2);
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn block_ends_at_its_deadline_and_not_before(_) {
        // A wake-up left over from elsewhere is consumed first.
        let _ = Native::block(Some(Native::now_ns()));
        let deadline = Native::now_ns() + 10_000_000;
        check_eq!(Native::block(Some(deadline)), Wakeup::TimedOut);
        check!(Native::now_ns() >= deadline);
        // SAFETY: the caller's own task.
        unsafe { Native::wake(Native::current_task()) };
        check_eq!(Native::block(Some(Native::now_ns() + 60_000_000_000)), Wakeup::Woken);
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn light_and_heavy_fences_order_what_full_fences_would() {
        static X: AtomicU32 = AtomicU32::new(0);
        static Y: AtomicU32 = AtomicU32::new(0);
        static BOTH_ZERO: AtomicU32 = AtomicU32::new(0);
        static RESULTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
        static ARRIVED: AtomicU32 = AtomicU32::new(0);
        let Some(other) = cpus::online().nth(1) else { crate::skip!("one CPU only") };
        let me = Native::cpu();
        BOTH_ZERO.store(0, Ordering::Relaxed);
        ARRIVED.store(0, Ordering::Relaxed);
        // Both CPUs, `times` of them so far, in step.
        let meet = |times: u32| {
            ARRIVED.fetch_add(1, Ordering::AcqRel);
            while ARRIVED.load(Ordering::Acquire) < times * 2 {
                Native::relax();
            }
        };
        services::run_on_all(&|cpu| {
            for round in 0..250 {
                if cpu == me {
                    X.store(0, Ordering::Relaxed);
                    Y.store(0, Ordering::Relaxed);
                }
                if cpu != me && cpu != other {
                    return;
                }
                meet(round * 3 + 1);
                if cpu == me {
                    X.store(1, Ordering::Relaxed);
                    Native::fence_heavy();
                    RESULTS[0].store(Y.load(Ordering::Relaxed), Ordering::Relaxed);
                } else {
                    Y.store(1, Ordering::Relaxed);
                    Native::fence_light();
                    RESULTS[1].store(X.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                meet(round * 3 + 2);
                if cpu == me && RESULTS.iter().all(|r| r.load(Ordering::Relaxed) == 0) {
                    BOTH_ZERO.fetch_add(1, Ordering::Relaxed);
                }
                meet(round * 3 + 3);
            }
        });
        check_eq!(BOTH_ZERO.load(Ordering::Relaxed), 0);
        Ok(())
    }
}
