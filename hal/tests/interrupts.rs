//! Interrupts, rescheduling, softirqs and blocking on the hosted machine.

mod common;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use std::thread;

use common::{NoIrqs, NoPreempt, on_fresh_thread};
use hal::context::{HARDIRQ_UNIT, SOFTIRQ_DISABLE_UNIT};
use hal::hosted::{self, Hooks, ReportCapture, run_cpus, send_interrupt, set_hooks};
use hal::platform::{Severity, Wakeup};
use hal::{CpuId, Native, Platform};

// ---- Interrupts ----

/// Sends the executing CPU an interrupt from another thread, and returns the flag that it sets.
fn ring() -> Arc<AtomicBool> {
    let rang = Arc::new(AtomicBool::new(false));
    let (cpu, ring) = (Native::cpu(), Arc::clone(&rang));
    on_fresh_thread(move || {
        send_interrupt(cpu, move || {
            assert_eq!(Native::cpu(), cpu);
            assert!(Native::context().in_hardirq() && Native::irq_depth() > 0);
            ring.store(true, SeqCst);
        })
        .unwrap();
    })
    .unwrap();
    assert!(!rang.load(SeqCst), "an interrupt was taken outside of the delivery points");
    rang
}

#[test]
fn each_delivery_point_delivers() {
    on_fresh_thread(|| {
        let deliver = |what: &str, point: &dyn Fn()| {
            let rang = ring();
            point();
            assert!(rang.load(SeqCst), "{what} did not deliver");
            assert_eq!((Native::context().count(), Native::irq_depth()), (0, 0), "after {what}");
        };
        deliver("relax", &|| Native::relax());
        deliver("check_resched", &|| Native::check_resched());
        deliver("irq_enable", &|| {
            Native::irq_disable();
            assert!(Native::irq_enable());
        });
        deliver("preempt_enable", &|| {
            Native::preempt_disable();
            Native::preempt_enable();
        });
        deliver("an interrupt to itself", &|| send_interrupt(Native::cpu(), || ()).unwrap());
        deliver("kick", &|| Native::kick(Native::cpu()));
        deliver("block", &|| {
            assert_eq!(Native::block(Some(0)), Wakeup::TimedOut);
        });
    })
    .unwrap();
}

#[test]
fn unbinding_takes_what_was_accepted() {
    let rang = on_fresh_thread(|| {
        let _cpu = hosted::bind().unwrap();
        ring()
    })
    .unwrap();
    assert!(rang.load(SeqCst));
}

#[test]
fn masked_interrupts_wait_for_the_outermost_enable() {
    on_fresh_thread(|| {
        Native::irq_disable();
        Native::irq_disable();
        let rang = ring();
        Native::relax();
        Native::preempt_disable();
        Native::preempt_enable();
        Native::check_resched();
        assert!(!Native::irq_enable());
        assert!(!rang.load(SeqCst));
        assert!(Native::irq_enable());
        assert!(rang.load(SeqCst));
    })
    .unwrap();
}

#[test]
fn interrupts_keep_their_order_and_do_not_nest() {
    on_fresh_thread(|| {
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        Native::irq_disable();
        for n in 0..5 {
            let log = Arc::clone(&log);
            send_interrupt(Native::cpu(), move || {
                log.lock().unwrap().push(n);
                let count = Native::context().count();
                let inner = Arc::clone(&log);
                send_interrupt(Native::cpu(), move || inner.lock().unwrap().push(n + 10)).unwrap();
                Native::relax();
                assert_eq!(count, HARDIRQ_UNIT);
            })
            .unwrap();
        }
        Native::irq_enable();
        assert_eq!(*log.lock().unwrap(), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    })
    .unwrap();
}

#[test]
fn a_handler_that_panics_leaves_the_context_and_the_other_interrupts() {
    on_fresh_thread(|| {
        let rang = Arc::new(AtomicU32::new(0));
        Native::irq_disable();
        for n in 0..3 {
            let rang = Arc::clone(&rang);
            send_interrupt(Native::cpu(), move || {
                rang.fetch_add(1, SeqCst);
                if n == 1 {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
            })
            .unwrap();
        }
        catch_unwind(|| _ = Native::irq_enable()).unwrap_err();
        assert_eq!((Native::context().count(), Native::irq_depth()), (0, 0));
        Native::relax();
        assert_eq!(rang.load(SeqCst), 3);
    })
    .unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn cpus_that_wait_for_each_others_interrupts_get_on() {
    const CPUS: usize = 4;
    const CALLS: usize = 500;
    let cpus: Vec<AtomicU32> = (0..CPUS).map(|_| AtomicU32::new(u32::MAX)).collect();
    let finished = AtomicUsize::new(0);
    run_cpus(CPUS, |me| {
        cpus[me].store(Native::cpu().as_u32(), SeqCst);
        for call in 0..CALLS {
            let other = &cpus[(me + 1 + call % (CPUS - 1)) % CPUS];
            let other = loop {
                match CpuId::new(other.load(SeqCst)) {
                    Some(cpu) => break cpu,
                    None => Native::relax(),
                }
            };
            let answered = Arc::new(AtomicBool::new(false));
            let answer = Arc::clone(&answered);
            send_interrupt(other, move || answer.store(true, SeqCst)).unwrap();
            let _pinned = NoPreempt::new();
            while !answered.load(SeqCst) {
                Native::relax();
            }
        }
        finished.fetch_add(1, SeqCst);
        // Others still want answers.
        while finished.load(SeqCst) < CPUS {
            Native::relax();
        }
    });
}

// ---- Rescheduling ----

/// Counts reschedules on this thread.
fn count_reschedules() -> (Rc<Cell<u32>>, hosted::HooksGuard) {
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    let hook = move || {
        assert_eq!((Native::context().count(), Native::irq_depth()), (0, 0));
        assert!(!Native::context().resched_due());
        counter.set(counter.get() + 1);
    };
    let guard = set_hooks(Hooks { resched: Some(Rc::new(hook)), ..Hooks::default() });
    (count, guard)
}

#[test]
fn a_due_reschedule_happens_exactly_at_the_outermost_enable() {
    on_fresh_thread(|| {
        let (count, _hooks) = count_reschedules();
        Native::preempt_disable();
        Native::preempt_disable();
        Native::set_need_resched(Native::cpu());
        Native::check_resched();
        Native::preempt_enable();
        assert_eq!(count.get(), 0);
        Native::preempt_enable();
        assert_eq!(count.get(), 1);
        Native::check_resched();
        assert_eq!(count.get(), 1, "once");
        Native::set_need_resched(Native::cpu());
        Native::clear_need_resched();
        Native::check_resched();
        assert_eq!(count.get(), 1, "taken back");
    })
    .unwrap();
}

#[test]
fn with_interrupts_off_nothing_reschedules() {
    on_fresh_thread(|| {
        let (count, _hooks) = count_reschedules();
        Native::irq_disable();
        Native::set_need_resched(Native::cpu());
        Native::preempt_disable();
        Native::preempt_enable();
        Native::check_resched();
        assert_eq!(count.get(), 0);
        assert!(Native::irq_enable());
        Native::check_resched();
        assert_eq!(count.get(), 1);
    })
    .unwrap();
}

#[test]
fn another_cpu_can_ask_for_a_reschedule() {
    on_fresh_thread(|| {
        let (count, _hooks) = count_reschedules();
        let cpu = Native::cpu();
        on_fresh_thread(move || Native::set_need_resched(cpu)).unwrap();
        assert!(!Native::context().resched_due(), "only the CPU itself writes its preempt word");
        Native::preempt_disable();
        Native::relax();
        assert!(Native::context().resched_due());
        assert_eq!(count.get(), 0);
        Native::preempt_enable();
        assert_eq!(count.get(), 1);
    })
    .unwrap();
}

#[test]
fn unbalanced_enables_are_fatal() {
    on_fresh_thread(|| {
        let reports = ReportCapture::new();
        catch_unwind(|| {
            Native::preempt_enable();
        })
        .unwrap_err();
        catch_unwind(|| _ = Native::irq_enable()).unwrap_err();
        let reports = reports.take();
        assert_eq!(reports.len(), 2);
        for report in reports {
            assert_eq!(report.severity, Severity::Fatal);
            assert_eq!(report.location.file(), file!(), "the user's line is named");
        }
        assert_eq!((Native::context().count(), Native::irq_depth()), (0, 0));
    })
    .unwrap();
}

// ---- Softirqs ----

#[test]
fn softirqs_are_served_on_leaving_an_interrupt_and_on_enabling_bottom_halves() {
    on_fresh_thread(|| {
        let served = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&served);
        let _hooks = set_hooks(Hooks {
            softirq: Some(Rc::new(move |pending| {
                assert!(Native::context().in_softirq() && !Native::context().in_hardirq());
                assert_eq!(Native::irq_depth(), 0);
                Native::serve_softirqs();
                log.borrow_mut().push(pending);
                if pending == 1 << 9 {
                    Native::raise_softirq(0);
                }
            })),
            ..Hooks::default()
        });
        send_interrupt(Native::cpu(), || {
            Native::raise_softirq(3);
            Native::raise_softirq(5);
            Native::serve_softirqs();
        })
        .unwrap();
        assert_eq!(served.take(), [1 << 3 | 1 << 5], "after the interrupt, at once");

        Native::preempt_add(SOFTIRQ_DISABLE_UNIT);
        Native::raise_softirq(1);
        Native::relax();
        assert!(served.borrow().is_empty());
        Native::preempt_sub(SOFTIRQ_DISABLE_UNIT);
        Native::serve_softirqs();
        assert_eq!(served.take(), [1 << 1]);

        Native::raise_softirq(9);
        Native::relax();
        assert_eq!(served.take(), [1 << 9, 1], "raised by a task, and from within");
    })
    .unwrap();
}

// ---- Blocking ----

#[test]
fn a_wake_up_before_the_block_is_not_lost_and_does_not_add_up() {
    on_fresh_thread(|| {
        let me = Native::current_task();
        // SAFETY: the task is this one.
        unsafe {
            assert!(!Native::wake(me));
            assert!(!Native::wake(me));
        }
        assert_eq!(Native::block(None), Wakeup::Woken);
        assert_eq!(Native::block(Some(Native::now_ns() + 1_000)), Wakeup::TimedOut);
    })
    .unwrap();
}

#[test]
fn a_deadline_is_never_early() {
    run_cpus(4, |call| {
        // Some that pass before the thread can sleep, and some that are slept for.
        for n in 0..60 {
            let unit = if n < 40 { 100 } else { 20_000 };
            let deadline = Native::now_ns() + n * (call as u64 + 1) * unit;
            assert_eq!(Native::block(Some(deadline)), Wakeup::TimedOut);
            assert!(Native::now_ns() >= deadline);
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn wake_says_whether_the_task_was_blocked() {
    let task = std::sync::OnceLock::new();
    let [done, woken] = [const { AtomicBool::new(false) }; 2];
    run_cpus(2, |call| {
        if call == 0 {
            task.set(Native::current_task()).unwrap();
            while !done.load(SeqCst) {
                assert_eq!(Native::block(None), Wakeup::Woken);
            }
            while !woken.load(SeqCst) {
                Native::relax();
            }
        } else {
            let task = *task.wait();
            // SAFETY: the task stays until `woken`, here and below.
            while !unsafe { Native::wake(task) } {
                thread::yield_now();
            }
            done.store(true, SeqCst);
            // SAFETY: as above.
            unsafe { Native::wake(task) };
            woken.store(true, SeqCst);
        }
    });
}

#[test]
fn a_blocked_cpu_takes_interrupts() {
    let cpu = std::sync::OnceLock::new();
    run_cpus(2, |call| {
        if call == 0 {
            cpu.set((Native::cpu(), Native::current_task())).unwrap();
            assert_eq!(Native::block(None), Wakeup::Woken);
        } else {
            let (cpu, task) = *cpu.wait();
            let answered = Arc::new(AtomicBool::new(false));
            let answer = Arc::clone(&answered);
            send_interrupt(cpu, move || answer.store(true, SeqCst)).unwrap();
            while !answered.load(SeqCst) {
                Native::relax();
            }
            // The interrupt's handler may itself wake the task that it interrupted, which may be on its way to wait and not
            // there yet.
            // SAFETY: the task is in `block`.
            send_interrupt(cpu, move || _ = unsafe { Native::wake(task) }).unwrap();
        }
    });
}

/// Two tasks hand a number back and forth a great many times, each blocking until it is its turn. One lost wake-up and
/// the test hangs, which the deadline turns into a failure.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn no_wake_up_is_lost() {
    const TURNS: u64 = 20_000;
    let tasks = [std::sync::OnceLock::new(), std::sync::OnceLock::new()];
    let turn = AtomicU64::new(0);
    run_cpus(2, |me| {
        tasks[me].set(Native::current_task()).unwrap();
        let other = *tasks[1 - me].wait();
        while turn.load(SeqCst) < TURNS {
            if turn.load(SeqCst) % 2 == me as u64 {
                turn.fetch_add(1, SeqCst);
                // SAFETY: both tasks stay until both have come to the end of this function.
                unsafe { Native::wake(other) };
            } else {
                let patience = Native::now_ns() + 10_000_000_000;
                assert_eq!(
                    Native::block(Some(patience)),
                    Wakeup::Woken,
                    "lost at turn {}",
                    turn.load(SeqCst)
                );
            }
        }
        // SAFETY: as above.
        unsafe { Native::wake(other) };
        turn.fetch_add(1, SeqCst);
        while turn.load(SeqCst) < TURNS + 2 {
            Native::relax();
        }
    });
}

/// A task that nobody but its own CPU's interrupts wakes, hammered in the moment at which it goes to sleep.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn no_interrupt_is_lost_by_a_cpu_that_goes_to_sleep() {
    const ROUNDS: usize = 50_000;
    let sleeper = std::sync::OnceLock::new();
    let rounds = AtomicUsize::new(0);
    run_cpus(2, |call| {
        if call == 0 {
            sleeper.set(Native::cpu()).unwrap();
            for round in 1..=ROUNDS {
                let patience = Native::now_ns() + 10_000_000_000;
                assert_eq!(Native::block(Some(patience)), Wakeup::Woken, "lost in round {round}");
                rounds.store(round, SeqCst);
            }
        } else {
            let cpu = *sleeper.wait();
            for round in 0..ROUNDS {
                // A sleeper that has given up is off-line.
                while rounds.load(SeqCst) < round && Native::is_online(cpu) {
                    std::hint::spin_loop();
                }
                // Comes at another moment of its going to sleep each time.
                for step in 0..round % 256 {
                    std::hint::black_box(step);
                }
                // SAFETY: the interrupted task lives.
                let wake = || _ = unsafe { Native::wake(Native::current_task()) };
                if send_interrupt(cpu, wake).is_err() {
                    return;
                }
            }
        }
    });
}

#[test]
fn blocking_while_atomic_is_fatal() {
    on_fresh_thread(|| {
        let reports = ReportCapture::new();
        let pinned = || drop((NoPreempt::new(), Native::block(Some(0))));
        let masked = || drop((NoIrqs::new(), Native::block(Some(0))));
        for guard in [&pinned as &dyn Fn(), &masked] {
            catch_unwind(AssertUnwindSafe(guard)).unwrap_err();
            assert!(reports.take()[0].message.starts_with("scheduling while atomic"));
        }
    })
    .unwrap();
}
