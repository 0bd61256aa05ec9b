//! The dependency checker on the machine: real interrupts, all CPUs, and reports through the log.

use core::sync::atomic::{AtomicU32, Ordering};

use hal::{Native, Platform};
use sync::{IrqSpinLock, Mutex, SpinLock};

use crate::testing::irq::{self, Source};
use crate::testing::{Outcome, expect_report};
use crate::{boot, calls, check, check_eq, cpus, kernel_test, lockdep, services, skip, task};

/// Runs `f`, and checks that it makes exactly one report.
fn one_report(f: impl FnOnce()) -> Outcome {
    let before = lockdep::summary().reports;
    f();
    check_eq!(lockdep::summary().reports, before + 1);
    Ok(())
}

kernel_test! {
    fn an_inversion_of_two_locks_is_reported_smoke() {
        static A: SpinLock<()> = SpinLock::new(());
        static B: SpinLock<()> = SpinLock::new(());
        if boot::options().lockdep_off {
            skip!("booted with lockdep=off");
        }
        {
            let _a = A.lock();
            let _b = B.lock();
        }
        expect_report("possible circular locking dependency detected");
        one_report(|| {
            let _b = B.lock();
            let _a = A.lock();
        })
    }
}

kernel_test! {
    fn an_inversion_between_two_cpus_is_reported() {
        static A: IrqSpinLock<()> = IrqSpinLock::new(());
        static B: IrqSpinLock<()> = IrqSpinLock::new(());
        if boot::options().lockdep_off {
            skip!("booted with lockdep=off");
        }
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only") };
        {
            let _a = A.lock();
            let _b = B.lock();
        }
        expect_report("possible circular locking dependency detected");
        one_report(|| {
            services::run_on(other, || {
                let _b = B.lock();
                let _a = A.lock();
            });
        })
    }
}

kernel_test! {
    fn an_inversion_with_an_interrupt_is_reported() {
        static IN_HANDLER: IrqSpinLock<()> = IrqSpinLock::new(());
        static OF_TASKS: SpinLock<()> = SpinLock::new(());
        static TIMES: AtomicU32 = AtomicU32::new(0);
        static HOOK: fn() = || {
            drop(IN_HANDLER.lock());
            TIMES.fetch_add(1, Ordering::Relaxed);
        };
        if boot::options().lockdep_off {
            skip!("booted with lockdep=off");
        }
        // The task's lock is held with interrupts on, and an interrupt takes the other one.
        drop(OF_TASKS.lock());
        TIMES.store(0, Ordering::Relaxed);
        irq::set_hook(Source::Call, Some(&HOOK));
        irq::send_call(Native::cpu());
        let patience = Native::now_ns() + 2_000_000_000;
        while TIMES.load(Ordering::Relaxed) == 0 && Native::now_ns() < patience {
            Native::relax();
        }
        irq::set_hook(Source::Call, None);
        check!(TIMES.load(Ordering::Relaxed) > 0);
        expect_report("irq-safe -> irq-unsafe lock order detected");
        one_report(|| {
            let outer = IN_HANDLER.lock();
            drop(OF_TASKS.lock_with(&outer));
        })
    }
}

kernel_test! {
    everywhere,
    fn every_cpu_is_checked_smoke(_) {
        if boot::options().lockdep_off {
            skip!("booted with lockdep=off");
        }
        let lock = SpinLock::<_>::new(());
        let guard = lock.lock();
        let mut held = alloc::string::String::new();
        check!(sync::lockdep::write_held::<Native>(&mut held).is_ok());
        drop(guard);
        check!(held.contains("kernel/src/tests/lockdep.rs"), "{held}");
        Ok(())
    }
}

kernel_test! {
    fn waiting_for_a_call_under_a_lock_that_its_function_comes_to_is_reported() {
        static OF_TASKS: SpinLock<()> = SpinLock::new(());
        static OF_ALL: IrqSpinLock<()> = IrqSpinLock::new(());
        if boot::options().lockdep_off {
            skip!("booted with lockdep=off");
        }
        // Somebody holds the second, with interrupts off, and wants the first.
        {
            let all = OF_ALL.lock();
            drop(OF_TASKS.lock_with(&all));
        }
        // The function wants the second. On any CPU: it could run on that of the first one's holder too.
        let target = cpus::online().last().unwrap_or(hal::CpuId::BOOT);
        let held = OF_TASKS.lock();
        expect_report("irq-safe -> irq-unsafe lock order detected");
        let outcome = one_report(|| _ = calls::single(target, || drop(OF_ALL.lock())));
        drop(held);
        outcome
    }
}

kernel_test! {
    task,
    fn joining_a_task_under_a_lock_that_it_takes_is_reported(cx) {
        static LOCK: Mutex<u32> = Mutex::new(0);
        if boot::options().lockdep_off {
            skip!("booted with lockdep=off");
        }
        // From one line: a task that takes the lock, and one that happens not to and is joined under it.
        let spawn = |takes: bool| {
            task::spawn("takes", move |cx| {
                if takes {
                    *LOCK.lock(cx) += 1;
                }
            })
        };
        let (Ok(takes), Ok(other)) = (spawn(true), spawn(false)) else { skip!("no memory") };
        takes.join(cx);
        let held = LOCK.lock(cx);
        expect_report("possible circular locking dependency detected");
        let outcome = one_report(|| other.join(cx));
        drop(held);
        outcome
    }
}
