//! Three counters, and which of them is believed.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Id {
    Tsc,
    Hpet,
    PmTimer,
}
use Id::{Hpet, PmTimer, Tsc};

/// By how many ppm each is off, and true time in ns.
struct World {
    ppm: [i64; 3],
    now: u64,
    sources: Sources<Id, 3>,
}

const HZ: [u64; 3] = [1_000_000_000, 100_000_000, 3_579_545];

impl World {
    fn new() -> World {
        let mut sources = Sources::new();
        sources.add(PmTimer, 200, Some(Reference::new(HZ[2], 32)));
        sources.add(Tsc, 300, None);
        sources.add(Hpet, 250, Some(Reference::new(HZ[1], 32)));
        World { ppm: [0; 3], now: 0, sources }
    }

    fn ns(&self, id: Id) -> u64 {
        (i128::from(self.now) * i128::from(1_000_000 + self.ppm[id as usize]) / 1_000_000) as u64
    }

    fn look(&mut self) -> Verdict<Id> {
        self.now += 1_000_000_000;
        let clock = self.ns(self.sources.current().unwrap());
        let counts = [Tsc, Hpet, PmTimer].map(|id| {
            (u128::from(self.ns(id)) * u128::from(HZ[id as usize]) / 1_000_000_000) as u64 & 0xffff_ffff
        });
        self.sources
            .look(|id| Some(Reading { before: clock, count: counts[id as usize], after: clock + 1_000 }))
    }

    fn run(&mut self, looks: usize) -> Vec<Verdict<Id>> {
        (0..looks).map(|_| self.look()).filter(|verdict| *verdict != Verdict::Keep).collect()
    }
}

#[test]
fn the_best_is_used_and_honest_ones_are_kept() {
    let mut world = World::new();
    assert_eq!(world.sources.current(), Some(Tsc));
    assert_eq!(world.run(100), []);
    let looks = world.sources.iter().find(|source| source.id() == Hpet).unwrap().watchdog().unwrap().looks();
    assert_eq!((looks.looks, looks.skipped, looks.doubted), (100, 0, 0));
}

#[test]
fn a_wrong_clock_is_replaced_by_the_next_best() {
    let mut world = World::new();
    world.ppm[Tsc as usize] = 20_000;
    let found = world.run(3);
    assert!(matches!(found[..], [Verdict::FallBack { from: Tsc, to: Some(Hpet), .. }]), "{found:?}");
    assert_eq!(world.sources.current(), Some(Hpet));
    assert!(
        world
            .sources
            .iter()
            .any(|source| source.wrong_by().is_some_and(|ppm| (19_000..21_000).contains(&ppm)))
    );
    // The new clock is compared with what is left.
    assert_eq!(world.run(20), []);
    world.ppm[Hpet as usize] = -30_000;
    world.run(1); // in the middle of which it changed
    let found = world.run(3);
    assert!(matches!(found[..], [Verdict::FallBack { from: Hpet, to: Some(PmTimer), .. }]), "{found:?}");
    assert_eq!(world.run(20), []);
}

#[test]
fn a_reference_that_stands_alone_is_dropped() {
    let mut world = World::new();
    world.ppm[Hpet as usize] = 20_000;
    let found = world.run(10);
    assert!(matches!(found[..], [Verdict::Dropped { reference: Hpet, .. }]), "{found:?}");
    assert_eq!(world.sources.current(), Some(Tsc));
    world.ppm[Tsc as usize] = 50_000;
    let found = world.run(10);
    assert!(matches!(found[..], [Verdict::FallBack { from: Tsc, to: Some(PmTimer), .. }]), "{found:?}");
}

#[test]
fn the_last_one_stays_whatever_it_is() {
    let mut sources = Sources::<Id, 2>::new();
    sources.add(Tsc, 300, None);
    sources.add(Hpet, 250, Some(Reference::new(1_000, 32)));
    sources.use_as_clock(Hpet);
    assert_eq!(sources.look(|_| unreachable!("the clock itself is no reference")), Verdict::Keep);
    let mut alone = Sources::<Id, 1>::new();
    alone.add(Tsc, 300, None);
    assert_eq!(alone.look(|_| None), Verdict::Keep);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// Two that agree within what is tolerated are never both thrown out, and the time ends at one of them.
    #[test]
    fn the_majority_is_right(liar in 0usize..3, off in prop_oneof![-400_000i64..-10_000, 10_000i64..400_000]) {
        let mut world = World::new();
        world.ppm[liar] = off;
        world.run(12);
        prop_assert!(world.sources.current() != Some([Tsc, Hpet, PmTimer][liar]));
        for source in world.sources.iter() {
            prop_assert_eq!(source.wrong_by().is_some(), source.id() as usize == liar);
        }
    }
}
