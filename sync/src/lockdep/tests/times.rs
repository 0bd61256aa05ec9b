//! What is counted and told, against a plain account of the same events.

use core::cell::RefCell;
use core::hint::spin_loop;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::held::{Held, Since};
use super::super::map::{Acquire, WaitType};
use super::super::sim::{CLOCK, Lock, Sim, TASK, lock};
use super::super::times::{Lasted, LockTimes, Long};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Takes the lock of this class, after a wait of so many nanoseconds if there is one.
    Take(u32, Option<u64>),
    /// Releases the lock that was taken so many before the newest.
    Release(usize),
    Pass(u64),
    /// Switches figures on or off.
    Time(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..4_u32, prop::option::of(0..2_000_u64)).prop_map(|(class, wait)| Step::Take(class, wait)),
        3 => (0..3_usize).prop_map(Step::Release),
        2 => (0..2_000_u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Time),
    ]
}

std::thread_local! {
    static TOLD: RefCell<Vec<(u32, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Notes the class and how long.
fn tell(long: &Long) {
    let Lasted::Lock(label) = long.what else { panic!("{:?}", long.what) };
    TOLD.with_borrow_mut(|told| told.push((label.key(), long.ns)));
}

fn figures(sim: &Sim, class: u32) -> LockTimes {
    // Classes get their numbers when they are first taken; find it by its key.
    let number = (1..).map_while(|number| Some((number, sim.checker.class_at(number, spin_loop)?.0)));
    let found = number.into_iter().find(|(_, label)| label.key() == class);
    found.and_then(|(number, _)| sim.checker.times_at(number, spin_loop)).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn figures_are_those_of_the_events(
        steps in prop::collection::vec(step(), 0..60),
        limit in prop::option::of(0..3_000_u64),
    ) {
        let sim = Sim::new();
        CLOCK.set(1_000);
        TOLD.take();
        sim.checker.times().set_limit(limit.unwrap_or(u64::MAX), tell);
        let mut held = Held::new();
        // Lock, since when (0: not measured).
        let mut holds: Vec<(Lock, u64)> = Vec::new();
        let mut expected = [LockTimes::default(); 4];
        let (mut timing, mut told) = (false, Vec::new());
        for (instance, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(class, wait) => {
                    let lock = Lock { instance, ..lock(class) };
                    sim.acquire(&mut held, lock, Acquire::TRY_WRITE, TASK);
                    if let Some(ns) = wait {
                        let since = CLOCK.replace(CLOCK.get() + ns);
                        sim.waited(&mut held, lock, since);
                        let row = &mut expected[class as usize];
                        (row.contended, row.waited_ns) = (row.contended + 1, row.waited_ns + ns);
                        row.longest_wait_ns = row.longest_wait_ns.max(ns);
                    }
                    let measured = timing || limit.is_some();
                    holds.push((lock, if measured { CLOCK.get() } else { 0 }));
                }
                Step::Release(below) => {
                    let Some(at) = holds.len().checked_sub(1 + below) else { continue };
                    let (lock, since) = holds.remove(at);
                    sim.release(&mut held, lock);
                    if since != 0 {
                        let (row, ns) = (&mut expected[lock.class as usize], CLOCK.get() - since);
                        (row.holds, row.held_ns) = (row.holds + 1, row.held_ns + ns);
                        row.longest_hold_ns = row.longest_hold_ns.max(ns);
                        if limit.is_some_and(|limit| ns >= limit) {
                            told.push((lock.class, ns));
                        }
                    }
                }
                Step::Pass(ns) => CLOCK.set(CLOCK.get() + ns),
                Step::Time(on) => {
                    timing = on;
                    sim.checker.times().set_timing(on);
                }
            }
        }
        for class in 1..4 {
            let found = figures(&sim, class);
            prop_assert_eq!(found.longest_hold_at.is_some(), found.longest_hold_ns > 0);
            let expected = LockTimes {
                longest_hold_at: found.longest_hold_at,
                longest_wait_at: found.longest_wait_at,
                ..expected[class as usize]
            };
            prop_assert_eq!(found, expected);
        }
        prop_assert_eq!(TOLD.take(), told);
        prop_assert_eq!(sim.take(), Vec::<String>::new());
    }
}

#[test]
fn who_may_sleep_under_a_lock_may_hold_it_for_long() {
    let sim = Sim::new();
    CLOCK.set(5);
    TOLD.take();
    sim.checker.times().set_limit(10, tell);
    let (mut held, sleeping) = (Held::new(), Lock { wait: WaitType::Sleep, ..lock(1) });
    sim.acquire(&mut held, sleeping, Acquire::WRITE, TASK);
    CLOCK.set(1_000);
    sim.release(&mut held, sleeping);
    assert_eq!((TOLD.take(), figures(&sim, 1).holds), (Vec::new(), 1));
    sim.checker.reset_times(spin_loop);
    assert_eq!(figures(&sim, 1), LockTimes::default());
}

#[test]
fn moments_of_48_bits_measure_three_days() {
    let day = 86_400_000_000_000;
    for at in [0, 1, 5, (1 << 48) - 1, 1 << 48, 3 * day, u64::MAX / 2] {
        for ns in [1, 1_000, day, 3 * day] {
            let elapsed = Since::at(at).elapsed(at + ns).unwrap();
            assert!(elapsed == ns || elapsed + 1 == ns && at % (1 << 48) == 0, "{at} {ns}: {elapsed}");
        }
    }
    assert_eq!(Since::NEVER.elapsed(7), None);
    assert_eq!(size_of::<Since>(), 6);
}
