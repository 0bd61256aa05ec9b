//! Timers on this machine: not early, none lost, none twice, whatever CPUs do meanwhile.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::sync::Arc;
use hal::chaos::mix;
use hal::x86_64::clock::{self, ClockInfo, Kind};
use hal::x86_64::softirq::pending_here;
use hal::{CpuId, Native, Platform};
use sync::{TaskCx, irq};

use crate::softirq::Vector;
use crate::task::Builder;
use crate::testing::comes_true_by_others;
use crate::tests::console;
use crate::timer::{self, DelayedWork, Fault, Firing, Look, Ticks, Timer, TimerFlags, precise};
use crate::{check, check_eq, clock_watch, cpus, hotplug, kernel_test, skip, torture, workqueue};

const MS: u64 = 1_000_000;

kernel_test! {
    everywhere,
    fn smoke_a_function_is_called_later_and_not_early(_) {
        let called = Arc::new(AtomicU64::new(0));
        for ms in [1, 5, 30, 200] {
            for exact in [false, true] {
                let (begun, seen) = (Native::now_ns(), Arc::clone(&called));
                called.store(0, Ordering::Relaxed);
                if exact {
                    precise::after(ms * MS, move |_| seen.store(Native::now_ns(), Ordering::Relaxed));
                } else {
                    timer::after(ms * MS, move |_| seen.store(Native::now_ns(), Ordering::Relaxed));
                }
                check!(comes_true_by_others(|| called.load(Ordering::Relaxed) != 0), "{ms} ms, exact: {exact}");
                let waited = called.load(Ordering::Relaxed) - begun;
                check!(waited >= ms * MS, "{ms} ms, exact: {exact}: called after {waited} ns");
            }
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_timer_on_an_idle_cpu_is_called_there_and_in_time(cx) {
        static WHERE: AtomicU64 = AtomicU64::new(0);
        static PINNED: Timer<fn(&Firing<'_>)> = Timer::new(|_| {
            WHERE.store(u64::from(Native::cpu().as_u32()) + 1, Ordering::Relaxed);
        });
        for cpu in cpus::online() {
            WHERE.store(0, Ordering::Relaxed);
            check!(timer::add_on(cpu, &PINNED, timer::ticks_from_now(20 * MS)));
            check!(comes_true_by_others(|| WHERE.load(Ordering::Relaxed) != 0));
            check_eq!(WHERE.load(Ordering::Relaxed), u64::from(cpu.as_u32()) + 1);
            PINNED.delete_sync(cx);
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn what_is_tied_to_a_cpu_is_called_on_the_one_that_armed_it(cx) {
        /// On which CPU each was called, plus 1, in 16 bits.
        static CALLED: AtomicU64 = AtomicU64::new(0);
        let note = |place: u32| {
            CALLED.fetch_add((u64::from(Native::cpu().as_u32()) + 1) << (place * 16), Ordering::Relaxed);
        };
        for cpu in cpus::online() {
            CALLED.store(0, Ordering::Relaxed);
            let arms = move |_: &mut TaskCx| {
                let tied = Arc::new(Timer::new_in(TimerFlags::PINNED, move |_: &Firing<'_>| note(0)));
                timer::add(&tied, timer::ticks_from_now(2 * MS));
                let soft = Arc::new(precise::HrTimer::soft(move |_| note(1)));
                precise::add(&soft, Native::now_ns() + 2 * MS);
                let hard = Arc::new(precise::HrTimer::hard(move |_| note(2)));
                precise::add(&hard, Native::now_ns() + 2 * MS);
            };
            // The task ends at once, so that the CPU has nothing else to do.
            let Ok(task) = Builder::named(format_args!("arms/{cpu}")).on(cpu).spawn(arms) else { continue };
            task.join(cx);
            let there = (u64::from(cpu.as_u32()) + 1) * 0x1_0001_0001;
            let all = comes_true_by_others(|| CALLED.load(Ordering::Relaxed) == there);
            check!(all, "CPU {cpu}: {:#x}", CALLED.load(Ordering::Relaxed));
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_deferrable_timer_waits_for_its_cpu_to_do_something(cx) {
        static CALLED: AtomicBool = AtomicBool::new(false);
        static LATER: Timer<fn(&Firing<'_>)> =
            Timer::new_in(TimerFlags::DEFERRABLE, |_| CALLED.store(true, Ordering::Relaxed));
        CALLED.store(false, Ordering::Relaxed);
        timer::add(&LATER, timer::ticks_from_now(5 * MS));
        // This task's own wake-ups are something.
        check!(comes_true_by_others(|| CALLED.load(Ordering::Relaxed)));
        check_eq!(LATER.delete_sync(cx), false);
        Ok(())
    }
}

kernel_test! {
    task,
    fn delayed_work_is_called_once_unless_it_is_cancelled(cx) {
        static CALLED: AtomicU64 = AtomicU64::new(0);
        CALLED.store(0, Ordering::Relaxed);
        let work = DelayedWork::new(workqueue::system(), |running, me| {
            running.cx().sleep_ns(100_000);
            if CALLED.fetch_add(1, Ordering::Relaxed) == 1 {
                me.queue_in(MS);
            }
        });
        check!(work.queue_in(10 * MS) && !work.queue_in(0) && work.is_pending());
        check!(comes_true_by_others(|| CALLED.load(Ordering::Relaxed) == 1));
        // From its own function, once more.
        check!(comes_true_by_others(|| work.queue_in(0)));
        check!(comes_true_by_others(|| CALLED.load(Ordering::Relaxed) == 3));
        work.cancel_sync(cx);
        check!(work.queue_in(3_600_000 * MS) && work.cancel_sync(cx) && !work.is_pending());
        check!(work.queue_in(3_600_000 * MS) && work.flush(cx));
        check_eq!(CALLED.load(Ordering::Relaxed), 4);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_precise_beat_does_not_drift(cx) {
        static TURNS: AtomicU64 = AtomicU64::new(0);
        static MISSED: AtomicU64 = AtomicU64::new(0);
        const PERIOD: u64 = 2 * MS;
        TURNS.store(0, Ordering::Relaxed);
        MISSED.store(0, Ordering::Relaxed);
        let begun = Native::now_ns();
        let beat = Arc::new(precise::HrTimer::soft_periodic(TimerFlags::NONE, PERIOD, |_, missed| {
            MISSED.fetch_add(missed, Ordering::Relaxed);
            TURNS.fetch_add(1, Ordering::Relaxed);
        }));
        precise::add(&beat, begun + PERIOD);
        cx.sleep_ns(100 * MS);
        beat.shutdown_sync(cx);
        let passed = (Native::now_ns() - begun) / PERIOD;
        let counted = TURNS.load(Ordering::Relaxed) + MISSED.load(Ordering::Relaxed);
        // Each period was called or counted as missed; the last ones may not have been noticed yet.
        check!(counted <= passed && counted >= 50 - 1, "{counted} of {passed}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn what_is_due_when_a_cpu_looks_before_it_rests_is_not_left_to_nobody(cx) {
        static CALLED: AtomicU64 = AtomicU64::new(0);
        static DUE: Timer<fn(&Firing<'_>)> = Timer::new(|_| _ = CALLED.fetch_add(1, Ordering::Relaxed));
        CALLED.store(0, Ordering::Relaxed);
        let quiet = irq::disable();
        // As if the next tick, with which it is due, passed in this interrupt, after its look, and another CPU counted it.
        let at = timer::ticks_from_now(1);
        timer::add(&DUE, at);
        while Native::now_ns() < at.as_ns() {
            Native::relax();
        }
        timer::all().advance_to(at);
        let next = timer::tick_rests(&quiet, Look::Interrupted);
        let raised = pending_here() & 1 << Vector::Timer.index() != 0;
        timer::tick_runs(&quiet);
        drop(quiet);
        check!(next == u64::MAX && raised, "next look at {next}, softirq raised: {raised}");
        // By that softirq, which nobody else raises before the next tick.
        check!(comes_true_by_others(|| CALLED.load(Ordering::Relaxed) == 1));
        check_eq!(DUE.delete_sync(cx), false);
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 120_000,
    fn what_a_cpu_arms_before_it_idles_is_called_and_starts_work(cx) {
        static DONE: AtomicU64 = AtomicU64::new(0);
        /// The latest by which anything came, in ns: for who looks at the log.
        static LATEST: AtomicU64 = AtomicU64::new(0);
        let rounds = if cfg!(feature = "chaos") { 10 } else { 60 };
        DONE.store(0, Ordering::Relaxed);
        LATEST.store(0, Ordering::Relaxed);
        let done = |due: u64| {
            let now = Native::now_ns();
            LATEST.fetch_max(now.saturating_sub(due), Ordering::Relaxed);
            DONE.fetch_add(1, Ordering::Relaxed);
            now >= due
        };
        static EARLY: AtomicU64 = AtomicU64::new(0);
        EARLY.store(0, Ordering::Relaxed);
        let mut expected = 0;
        for round in 0..rounds {
            for cpu in cpus::online() {
                // From nothing to four ticks ahead, at all phases of the tick.
                let ns = mix(round << 16 | u64::from(cpu.as_u32())) % (4 * timers::TICK_NS);
                let task = Builder::named(format_args!("arms/{cpu}")).on(cpu).spawn(move |_| {
                    let due = Native::now_ns() + ns;
                    timer::after(ns, move |_| count(&EARLY, !done(due)));
                    precise::after(ns, move |_| count(&EARLY, !done(due)));
                    let work = DelayedWork::new(workqueue::unbound(), move |_, _| count(&EARLY, !done(due)));
                    work.queue_in(ns);
                    work
                });
                let Ok(task) = task else { continue };
                expected += 3;
                let work = task.join(cx);
                // Others sleep in turn, so that this one is now the last that ticks, and now not.
                let all = comes_true_by_others(|| DONE.load(Ordering::Relaxed) == expected);
                drop(work);
                check!(all, "{} of {expected}", DONE.load(Ordering::Relaxed));
            }
        }
        ::log::info!("{expected} came, the latest {} us after its time", LATEST.load(Ordering::Relaxed) / 1_000);
        check_eq!(EARLY.load(Ordering::Relaxed), 0);
        Ok(())
    }
}

/// Counts one more if it happened.
fn count(counter: &AtomicU64, happened: bool) {
    counter.fetch_add(u64::from(happened), Ordering::Relaxed);
}

kernel_test! {
    task, limit_ms = 120_000,
    fn torture_none_is_early_lost_or_called_twice(cx) {
        let report = torture::try_for("timers", None, &["hotplug"], 1_500, cx);
        report.tallies.iter().for_each(|tally| ::log::info!("timers {}: {}", tally.what, tally.count));
        check_eq!(report.errors, 0);
        // A run in which nothing happened shows nothing.
        let lacking = report.lacking();
        check!(lacking.is_none(), "{lacking:?}");
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 120_000,
    fn torture_finds_a_tick_that_runs_ahead(cx) {
        check!(torture::try_for("timers", Some("timers-early"), &[], 2_000, cx).errors > 0);
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 120_000,
    fn torture_finds_a_tick_that_runs_behind(cx) {
        if cpus::online_count() > 4 {
            skip!("many virtual CPUs are away for long, which explains much");
        }
        check!(torture::try_for("timers", Some("timers-late"), &[], 8_000, cx).errors > 0);
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 180_000,
    fn torture_finds_timers_that_are_left_behind(cx) {
        let Some(last) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU") };
        static STRAY: Timer<fn(&Firing<'_>)> = Timer::new(|_| ());
        timer::plant(Fault::LeaveBehind);
        let at = timer::ticks_from_now(30 * MS);
        timer::add_on(last, &STRAY, at);
        let gone = hotplug::take_offline(last, cx);
        cx.sleep_ns(200 * MS);
        let left_behind = STRAY.is_pending();
        timer::plant(Fault::None);
        let back = hotplug::bring_online(last, cx);
        let called = comes_true_by_others(|| !STRAY.is_pending());
        check_eq!((gone, back), (Ok(()), Ok(())));
        check!(left_behind && called, "left behind: {left_behind}, called when the CPU came back: {called}");
        // The same without the fault: another CPU calls it.
        timer::add_on(last, &STRAY, timer::ticks_from_now(30 * MS));
        check_eq!(hotplug::take_offline(last, cx), Ok(()));
        let called = comes_true_by_others(|| !STRAY.is_pending());
        check_eq!(hotplug::bring_online(last, cx), Ok(()));
        check!(called);
        Ok(())
    }
}

kernel_test! {
    task,
    fn the_limit_of_slow_calls_is_there_when_a_cpu_comes_back(cx) {
        const LIMIT: Option<u64> = Some(100_000);
        static CALLED: AtomicBool = AtomicBool::new(false);
        static SLOW: Timer<fn(&Firing<'_>)> = Timer::new(|_| {
            let begun = Native::now_ns();
            while Native::now_ns() - begun < MS {
                Native::relax();
            }
            CALLED.store(true, Ordering::Relaxed);
        });
        CALLED.store(false, Ordering::Relaxed);
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU") };
        let limits = || {
            let (wheels, queues) = (timer::all().of(cpu)?, precise::all().of(cpu)?);
            let wheels = [wheels.local(), wheels.global(), wheels.deferrable()].map(|base| base.slow_limit());
            Some((wheels, [queues.hard(), queues.soft()].map(|base| base.slow_limit())))
        };
        let counted = || {
            let wheels = timer::all().of(cpu)?;
            Some(wheels.local().stats().slow + wheels.global().stats().slow)
        };
        let gone = hotplug::take_offline(cpu, cx);
        let (_, set) = console::run("timers slow 100us", false, cx);
        let back = hotplug::bring_online(cpu, cx);
        let (there, before) = (limits(), counted());
        timer::add_on(cpu, &SLOW, timer::ticks_from_now(MS));
        let called = comes_true_by_others(|| CALLED.load(Ordering::Relaxed));
        SLOW.delete_sync(cx);
        // That is counted when the call is over for all others already.
        comes_true_by_others(|| counted() > before);
        let after = counted();
        let (_, unset) = console::run("timers slow off", false, cx);
        check_eq!((gone, set, back, called, unset), (Ok(()), true, Ok(()), true, true));
        check_eq!(there, Some(([LIMIT; 3], [LIMIT; 2])));
        check!(after > before, "{before:?} slow calls before, {after:?} after");
        check_eq!(limits(), Some(([None; 3], [None; 2])));
        Ok(())
    }
}

kernel_test! {
    task,
    fn the_clock_is_looked_at_now_and_then(cx) {
        // The PIT is no reference for that.
        let none = |info: &ClockInfo| info.references.iter().all(|reference| reference.kind() == Kind::Pit);
        if clock::info().is_none_or(none) {
            skip!("nothing to compare it with");
        }
        let before = clock_watch::comparisons();
        let looked = (0..100).any(|_| {
            cx.sleep_ns(100 * MS);
            clock_watch::comparisons() != before
        });
        check!(looked);
        Ok(())
    }
}

kernel_test! {
    task,
    fn ticks_go_on_while_nobody_ticks(cx) {
        let before = (timer::now(), Native::now_ns());
        cx.sleep_ns(300 * MS);
        let (ticks, ns) = (timer::now().0 - before.0.0, Native::now_ns() - before.1);
        check!(Ticks(ticks + 1).as_ns() >= ns - timers::TICK_NS && Ticks(ticks).as_ns() <= ns + 2 * timers::TICK_NS, "{ticks} ticks in {ns} ns");
        Ok(())
    }
}
