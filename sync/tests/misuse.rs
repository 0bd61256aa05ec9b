//! What guards and contexts say when they are misused, and that the counts are right afterwards.
#![cfg(not(loom))]

use std::panic::{AssertUnwindSafe, catch_unwind};

use hal::context::{HARDIRQ_UNIT, PREEMPT_UNIT, SOFTIRQ_DISABLE_UNIT};
use hal::hosted::{self, CapturedReport, ReportCapture};
use hal::platform::Severity;
use hal::{Native, Platform};
use sync::context::{self, Balance};
use sync::{IrqSpinLock, LocalLock, SpinLock, TaskCx, bh, irq, migrate, preempt};

/// The one report that `misuse` provokes, and what stands behind `BUG: `.
fn report_of(misuse: impl FnOnce()) -> CapturedReport {
    let capture = ReportCapture::new();
    misuse();
    let mut reports = capture.take();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.pop().unwrap()
}

fn is_at_rest() -> bool {
    Native::context().count() == 0 && Native::irq_depth() == 0
}

/// The state of this CPU as reports print it.
fn state(count: &str, parts: &str, irq_depth: u32) -> String {
    let task = Native::current_task().0;
    format!(
        "  task {task:#x} on CPU#{}, preempt count {count} ({parts}), interrupt depth {irq_depth}",
        Native::cpu()
    )
}

#[test]
fn sleeping_in_atomic_is_reported_with_the_callers_line() {
    let _cpu = hosted::bind().unwrap();
    for (section, count, parts, depth) in [
        (Section::Preempt, "0x1", "preemption off 1", 0),
        (Section::Bh, "0x200", "bottom halves off 1", 0),
        (Section::Irq, "0x0", "nothing", 1),
        (Section::Lock, "0x1", "preemption off 1", 0),
    ] {
        let expected =
            format!("sleeping function called from invalid context\n{}", state(count, parts, depth));
        let mut line = 0;
        let report = report_of(|| {
            section.run(|| {
                line = line!() + 1;
                context::might_sleep();
            });
        });
        assert_eq!(report.message, expected);
        assert_eq!((report.severity, report.location.file()), (Severity::Bug, file!()));
        assert_eq!(report.location.line(), line);
        // A preemption point that tasks offer is a place where they may sleep.
        let report = report_of(|| {
            section.run(|| assert!(!context::cond_resched()));
        });
        assert_eq!(report.message, expected);
    }
    let capture = ReportCapture::new();
    context::might_sleep();
    assert_eq!(capture.take(), []);
}

/// A section that forbids sleeping.
enum Section {
    Preempt,
    Bh,
    Irq,
    Lock,
}

impl Section {
    fn run(&self, inside: impl FnOnce()) {
        match self {
            Section::Preempt => {
                let _guard = preempt::disable();
                inside();
            }
            Section::Bh => {
                let _guard = bh::disable();
                inside();
            }
            Section::Irq => {
                let _guard = irq::disable();
                inside();
            }
            Section::Lock => {
                let lock = SpinLock::<_>::new(());
                let _guard = lock.lock();
                inside();
            }
        }
    }
}

#[test]
fn the_place_is_printed_behind_the_first_line() {
    let location = core::panic::Location::caller();
    let report = |message: std::fmt::Arguments<'_>| {
        hal::platform::Report { severity: Severity::Bug, message, location }.to_string()
    };
    let at = format!("at {}:{}:", file!(), location.line());
    let one_line = report(format_args!("one line"));
    assert!(one_line.starts_with(&format!("BUG: one line {at}")), "{one_line}");
    for two_lines in
        [report(format_args!("first\n  second")), report(format_args!("{}\n  {}", "first", "second"))]
    {
        assert!(two_lines.starts_with(&format!("BUG: first {at}")), "{two_lines}");
        assert!(two_lines.ends_with("\n  second"), "{two_lines}");
    }
}

#[test]
fn the_token_finds_what_was_switched_off_without_it() {
    let _cpu = hosted::bind().unwrap();
    // SAFETY: this thread is a task of the hosted machine and has no other token.
    let mut cx = unsafe { TaskCx::new() };
    assert_eq!(cx.task(), Native::current_task());
    cx.might_sleep();
    let report = report_of(|| {
        let _here = preempt::disable();
        cx.might_sleep();
    });
    assert!(report.message.starts_with("sleeping function called from invalid context\n"), "{report:?}");
    Native::set_need_resched(Native::cpu());
    assert!(cx.cond_resched() && !cx.cond_resched());
    let blocked = catch_unwind(AssertUnwindSafe(|| {
        let _here = preempt::disable();
        cx.block(Some(0))
    }));
    let message = *blocked.expect_err("stopped").downcast::<String>().unwrap();
    assert!(message.starts_with("BUG: scheduling while atomic"), "{message}");
    assert_eq!(cx.block(Some(Native::now_ns())), hal::platform::Wakeup::TimedOut);
}

#[test]
fn an_unbalanced_callback_is_named_and_mended() {
    let _cpu = hosted::bind().unwrap();
    fn leaky() -> u32 {
        core::mem::forget((preempt::disable(), bh::disable()));
        7
    }
    let line = line!() + 1;
    let report = report_of(|| assert_eq!(context::expect_balanced(format_args!("timer: leaky"), leaky), 7));
    assert_eq!(report.message, "timer: leaky preempt leak 00000000 -> 00000201");
    assert_eq!((report.location.file(), report.location.line()), (file!(), line));
    assert!(is_at_rest());

    // It gives back more than it took: what its caller had disabled is enabled under the caller's feet.
    let here = preempt::disable();
    let report = report_of(|| {
        context::expect_balanced(format_args!("softirq 3"), || Native::preempt_sub(PREEMPT_UNIT));
    });
    assert_eq!(report.message, "softirq 3 preempt leak 00000001 -> 00000000");
    assert_eq!(context::preempt_count(), 1);
    drop(here);

    let report = report_of(|| {
        context::expect_balanced(format_args!("handler"), || core::mem::forget(irq::disable()));
    });
    assert_eq!(report.message, "handler interrupt leak 0 -> 1");
    assert!(is_at_rest());

    let quiet = irq::disable();
    let report = report_of(|| {
        context::expect_balanced(format_args!("handler"), || {
            Native::irq_enable();
        });
    });
    assert_eq!(report.message, "handler interrupt leak 1 -> 0");
    assert_eq!(Native::irq_depth(), 1);
    drop(quiet);

    // A balanced one is not mentioned, whatever it does in between.
    let balance = Balance::<Native>::now();
    drop((preempt::disable(), bh::disable(), irq::disable()));
    assert!(balance.check(format_args!("fine"), core::panic::Location::caller()));
    assert!(is_at_rest());
}

#[test]
fn serving_softirqs_where_it_is_illegal_is_reported_and_they_are_not_lost() {
    let _cpu = hosted::bind().unwrap();
    let served = std::rc::Rc::new(std::cell::Cell::new(0));
    let hook = std::rc::Rc::clone(&served);
    let _hooks = hosted::set_hooks(hosted::Hooks {
        softirq: Some(std::rc::Rc::new(move |pending| hook.set(hook.get() | pending))),
        ..Default::default()
    });
    let capture = ReportCapture::new();
    let no_softirqs = bh::disable();
    Native::raise_softirq(2);
    let quiet = irq::disable();
    drop(no_softirqs);
    assert_eq!(served.get(), 0, "a softirq was served with interrupts off");
    drop(quiet);
    assert_eq!(served.get(), 1 << 2, "a softirq was lost");
    let reports = capture.take();
    if cfg!(debug_assertions) {
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert_eq!(
            reports[0].message,
            format!(
                "bottom halves enabled with interrupts off on CPU#{}; what is pending waits for them to come on",
                Native::cpu()
            )
        );
        assert_eq!(reports[0].location.file(), file!());
    }
    assert!(is_at_rest());
}

#[test]
fn a_counter_is_not_disabled_for_the_256th_time() {
    if !cfg!(debug_assertions) {
        return;
    }
    let _cpu = hosted::bind().unwrap();
    let guards: Vec<_> = (0..255).map(|_| preempt::disable()).collect();
    let line = line!() + 1;
    let overflow = catch_unwind(|| drop(preempt::disable()));
    let message = *overflow.expect_err("stopped").downcast::<String>().unwrap();
    assert!(message.starts_with("BUG: preempt count overflow: disabled 255 times on CPU#"), "{message}");
    assert!(message.contains(&format!(" at {}:{line}:", file!())), "{message}");
    drop(guards);
    let guards: Vec<_> = (0..127).map(|_| bh::disable()).collect();
    let overflow = catch_unwind(|| drop(bh::disable()));
    let message = *overflow.expect_err("stopped").downcast::<String>().unwrap();
    assert!(message.starts_with("BUG: bottom half count overflow: disabled 127 times on CPU#"), "{message}");
    assert!(message.contains(&format!(" at {}:", file!())), "{message}");
    drop(guards);
    assert!(is_at_rest());
}

#[test]
fn a_count_that_is_gone_is_not_taken_below_zero() {
    if !cfg!(debug_assertions) {
        return;
    }
    let _cpu = hosted::bind().unwrap();
    let line = line!() + 1;
    let here = preempt::disable();
    Native::preempt_sub(PREEMPT_UNIT); // somebody enables without having disabled
    let report = report_of(|| drop(here));
    let cpu = Native::cpu();
    assert_eq!(
        report.message,
        format!(
            "preempt count underflow on CPU#{cpu}: enabled more often than disabled, before this guard was dropped"
        )
    );
    assert_eq!((report.location.file(), report.location.line()), (file!(), line));

    let no_softirqs = bh::disable();
    Native::preempt_sub(SOFTIRQ_DISABLE_UNIT);
    let report = report_of(|| no_softirqs.enable_no_resched());
    assert!(report.message.starts_with(&format!("bottom half count underflow on CPU#{cpu}:")), "{report:?}");

    let quiet = irq::disable();
    Native::irq_enable();
    let report = report_of(|| drop(quiet));
    assert!(report.message.starts_with(&format!("interrupt count underflow on CPU#{cpu}:")), "{report:?}");
    assert!(is_at_rest());
}

/// Takes what types refuse to send to another thread there, as `unsafe` code can.
struct Smuggled<T>(T);

// SAFETY: none; it is the mistake that the test is about. What is sent touches per-CPU counts only.
unsafe impl<T> Send for Smuggled<T> {}

#[test]
fn a_guard_that_is_dropped_on_another_cpu_touches_neither_ones_counts() {
    if !cfg!(debug_assertions) {
        return;
    }
    let _cpu = hosted::bind().unwrap();
    let here = Native::cpu();
    let line = line!() + 1;
    let guards = Smuggled((preempt::disable(), bh::disable(), irq::disable(), migrate::disable()));
    let lock = Box::leak(Box::new(IrqSpinLock::new(())));
    let held = Smuggled(lock.lock());
    let mut reports = std::thread::spawn(move || {
        let (guards, held) = (guards, held);
        let _cpu = hosted::bind().unwrap();
        let there = Native::cpu();
        let capture = ReportCapture::new();
        let Smuggled((a, b, c, d)) = guards;
        drop(a);
        drop(b);
        drop(c);
        drop(d);
        drop(held);
        assert!(is_at_rest(), "the other CPU's counts changed");
        capture.take().into_iter().map(|report| (report, there)).collect::<Vec<_>>()
    })
    .join()
    .unwrap();
    let names = ["preempt", "bottom half", "interrupt", "migration", "lock"];
    // The lock itself complains first, of which tests of its own say more.
    let of_the_lock = reports.remove(names.len() - 1).0.message;
    assert!(of_the_lock.starts_with("spinlock wrong owner: "), "{of_the_lock}");
    assert_eq!(reports.len(), names.len(), "{reports:?}");
    for ((report, there), name) in reports.iter().zip(names) {
        let expected = format!(
            "guard ({name}) made on CPU#{here} and dropped on CPU#{there}, whose counts stay as they are"
        );
        assert_eq!(report.message, expected);
        assert_eq!(report.location.line(), if name == "lock" { line + 2 } else { line });
    }
    assert_eq!(Native::context().count(), 2 * PREEMPT_UNIT + SOFTIRQ_DISABLE_UNIT);
    assert_eq!(Native::irq_depth(), 2);
    Native::preempt_sub(2 * PREEMPT_UNIT + SOFTIRQ_DISABLE_UNIT);
    Native::irq_enable();
    Native::irq_enable();
}

#[test]
fn bottom_halves_in_a_hardirq_are_reported() {
    if !cfg!(debug_assertions) {
        return;
    }
    let _cpu = hosted::bind().unwrap();
    Native::irq_disable();
    // SAFETY: interrupts are off and counted, and the guard goes before they come on.
    let serving = unsafe { context::enter_hardirq() };
    let report = report_of(|| drop(bh::disable()));
    assert_eq!(report.message, "bottom halves disabled in an interrupt handler, which none interrupts");
    assert_eq!(context::preempt_count(), HARDIRQ_UNIT);
    drop(serving);
    Native::irq_enable();
}

#[test]
fn the_data_of_a_local_lock_is_given_out_once() {
    hal::percpu! {
        static NUMBERS: LocalLock<Vec<u32>> = LocalLock::new(Vec::new());
    }
    let _cpu = hosted::bind().unwrap();
    let line = line!() + 1;
    let mut numbers = LocalLock::lock(&NUMBERS);
    numbers.push(1);
    assert_eq!(context::preempt_count(), PREEMPT_UNIT);
    let again = catch_unwind(|| drop(LocalLock::lock(&NUMBERS)));
    let message = *again.expect_err("stopped").downcast::<String>().unwrap();
    let expected = format!("BUG: local lock recursion on CPU#{}: its data is in use", Native::cpu());
    assert!(message.starts_with(&expected), "{message}");
    if cfg!(debug_assertions) {
        assert!(message.starts_with(&format!("{expected} since {}:{line}:", file!())), "{message}");
    }
    assert!(message.contains(&format!(" at {}:{}:", file!(), line + 3)), "{message}");
    // An interrupt handler that uses what only tasks may use is refused as well.
    hosted::send_interrupt(Native::cpu(), || assert!(LocalLock::try_lock(&NUMBERS).is_none())).unwrap();
    drop(numbers);
    assert!(is_at_rest());
    let here = preempt::disable();
    assert_eq!(*LocalLock::lock_with(&NUMBERS, &here), [1]);
    LocalLock::lock_with(&NUMBERS, &here).clear();
}

/// Every CPU pushes and pops its own; a copy that were shared, or given out twice, would mix the values.
#[test]
fn local_locks_of_cpus_and_of_interrupts_do_not_mix() {
    const ROUNDS: usize = 2_000;
    hal::percpu! {
        static STACK: LocalLock<[usize; 8], sync::Irq> = LocalLock::new([usize::MAX; 8]);
    }
    hosted::run_cpus(3, |me| {
        for round in 0..ROUNDS {
            let handler = move || LocalLock::lock(&STACK)[round % 8] = me;
            hosted::send_interrupt(Native::cpu(), handler).unwrap();
            let mut stack = LocalLock::lock(&STACK);
            hosted::send_interrupt(Native::cpu(), handler).unwrap();
            stack.fill(me);
            Native::relax();
            assert_eq!(*stack, [me; 8]);
        }
    });
}
