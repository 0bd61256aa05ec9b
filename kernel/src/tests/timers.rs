//! Timers on this machine: not early, none lost, none twice, whatever CPUs do meanwhile.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::chaos::mix;
use hal::x86_64::clock::{self, ClockInfo, Kind};
use hal::x86_64::softirq::pending_here;
use hal::{CpuId, Native, Platform};
use spin::Once;
use sync::{TaskCx, irq};

use crate::softirq::Vector;
use crate::task::Builder;
use crate::testing::comes_true_by_others;
use crate::timer::{self, DelayedWork, Deletion, Fault, Firing, Look, Ticks, Timer, TimerFlags, precise};
use crate::{check, check_eq, clock_watch, cpus, hotplug, kernel_test, skip, tick, workqueue};

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

/// What happened to the timers of a run. At the end what was armed was called or deleted, each once.
#[derive(Default)]
struct Tally {
    armed: AtomicU64,
    called: AtomicU64,
    deleted: AtomicU64,
    early: AtomicU64,
    moved: AtomicU64,
    waited: AtomicU64,
    /// Synchronous deletes after which a timer was neither called nor deleted, or both.
    wrong: AtomicU64,
}

/// The timers that all CPUs use.
const SLOTS: usize = 48;

struct Slot {
    number: usize,
}

static TALLY: Tally = Tally {
    armed: AtomicU64::new(0),
    called: AtomicU64::new(0),
    deleted: AtomicU64::new(0),
    early: AtomicU64::new(0),
    moved: AtomicU64::new(0),
    waited: AtomicU64::new(0),
    wrong: AtomicU64::new(0),
};

fn timers() -> &'static [Timer<Slot>] {
    static ALL: Once<Vec<Timer<Slot>>> = Once::new();
    let make = |number| {
        let flags = match number % 8 {
            0 => TimerFlags::PINNED,
            1 => TimerFlags::DEFERRABLE,
            2 => TimerFlags::IRQSAFE,
            _ => TimerFlags::NONE,
        };
        Timer::with_state(flags, Slot { number }, on_time)
    };
    ALL.call_once(|| (0..SLOTS).map(make).collect())
}

fn count(counter: &AtomicU64, happened: bool) {
    counter.fetch_add(u64::from(happened), Ordering::Relaxed);
}

fn on_time(timer: &Timer<Slot>, firing: &Firing<'_>) {
    count(&TALLY.called, true);
    // By the clock, and not by what the wheel believes.
    count(&TALLY.early, Native::now_ns() < firing.expired_at().as_ns());
    let draw = mix(Native::now_ns());
    if draw.is_multiple_of(4) {
        let armed_before =
            timer::modify(&timers()[timer.state().number], timer::ticks_from_now(draw % (20 * MS)));
        count(&TALLY.armed, !armed_before);
    }
}

fn count_call(timer: &Timer<AtomicU64>, _: &Firing<'_>) {
    timer.state().fetch_add(1, Ordering::Relaxed);
}

/// One CPU's task: does this and that with all timers until it is told to stop.
fn play(seed: u64, stop: &AtomicBool, cx: &mut TaskCx) {
    let mut draw = seed;
    let own = Arc::new(Timer::with_state(TimerFlags::NONE, AtomicU64::new(0), count_call));
    while !stop.load(Ordering::Relaxed) {
        draw = mix(draw);
        let timer = &timers()[(draw >> 32) as usize % SLOTS];
        let at = timer::ticks_from_now((draw >> 8) % (60 * MS));
        match draw % 8 {
            0..=2 => {
                let armed_before = timer::modify(timer, at);
                count(&TALLY.armed, !armed_before);
                count(&TALLY.moved, armed_before);
            }
            3 => count(&TALLY.moved, timer.modify_pending(at)),
            4 => count(&TALLY.deleted, timer.delete()),
            5 => {
                // As `delete_sync` does, which does not tell how often others armed it meanwhile.
                loop {
                    match timer.try_delete_sync() {
                        Deletion::Deleted => count(&TALLY.deleted, true),
                        Deletion::Running => Native::relax(),
                        Deletion::Idle => break,
                    }
                }
            }
            6 => {
                let before = own.state().load(Ordering::Relaxed);
                timer::add(&own, timer::ticks_from_now((draw >> 8) % (2 * MS)));
                (0..(draw >> 40) % 2_000).for_each(|_| Native::relax());
                let deleted = own.delete_sync(cx);
                // It was called or deleted, and nothing is under way.
                let called = own.state().load(Ordering::Relaxed) - before;
                count(&TALLY.wrong, called + u64::from(deleted) != 1);
                count(&TALLY.waited, true);
            }
            _ => {
                count(&TALLY.armed, true);
                timer::after((draw >> 16) % (10 * MS), |fired| {
                    count(&TALLY.early, Native::now_ns() < fired.expired_at().as_ns());
                    count(&TALLY.called, true);
                });
            }
        }
        if draw.is_multiple_of(64) {
            // Now and then the CPU idles.
            cx.sleep_ns(draw % (4 * MS));
        }
    }
}

/// What is armed and has been neither called nor deleted.
fn outstanding() -> u64 {
    let Tally { armed, called, deleted, .. } = &TALLY;
    // What is over is read first, so that what happens meanwhile does not look like too much of it.
    let over = called.load(Ordering::Relaxed) + deleted.load(Ordering::Relaxed);
    armed.load(Ordering::Relaxed).wrapping_sub(over)
}

/// All CPUs play for `ms` milliseconds, while the last one comes and goes. Returns how many were early, and how many
/// timers were lost or, as a number beyond all bounds, called twice.
fn torture(ms: u64, cx: &mut TaskCx) -> (u64, u64) {
    for counter in
        [&TALLY.armed, &TALLY.called, &TALLY.deleted, &TALLY.early, &TALLY.moved, &TALLY.waited, &TALLY.wrong]
    {
        counter.store(0, Ordering::Relaxed);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = cpus::online()
        .filter_map(|cpu| {
            let stop = Arc::clone(&stop);
            let seed = mix(Native::now_ns() ^ u64::from(cpu.as_u32()) << 48);
            Builder::named(format_args!("timers/{cpu}")).on(cpu).spawn(move |cx| play(seed, &stop, cx)).ok()
        })
        .collect();
    let last = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT);
    let end = Native::now_ns() + ms * MS;
    while Native::now_ns() < end {
        cx.sleep_ns(10 * MS);
        if let Some(last) = last {
            let _ = hotplug::take_offline(last, cx);
            cx.sleep_ns(10 * MS);
            let _ = hotplug::bring_online(last, cx);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.join(cx);
    }
    // Everything that is still armed is due within 60 ms; deferrable ones want their CPU to tick.
    let ticking = tick::keep_all();
    let over = comes_true_by_others(|| {
        timers().iter().all(|timer| !timer.is_pending() && !timer.is_running()) && outstanding() == 0
    });
    if !over {
        let stuck = timers().iter().filter(|timer| timer.is_pending() || timer.is_running());
        let numbers: Vec<_> =
            stuck.map(|timer| (timer.state().number, timer.expires(), timer.is_running())).collect();
        ::log::warn!(
            "at tick {} {} are outstanding; armed or running: {numbers:?}",
            timer::now(),
            outstanding()
        );
    }
    drop(ticking);
    let lost = if over { 0 } else { outstanding().max(1) };
    if !over {
        // What a broken run has left must not count in the next one.
        timers().iter().for_each(|timer| _ = timer.delete_sync(cx));
    }
    (TALLY.early.load(Ordering::Relaxed), lost)
}

kernel_test! {
    task, limit_ms = 120_000,
    fn torture_none_is_early_lost_or_called_twice(cx) {
        let (early, lost) = torture(1_500, cx);
        let Tally { armed, called, deleted, moved, waited, .. } = &TALLY;
        check_eq!((early, lost, TALLY.wrong.load(Ordering::Relaxed)), (0, 0, 0));
        // A run in which nothing happened shows nothing.
        for (what, counter) in [("armed", armed), ("called", called), ("deleted", deleted), ("moved", moved), ("waited for", waited)] {
            let count = counter.load(Ordering::Relaxed);
            ::log::info!("timers {what}: {count}");
            check!(count > 100, "{what}: {count}");
        }
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 120_000,
    fn torture_finds_a_tick_that_runs_ahead(cx) {
        timer::plant(Fault::RunAhead);
        let (early, _) = torture(300, cx);
        timer::plant(Fault::None);
        // Until the clock has come up with the ticks.
        cx.sleep_ns(10 * timers::TICK_NS);
        check!(early != 0);
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
