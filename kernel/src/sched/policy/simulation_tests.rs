//! What a machine of these run queues does as a whole.

use std::collections::BTreeMap;

use hal::chaos::Rng;
use hal::cpumask::CpuMask;

use super::simulation::{Habit, MS, Simulation, id};
use super::{Policy, SLICE_NS};

const SECOND: u64 = 1_000 * MS;

/// What the hogs of one nice value got, as parts of what their weight should have got them.
#[derive(Debug)]
struct Row {
    tasks: u32,
    least: f64,
    most: f64,
    sum: f64,
}

/// Lets the machine run, and compares what each hog had, by its weight, with what all of them had; 1 is fair.
fn shares(machine: &mut Simulation, warm_up: u64, length: u64) -> BTreeMap<i8, Row> {
    machine.run_until(machine.now + warm_up);
    let before: Vec<u64> = machine.tasks().map(|task| task.entity.run_ns()).collect();
    machine.run_until(machine.now + length);

    let tasks = machine.tasks().zip(before).filter(|(task, _)| task.habit == Habit::Hog);
    let hogs: Vec<_> = tasks
        .map(|(task, before)| {
            let Policy::Fair(nice) = task.entity.policy() else { panic!("all are fair") };
            (nice.get(), f64::from(nice.weight()), (task.entity.run_ns() - before) as f64)
        })
        .collect();
    let all: f64 = hogs.iter().map(|hog| hog.2).sum();
    let weights: f64 = hogs.iter().map(|hog| hog.1).sum();
    let mut rows = BTreeMap::new();
    for (nice, weight, had) in hogs {
        let share = (had / weight) / (all / weights);
        let row = rows.entry(nice).or_insert(Row { tasks: 0, least: f64::MAX, most: 0.0, sum: 0.0 });
        row.tasks += 1;
        row.least = row.least.min(share);
        row.most = row.most.max(share);
        row.sum += share;
    }
    rows
}

fn print(rows: &BTreeMap<i8, Row>) {
    for (nice, row) in rows {
        let mean = row.sum / f64::from(row.tasks);
        println!("  nice {nice:>3}: {:>4} hogs, {:.3} .. {mean:.3} .. {:.3}", row.tasks, row.least, row.most);
    }
}

/// 2,000 tasks: three quarters run whenever they may, the rest sleep for most of the time; one in ten is bound to some of
/// the CPUs.
fn crowd(cpus: usize, seed: u64) -> Simulation {
    let mut machine = Simulation::new(cpus, seed);
    let mut random = Rng::new(!seed);
    let mut below = |limit: u64| random.next_u64() % limit;
    for number in 0..2_000 {
        let mut allowed = CpuMask::all(cpus as u32);
        if number % 10 == 0 {
            let keep = below(cpus as u64) as usize;
            for cpu in (0..cpus).filter(|cpu| *cpu != keep) {
                if below(2) == 0 {
                    allowed.remove(id(cpu));
                }
            }
        }
        let habit = match number % 4 {
            0 => Habit::Sleeper { runs: 20_000 + below(2 * MS), sleeps: (1 + below(50)) * 20 * MS },
            _ => Habit::Hog,
        };
        machine.spawn(Policy::fair(below(8) as i8 - 6), habit, allowed);
    }
    machine
}

#[test]
fn thousands_of_tasks_get_what_their_weights_say() {
    for cpus in 1..=8 {
        let mut machine = crowd(cpus, 1 + cpus as u64);
        let length = 500 * SECOND / cpus as u64;
        let rows = shares(&mut machine, 20 * SECOND / cpus as u64, length);
        println!(
            "{cpus} CPUs, {} s: {} switches, {} moves",
            length / SECOND,
            machine.switches,
            machine.moves
        );
        print(&rows);
        assert_eq!(machine.idle_ns(), 0);
        for (nice, row) in rows {
            assert!(row.least > 0.95 && row.most < 1.05, "{cpus} CPUs, nice {nice}: {row:?}");
        }
    }
}

/// Few tasks of all weights: what they are short of, or have too much, is a matter of single slices.
#[test]
fn all_weights_on_two_cpus() {
    let mut machine = Simulation::new(2, 3);
    for nice in -20..20 {
        for _ in 0..2 {
            machine.spawn(Policy::fair(nice), Habit::Hog, CpuMask::all(2));
        }
    }
    let rows = shares(&mut machine, 10 * SECOND, 600 * SECOND);
    print(&rows);
    let weights: f64 = machine.tasks().map(|task| task.entity.load() as f64).sum();
    for (nice, row) in rows {
        let ideal_ns = 2.0 * 600e9 * f64::from(super::Nice::new(nice).unwrap().weight()) / weights;
        let slack = 0.05 + 2.0 * SLICE_NS as f64 / ideal_ns;
        assert!(row.least > 1.0 - slack && row.most < 1.0 + slack, "nice {nice}: {row:?}, slack {slack}");
    }
}

#[test]
fn no_cpu_is_idle_while_a_task_waits() {
    for cpus in 1..=8 {
        let mut machine = Simulation::new(cpus, 11 * cpus as u64);
        machine.wastes_nothing = true;
        for number in 0..3 * cpus as u64 {
            let habit = Habit::Sleeper { runs: MS * (1 + number % 3), sleeps: MS * (2 + number % 5) };
            let policy = if number % 4 == 0 { Policy::round_robin(9) } else { Policy::fair(0) };
            machine.spawn(policy, habit, CpuMask::all(cpus as u32));
        }
        machine.run_until(3 * SECOND);
        // Neither always idle nor never.
        assert!((1..3 * SECOND * cpus as u64).contains(&machine.idle_ns()));
    }
}

#[test]
fn a_woken_real_time_task_runs_at_once_and_a_fair_one_before_long() {
    for cpus in [1, 2, 4, 8] {
        let mut machine = Simulation::new(cpus, 5);
        let everywhere = CpuMask::all(cpus as u32);
        let hogs = 20 * cpus;
        for _ in 0..hogs {
            machine.spawn(Policy::fair(0), Habit::Hog, everywhere.clone());
        }
        for _ in 0..cpus {
            let habit = Habit::Sleeper { runs: MS / 2, sleeps: 20 * MS };
            machine.spawn(Policy::fair(0), habit, everywhere.clone());
        }
        // One fewer than there are CPUs, or the only one: there is always a place.
        for priority in 0..(cpus - 1).max(1) {
            let habit = Habit::Sleeper { runs: MS / 5, sleeps: 10 * MS };
            machine.spawn(Policy::fifo(1 + priority as u8), habit, everywhere.clone());
        }
        machine.run_until(30 * SECOND);
        let longest = |real_time| {
            let class =
                machine.tasks().filter(|task| task.entity.policy().level().is_real_time() == real_time);
            class.map(|task| task.longest_wait).max().unwrap()
        };
        println!("{cpus} CPUs: real-time {} ns, fair {} us", longest(true), longest(false) / 1_000);
        assert_eq!(longest(true), 0);
        // One round of those who want the CPU, each with a slice and the tick that ends it, and what balancing leaves.
        assert!(longest(false) < 2 * 22 * (SLICE_NS + MS), "{} ns", longest(false));
    }
}

/// Tasks that yield all the time do not take the CPU from one that does not, nor do they stand still.
#[test]
fn who_yields_gets_less_and_gets_on() {
    let mut machine = Simulation::new(1, 9);
    for _ in 0..3 {
        machine.spawn(Policy::fair(0), Habit::Yielder { runs: 20_000 }, CpuMask::all(1));
    }
    machine.spawn(Policy::fair(0), Habit::Hog, CpuMask::all(1));
    machine.run_until(10 * SECOND);
    let had: Vec<u64> = machine.tasks().map(|task| task.entity.run_ns()).collect();
    println!("{had:?}");
    assert!(had[..3].iter().all(|had| (10 * MS..2_600 * MS).contains(had)), "{had:?}");
    assert!(had[3] > 2_400 * MS);
    // They share what they get.
    assert!(had[..3].iter().max().unwrap() - had[..3].iter().min().unwrap() < MS, "{had:?}");
}
