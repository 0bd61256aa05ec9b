//! The queue against a sorted set.

use std::boxed::Box;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::*;

std::thread_local! {
    static BROKEN: Cell<Option<Twin>> = const { Cell::new(None) };
}

pub(super) fn broken(twin: Twin) -> bool {
    BROKEN.get() == Some(twin)
}

impl HrQueue {
    /// H1 and H2, and how many entries there are.
    fn check(&self) -> usize {
        let (mut rest, mut count) = (Vec::from([(None, self.root)]), 0);
        while let Some((above, link)) = rest.pop() {
            let Some(at) = link.at() else {
                assert_eq!(link.rank(), 0, "a rank of nothing");
                continue;
            };
            count += 1;
            assert!(at.entry().is_linked());
            assert_eq!(at.up(), above, "the way up");
            assert!(above.is_none_or(|above| above.expires() <= at.expires()), "order");
            let (left, right) = (at.below(LEFT), at.below(RIGHT));
            assert!(left.rank() >= right.rank(), "the shorter side is on the right");
            if above.is_some() {
                assert_eq!(link.rank(), (right.rank() + 1).min(MOST_RANK), "rank");
            }
            rest.push((Some(at), left));
            rest.push((Some(at), right));
        }
        assert_eq!(self.len(), count, "what it counts itself");
        count
    }

    /// How many entries there are along the right.
    fn right_side(&self) -> usize {
        core::iter::successors(self.root.at(), |at| at.below(RIGHT).at()).count()
    }
}

/// Entries that stay in place, the queue, and what should be in it.
struct World {
    queue: HrQueue,
    entries: Box<[HrEntry]>,
    /// When the entries that are in the queue expire.
    model: BTreeMap<usize, u64>,
    now: u64,
    /// What the queue last said.
    said: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        while self.queue.pop_any().is_some() {}
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert { who: usize, after: u64, slack: u64 },
    Remove { who: usize },
    Modify { who: usize, after: u64 },
    Pass { ns: u64 },
    Next,
}

impl World {
    fn new(size: usize) -> World {
        let entries = (0..size).map(|_| HrEntry::new(0)).collect();
        World { queue: HrQueue::new(), entries, model: BTreeMap::new(), now: 1 << 20, said: u64::MAX }
    }

    fn entry(&self, who: usize) -> NonNull<HrEntry> {
        NonNull::from(&self.entries[who])
    }

    fn insert(&mut self, who: usize, expires: u64, slack: Option<u64>) {
        let entry = &self.entries[who];
        entry.set_expires(expires);
        if let Some(slack) = slack {
            entry.set_slack(slack);
            assert!(entry.slack() <= slack);
            assert!(entry.slack() * 2 > slack || !(8192..1 << 28).contains(&slack));
        }
        self.model.insert(who, expires);
        // SAFETY: the entries stay in their box, and the world empties the queue before it ends.
        let earlier = unsafe { self.queue.insert(self.entry(who), self.now) };
        assert_eq!(earlier, self.entries[who].latest() < self.said, "whether it is earlier");
        if earlier {
            self.said = self.entries[who].latest();
        }
    }

    fn latest(&self) -> u64 {
        self.model.keys().map(|&who| self.entries[who].latest()).min().unwrap_or(u64::MAX)
    }

    fn next(&mut self) {
        let (latest, next) = (self.latest(), self.queue.next());
        assert!(next <= latest, "late: {next} after {latest}");
        let first = self.model.values().copied().min().unwrap_or(u64::MAX);
        assert!(next >= first, "nothing is due then: {next} before {first}");
        if self.model.values().filter(|&&expires| expires < latest).count() <= LOOKS as usize {
            assert_eq!(next, latest, "an interrupt too early");
        }
        assert_eq!(self.queue.first_expiry(), first);
        self.said = next;
    }

    /// Takes one out that is due, in the way for a single one if it is.
    fn pop(&mut self) -> Option<NonNull<HrEntry>> {
        let due = self.model.values().filter(|&&expires| expires <= self.now).count();
        match self.queue.pop_single(self.now) {
            DueNow::Nothing => assert_eq!(due, 0, "left behind"),
            DueNow::Single(entry) => {
                assert_eq!(due, 1, "it is not alone");
                return Some(entry);
            }
            DueNow::Perhaps => assert!(due > 1, "{due} are due"),
        }
        self.queue.pop_due(self.now)
    }

    fn pass(&mut self, ns: u64) {
        self.now += ns;
        let mut last = 0;
        while let Some(entry) = self.pop() {
            let who = self.entries.iter().position(|other| NonNull::from(other) == entry).unwrap();
            let expires = self.model.remove(&who).expect("it is in the queue");
            assert!(expires <= self.now, "early");
            assert!(expires >= last, "out of order");
            last = expires;
            assert!(!self.entries[who].is_linked());
        }
        assert!(self.model.values().all(|&expires| expires > self.now), "left behind");
        self.next();
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Insert { who, after, slack } if !self.model.contains_key(&who) => {
                self.insert(who, (self.now + after).saturating_sub(1000), Some(slack));
            }
            Op::Modify { who, after } | Op::Insert { who, after, .. } => {
                if self.model.contains_key(&who) {
                    let expires = self.now + after;
                    // SAFETY: it is in the queue.
                    let earlier = unsafe { self.queue.modify(self.entry(who), expires, self.now) };
                    self.model.insert(who, expires);
                    if earlier {
                        self.said = self.entries[who].latest();
                    }
                }
            }
            Op::Remove { who } => {
                if self.model.remove(&who).is_some() {
                    // SAFETY: it is in the queue.
                    unsafe { self.queue.remove(self.entry(who)) };
                }
            }
            Op::Pass { ns } => self.pass(ns),
            Op::Next => self.next(),
        }
        assert_eq!(self.queue.check(), self.model.len());
    }
}

const SIZE: usize = 40;

fn op() -> impl Strategy<Value = Op> {
    // Few different times, so that many are equal, or many.
    let after =
        || prop_oneof![0u64..20, (0u64..100).prop_map(|n| n * 8192), 0u64..1 << 30, Just(u64::MAX >> 1)];
    let slack = prop_oneof![3 => Just(0u64), 1 => 0u64..1 << 20, 1 => any::<u64>()];
    prop_oneof![
        5 => (0..SIZE, after(), slack).prop_map(|(who, after, slack)| Op::Insert { who, after, slack }),
        2 => (0..SIZE).prop_map(|who| Op::Remove { who }),
        1 => (0..SIZE, after()).prop_map(|(who, after)| Op::Modify { who, after }),
        1 => (0u64..1 << 20).prop_map(|ns| Op::Pass { ns }),
        1 => Just(Op::Next),
    ]
}

fn run(ops: &[Op]) {
    let mut world = World::new(SIZE);
    for op in ops {
        world.apply(op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(300)))]
    #[test]
    fn behaves_as_a_sorted_set(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 30 } else { 300 })) {
        run(&ops);
    }
}

/// The same with one thing wrong.
fn caught(twin: Twin) {
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = runner.run(&prop::collection::vec(op(), 1..300), |ops| {
        let outcome = std::thread::spawn(move || {
            BROKEN.set(Some(twin));
            run(&ops);
        })
        .join();
        outcome.map_err(|_| TestCaseError::fail("caught"))
    });
    std::panic::set_hook(hook);
    assert!(result.is_err(), "{twin:?} went unnoticed");
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn broken_ones_are_caught() {
    for twin in [Twin::RanksKept, Twin::MeldedBlindly, Twin::LeftOnly, Twin::NextKept, Twin::NextNotLowered] {
        caught(twin);
    }
}

/// Every order in which many may come, and the bound on a single operation.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn no_order_makes_the_right_side_long() {
    const N: usize = 60_000;
    for order in 0..4u64 {
        let mut world = World::new(N);
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for who in 0..N {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let expires = match order {
                0 => who as u64,
                1 => (N - who) as u64,
                2 => random >> 30,
                _ => 7,
            };
            world.entries[who].set_expires(expires);
            // SAFETY: as in `World::insert`.
            unsafe { world.queue.insert(world.entry(who), 0) };
            let bound = (who + 2).ilog2() as usize + (who + 1) / 16_384;
            assert!(world.queue.right_side() <= bound, "{order}: {} > {bound}", world.queue.right_side());
        }
        assert_eq!(world.queue.check(), N);
        for left in (1..N).rev() {
            let bound = (left + 1).ilog2() as usize + left / 16_384;
            world.queue.pop_any().unwrap();
            assert!(world.queue.right_side() <= bound, "{order}");
        }
    }
}

#[test]
fn those_within_each_others_slack_share_an_interrupt() {
    let mut world = World::new(8);
    for who in 0..8 {
        world.insert(who, 2_000_000 + who as u64 * 10_000, Some(1 << 17));
    }
    assert_eq!(world.queue.next(), 2_000_000 + (1 << 17));
    // One with less slack brings them all forward that have expired by then.
    world.queue.pop_any().unwrap();
    world.model.remove(&0);
    world.insert(0, 2_030_000, Some(8_192));
    assert_eq!(world.queue.next(), 2_038_192);
    world.pass(2_038_192 - world.now);
    assert_eq!(world.model.keys().copied().collect::<Vec<_>>(), [4, 5, 6, 7]);
}

#[test]
fn a_deadline_that_never_comes() {
    let mut world = World::new(2);
    world.insert(0, u64::MAX, Some(1 << 20));
    world.next();
    world.pass(1 << 62);
    assert_eq!(world.queue.next(), u64::MAX);
    world.insert(1, u64::MAX - 1, Some(1 << 20));
    assert_eq!(world.queue.next(), u64::MAX);
}
