//! Calls between CPUs, on the hosted machine: threads as CPUs, which take interrupts where they wait.
#![cfg(not(any(loom, shuttle)))]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::cpumask::CpuMask;
use hal::platform::Severity;
use hal::{CpuId, MAX_CPUS, Native, Platform, hosted};
use proptest::prelude::*;
use sync::call::{CallData, CallError, Calls};
use sync::{context, irq, preempt};

/// The calls of one test.
macro_rules! calls {
    ($name:ident) => {
        static $name: Calls = Calls::new(|cpu| {
            // A CPU that has gone in the meantime has emptied its queue.
            let _ = hosted::send_interrupt(cpu, || $name.serve(&irq::disable()));
        });
    };
}

/// CPUs that take calls, all of them from before the first until after the last one's part.
fn with_cpus(calls: &'static Calls, count: usize, part: impl Fn(usize, &[CpuId]) + Sync) {
    let numbers = std::sync::Mutex::new(Vec::new());
    let done = AtomicU32::new(0);
    let wait_until = |condition: &dyn Fn() -> bool| {
        while !condition() {
            Native::relax();
        }
    };
    hosted::run_cpus(count, |_| {
        calls.open(Native::cpu());
        numbers.lock().unwrap().push(Native::cpu());
        wait_until(&|| numbers.lock().unwrap().len() == count);
        let mut cpus = numbers.lock().unwrap().clone();
        cpus.sort_unstable();
        let me = cpus.iter().position(|cpu| *cpu == Native::cpu()).unwrap();
        // What fails here must not leave the others waiting.
        let outcome = catch_unwind(AssertUnwindSafe(|| part(me, &cpus)));
        done.fetch_add(1, Ordering::Relaxed);
        wait_until(&|| done.load(Ordering::Relaxed) == count as u32);
        calls.close(&irq::disable());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// A CPU that has no thread.
fn nobody(cpus: &[CpuId]) -> CpuId {
    let next = cpus.last().unwrap().as_u32() as usize + 200;
    CpuId::new((next % MAX_CPUS) as u32).unwrap()
}

#[test]
fn every_call_runs_once_on_its_cpu_and_in_order() {
    const CPUS: usize = 4;
    const ROUNDS: u64 = 1_500;
    calls!(CALLS);
    /// For each target and sender the number of the last call that came.
    static LAST: [[AtomicU64; CPUS]; CPUS] = [const { [const { AtomicU64::new(0) }; CPUS] }; CPUS];
    static WRONG: AtomicU32 = AtomicU32::new(0);
    static ASYNC: [CallData; CPUS] = [const {
        CallData::new(|| {
            ASYNC_RAN.fetch_add(1, Ordering::Relaxed);
        })
    }; CPUS];
    static ASYNC_RAN: AtomicU64 = AtomicU64::new(0);
    static ASYNC_SENT: AtomicU64 = AtomicU64::new(0);

    with_cpus(&CALLS, CPUS, |me, cpus| {
        let came = |target: usize, number: u64| {
            let right = Native::cpu() == cpus[target] && context::in_hardirq() && context::irqs_disabled();
            let before = LAST[target][me].swap(number, Ordering::Relaxed);
            WRONG.fetch_add(u32::from(!right || before >= number), Ordering::Relaxed);
        };
        for round in 1..=ROUNDS {
            let target = (me + round as usize) % CPUS;
            match round % 4 {
                0 => assert_eq!(CALLS.single(cpus[target], || came(target, round)), Ok(())),
                1 => {
                    let index = |cpu| cpus.iter().position(|c| *c == cpu).unwrap();
                    assert_eq!(CALLS.all(|cpu| came(index(cpu), round)), Ok(CPUS as u32));
                }
                2 => {
                    let index = |cpu| cpus.iter().position(|c| *c == cpu).unwrap();
                    let some = CpuMask::from_iter([cpus[target], cpus[(target + 1) % CPUS]]);
                    assert_eq!(CALLS.many(&some, |cpu| came(index(cpu), round)), Ok(()));
                }
                _ => {
                    if CALLS.queue(cpus[target], &ASYNC[me]).is_ok() {
                        ASYNC_SENT.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        CALLS.wait_for(&ASYNC[me]).unwrap();
        assert!(context::preemptible());
    });
    assert_eq!(WRONG.load(Ordering::Relaxed), 0);
    assert!(ASYNC_SENT.load(Ordering::Relaxed) > 0);
    assert_eq!(ASYNC_RAN.load(Ordering::Relaxed), ASYNC_SENT.load(Ordering::Relaxed));
}

#[test]
fn more_cpus_than_descriptors() {
    const CPUS: usize = 40;
    calls!(CALLS);
    let ran: Vec<AtomicU32> = (0..MAX_CPUS).map(|_| AtomicU32::new(0)).collect();
    with_cpus(&CALLS, CPUS, |me, _| {
        if me == 0 {
            for round in 0..20 {
                let here = preempt::disable();
                let called = CALLS.others(|cpu| {
                    ran[cpu.index()].fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(called, Ok(CPUS as u32 - 1));
                assert_eq!(ran[here.cpu().index()].load(Ordering::Relaxed), 0);
                let sum: u32 = ran.iter().map(|ran| ran.load(Ordering::Relaxed)).sum();
                assert_eq!(sum, (round + 1) * (CPUS as u32 - 1));
            }
        }
    });
}

#[test]
fn results_and_borrows_come_back() {
    calls!(CALLS);
    with_cpus(&CALLS, 2, |me, cpus| {
        let text = String::from("borrowed");
        let mut length = 0;
        let (other, answer) = CALLS
            .single(cpus[1 - me], || {
                length = text.len();
                (Native::cpu(), text.clone() + "!")
            })
            .unwrap();
        assert_eq!((other, answer.as_str(), length), (cpus[1 - me], "borrowed!", 8));
    });
}

#[test]
fn a_cpu_that_is_not_there_is_an_error() {
    calls!(CALLS);
    with_cpus(&CALLS, 2, |me, cpus| {
        if me != 0 {
            return;
        }
        let gone = nobody(cpus);
        assert_eq!(CALLS.single(gone, || ()), Err(CallError::Offline(gone)));
        static NOTHING: CallData = CallData::new(|| ());
        assert_eq!(CALLS.queue(gone, &NOTHING), Err(CallError::Offline(gone)));
        assert!(!NOTHING.is_busy());
        let ran = AtomicU32::new(0);
        let mask = CpuMask::from_iter([cpus[0], cpus[1], gone]);
        let outcome = CALLS.many(&mask, |_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!((outcome, ran.into_inner()), (Err(CallError::Offline(gone)), 2));
        assert_eq!(
            CallError::Offline(gone).to_string(),
            format!("CPU {gone} is off-line and takes no calls")
        );
    });
}

#[test]
fn closing_runs_what_was_sent_before() {
    calls!(CALLS);
    static RAN: AtomicU32 = AtomicU32::new(0);
    static FIRST: CallData = CallData::new(|| {
        assert!(context::in_hardirq());
        RAN.fetch_add(1, Ordering::Relaxed);
    });
    static LAZY: CallData = CallData::new(|| {
        RAN.fetch_add(10, Ordering::Relaxed);
        // A call that comes of a call finds the CPU gone.
        assert_eq!(CALLS.queue(Native::cpu(), &FIRST), Err(CallError::Offline(Native::cpu())));
    });
    let _cpu = hosted::bind().unwrap();
    let me = Native::cpu();
    CALLS.open(me);
    let quiet = irq::disable();
    CALLS.queue(me, &FIRST).unwrap();
    CALLS.queue_lazy(&LAZY).unwrap();
    assert_eq!(CALLS.queue_lazy(&LAZY), Err(CallError::Pending));
    assert_eq!(RAN.load(Ordering::Relaxed), 0);
    CALLS.close(&quiet);
    assert_eq!(RAN.load(Ordering::Relaxed), 11);
    assert!(!CALLS.is_open(me) && CALLS.served(me) == 2);
    drop(quiet);
    assert_eq!(RAN.load(Ordering::Relaxed), 11);
    CALLS.open(me);
    CALLS.queue(me, &FIRST).unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), 12);
    CALLS.close(&irq::disable());
}

#[test]
fn a_lazy_call_waits_for_the_tick() {
    calls!(CALLS);
    static RAN: AtomicU32 = AtomicU32::new(0);
    static LAZY: CallData = CallData::new(|| {
        RAN.fetch_add(1, Ordering::Relaxed);
    });
    let _cpu = hosted::bind().unwrap();
    CALLS.open(Native::cpu());
    CALLS.queue_lazy(&LAZY).unwrap();
    Native::relax();
    assert_eq!((RAN.load(Ordering::Relaxed), LAZY.is_pending()), (0, true));
    hosted::send_interrupt(Native::cpu(), || CALLS.serve_lazy(&irq::disable())).unwrap();
    assert_eq!((RAN.load(Ordering::Relaxed), LAZY.is_busy()), (1, false));
    CALLS.close(&irq::disable());
}

#[test]
fn two_cpus_that_wait_for_each_other_with_interrupts_off_are_reported_and_get_on() {
    calls!(CALLS);
    static READY: AtomicU32 = AtomicU32::new(0);
    fn who_are_you() -> CpuId {
        Native::cpu()
    }
    with_cpus(&CALLS, 2, |me, cpus| {
        let capture = hosted::ReportCapture::new();
        let quiet = irq::disable();
        READY.fetch_add(1, Ordering::Relaxed);
        while READY.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        let line = line!() + 1;
        let answer = CALLS.single(cpus[1 - me], who_are_you);
        drop(quiet);
        assert_eq!(answer, Ok(cpus[1 - me]));
        let reports = capture.take();
        let report = &reports[0];
        assert_eq!((reports.len(), report.severity), (1, Severity::Bug));
        assert!(report.message.starts_with("waiting for a call with interrupts off can deadlock: calls::"));
        assert_eq!((report.location.file(), report.location.line()), (file!(), line));
    });
}

#[test]
fn a_call_without_an_answer_is_reported_with_cpu_and_function() {
    calls!(CALLS);
    static ASKED: AtomicBool = AtomicBool::new(false);
    static REPORTED: AtomicBool = AtomicBool::new(false);
    CALLS.set_patience_ns(3_000_000);
    fn quite_a_function() -> u32 {
        7
    }
    with_cpus(&CALLS, 2, |me, cpus| {
        if me == 0 {
            let _quiet = irq::disable();
            ASKED.store(true, Ordering::Relaxed);
            while !REPORTED.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            return;
        }
        while !ASKED.load(Ordering::Relaxed) {
            Native::relax();
        }
        let texts = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let sink = std::rc::Rc::clone(&texts);
        let _hooks = hosted::set_hooks(hosted::Hooks {
            report: Some(std::rc::Rc::new(move |report| {
                sink.borrow_mut().push(report.to_string());
                REPORTED.store(true, Ordering::Relaxed);
            })),
            ..Default::default()
        });
        assert_eq!(CALLS.single(cpus[0], quite_a_function), Ok(7));
        let first = texts.borrow()[0].clone();
        let expected = format!("BUG: CPU#{} has not answered a call for 3 ms: calls::", cpus[0]);
        assert!(
            first.starts_with(&expected) && first.contains("quite_a_function at sync/tests/calls.rs"),
            "{first}"
        );
    });
}

#[test]
fn in_an_nmi_nobody_waits_and_everybody_sends() {
    calls!(CALLS);
    static RAN: AtomicU32 = AtomicU32::new(0);
    static WORK: CallData = CallData::new(|| {
        RAN.fetch_add(1, Ordering::Relaxed);
    });
    with_cpus(&CALLS, 2, |me, cpus| {
        let capture = hosted::ReportCapture::new();
        {
            Native::irq_disable();
            // SAFETY: a simulation, with interrupts off as in a real one.
            let nmi = unsafe { context::enter_nmi() };
            assert_eq!(CALLS.single(cpus[1 - me], || ()), Err(CallError::InNmi));
            assert_eq!(CALLS.single(cpus[me], || ()), Err(CallError::InNmi));
            if me == 0 {
                assert_eq!(CALLS.queue(cpus[0], &WORK), Ok(()));
            }
            drop(nmi);
            Native::irq_enable();
        }
        assert!(capture.take()[0].message.starts_with("waiting for a call in an NMI can deadlock"));
    });
    assert_eq!(RAN.load(Ordering::Relaxed), 1);
}

#[test]
fn a_function_sends_its_own_descriptor_again() {
    calls!(CALLS);
    static RAN: AtomicU32 = AtomicU32::new(0);
    static AGAIN: CallData = CallData::new(|| {
        if RAN.fetch_add(1, Ordering::Relaxed) < 9 {
            assert!(!AGAIN.is_pending() && AGAIN.is_busy());
            CALLS.queue(Native::cpu(), &AGAIN).unwrap();
        }
    });
    let _cpu = hosted::bind().unwrap();
    CALLS.open(Native::cpu());
    CALLS.queue(Native::cpu(), &AGAIN).unwrap();
    CALLS.wait_for(&AGAIN).unwrap();
    assert_eq!(RAN.load(Ordering::Relaxed), 10);
    CALLS.close(&irq::disable());
}

#[test]
fn dropping_a_descriptor_waits_for_its_run() {
    calls!(CALLS);
    with_cpus(&CALLS, 2, |me, cpus| {
        if me != 0 {
            return;
        }
        for _ in 0..200 {
            let ran = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&ran);
            let data: Pin<Box<_>> = Box::pin(CallData::new(move || {
                counter.fetch_add(1, Ordering::Relaxed);
            }));
            CALLS.queue_pinned(cpus[1], data.as_ref()).unwrap();
            drop(data);
            assert_eq!((ran.load(Ordering::Relaxed), Arc::strong_count(&ran)), (1, 1));
        }
    });
}

/// In a process of its own, which it ends.
#[test]
fn dropping_it_where_it_cannot_run_is_fatal() {
    const NAME: &str = "dropping_it_where_it_cannot_run_is_fatal";
    calls!(CALLS);
    if std::env::var_os(NAME).is_none() {
        let program = std::env::current_exe().unwrap();
        let run = std::process::Command::new(program)
            .args([NAME, "--exact", "--nocapture"])
            .env(NAME, "1")
            .output();
        let run = run.unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && !said.contains("the drop returned"), "{said}");
        assert!(said.contains("dropped while it is pending, with interrupts off"), "{said}");
        return;
    }
    let _cpu = hosted::bind().unwrap();
    CALLS.open(Native::cpu());
    let data = Box::pin(CallData::new(|| ()));
    let _quiet = irq::disable();
    CALLS.queue_pinned(Native::cpu(), data.as_ref()).unwrap();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(data)));
    eprintln!("the drop returned");
}

#[test]
fn a_panic_reaches_the_caller_and_the_queue_goes_on() {
    calls!(CALLS);
    with_cpus(&CALLS, 3, |me, cpus| match me {
        0 => {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                CALLS.single(cpus[1], || std::panic::resume_unwind(Box::new("on purpose")))
            }));
            let text = *panicked.unwrap_err().downcast::<String>().unwrap();
            assert!(text.starts_with(&format!("a function that was called on CPU {} panicked", cpus[1])));
            FELL.store(true, Ordering::Relaxed);
        }
        1 => {
            let taken = catch_unwind(|| {
                while !FELL.load(Ordering::Relaxed) {
                    Native::relax();
                }
            });
            assert_eq!(*taken.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
            assert!(context::preemptible());
        }
        _ => {
            while !FELL.load(Ordering::Relaxed) {
                Native::relax();
            }
            assert_eq!(CALLS.single(cpus[1], || 5), Ok(5));
        }
    });
    static FELL: AtomicBool = AtomicBool::new(false);
}

#[test]
fn a_function_that_leaves_preemption_off_is_named() {
    calls!(CALLS);
    let _cpu = hosted::bind().unwrap();
    let capture = hosted::ReportCapture::new();
    CALLS.single(Native::cpu(), || core::mem::forget(preempt::disable())).unwrap();
    let reports = capture.take();
    assert!(reports[0].message.contains("preempt leak"), "{}", reports[0].message);
    assert!(context::preemptible());
}

/// What one CPU does to its own queue, and what a plain model says about it.
#[derive(Clone, Debug)]
enum Step {
    Queue(usize),
    Lazy(usize),
    Tick,
    Open,
    Close,
    /// Interrupts off, so that what follows waits, until the next `On`.
    Off,
    On,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..DATA.len()).prop_map(Step::Queue),
        2 => (0..DATA.len()).prop_map(Step::Lazy),
        1 => Just(Step::Tick),
        1 => Just(Step::Open),
        1 => Just(Step::Close),
        2 => Just(Step::Off),
        2 => Just(Step::On),
    ]
}

calls!(MODELLED);
static JOURNAL: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
static DATA: [CallData; 4] = [
    CallData::new(|| JOURNAL.lock().unwrap().push(0)),
    CallData::new(|| JOURNAL.lock().unwrap().push(1)),
    CallData::new(|| JOURNAL.lock().unwrap().push(2)),
    CallData::new(|| JOURNAL.lock().unwrap().push(3)),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn one_cpu_does_what_the_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        let _cpu = hosted::bind().unwrap();
        let me = Native::cpu();
        let (mut open, mut off) = (false, None);
        let (mut now, mut lazy, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        JOURNAL.lock().unwrap().clear();
        for step in steps {
            match step {
                Step::Queue(n) | Step::Lazy(n) => {
                    let right = match (now.contains(&n) || lazy.contains(&n), open) {
                        (true, _) => Err(CallError::Pending),
                        (false, true) => Ok(()),
                        (false, false) => Err(CallError::Offline(me)),
                    };
                    let (queue, outcome) = match step {
                        Step::Queue(_) => (&mut now, MODELLED.queue(me, &DATA[n])),
                        _ => (&mut lazy, MODELLED.queue_lazy(&DATA[n])),
                    };
                    prop_assert_eq!(outcome, right);
                    if outcome.is_ok() {
                        queue.push(n);
                    }
                }
                Step::Tick if off.is_none() => {
                    hosted::send_interrupt(me, || MODELLED.serve_lazy(&irq::disable())).unwrap();
                    expected.append(&mut lazy);
                }
                Step::Tick => {}
                Step::Open => {
                    MODELLED.open(me);
                    open = true;
                }
                Step::Close => {
                    MODELLED.close(&irq::disable());
                    open = false;
                    expected.append(&mut now);
                    expected.append(&mut lazy);
                }
                Step::Off => off = off.or_else(|| Some(irq::disable())),
                Step::On => off = None,
            }
            if off.is_none() {
                expected.append(&mut now);
            }
            prop_assert_eq!(&*JOURNAL.lock().unwrap(), &expected);
        }
        MODELLED.close(&irq::disable());
        drop(off);
    }
}
