//! Counts of references that are spread over CPUs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hal::{Native, hosted};
use proptest::prelude::*;
use sync::{PerCpuRef, preempt};

/// Runs `f` on a CPU of its own, and returns what it reported.
fn reports_of(f: impl FnOnce()) -> Vec<String> {
    let _cpu = hosted::bind().unwrap();
    let reports = Rc::new(RefCell::new(Vec::new()));
    let hook = Rc::clone(&reports);
    let _hooks = hosted::set_hooks(hosted::Hooks {
        report: Some(Rc::new(move |report| hook.borrow_mut().push(report.to_string()))),
        ..Default::default()
    });
    f();
    reports.take()
}

#[test]
fn misuse_is_reported_and_the_object_stays() {
    let reports = reports_of(|| {
        let refs = PerCpuRef::<Native>::new().unwrap();
        refs.revive();
        refs.get();
        assert!(!refs.kill() && !refs.kill());
        refs.revive();
        assert!(refs.put() && !refs.try_get());
        assert!(!refs.put());
        refs.get();
        assert!(!refs.put(), "saturated");
        let refs = PerCpuRef::<Native>::new().unwrap();
        assert!(refs.kill());
        refs.get();
        assert!(!refs.put(), "saturated");
    });
    let starts = [
        "BUG: percpu_ref: revived while it was live at ",
        "BUG: percpu_ref: killed twice at ",
        "BUG: percpu_ref: revived with 1 references at ",
        "BUG: percpu_ref: underflow; use after free at ",
        "BUG: percpu_ref: increment on 0; use after free at ",
    ];
    assert_eq!(reports.len(), starts.len(), "{reports:#?}");
    for (report, start) in reports.iter().zip(starts) {
        assert!(report.starts_with(start) && report.contains(file!()), "{report}");
    }
}

/// CPUs make and give up references, some of them their neighbours', while one kills. One of them is told to destroy.
#[test]
fn of_many_one_destroys() {
    const CPUS: usize = 3;
    const ROUNDS: u32 = 100;
    static DESTROYED: AtomicU32 = AtomicU32::new(0);
    static ALIVE: AtomicU32 = AtomicU32::new(1);
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static ARRIVED: AtomicU32 = AtomicU32::new(0);
    let refs: &'static PerCpuRef = Box::leak(Box::new({
        let _cpu = hosted::bind().unwrap();
        PerCpuRef::new().unwrap()
    }));
    fn destroy_if(was_last: bool) {
        if was_last {
            assert_eq!(ALIVE.swap(0, Relaxed), 1, "destroyed twice");
            DESTROYED.fetch_add(1, Relaxed);
        }
    }
    hosted::run_cpus(CPUS, |me| {
        for round in 0..ROUNDS {
            // All begin a round together; the first has revived the object by then.
            if me == 0 {
                if round > 0 {
                    ALIVE.store(1, Relaxed);
                    refs.revive();
                }
                ROUND.store(round + 1, std::sync::atomic::Ordering::Release);
            }
            while ROUND.load(std::sync::atomic::Ordering::Acquire) <= round {
                std::thread::yield_now();
            }
            for i in 0..50 {
                if me == 0 && i == 25 {
                    destroy_if(refs.kill());
                    assert!(!refs.try_get_live());
                }
                if refs.try_get() {
                    assert_eq!(ALIVE.load(Relaxed), 1);
                    refs.get();
                    let here = preempt::disable();
                    assert!(!refs.put_with(&here), "there is one more");
                    drop(here);
                    assert_eq!(ALIVE.load(Relaxed), 1);
                    destroy_if(refs.put());
                }
            }
            ARRIVED.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            while ARRIVED.load(std::sync::atomic::Ordering::Acquire) < (round + 1) * CPUS as u32 {
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(DESTROYED.load(Relaxed), ROUNDS);
}

#[test]
fn references_of_one_cpu_are_given_up_on_another() {
    let _cpu = hosted::bind().unwrap();
    let refs: PerCpuRef = PerCpuRef::new().unwrap();
    for _ in 0..100 {
        refs.get();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _cpu = hosted::bind().unwrap();
            assert!((0..99).all(|_| !refs.put()));
        });
    });
    assert!(!refs.is_killed() && !refs.kill() && refs.is_killed());
    assert!(refs.put());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(64)))]
    /// One CPU's steps against a plain count.
    #[test]
    fn counts_as_a_number_does(steps in prop::collection::vec(0..12_u8, 0..80)) {
        let _cpu = hosted::bind().unwrap();
        let refs: PerCpuRef = PerCpuRef::new().unwrap();
        let (mut count, mut is_live) = (1_u32, true);
        for step in steps {
            match step {
                0 if is_live => {
                    count -= 1;
                    is_live = false;
                    prop_assert_eq!(refs.kill(), count == 0);
                }
                1 if !is_live && count == 0 => {
                    refs.revive();
                    (count, is_live) = (1, true);
                }
                2 | 3 => {
                    prop_assert_eq!(refs.try_get_live(), is_live);
                    count += u32::from(is_live);
                }
                4 | 5 if count > 0 => {
                    refs.get();
                    count += 1;
                }
                6 | 7 => {
                    let found = refs.try_get();
                    prop_assert_eq!(found, count > 0);
                    count += u32::from(found);
                }
                8.. if count > u32::from(is_live) => {
                    count -= 1;
                    prop_assert_eq!(refs.put(), count == 0);
                }
                _ => (),
            }
            prop_assert_eq!(refs.is_killed(), !is_live);
        }
    }
}
