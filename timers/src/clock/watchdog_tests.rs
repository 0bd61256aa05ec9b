//! A machine whose host stops it where it likes, and clocks that are right and wrong.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// True time, in ns, and what counts along with it.
struct World {
    now: u64,
    /// The clock is off by this.
    ppm: i64,
    /// The clock is ahead by this.
    ahead: u64,
    bits: u32,
    hz: u64,
}

impl World {
    fn clock(&self) -> u64 {
        let now = i128::from(self.now) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        now as u64 + self.ahead
    }

    fn count(&self) -> u64 {
        let count = u128::from(self.now) * u128::from(self.hz) / NS;
        count as u64 & (u64::MAX >> (64 - self.bits))
    }

    /// A reading in which the host lets `stops` ns pass between the steps.
    fn read(&mut self, stops: [u64; 2]) -> Reading {
        let before = self.clock();
        self.now += 500 + stops[0];
        let count = self.count();
        self.now += 500 + stops[1];
        Reading { before, count, after: self.clock() }
    }
}

/// Between two looks, and within one.
fn waits() -> impl Strategy<Value = Vec<(u64, [u64; 2])>> {
    let stop = || prop_oneof![8 => Just(0u64), 1 => 0u64..100_000, 1 => 0u64..20_000_000_000];
    let wait = prop_oneof![4 => 100_000_000u64..1_500_000_000, 1 => 0u64..30_000_000_000, 1 => 0u64..100_000];
    prop::collection::vec((wait, [stop(), stop()]), 3..80)
}

fn references() -> impl Strategy<Value = (u64, u32)> {
    prop_oneof![Just((3_579_545, 24)), Just((3_579_545, 32)), Just((100_000_000, 32)), Just((14_318_180, 32))]
}

fn watch((hz, bits): (u64, u32), ppm: i64) -> (World, Watchdog) {
    let world = World { now: 1_000_000_000, ppm, ahead: 0, bits, hz };
    (world, Watchdog::new(Reference::new(hz, bits)))
}

/// The limit of any comparison with a counter that wraps: 18 s pass, the counter turns three times, and the clock shows
/// as much as the rest.
#[test]
fn a_slow_clock_may_lose_whole_turns_of_the_reference() {
    let (mut world, mut watchdog) = watch((3_579_545, 24), -777_190);
    assert_eq!(watchdog.look(world.read([0, 0])), Finding::Begun);
    world.now += 18_066_211_525;
    let finding = watchdog.look(world.read([0, 0]));
    assert!(matches!(finding, Finding::Agrees(_)), "{finding:?}");
    // Looks that come in time tell.
    world.now += 1_000_000_000;
    assert!(matches!(watchdog.look(world.read([0, 0])), Finding::Doubted(_)));
    world.now += 1_000_000_000;
    assert!(matches!(watchdog.look(world.read([0, 0])), Finding::Wrong(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn an_honest_clock_is_never_doubted(
        waits in waits(),
        reference in references(),
        ppm in -4_900i64..4_900,
    ) {
        let (mut world, mut watchdog) = watch(reference, ppm);
        for (wait, stops) in waits {
            world.now += wait;
            let finding = watchdog.look(world.read(stops));
            prop_assert!(!matches!(finding, Finding::Doubted(_) | Finding::Wrong(_)), "{finding:?}");
            if let Finding::Agrees(found) = finding {
                prop_assert!((found - ppm).abs() <= 2_600, "{found} {ppm}");
            }
        }
    }

    /// Whatever the host does: three looks that say something are enough, while the reference cannot turn unnoticed.
    #[test]
    fn a_wrong_clock_is_found_by_the_third_look(
        waits in waits(),
        reference in references(),
        off in 10_000i64..900_000,
        fast: bool,
    ) {
        let (mut world, mut watchdog) = watch(reference, if fast { off } else { -off });
        let turn = watchdog.reference().turn_ns();
        let (mut telling, mut told) = (0, world.now);
        for (wait, stops) in waits {
            world.now += wait;
            let finding = watchdog.look(world.read(stops));
            match finding {
                Finding::Skipped(_) => continue,
                Finding::Begun => {}
                Finding::Agrees(_) => {
                    // One that is slow may have lost just the turns that the reference does not show.
                    prop_assert!(!fast && world.now - told >= turn, "it agrees");
                    return Ok(());
                }
                Finding::Doubted(_) => prop_assert_eq!(telling, 1),
                Finding::Wrong(_) => {
                    prop_assert!(telling >= 2);
                    return Ok(());
                }
            }
            telling += 1;
            told = world.now;
            prop_assert!(telling < 3);
        }
    }

    /// With looks once a second, in a machine that is not stopped, those are the first three.
    #[test]
    fn found_within_three_seconds(reference in references(), off in 10_000i64..2_000_000, fast: bool) {
        let off = if fast { off } else { -off.min(900_000) };
        let (mut world, mut watchdog) = watch(reference, off);
        let found: Vec<Finding> = (0..3)
            .map(|_| {
                world.now += 1_000_000_000;
                watchdog.look(world.read([0; 2]))
            })
            .collect();
        prop_assert!(matches!(found[..], [Finding::Begun, Finding::Doubted(a), Finding::Wrong(b)] if (a > 0) == fast && (b > 0) == fast), "{found:?}");
    }

    #[test]
    fn a_clock_that_jumps_is_found_at_the_second_jump(
        reference in references(),
        between in 1usize..7,
        jump in 20_000_000u64..1_000_000_000,
    ) {
        let (mut world, mut watchdog) = watch(reference, 100);
        let mut look = |ahead| {
            world.now += 500_000_000;
            world.ahead += ahead;
            watchdog.look(world.read([0; 2]))
        };
        look(0);
        for _ in 0..20 {
            prop_assert!(matches!(look(0), Finding::Agrees(_)));
        }
        prop_assert!(matches!(look(jump), Finding::Doubted(_)));
        for _ in 1..between {
            prop_assert!(matches!(look(0), Finding::Agrees(_)));
        }
        prop_assert!(matches!(look(jump), Finding::Wrong(_)));
    }
}

#[test]
fn one_jump_is_forgiven() {
    let (mut world, mut watchdog) = watch((100_000_000, 32), 0);
    for round in 0..40 {
        world.now += 1_000_000_000;
        if round % 10 == 5 {
            world.ahead += 20_000_000_000;
        }
        let finding = watchdog.look(world.read([0; 2]));
        assert!(!matches!(finding, Finding::Wrong(_)), "{finding:?}");
    }
    assert_eq!(watchdog.looks().doubted, 4);
}

#[test]
fn who_looks_rarely_learns_nothing_and_says_so() {
    // A 24-bit PM timer and looks every ten seconds: it has turned twice each time.
    let (mut world, mut watchdog) = watch((3_579_545, 24), 100);
    watchdog.look(world.read([0; 2]));
    for _ in 0..10 {
        world.now += 10_000_000_000;
        assert_eq!(watchdog.look(world.read([0; 2])), Finding::Skipped(Skipped::Late));
    }
    // One that comes soon after says something again.
    world.now += 1_000_000_000;
    assert!(matches!(watchdog.look(world.read([0; 2])), Finding::Agrees(_)));
}

#[test]
fn who_looks_too_often_learns_from_some() {
    let (mut world, mut watchdog) = watch((3_579_545, 24), 20_000);
    let mut said = 0;
    for look in 0..10_000 {
        world.now += 10_000;
        match watchdog.look(world.read([0; 2])) {
            Finding::Wrong(_) => {
                assert!(said >= 1 && look > 10);
                return;
            }
            Finding::Doubted(_) => said += 1,
            _ => {}
        }
    }
    panic!("not found");
}

#[test]
fn a_reference_of_64_bits_never_turns() {
    let reference = Reference::new(10_000_000_000, 64);
    assert_eq!(reference.turn_ns(), 1_844_674_407_370_955_161);
    let mut watchdog = Watchdog::new(reference);
    watchdog.look(Reading { before: 0, count: u64::MAX - 5, after: 10 });
    let century = 3_155_760_000_000_000_000u64;
    let later = Reading { before: century, count: (century as u128 * 10 - 5) as u64, after: century + 10 };
    assert!(matches!(watchdog.look(later), Finding::Skipped(Skipped::Late)), "beyond a turn");
}
