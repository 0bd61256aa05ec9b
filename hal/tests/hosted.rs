//! The hosted machine's CPUs, clock, fences and reports.

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

use common::{NoIrqs, NoPreempt, on_fresh_thread};
use hal::hosted::{self, ReportCapture, run_cpus};
use hal::platform::{Report, Severity};
use hal::{Native, Platform};

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().unwrap().to_string(),
    }
}

// ---- Binding ----

#[test]
fn a_thread_is_bound_while_it_has_a_binding() {
    on_fresh_thread(|| {
        let first = hosted::bind().unwrap();
        let second = hosted::bind().unwrap();
        let cpu = first.cpu();
        assert_eq!(second.cpu(), cpu);
        drop(first);
        assert!(Native::is_online(cpu));
        assert_eq!(Native::cpu(), cpu);
        drop(second);
    })
    .unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn first_use_binds_until_the_thread_ends() {
    // More threads than there are numbers, so numbers come back.
    for _ in 0..2 * hal::MAX_CPUS {
        on_fresh_thread(|| {
            let cpu = Native::cpu();
            assert!(Native::is_online(cpu));
            assert_eq!(Native::cpu(), cpu);
        })
        .unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_leaked_binding_ends_with_its_thread() {
    for _ in 0..2 * hal::MAX_CPUS {
        on_fresh_thread(|| std::mem::forget(hosted::bind().unwrap())).unwrap();
    }
}

#[test]
fn numbers_records_areas_and_tasks_differ() {
    let seen = run_cpus(16, |_| {
        let area = hal::percpu::area_of(Native::cpu()).unwrap();
        (Native::cpu(), Native::record().as_ptr() as usize, area, Native::current_task())
    });
    for (i, one) in seen.iter().enumerate() {
        assert!(one.1 > one.2 && one.1 < one.2 + hal::percpu::area_size(), "the record is in the area");
        for other in &seen[..i] {
            assert!(one.0 != other.0 && one.1 != other.1 && one.2 != other.2 && one.3 != other.3);
        }
    }
}

#[test]
fn a_cpu_boots_clean() {
    on_fresh_thread(|| {
        assert_eq!(Native::context().count(), 0);
        assert!(!Native::context().resched_due());
        assert_eq!(Native::irq_depth(), 0);
    })
    .unwrap();
}

fn pretend_to_hold_a_lock() {
    // SAFETY: this thread stays on its CPU.
    let record = unsafe { Native::record().as_ref() };
    record.held.store(8 as *mut (), Relaxed);
}

#[test]
fn a_leaked_guard_is_reported_and_its_number_retired() {
    for (leak, words) in [
        (Native::preempt_disable as fn(), "preempt count"),
        (Native::irq_disable as fn(), "interrupts disabled 1 times"),
        (pretend_to_hold_a_lock, "a lock held"),
    ] {
        let mut cpu = None;
        let panic = on_fresh_thread(AssertUnwindSafe(|| {
            let binding = hosted::bind().unwrap();
            cpu = Some(binding.cpu());
            leak();
        }))
        .unwrap_err();
        assert!(message(panic).contains(words));
        let cpu = cpu.unwrap();
        assert!(!Native::is_online(cpu));
        assert!(run_cpus(8, |_| Native::cpu()).iter().all(|other| *other != cpu));
    }
}

#[test]
fn a_panic_with_guards_held_leaves_a_clean_cpu() {
    let mut cpu = None;
    on_fresh_thread(AssertUnwindSafe(|| {
        let binding = hosted::bind().unwrap();
        cpu = Some(binding.cpu());
        let _a = NoPreempt::new();
        let _b = NoIrqs::new();
        std::panic::resume_unwind(Box::new("on purpose"));
    }))
    .unwrap_err();
    // Sooner or later somebody gets the number again.
    let again = (0..10_000).any(|_| run_cpus(4, |_| Native::cpu()).contains(&cpu.unwrap()));
    assert!(again);
}

// ---- Time, order, reports ----

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn time_does_not_go_back_across_cpus() {
    let latest = AtomicU64::new(0);
    run_cpus(4, |_| {
        for _ in 0..20_000 {
            let before = latest.load(SeqCst);
            let now = Native::now_ns();
            assert!(now >= before);
            latest.fetch_max(now, SeqCst);
        }
    });
    let (start, real) = (Native::now_ns(), Instant::now());
    thread::sleep(Duration::from_millis(20));
    let (passed, real) = (Native::now_ns() - start, real.elapsed().as_nanos() as u64);
    assert!(passed >= 20_000_000 && passed <= real + 5_000_000, "nanoseconds: {passed}, {real}");
}

/// Store buffering: each CPU stores to its own place and then looks at the other's. With fences between, at least one
/// sees the other's store. (Without any, neither does in about one of 13 rounds; without the heavy one, in one of 800.)
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_light_and_a_heavy_fence_forbid_store_buffering() {
    const ROUNDS: usize = 10_000;
    #[repr(align(128))]
    struct Padded(AtomicUsize);
    let [stored, saw, at] = [const { [const { Padded(AtomicUsize::new(0)) }; 2] }; 3];
    let violations: usize = run_cpus(2, |me| {
        // The two leave it within a few nanoseconds of each other, which `relax`, that yields now and then, would spoil.
        let meet = |round: usize| {
            at[me].0.store(round, SeqCst);
            let mut turns = 0;
            while at[1 - me].0.load(SeqCst) < round {
                std::hint::spin_loop();
                turns += 1;
                if turns % 2000 == 0 {
                    thread::yield_now();
                }
            }
        };
        let mut violations = 0;
        for round in 1..=ROUNDS {
            meet(2 * round);
            for step in 0..round * (me + 1) * 7 % 5 {
                std::hint::black_box(step);
            }
            stored[me].0.store(round, Relaxed);
            if me == 0 {
                Native::fence_light();
            } else {
                Native::fence_heavy();
            }
            saw[me].0.store(stored[1 - me].0.load(Relaxed), Relaxed);
            meet(2 * round + 1);
            violations += usize::from(me == 0 && saw.iter().all(|saw| saw.0.load(Relaxed) < round));
        }
        violations
    })
    .into_iter()
    .sum();
    assert_eq!(violations, 0);
}

#[test]
fn reports_are_captured_per_thread_and_fatal_ones_panic() {
    let report = |severity| {
        Native::report(&Report {
            severity,
            message: format_args!("number {}", 7),
            location: std::panic::Location::caller(),
        });
    };
    on_fresh_thread(|| {
        let capture = ReportCapture::new();
        {
            let inner = ReportCapture::new();
            report(Severity::Warning);
            assert_eq!(inner.take().len(), 1);
        }
        report(Severity::Bug);
        let panic = catch_unwind(|| report(Severity::Fatal)).unwrap_err();
        assert!(message(panic).starts_with("BUG: number 7 at "));
        let severities: Vec<_> = capture.take().into_iter().map(|report| report.severity).collect();
        assert_eq!(severities, [Severity::Bug, Severity::Fatal]);
    })
    .unwrap();
}

#[test]
fn a_destructor_at_thread_exit_may_use_per_cpu_data() {
    thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            let _pinned = NoPreempt::new();
            assert!(Native::is_online(Native::cpu()));
        }
    }
    on_fresh_thread(|| {
        LATE.set(Some(Late));
        Native::relax();
    })
    .unwrap();
    on_fresh_thread(|| {
        Native::relax();
        LATE.set(Some(Late));
    })
    .unwrap();
}
