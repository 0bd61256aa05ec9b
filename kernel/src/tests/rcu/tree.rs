//! What only the tree does: who is woken, boosted, named, moved, off-loaded and held back.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ::rcu::{Domain, RcuBox, Retired};
use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use super::{Counted, MS, Reading, queue};
use crate::rcu::{self, Kernel};
use crate::sched::policy::Policy;
use crate::sched::{self, Preemption};
use crate::task::{self, Builder, Task};
use crate::testing::{comes_true_by_others, expect_report, told_after};
use crate::{check, check_eq, cpus, hotplug, kernel_test, log, services, skip};

kernel_test! {
    task,
    fn while_others_idle_nobody_is_woken_and_nothing_is_switched(cx) {
        let others = || cpus::online().filter(|cpu| *cpu != CpuId::BOOT);
        // What else wants to be done is, first.
        let settled = comes_true_by_others(|| others().all(crate::tick::is_resting));
        check!(settled);
        let interrupts = || others().map(crate::calls::served).sum::<u64>();
        let switches = || others().map(|cpu| sched::report(cpu).map_or(0, |report| report.switches)).sum::<u64>();
        let (before, helped) = ((interrupts(), switches()), rcu::figures().helped);
        for _ in 0..100 {
            Kernel::synchronize(cx);
        }
        check!(rcu::figures().helped - helped >= 50, "{} of 100 took no help", rcu::figures().helped - helped);
        check_eq!(interrupts(), before.0);
        // Somebody's tick or watchdog may come by; a hundred grace periods do not.
        check!(switches() - before.1 < 50, "{} switches", switches() - before.1);
        // Nor `rcu_gp`, wherever it was last. It would have the time to run each time.
        let turns = || {
            let all = task::table().lock();
            all.iter().find(|task| task.name() == "rcu_gp").map(Task::switches)
        };
        let before = turns();
        check!(before.is_some());
        for _ in 0..20 {
            Kernel::synchronize(cx);
            let begun = Native::now_ns();
            while Native::now_ns() - begun < MS / 2 {
                Native::relax();
            }
        }
        let turns = turns().unwrap_or(0) - before.unwrap_or(0);
        check!(turns < 10, "rcu_gp ran {turns} times for 20 grace periods");
        Ok(())
    }
}

/// Whether the log says of the last grace period that lasted too long that it waits for this, and where that is.
fn is_blamed(what: &str) -> bool {
    // One or two lines later: for a CPU there is one more that says which.
    let has_steps = |told: &str| told.lines().skip(1).take(2).any(|line| line.contains("  #0  ["));
    log::history()
        .rsplit_once("a grace period has lasted")
        .and_then(|(_, told)| told.split_once(what))
        .is_some_and(|(_, rest)| has_steps(rest))
}

kernel_test! {
    task,
    fn a_reader_that_stays_is_named_with_where_it_is(cx) {
        if sched::preemption() != Preemption::Full {
            skip!("tasks are not preempted");
        }
        let Some(cpu) = cpus::online().last() else { skip!("no CPU") };
        expect_report("WARNING: rcu: a grace period has lasted");
        let (before, reports) = (rcu::set_stall_ns(100 * MS), rcu::stalls());
        let reading = Reading::begin(cpu, Policy::default());
        // Another one asks, so that the driver of this CPU is not in it.
        let state = Kernel::start_poll();
        let told = comes_true_by_others(|| rcu::stalls() > reports);
        rcu::set_stall_ns(before);
        let named = reading.as_ref().is_some_and(|reading| {
            // Entered by now, or as what its CPU runs.
            let preempted = alloc::format!("{:?}, preempted in a read-side section, last on CPU#{cpu}:", *reading.task);
            let runs = alloc::format!("CPU#{cpu}, which runs {:?}", *reading.task);
            comes_true_by_others(|| is_blamed(&preempted) || is_blamed(&runs))
        });
        check!(reading.is_some());
        drop(reading);
        check!(told && named, "told: {told}, named: {named}");
        check!(comes_true_by_others(|| Kernel::poll(state)));
        Kernel::synchronize(cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_cpu_that_stays_in_a_region_is_named_with_what_it_runs(cx) {
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        static INSIDE: AtomicBool = AtomicBool::new(false);
        static LEAVE: AtomicBool = AtomicBool::new(false);
        INSIDE.store(false, Ordering::Relaxed);
        LEAVE.store(false, Ordering::Relaxed);
        expect_report("WARNING: rcu: a grace period has lasted");
        let (before, reports) = (rcu::set_stall_ns(100 * MS), rcu::stalls());
        let region = |_: &mut TaskCx| {
            let here = sync::preempt::disable();
            INSIDE.store(true, Ordering::Relaxed);
            while !LEAVE.load(Ordering::Relaxed) {
                Native::relax();
            }
            drop(here);
        };
        let Ok(stays) = Builder::new("stays").on(cpu).spawn(region) else { skip!("no memory for a task") };
        let inside = comes_true_by_others(|| INSIDE.load(Ordering::Relaxed));
        let state = Kernel::start_poll();
        let who = alloc::format!("CPU#{cpu}, which runs {:?}", *stays.task());
        let told = comes_true_by_others(|| rcu::stalls() > reports);
        rcu::set_stall_ns(before);
        let named = comes_true_by_others(|| is_blamed(&who));
        LEAVE.store(true, Ordering::Relaxed);
        stays.join(cx);
        check!(inside && told && named, "{who}: inside: {inside}, told: {told}, named: {named}");
        Kernel::cond_synchronize(state, cx);
        Ok(())
    }
}

kernel_test! {
    task,
    fn who_holds_up_an_expedited_grace_period_is_named(cx) {
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        if sched::preemption() != Preemption::Full {
            skip!("needs full preemption");
        }
        const HEADLINE: &str = "an expedited grace period has lasted";
        expect_report("WARNING: rcu: an expedited grace period has lasted");
        let Some(reading) = Reading::begin(cpu, Policy::fair(0)) else { skip!("no memory for a task") };
        let before = rcu::set_stall_ns(100 * MS);
        let waiter = Builder::new("waiter").spawn(|cx| Kernel::synchronize_expedited(cx));
        let preempted = alloc::format!("{:?}, preempted in a read-side section, last on CPU#{cpu}:", *reading.task);
        let runs = alloc::format!("CPU#{cpu}, which runs {:?}", *reading.task);
        let named = comes_true_by_others(|| {
            let told = told_after(HEADLINE);
            [&preempted, &runs].into_iter().any(|who| {
                told.split_once(who.as_str()).is_some_and(|(_, rest)| rest.contains("  #0  ["))
            })
        });
        rcu::set_stall_ns(before);
        drop(reading);
        let ended = waiter.map(|waiter| waiter.join(cx));
        check!(named && ended.is_ok(), "{preempted} or {runs}: {}", told_after(HEADLINE));
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_preempted_reader_that_holds_up_a_grace_period_is_boosted(cx) {
        if !rcu::PREEMPTIBLE {
            skip!("readers are not preempted");
        }
        if cfg!(feature = "chaos") {
            skip!("half a second of four tasks that spin, where time is counted");
        }
        // Not the CPU of this task: a reader that is boosted would keep it.
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        static STOP: AtomicBool = AtomicBool::new(false);
        STOP.store(false, Ordering::Relaxed);
        let Some(reading) = Reading::begin(cpu, Policy::fair(19)) else { skip!("no reader") };
        let hog = || Builder::new("hog").on(cpu).policy(Policy::fair(-20)).spawn(|cx| {
            while !STOP.load(Ordering::Relaxed) {
                cx.cond_resched();
                Native::relax();
            }
        });
        let hogs: alloc::vec::Vec<_> = (0..3).filter_map(|_| hog().ok()).collect();
        let state = Kernel::start_poll();
        // Nothing but the boost makes it one of the real-time class: the fair class would let it run now and then.
        let boosted = comes_true_by_others(|| reading.task.policy() == Policy::fifo(1));
        reading.shared.leave.store(true, Ordering::Relaxed);
        Kernel::cond_synchronize(state, cx);
        // It ends when the section does.
        let ended = comes_true_by_others(|| reading.task.policy() == Policy::fair(19));
        STOP.store(true, Ordering::Relaxed);
        check!(boosted && ended, "boosted: {boosted}, and no longer: {ended}");
        check_eq!(reading.shared.left.load(Ordering::SeqCst), 1);
        hogs.into_iter().for_each(|hog| hog.join(cx));
        Ok(())
    }
}

kernel_test! {
    task,
    fn callbacks_of_a_cpu_that_goes_are_called_elsewhere(cx) {
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        if !rcu::PREEMPTIBLE {
            skip!("a reader keeps its CPU, and a CPU goes when all others look on");
        }
        static FREED: AtomicU32 = AtomicU32::new(0);
        for round in 1..=4 {
            FREED.store(0, Ordering::Relaxed);
            // Held up, so that they are still there when the CPU goes.
            let Some(reading) = Reading::begin(CpuId::BOOT, Policy::default()) else { skip!("no reader") };
            services::run_on(cpu, || {
                for _ in 0..100 {
                    Retired::<_, Kernel>::new(RcuBox::new(Counted(&FREED))).free_after_grace_period();
                }
            });
            check_eq!(hotplug::take_offline(cpu, cx), Ok(()));
            check_eq!((round, FREED.load(Ordering::Relaxed)), (round, 0));
            drop(reading);
            Kernel::barrier(cx);
            check_eq!((round, FREED.load(Ordering::Relaxed)), (round, 100));
            check_eq!(hotplug::bring_online(cpu, cx), Ok(()));
        }
        Ok(())
    }
}

/// How many callbacks the task `rcu_offload` has called, and how many the CPU that queued them.
static CALLED_BY: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

/// Notes who frees it.
struct Called {
    queued_on: CpuId,
}

impl Drop for Called {
    fn drop(&mut self) {
        let by_task = Task::current().name() == "rcu_offload";
        CALLED_BY[0].fetch_add(by_task.into(), Ordering::Relaxed);
        CALLED_BY[1].fetch_add((self.queued_on == Native::cpu()).into(), Ordering::Relaxed);
    }
}

kernel_test! {
    task,
    fn off_loaded_callbacks_are_called_by_the_task_and_back(cx) {
        for offload in [true, false, true, false] {
            for cpu in cpus::online() {
                check!(rcu::offload(cpu, offload, cx).is_ok());
                check_eq!(rcu::offloaded(cpu), offload);
            }
            // While the switch is made either may call them: what came before it is called, and looked after.
            Kernel::barrier(cx);
            cx.sleep_ns(10 * MS);
            CALLED_BY.iter().for_each(|called| called.store(0, Ordering::Relaxed));
            let called = || CALLED_BY[usize::from(!offload)].load(Ordering::Relaxed);
            let all = 100 * cpus::online_count() as u32;
            // They are called though nobody waits, and looked for by nobody else.
            services::run_on_all(&|queued_on| (0..100).for_each(|_| queue(Called { queued_on })));
            check!(comes_true_by_others(|| called() == all), "off-loaded: {offload}, {} of {all}", called());
            services::run_on_all(&|queued_on| {
                for _ in 0..100 {
                    Retired::<_, Kernel>::new(RcuBox::new(Called { queued_on })).free_after_grace_period();
                }
            });
            Kernel::barrier(cx);
            check_eq!((offload, called()), (offload, 2 * all));
        }
        Ok(())
    }
}

/// What the flood's tasks and the test tell each other.
struct Flood {
    over: AtomicBool,
    /// How many callbacks were queued: by tasks that may sleep, and with interrupts off.
    queued: [AtomicU64; 2],
    freed: AtomicU32,
}

static FLOOD: Flood = Flood {
    over: AtomicBool::new(false),
    queued: [const { AtomicU64::new(0) }; 2],
    freed: AtomicU32::new(0),
};

impl Flood {
    /// Lazy callbacks and ordinary ones go different ways.
    fn queue(&'static self, kind: usize, lazy: bool) {
        if lazy {
            Retired::<_, Kernel>::new(RcuBox::new((Counted(&self.freed), [0_u8; 200])))
                .free_after_grace_period();
        } else {
            queue((Counted(&self.freed), [0_u8; 200]));
        }
        self.queued[kind].fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, kind: usize) -> u64 {
        self.queued[kind].load(Ordering::Relaxed)
    }
}

/// How many callbacks a CPU may have here.
const FLOOD_LIMIT: usize = 2_000;
/// How many more come where nobody can wait.
const UNBOUNDED: u64 = 3_000;
/// For how long the reader stays.
const STALLED_NS: u64 = if cfg!(feature = "chaos") { 20 * MS } else { 1_000 * MS };

fn backlog() -> u64 {
    cpus::online().map(|cpu| rcu::tree().backlog(cpu.as_u32()).total() as u64).sum()
}

kernel_test! {
    task, limit_ms = 60_000,
    fn a_flood_from_four_cpus_is_bounded_while_a_reader_stays(cx) {
        // The reader's is none of them: one that is not preempted would keep a task from queuing there.
        let all: alloc::vec::Vec<CpuId> = cpus::online().collect();
        let Some((&last, _)) = all.split_last() else { skip!("no CPU") };
        let flooded = if rcu::PREEMPTIBLE { &all[..] } else { &all[..all.len() - 1] };
        let flooded = &flooded[..flooded.len().min(4)];
        expect_report("rcu: more than 2000 callbacks wait on this CPU");
        FLOOD.over.store(false, Ordering::Relaxed);
        FLOOD.freed.store(0, Ordering::Relaxed);
        FLOOD.queued.iter().for_each(|queued| queued.store(0, Ordering::Relaxed));
        let Some(reading) = Reading::begin(last, Policy::default()) else { skip!("no reader") };
        let limit = rcu::set_flood_limit(FLOOD_LIMIT);
        let before = rcu::overruns();
        let begun = Native::now_ns();
        let tasks: alloc::vec::Vec<_> = flooded.iter().filter_map(|cpu| {
            let lazy = cpu.as_u32().is_multiple_of(2);
            let flood = move |_: &mut TaskCx| {
                while !FLOOD.over.load(Ordering::Relaxed) {
                    FLOOD.queue(0, lazy);
                }
            };
            Builder::new("flood").on(*cpu).spawn(flood).ok()
        }).collect();
        let number = tasks.len() as u64;
        // Each queues one too many, and waits.
        let all_wait = comes_true_by_others(|| rcu::overruns().waits - before.waits >= number);
        let mut most = backlog();
        for number in 0..UNBOUNDED {
            let off = sync::irq::disable();
            FLOOD.queue(1, number.is_multiple_of(2));
            drop(off);
        }
        most = most.max(backlog());
        while Native::now_ns() - begun < STALLED_NS {
            cx.block(Some(Native::now_ns() + 5 * MS));
            most = most.max(backlog());
        }
        let sleepers = FLOOD.of(0);
        let after = rcu::overruns();
        FLOOD.over.store(true, Ordering::Relaxed);
        drop(reading);
        tasks.into_iter().for_each(|task| task.join(cx));
        Kernel::barrier(cx);
        rcu::set_flood_limit(limit);
        let bound = (FLOOD_LIMIT as u64 + 1) * number;
        ::log::info!(
            "{number} CPUs in {} ms: {sleepers} callbacks by tasks that may sleep, of {bound} at most, {} waits; \
             {} where nobody can wait, of which {} were counted; {most} at once",
            STALLED_NS / MS,
            after.waits - before.waits,
            FLOOD.of(1),
            after.unbounded - before.unbounded,
        );
        check!(number > 0 && all_wait, "{} of {number} waited", after.waits - before.waits);
        check!(sleepers <= bound, "{sleepers} were queued, and {bound} is the bound");
        // Something else may queue a few.
        check!(most <= bound + UNBOUNDED + 64, "{most} at once");
        // Those that found the CPU full, which the task there has made it.
        check_eq!(after.unbounded - before.unbounded, UNBOUNDED);
        check_eq!(u64::from(FLOOD.freed.load(Ordering::Relaxed)), FLOOD.of(0) + FLOOD.of(1));
        let (out, good) = crate::tests::console::run("rcu", false, cx);
        let told = alloc::format!(
            "too many callbacks: {} times somebody waited, {} came where nobody could",
            rcu::overruns().waits,
            rcu::overruns().unbounded
        );
        check!(good && out.text.contains(&told), "{}", out.text);
        Ok(())
    }
}
