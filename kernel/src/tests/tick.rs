//! Ticks that rest, and what has them come back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::rcu::{Domain, RcuBox, Retired};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::cpumask::CpuMask;
use hal::x86_64::traps::count;
use hal::x86_64::vectors;
use hal::{CpuId, Native, Platform};
use sync::TaskCx;
use timers::HZ;

use crate::cmdline::TestFilter;
use crate::rcu::Kernel;
use crate::task::{Builder, JoinHandle};
use crate::testing::comes_true_by_others;
use crate::tick::{self, TickMode};
use crate::timer::{self, precise};
use crate::{boot, check, check_eq, cpus, kernel_test, log, services, skip};

/// Timer interrupts of all CPUs so far.
fn timer_interrupts() -> u64 {
    cpus::online().map(|cpu| count(cpu, vectors::TIMER)).sum()
}

fn nap(cx: &mut TaskCx, ns: u64) {
    let end = Native::now_ns() + ns;
    while Native::now_ns() < end {
        cx.block(Some(end));
    }
}

kernel_test! {
    task,
    fn an_idle_machine_takes_few_timer_interrupts(cx) {
        if tick::mode() == TickMode::Always {
            skip!("tick=always");
        }
        const SECONDS: u64 = 4;
        log::drain();
        // What earlier tests have left to be done is done; this CPU has its tick while it looks.
        check!(comes_true_by_others(|| cpus::online().filter(|cpu| *cpu != CpuId::BOOT).all(tick::is_resting)));
        let before = timer_interrupts();
        nap(cx, SECONDS * 1_000_000_000);
        let came = timer_interrupts() - before;
        // Each CPU looks round every 4 s; this task's own end of its nap is one more.
        let allowed = SECONDS * u64::max(2, cpus::online_count() as u64 / 2);
        check!(came <= allowed, "{came} timer interrupts in {SECONDS} s");
        ::log::info!("{came} timer interrupts in {SECONDS} s");
        // Nobody's tick came back for good, and the message is shown without one.
        check!(comes_true_by_others(|| cpus::online().filter(|cpu| *cpu != CpuId::BOOT).all(tick::is_resting)));
        Ok(())
    }
}

/// A task on `cpu` that computes until it is told to stop, and counts.
fn busy(cpu: CpuId, stop: &Arc<AtomicBool>) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let turns = Arc::new(AtomicU64::new(0));
    let (stop, counted) = (Arc::clone(stop), Arc::clone(&turns));
    let task = Builder::new("busy").on(cpu).spawn(move |_| {
        while !stop.load(Ordering::Relaxed) {
            counted.fetch_add(1, Ordering::Relaxed);
            Native::relax();
        }
    });
    (task.expect("memory for a task"), turns)
}

kernel_test! {
    task, limit_ms = 60_000,
    fn a_task_that_is_alone_has_no_tick_until_a_second_one_comes(cx) {
        let Some(cpu) = cpus::online().find(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU") };
        if tick::mode() != TickMode::Auto {
            skip!("tick={}", tick::mode());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (first, first_turns) = busy(cpu, &stop);
        check!(comes_true_by_others(|| first_turns.load(Ordering::Relaxed) > 0 && tick::is_resting(cpu)));
        let before = count(cpu, vectors::TIMER);
        nap(cx, 300_000_000);
        let alone = count(cpu, vectors::TIMER) - before;
        // Without a tick of its own it does not give way, unless the second one has it come back.
        let (second, second_turns) = busy(cpu, &stop);
        check!(comes_true_by_others(|| second_turns.load(Ordering::Relaxed) > 0));
        let (one, two) = (first_turns.load(Ordering::Relaxed), second_turns.load(Ordering::Relaxed));
        let both_go_on =
            || first_turns.load(Ordering::Relaxed) > one && second_turns.load(Ordering::Relaxed) > two;
        let shared = comes_true_by_others(both_go_on);
        let ticks = !tick::is_resting(cpu);
        stop.store(true, Ordering::Relaxed);
        first.join(cx);
        second.join(cx);
        check!(shared && ticks);
        // A few, for whatever else happens on this CPU; with a tick it would be one each 4 ms or more often.
        check!(alone <= 10, "{alone} timer interrupts in 300 ms");
        Ok(())
    }
}

kernel_test! {
    task,
    fn ticks_that_are_kept_go_on_and_rest_again(cx) {
        let mode = tick::mode();
        let goes_on = |cpu: CpuId| {
            let before = tick::count(cpu);
            comes_true_by_others(|| tick::count(cpu) > before + 3)
        };
        let kept = tick::keep_all();
        let all = cpus::online().all(goes_on);
        drop(kept);
        tick::set_mode(TickMode::Always);
        let always = cpus::online().all(goes_on) && !cpus::online().any(tick::is_resting);
        tick::set_mode(TickMode::Idle);
        let others = || cpus::online().filter(|cpu| *cpu != CpuId::BOOT);
        let idle = comes_true_by_others(|| others().all(tick::is_resting));
        tick::set_mode(mode);
        nap(cx, 1_000_000);
        check_eq!((all, always, idle), (true, true, true));
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_message_from_a_cpu_without_a_tick_is_shown(cx) {
        let stop = Arc::new(AtomicBool::new(false));
        let Some(cpu) = cpus::online().find(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU") };
        let (alone, _) = busy(cpu, &stop);
        check!(comes_true_by_others(|| tick::is_resting(cpu) || tick::mode() != TickMode::Auto));
        services::run_on(cpu, || ::log::info!("from a CPU without a tick"));
        let drained = comes_true_by_others(|| !log::has_pending());
        stop.store(true, Ordering::Relaxed);
        alone.join(cx);
        check!(drained);
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 60_000,
    fn cpus_without_a_tick_get_what_others_have_too_much(cx) {
        let others: Vec<CpuId> = cpus::online().filter(|cpu| *cpu != CpuId::BOOT).collect();
        let [crowded, free, ..] = others[..] else { skip!("fewer than three CPUs") };
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..4).map(|_| busy(crowded, &stop)).collect();
        check!(comes_true_by_others(|| tasks.iter().all(|(_, turns)| turns.load(Ordering::Relaxed) > 0)));
        // From now on they may run on the other one too, which idles, and is told by nobody but the crowded one.
        let both = CpuMask::from_iter([crowded, free]);
        for (task, _) in &tasks {
            check_eq!(task.task().set_affinity(&both), Ok(()));
        }
        let moved = comes_true_by_others(|| tasks.iter().any(|(task, _)| task.task().cpu() == free));
        stop.store(true, Ordering::Relaxed);
        for (task, _) in tasks {
            task.join(cx);
        }
        check!(moved);
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 600_000,
    fn virtual_minutes_of_rest_lose_nothing(cx) {
        let named = matches!(boot::options().test, Some(TestFilter::Matching(name)) if name.contains("virtual_minutes"));
        if !named {
            skip!("takes minutes where time is real: name it, in a guest whose instructions are counted");
        }
        const S: u64 = 1_000_000_000;
        log::drain();
        check!(comes_true_by_others(|| cpus::online().filter(|cpu| *cpu != CpuId::BOOT).all(tick::is_resting)));
        // How late each is called, in ns; 1 more, so that 0 is not yet.
        static LATE: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
        static CALLED_BACK: AtomicU64 = AtomicU64::new(0);
        let (begun, first_tick, interrupts) = (Native::now_ns(), timer::now().0, timer_interrupts());
        for (seconds, late) in [3, 61].into_iter().zip(&LATE[..2]) {
            let due = begun + seconds * S;
            precise::after(seconds * S, move |_| late.store(Native::now_ns().saturating_sub(due) + 1, Ordering::Relaxed));
        }
        for (seconds, late) in [3, 200].into_iter().zip(&LATE[2..]) {
            let due = begun + seconds * S;
            timer::after(seconds * S, move |_| late.store(Native::now_ns().saturating_sub(due) + 1, Ordering::Relaxed));
        }
        Retired::<_, Kernel>::new(RcuBox::new(Told(&CALLED_BACK))).free_after_grace_period();
        nap(cx, 300 * S);
        let (passed, ticks) = (Native::now_ns() - begun, timer::now().0 - first_tick);
        let came = timer_interrupts() - interrupts;
        check!((300 * S..301 * S).contains(&passed), "{passed} ns");
        let expected = passed * HZ / S;
        check!(ticks.abs_diff(expected) <= 1, "{ticks} ticks instead of {expected}");
        check!(came <= 2 * 300, "{came} timer interrupts in five minutes");
        check_eq!(CALLED_BACK.load(Ordering::Relaxed), 1);
        // Exact ones by the millisecond; coarse ones by their bucket: an eighth of the time, at most.
        for (late, most) in LATE.iter().zip([S / 1_000, S / 1_000, S / 2, 25 * S]) {
            let late = late.load(Ordering::Relaxed);
            check!(late > 0 && late <= most, "{late} ns late of at most {most}");
        }
        // RCU goes on as if nothing had been, and the clocks have not fallen out with each other.
        let begun = Native::now_ns();
        Kernel::synchronize(cx);
        check!(Native::now_ns() - begun < S);
        check!(!log::history().contains("WARNING:"));
        ::log::info!("{came} timer interrupts in five minutes, late by {:?} ns", LATE.each_ref().map(|late| late.load(Ordering::Relaxed) - 1));
        Ok(())
    }
}

/// Counts its end.
struct Told(&'static AtomicU64);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
