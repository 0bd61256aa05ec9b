//! What users of a run queue are promised, each by a test that knows nothing of how it is done.

use hal::CpuId;
use hal::cpumask::CpuMask;
use proptest::prelude::*;

use super::balance::{Placement, Pull, choose_cpu, find_busiest};
use super::class::Level;
use super::queue_tests::World;
use super::simulation::id;
use super::{
    Departure, Entity, FAIR_TURN_NS, Nice, PATIENCE_NS, Policy, Priority, ROUND_ROBIN_SLICE_NS, RunQueue,
    SLICE_NS, Summary, Why,
};

const MS: u64 = 1_000_000;

#[test]
fn each_step_of_niceness_is_a_factor() {
    let weights: Vec<u32> = (-20..20).map(|nice| Nice::new(nice).unwrap().weight()).collect();
    assert_eq!((weights[0], weights[20], weights[39]), (88818, 1024, 15));
    for pair in weights.windows(2) {
        // As near as whole numbers come.
        assert!((f64::from(pair[0]) - 1.25 * f64::from(pair[1])).abs() <= 1.125, "{pair:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn policies_are_what_their_names_and_codes_say(class in 0..4_u8, number in any::<i8>()) {
        let policy = match class {
            0 => Some(Policy::Stop),
            1 => Priority::new(number.cast_unsigned()).map(Policy::Fifo),
            2 => Priority::new(number.cast_unsigned()).map(Policy::RoundRobin),
            _ => Nice::new(number).map(Policy::Fair),
        };
        if let Some(policy) = policy {
            prop_assert_eq!(policy.to_string().parse(), Ok(policy));
            prop_assert_eq!(Policy::decode(policy.encode()), policy);
        } else {
            prop_assert!(!((1..100).contains(&number) && class < 3));
            prop_assert!(!((-20..20).contains(&number) && class == 3));
        }
    }

    /// The fluid ideal: at each moment each task has had its weight's part of the time that has passed, but for one
    /// slice and two ticks, because a slice ends with a tick.
    #[test]
    fn nobody_is_further_from_its_share_than_a_slice(
        nices in prop::collection::vec(-20..20_i8, 2..30),
        ticks in prop::collection::vec(1_000..MS, 1..50),
    ) {
        let mut world = World::new(nices.iter().map(|nice| Policy::fair(*nice)));
        let weights: Vec<f64> = (0..nices.len()).map(|id| world.at(id).load() as f64).collect();
        let all: f64 = weights.iter().sum();
        for id in 0..nices.len() {
            world.enqueue(id, Why::New, 0);
        }
        let mut now = 0;
        world.pick(now);
        for tick in ticks.iter().cycle().take(3_000) {
            now += tick;
            if world.queue.tick(now) {
                world.pick(now);
            }
            for (id, weight) in weights.iter().enumerate() {
                let away = world.at(id).run_ns() as f64 - now as f64 * weight / all;
                prop_assert!(away.abs() <= (SLICE_NS + 2 * MS) as f64, "{} by {} ns at {}", id, away, now);
            }
        }
    }

    /// Real-time tasks that want all of the time: the fair class waits no longer than it must, and no longer does it
    /// keep real-time tasks waiting than it may.
    #[test]
    fn the_fair_class_does_not_starve(
        fair in 1..4_usize,
        round_robin in any::<bool>(),
        ticks in prop::collection::vec(1_000..2 * MS, 1..50),
        rest in 0..30 * MS,
    ) {
        let real_time = if round_robin { Policy::round_robin(50) } else { Policy::fifo(50) };
        let mut world = World::new([real_time, real_time].into_iter().chain((0..fair).map(|_| Policy::default())));
        let mut now = 0;
        for id in 0..fair + 2 {
            world.enqueue(id, Why::New, now);
        }
        world.pick(now);
        let (mut fair_since, mut urgent_since, mut fair_ns) = (now, now, 0);
        for (count, tick) in ticks.iter().cycle().take(5_000).enumerate() {
            now += tick;
            let was_fair = world.current().unwrap() >= 2;
            if was_fair {
                fair_ns += tick;
                prop_assert!(now - urgent_since <= FAIR_TURN_NS + 2 * MS);
                fair_since = now;
            } else {
                prop_assert!(now - fair_since <= PATIENCE_NS + 2 * MS);
                urgent_since = now;
            }
            if world.queue.tick(now) {
                world.pick(now);
            }
            if count % 1000 == 999 {
                // They rest, both together: the time that the fair class has then counts.
                world.dequeue(0, Departure::Blocked, now);
                world.dequeue(1, Departure::Blocked, now);
                world.pick(now);
                now += rest;
                fair_ns += rest;
                world.enqueue(0, Why::Woken, now);
                world.enqueue(1, Why::Woken, now);
                world.pick(now);
                fair_since = now;
                urgent_since = now;
            }
        }
        let share = fair_ns as f64 / now as f64;
        // Shares are of many turns.
        let long = now > 20 * PATIENCE_NS;
        prop_assert!(!long || share > 0.047, "{}", share);
        if rest < MS {
            prop_assert!(share < 0.075, "{}", share);
        }
    }

    /// Coming and going at any moments, to any of two queues and back, gains and costs nothing.
    #[test]
    fn moving_changes_no_share(moves in prop::collection::vec(any::<bool>(), 400)) {
        let here_and_there = || World::new([Policy::fair(-6), Policy::fair(0), Policy::fair(0), Policy::fair(-3)]);
        let mut worlds = [here_and_there(), here_and_there()];
        for (number, world) in worlds.iter_mut().enumerate() {
            for id in number..4 {
                world.enqueue(id, Why::New, 0);
            }
            world.pick(0);
        }
        // Task 0 of the first world goes to and fro: what the second world is without it, the first is then.
        let weights: f64 = (0..4).map(|id| worlds[0].at(id).load() as f64).sum();
        let mover = std::ptr::NonNull::from(worlds[0].at(0));
        let (mut at, mut now) = (0, 0);
        for goes in moves {
            for _ in 0..20 {
                now += MS / 2;
                for world in &mut worlds {
                    if world.queue.tick(now) {
                        world.queue.pick(now);
                    }
                }
            }
            let [one, other] = &mut worlds;
            let (from, to) = if at == 0 { (one, other) } else { (other, one) };
            if goes && let Some(taken) = from.queue.steal(now, &mut |entity| entity == mover) {
                // SAFETY: it was taken out just now.
                unsafe { to.queue.enqueue(taken, Why::Moved, now) };
                at = 1 - at;
            }
        }
        let had = worlds[0].at(0).run_ns() as f64;
        let ideal = now as f64 * worlds[0].at(0).load() as f64 / weights;
        // Home, so that what is taken apart fits together.
        if at == 1 {
            // SAFETY: the mover is in that queue, then in none.
            unsafe {
                worlds[1].queue.dequeue(mover, Departure::Moved, now);
                worlds[0].queue.enqueue(mover, Why::Moved, now);
            }
        }
        prop_assert!((had - ideal).abs() < 2.0 * SLICE_NS as f64 + ideal / 50.0, "{} instead of {}", had, ideal);
    }

    /// Nothing happens by time alone before the moment that was told.
    #[test]
    fn nothing_happens_before_the_next_event(
        policies in prop::collection::vec(prop_oneof![
            4 => (-20..20_i8).prop_map(Policy::fair),
            1 => Just(Policy::round_robin(20)),
            1 => Just(Policy::fifo(10)),
        ], 1..8),
        early in 1..1_000_u64,
    ) {
        let mut world = World::new(policies.iter().copied());
        for id in 0..policies.len() {
            world.enqueue(id, Why::New, 0);
        }
        world.pick(0);
        let mut now = 0;
        for _ in 0..200 {
            let Some(ns) = world.queue.next_event(now) else {
                now += 1_000 * MS;
                prop_assert!(!world.queue.tick(now));
                continue;
            };
            if ns > early {
                prop_assert!(!world.queue.tick(now + ns - early));
                // Each accounting rounds once.
                prop_assert!(world.queue.next_event(now + ns - early).unwrap() <= early + 2);
            }
            now += ns;
            let before = world.current();
            if world.queue.tick(now) {
                prop_assert_ne!(world.pick(now), before);
            } else {
                world.pick(now);
            }
        }
    }

    /// The chosen CPU is online and allowed; idle, if one that is idle is near enough to be seen; less urgent, if there is
    /// one.
    #[test]
    fn a_task_is_placed_where_it_may_run(
        states in prop::collection::vec((prop::option::weighted(0.9, (0..4_u8, 0..5_000_u64)), any::<bool>()), 1..9),
        (previous, waker, level, fresh) in (any::<usize>(), any::<usize>(), 1..102_u8, any::<bool>()),
    ) {
        let levels = [0, 1, 40, 101];
        let look = |cpu: CpuId| {
            let (level, load) = states[cpu.index()].0?;
            let level = Level(levels[usize::from(level)]);
            Some(Summary { level, load, fair: 1, urgent: u32::from(level > Level::FAIR) })
        };
        let mut allowed = CpuMask::new();
        for (cpu, state) in states.iter().enumerate() {
            if state.1 {
                allowed.insert(id(cpu));
            }
        }
        let (previous, waker, level) = (id(previous % states.len()), id(waker % states.len()), Level(level));
        let task = Placement { level, previous, waker, allowed: &allowed, fresh };
        let idle = (0..states.len()).map(id).filter(|cpu| look(*cpu).is_some_and(|there| there.is_idle()));
        let usable = || (0..states.len()).map(id).filter(|cpu| allowed.contains(*cpu) && look(*cpu).is_some());
        let Some(chosen) = choose_cpu(&task, idle, look) else {
            prop_assert_eq!(usable().count(), 0);
            return Ok(());
        };
        prop_assert!(usable().any(|cpu| cpu == chosen));
        let there = look(chosen).unwrap();
        let idle_ones: Vec<CpuId> = usable().filter(|cpu| look(*cpu).unwrap().is_idle()).collect();
        prop_assert!(idle_ones.is_empty() || there.is_idle());
        prop_assert!(!idle_ones.contains(&previous) || chosen == previous);
        if level > Level::FAIR && usable().any(|cpu| look(cpu).unwrap().level < level) {
            prop_assert!(there.level < level);
        }
    }
}

#[test]
fn stop_goes_before_everything_and_takes_no_turns() {
    let mut world = World::new([Policy::default(), Policy::fifo(99), Policy::Stop]);
    for id in 0..3 {
        world.enqueue(id, Why::New, 0);
    }
    assert_eq!(world.pick(0), Some(2));
    for second in 1..10 {
        assert!(!world.queue.tick(second * 1_000 * MS));
        assert_eq!(world.pick(second * 1_000 * MS), Some(2));
    }
    world.dequeue(2, Departure::Blocked, 10_000 * MS);
    // The fair class was not kept waiting by real-time tasks.
    assert_eq!(world.pick(10_000 * MS), Some(1));
}

#[test]
fn round_robin_takes_turns_and_fifo_does_not() {
    let mut world = World::new([Policy::round_robin(5), Policy::round_robin(5), Policy::fifo(5)]);
    for id in 0..3 {
        world.enqueue(id, Why::New, 0);
    }
    assert_eq!(world.pick(0), Some(0));
    assert_eq!(world.queue.next_event(0), Some(ROUND_ROBIN_SLICE_NS));
    assert!(!world.queue.tick(ROUND_ROBIN_SLICE_NS - 1));
    assert!(world.queue.tick(ROUND_ROBIN_SLICE_NS));
    assert_eq!(world.pick(ROUND_ROBIN_SLICE_NS), Some(1));
    assert_eq!(world.pick(2 * ROUND_ROBIN_SLICE_NS), Some(2));
    assert_eq!(world.queue.next_event(2 * ROUND_ROBIN_SLICE_NS), None);
    assert!(!world.queue.tick(90 * ROUND_ROBIN_SLICE_NS));
    // Until it says so.
    world.queue.yield_current(90 * ROUND_ROBIN_SLICE_NS);
    assert_eq!(world.pick(90 * ROUND_ROBIN_SLICE_NS), Some(0));
}

/// Who is preempted by somebody more urgent comes back first of its equals, with what is left of its turn.
#[test]
fn a_preempted_real_time_task_is_the_next_of_its_equals() {
    let mut world = World::new([Policy::round_robin(5), Policy::round_robin(5), Policy::fifo(6)]);
    world.enqueue(0, Why::New, 0);
    world.enqueue(1, Why::New, 0);
    assert_eq!(world.pick(0), Some(0));
    assert!(world.enqueue(2, Why::Woken, 30 * MS));
    assert_eq!(world.pick(30 * MS), Some(2));
    world.dequeue(2, Departure::Blocked, 40 * MS);
    assert_eq!(world.pick(40 * MS), Some(0));
    assert_eq!(world.queue.next_event(40 * MS), Some(70 * MS));
}

/// POSIX: raised behind its new equals, lowered before them.
#[test]
fn a_changed_priority_has_its_place() {
    let mut world = World::new([Policy::fifo(5), Policy::fifo(7), Policy::fifo(3), Policy::fifo(99)]);
    for id in [3, 0, 1, 2] {
        world.enqueue(id, Why::New, 0);
    }
    assert_eq!(world.pick(0), Some(3));
    assert!(!world.set_policy(1, Policy::fifo(5), 0));
    assert!(!world.set_policy(2, Policy::fifo(5), 0));
    // The current one falls too.
    assert!(world.set_policy(3, Policy::fifo(1), 0));
    for expected in [1, 0, 2, 3] {
        assert_eq!(world.pick(0), Some(expected));
        world.dequeue(expected, Departure::Ended, 0);
    }
}

#[test]
fn a_task_changes_class_wherever_it_is() {
    for place in ["away", "waiting", "current"] {
        let mut world = World::new([Policy::fair(0), Policy::fair(0)]);
        world.enqueue(1, Why::New, 0);
        if place != "away" {
            world.enqueue(0, Why::New, 0);
        }
        world.pick(0);
        if (place == "current") != (world.current() == Some(0)) {
            world.queue.yield_current(0);
            world.pick(0);
        }
        let mut now = 0;
        for step in 0..1_000 {
            let policies =
                [Policy::fifo(4), Policy::fair(-7), Policy::Stop, Policy::fair(8), Policy::round_robin(1)];
            now += MS;
            let policy = policies[step % policies.len()];
            if world.set_policy(0, policy, now) {
                world.pick(now);
            }
            assert_eq!(world.at(0).policy(), policy);
            assert_eq!(world.queue.len(), if place == "away" { 1 } else { 2 });
            let load = if place == "away" { 0 } else { world.at(0).load() };
            assert_eq!(world.queue.load(), 1024 + load);
        }
    }
}

/// A weight that changes to and fro all the time: what is owed is kept.
#[test]
fn a_changed_weight_keeps_what_is_owed() {
    let mut world = World::new([Policy::fair(0), Policy::fair(0), Policy::fair(0)]);
    for id in 0..3 {
        world.enqueue(id, Why::New, 0);
    }
    let mut now = 0;
    world.pick(now);
    for step in 0..40_000 {
        now += MS / 2;
        if world.queue.tick(now) {
            world.pick(now);
        }
        // Half of the time 1,024, half of the time four times as much: ideally 5/12 of the CPU on average.
        if step % 7 == 0 && world.set_policy(0, Policy::fair(if step % 14 == 0 { 0 } else { -6 }), now) {
            world.pick(now);
        }
    }
    let four = f64::from(Nice::new(-6).unwrap().weight()) / 1024.0;
    let ideal = now as f64 * (1.0 / 3.0 + four / (four + 2.0)) / 2.0;
    let had = world.at(0).run_ns() as f64;
    assert!((had / ideal - 1.0).abs() < 0.01, "{}", had / ideal);
    let others = (world.at(1).run_ns() as f64, world.at(2).run_ns() as f64);
    assert!((others.0 / others.1 - 1.0).abs() < 0.01, "{others:?}");
}

/// Less at once: as much in all, and sooner.
#[test]
fn a_shorter_slice_waits_less() {
    let longest_wait = |slice| {
        let mut world = World::new((0..11).map(|_| Policy::fair(0)));
        for id in 0..10 {
            world.enqueue(id, Why::New, 0);
        }
        let sleeper = std::ptr::NonNull::from(world.at(10));
        // SAFETY: it is in no queue.
        unsafe { world.queue.set_slice(sleeper, slice) };
        let (mut now, mut longest, mut runs) = (0, 0, 0);
        world.pick(now);
        let (mut woken, mut why) = (None, Why::New);
        for step in 0..100_000_u64 {
            now += MS / 10;
            if world.current() == Some(10) {
                // It ran for 100 µs.
                world.dequeue(10, Departure::Blocked, now);
                runs += 1;
                world.pick(now);
            } else if step % 400 == 0 && woken.is_none() {
                if world.enqueue(10, std::mem::replace(&mut why, Why::Woken), now) {
                    world.pick(now);
                }
                woken = Some(now);
            } else if world.queue.tick(now) {
                world.pick(now);
            }
            if world.current() == Some(10)
                && let Some(woken) = woken.take()
            {
                longest = longest.max(now - woken);
            }
        }
        assert!(runs > 200);
        longest
    };
    let (short, long) = (longest_wait(MS / 10), longest_wait(SLICE_NS));
    println!("longest wait: {short} ns with slices of 100 us, {long} ns with slices of 3 ms");
    assert!(short <= MS && long > 4 * short);
}

#[test]
fn what_is_stolen_waits_is_allowed_and_is_near_the_front() {
    let policies = [Policy::fair(0), Policy::fair(0), Policy::fifo(3), Policy::fifo(3), Policy::fifo(9)];
    let mut world = World::new(policies);
    for id in 0..5 {
        world.enqueue(id, Why::New, 0);
    }
    assert_eq!(world.pick(0), Some(4));
    let mut stolen = Vec::new();
    let mut seen = 0;
    loop {
        let not_that_one = std::ptr::NonNull::from(world.at(3));
        let taken = world.queue.steal(0, &mut |entity| {
            seen += 1;
            entity != not_that_one
        });
        let Some(taken) = taken else { break };
        stolen.push(world.id(taken));
    }
    assert_eq!(stolen, [2, 0, 1]);
    assert_eq!((world.current(), world.queue.len()), (Some(4), 2));

    // A bounded search.
    let mut world = World::new((0..100).map(|_| Policy::default()));
    for id in 0..100 {
        world.enqueue(id, Why::New, 0);
    }
    seen = 0;
    let found = world.queue.steal(0, &mut |_| {
        seen += 1;
        false
    });
    assert_eq!((found, seen), (None, 16));
}

#[test]
fn as_much_is_pulled_as_makes_two_cpus_equal() {
    let summary = |load, fair| Some(Summary { level: Level::FAIR, load, fair, urgent: 0 });
    let look = |cpu: CpuId| [summary(1024, 1), summary(9 * 1024, 9), None, summary(5 * 1024, 5)][cpu.index()];
    let others = || [1, 2, 3].map(id).into_iter();
    let mut pull = find_busiest(&look(id(0)).unwrap(), others(), look).unwrap();
    assert_eq!((pull.from, pull.load), (id(1), 4 * 1024));
    assert_eq!((0..9).filter(|_| pull.take(1024)).count(), 4);
    // One big one that would only turn the tables is not taken.
    assert!(!Pull { from: id(1), load: 1024, tasks: 5 }.take(4 * 1024));
    // The same within some per cent is the same.
    assert_eq!(find_busiest(&summary(9_000, 9).unwrap(), others(), look), None);
    // Who runs alone is left alone.
    let alone = |_: CpuId| summary(88_818, 1);
    assert_eq!(find_busiest(&Summary::default(), others(), alone), None);
    // Of two real-time tasks one can run here.
    let urgent = |_: CpuId| Some(Summary { level: Level(7), load: 0, fair: 0, urgent: 2 });
    let mut pull = find_busiest(&summary(5_000, 5).unwrap(), others(), urgent).unwrap();
    assert!(!pull.take(15) && pull.take(0) && !pull.take(0));
}

#[test]
#[should_panic(expected = "ended while it is in a run queue")]
fn a_task_in_a_queue_does_not_end() {
    let entity = Box::new(Entity::new(Policy::default()));
    let mut queue = RunQueue::new();
    // SAFETY: it does not stay, which is the point; nobody uses the queue any more.
    unsafe { queue.enqueue(std::ptr::NonNull::from(&*entity), Why::New, 0) };
    drop(entity);
}

#[test]
fn sizes_are_as_the_chapter_says() {
    assert!(size_of::<Entity>() <= 208, "{}", size_of::<Entity>());
    assert!(size_of::<RunQueue>() <= 1_984, "{}", size_of::<RunQueue>());
}
