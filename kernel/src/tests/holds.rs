//! Offenders that hold others up for too long, and are reported with the right place; and figures about locks.

use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloc::format;
use alloc::sync::Arc;
use hal::{Native, Platform};
use sync::{BhSpinLock, IrqSpinLock, Mutex, SpinLock, TaskCx, bh, irq, softirq};

use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::{Outcome, comes_true, comes_true_by_others, expect_report};
use crate::watchdog::holds::{self, Kind};
use crate::{boot, check, check_eq, kernel_test, skip, task};

/// Longer than what is planted is short, and longer than a host usually takes a CPU away for.
const LIMIT_NS: u64 = 50_000_000;
const PLANTED_NS: u64 = 60_000_000;

fn spend(ns: u64) {
    let end = Native::now_ns() + ns;
    while Native::now_ns() < end {
        Native::relax();
    }
}

/// Runs `offender` with the limit set, and checks that something of `kind` was found too long.
fn is_noticed(kind: Kind, text: &str, offender: impl FnOnce()) -> Outcome {
    // On a busy host others are too long as well.
    expect_report("long hold: ");
    expect_report(text);
    let usual = holds::set_limit_ns(Some(LIMIT_NS));
    offender();
    let (count, longest) = holds::seen(kind);
    holds::set_limit_ns(usual);
    check!(count >= 1 && longest >= PLANTED_NS, "{count}, {longest} ns");
    Ok(())
}

/// `file:line:`, of the line that is so many below the caller's.
#[track_caller]
fn below(lines: u32) -> alloc::string::String {
    let here = Location::caller();
    format!("from {}:{}:", here.file(), here.line() + lines)
}

/// Whether locks and guards are measured.
fn checker_is_there() -> bool {
    sync::lockdep::ENABLED && !boot::options().lockdep_off
}

kernel_test! {
    fn a_lock_that_is_held_for_long_is_reported_with_its_place() {
        static LOCK: SpinLock<()> = SpinLock::new(());
        if !checker_is_there() {
            skip!("locks do not tell");
        }
        let text = below(2);
        is_noticed(Kind::Lock, &text, || {
            let _held = LOCK.lock();
            spend(PLANTED_NS);
        })
    }
}

kernel_test! {
    fn interrupts_that_are_off_for_long_are_reported_with_the_place() {
        if !checker_is_there() {
            skip!("guards do not tell");
        }
        let text = below(2);
        is_noticed(Kind::InterruptsOff, &text, || {
            let outer = irq::disable();
            let inner = irq::disable();
            drop(outer);
            spend(PLANTED_NS);
            drop(inner);
        })?;
        // A lock's flavour switches off as well.
        static LOCK: IrqSpinLock<()> = IrqSpinLock::new(());
        let text = below(2);
        is_noticed(Kind::InterruptsOff, &text, || {
            let _held = LOCK.lock();
            spend(PLANTED_NS);
        })
    }
}

kernel_test! {
    fn bottom_halves_that_are_off_for_long_are_reported_with_the_place() {
        if !checker_is_there() {
            skip!("guards do not tell");
        }
        let text = below(2);
        is_noticed(Kind::BottomHalvesOff, &text, || {
            let _off = bh::disable();
            spend(PLANTED_NS);
        })?;
        static LOCK: BhSpinLock<()> = BhSpinLock::new(());
        let text = below(2);
        is_noticed(Kind::BottomHalvesOff, &text, || {
            let _held = LOCK.lock();
            spend(PLANTED_NS);
        })
    }
}

kernel_test! {
    fn handlers_that_run_for_long_are_reported() {
        static CAME: AtomicU32 = AtomicU32::new(0);
        static HOOK: fn() = || {
            if CAME.fetch_add(1, Ordering::Relaxed) == 0 {
                spend(PLANTED_NS);
            }
        };
        CAME.store(0, Ordering::Relaxed);
        is_noticed(Kind::Interrupt, "long hold: interrupt 0x", || {
            set_hook(Source::Call, Some(&HOOK));
            send_call(Native::cpu());
            comes_true(|| CAME.load(Ordering::Relaxed) != 0);
            set_hook(Source::Call, None);
        })?;
        static RAN: AtomicBool = AtomicBool::new(false);
        static SLOW: softirq::Tasklet<fn(&softirq::Running<'_>)> = softirq::Tasklet::new(|_| {
            spend(PLANTED_NS);
            RAN.store(true, Ordering::Relaxed);
        });
        RAN.store(false, Ordering::Relaxed);
        is_noticed(Kind::Softirq, "long hold: softirq ", || {
            crate::softirq::schedule(&SLOW);
            comes_true(|| RAN.load(Ordering::Relaxed));
            // Its end is seen when its handler is over, which bottom halves off here wait for.
            drop(bh::disable());
        })
    }
}

kernel_test! {
    fn what_is_short_is_not_reported() {
        static LOCK: IrqSpinLock<()> = IrqSpinLock::new(());
        let usual = holds::set_limit_ns(Some(20 * LIMIT_NS));
        for _ in 0..20 {
            let _held = LOCK.lock();
            spend(1_000_000);
        }
        // Twenty in a row would be too long, if one of them did not end.
        let seen = Kind::ALL.map(|kind| holds::seen(kind).0);
        holds::set_limit_ns(usual);
        check_eq!(seen, [0; 5]);
        Ok(())
    }
}

/// Whether the class of locks made in this file that was waited for at `line` has been so, and its figures.
#[cfg(any(feature = "lockdep", debug_assertions))]
fn contended_at(line: u32) -> Option<sync::lockdep::LockTimes> {
    crate::lockdep::times()
        .into_iter()
        .map(|(_, times)| times)
        .find(|times| times.longest_wait_at.is_some_and(|at| at.file() == file!() && at.line() == line))
}

/// Two tasks want one mutex, of which the second has to wait; returns the line where it does.
fn contend(cx: &mut TaskCx) -> Result<u32, crate::testing::Verdict> {
    let shared = Arc::new((Mutex::<u32>::new(0), AtomicBool::new(false)));
    let guard = shared.0.lock(cx);
    let other = shared.clone();
    let waits = task::spawn("waits", move |cx| {
        other.1.store(true, Ordering::Relaxed);
        *other.0.lock(cx) += 1;
    });
    let line = line!() - 2;
    let Ok(waits) = waits else { skip!("no memory") };
    let began = comes_true_by_others(|| shared.1.load(Ordering::Relaxed));
    // It is about to find the mutex taken; it blocks at the latest when it has been given a CPU and lost it again.
    let blocked = comes_true_by_others(|| waits.task().state() == task::State::Blocked);
    drop(guard);
    waits.join(cx);
    check!(began && blocked);
    Ok(line)
}

#[cfg(any(feature = "lockdep", debug_assertions))]
kernel_test! {
    task,
    fn waits_for_locks_are_counted_with_their_place(cx) {
        if !checker_is_there() {
            skip!("locks do not tell");
        }
        crate::lockdep::reset_times();
        crate::lockdep::set_timing(true);
        let line = contend(cx);
        crate::lockdep::set_timing(false);
        let line = line?;
        let Some(times) = contended_at(line) else {
            return Err(crate::testing::failed(format_args!("nothing was counted at line {line}")));
        };
        check_eq!(times.contended, 1);
        // Two tasks held it, one after the other.
        check_eq!(times.holds, 2);
        check!(times.waited_ns == times.longest_wait_ns && times.held_ns >= times.longest_hold_ns, "{times:?}");
        check!(times.longest_hold_at.is_some_and(|at| at.file() == file!()), "{times:?}");
        crate::lockdep::reset_times();
        check!(contended_at(line).is_none());
        Ok(())
    }
}

kernel_test! {
    task,
    fn waits_for_locks_are_in_the_trace(cx) {
        use crate::trace::{self, event::Event};
        let begun = Native::now_ns();
        contend(cx)?;
        let records = trace::tail(usize::MAX).records;
        let since = || records.iter().filter(|record| record.time_ns >= begun);
        // Other locks are waited for too; one of the waits has both ends, in order.
        let complete = since().any(|end| match end.event {
            Event::LockWaited { lock, ns } => since().any(|begin| {
                let waited = u128::from(begin.time_ns) + u128::from(ns) <= u128::from(end.time_ns);
                begin.event == Event::LockContended(lock) && waited
            }),
            _ => false,
        });
        check!(complete, "{records:?}");
        Ok(())
    }
}
