//! Single cases, and every edge of every level.

use core::ptr::NonNull;

use super::geometry::{NO_SLACK, Sound};
use super::raw::Raw;
use super::*;
use crate::queue::Entry;

/// A wheel, and the entries that it was given.
struct World {
    wheel: Raw<Sound>,
    entry: Box<WheelEntry>,
}

impl World {
    fn new() -> World {
        World { wheel: Raw::new(), entry: Box::new(WheelEntry::new()) }
    }

    fn insert(&mut self, expires: u64, slack: u64, now: u64) {
        self.entry.set_expires(expires);
        self.entry.set_slack(slack);
        // SAFETY: it is in no wheel, and is boxed.
        unsafe { self.wheel.insert(NonNull::from(&*self.entry), now) };
    }

    fn modify(&mut self, expires: u64, now: u64) {
        // SAFETY: it is in the wheel.
        unsafe { self.wheel.modify(NonNull::from(&*self.entry), expires, now) };
    }

    /// Sleeps until there is something to do, as often as it takes; when the entry was given back, and after how many
    /// looks in vain.
    fn wait(&mut self) -> (u64, usize) {
        for vain in 0.. {
            let next = self.wheel.next();
            assert!(self.wheel.pop_due(next - 1).is_none());
            if let Some(entry) = self.wheel.pop_due(next) {
                assert!(entry.as_ptr().cast_const() == &raw const *self.entry);
                assert_eq!(self.wheel.next(), u64::MAX);
                return (next, vain);
            }
        }
        unreachable!()
    }
}

/// The least and the most that an entry is late if `distance` ticks remain, over presents that matter, and the most looks
/// in vain.
fn lateness(distance: u64, slack: u64) -> (u64, u64, usize) {
    let (mut least, mut most, mut vain) = (u64::MAX, 0, 0);
    let granule = granule(level_of(distance.min(HORIZON)));
    // All of short ones; and those with which the time is the end of a bucket, and just after one.
    let end = (granule - distance % granule) % granule;
    let offsets = (0..granule.min(600)).chain([granule - 1, end, end + 1]);
    for now in offsets.map(|offset| 1_000_000 * granule + offset) {
        let mut world = World::new();
        world.insert(now + distance, slack, now);
        let (given, looks) = world.wait();
        assert!(given >= now + distance, "early");
        least = least.min(given - now - distance);
        most = most.max(given - now - distance);
        vain = vain.max(looks);
    }
    (least, most, vain)
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn at_both_ends_of_each_level_entries_are_late_by_less_than_its_granule() {
    for level in 0..LEVELS {
        let first = if level == 0 { 1 } else { 63 * granule(level - 1) + 1 };
        for distance in [first, 63 * granule(level)] {
            // The bound is reached, and nothing is filed twice.
            assert_eq!(lateness(distance, u64::MAX), (0, granule(level) - 1, 0), "{distance} ticks");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_slack_is_kept_exactly_and_costs_one_look_a_level() {
    for level in 0..LEVELS {
        for slack in [0, 1, 7, 8, 62, 63, 64, 5_000] {
            let (_, most, vain) = lateness(63 * granule(level), slack);
            assert!(
                most <= slack.min(granule(level) - 1),
                "level {level}: {most} late with a slack of {slack}"
            );
            assert!(vain <= level, "level {level}: {vain} looks in vain");
        }
    }
}

#[test]
fn beyond_the_horizon_entries_are_filed_again_and_late_by_no_more_than_the_coarsest_granule() {
    for (distance, most_looks) in [(HORIZON + 1, 1), (3 * HORIZON, 4), (100 * HORIZON, 110)] {
        let mut world = World::new();
        world.insert(77 + distance, u64::MAX, 77);
        let (given, vain) = world.wait();
        assert!(given >= 77 + distance && given - 77 - distance < granule(LEVELS - 1));
        assert!(vain <= most_looks, "{vain} looks in vain");
    }
}

#[test]
fn never_is_not_now() {
    let mut world = World::new();
    world.insert(u64::MAX, 0, 5);
    for _ in 0..1_000 {
        let next = world.wheel.next();
        assert!(next > 5 && world.wheel.pop_due(next).is_none());
    }
}

#[test]
fn a_time_that_has_passed_is_due_now_or_if_that_is_over_at_the_next_tick() {
    let mut world = World::new();
    world.insert(90, u64::MAX, 100);
    assert_eq!(world.wait(), (100, 0));
    world.insert(90, u64::MAX, 100);
    assert_eq!(world.wait(), (101, 0));
}

#[test]
fn a_function_that_arms_its_own_timer_for_now_does_not_hold_the_drain_up() {
    let mut world = World::new();
    world.insert(10, u64::MAX, 0);
    let mut given = 0;
    while world.wheel.pop_due(50).is_some() {
        given += 1;
        world.insert(10, u64::MAX, 50);
    }
    assert_eq!(given, 1);
    assert_eq!(world.wait(), (51, 0));
}

#[test]
fn a_clock_that_idle_left_behind_does_not_make_buckets_coarse() {
    let mut world = World::new();
    world.insert(10, u64::MAX, 0);
    assert_eq!(world.wait(), (10, 0));
    let later = 40 * 24 * 60 * 60 * crate::HZ;
    world.insert(later + 63, u64::MAX, later);
    assert_eq!(world.wait(), (later + 63, 0));
    // Nor do timers that are overdue, because nobody looked for so long.
    world.insert(later + 100, u64::MAX, later + 90);
    let other = WheelEntry::new();
    other.set_expires(2 * later + 5);
    // SAFETY: it is in no wheel, and outlives its stay.
    unsafe { world.wheel.insert(NonNull::from(&other), 2 * later) };
    assert!(world.wheel.pop_due(2 * later).is_some() && world.wheel.pop_due(2 * later).is_none());
    assert_eq!(world.wheel.next(), 2 * later + 5);
    assert_eq!(world.wheel.pop_due(2 * later + 5), Some(NonNull::from(&other)));
    assert!(world.wheel.refiled() <= 1);
}

#[test]
fn a_later_time_is_a_store_until_the_bucket_comes() {
    let mut world = World::new();
    world.insert(50, u64::MAX, 0);
    for now in 1..50 {
        world.modify(now + 1_000, now);
        assert_eq!(world.wheel.next(), 50);
        assert!(world.wheel.pop_due(now).is_none());
    }
    // One look in vain for 49 times armed anew; none after one has asked whether it is worth it.
    assert_eq!(world.wait(), (1_088, 1));
    world.insert(1_100, u64::MAX, 1_088);
    world.modify(5_000, 1_090);
    assert_eq!((world.wheel.next(), world.wheel.settle(1_090, 1)), (1_100, 5_056));
    assert_eq!(world.wait(), (5_056, 0));
}

#[test]
fn an_earlier_time_is_kept_after_later_ones() {
    let mut world = World::new();
    world.insert(50, u64::MAX, 0);
    world.modify(100_000, 1);
    world.modify(60, 2);
    assert_eq!(world.wait(), (60, 1));
    world.insert(100_000, u64::MAX, 60);
    world.modify(70, 61);
    assert_eq!(world.wait(), (70, 0));
}

#[test]
fn slack_is_what_was_said_or_none() {
    let entry = WheelEntry::new();
    for (given, kept) in [(0, 0), (5, 5), (u64::from(NO_SLACK) - 1, NO_SLACK - 1), (u64::MAX, NO_SLACK)] {
        entry.set_slack(given);
        assert_eq!(entry.slack.load(core::sync::atomic::Ordering::Relaxed), kept);
    }
}

#[test]
fn a_wheel_may_be_moved_with_what_is_in_it() {
    let entries: Vec<_> = (0..500).map(|_| WheelEntry::new()).collect();
    let mut wheel = Wheel::new();
    for (at, entry) in entries.iter().enumerate() {
        entry.set_expires(at as u64 % 70 * 10);
        // SAFETY: it is in no wheel, and stays.
        unsafe { wheel.insert(NonNull::from(entry), 0) };
    }
    let mut places = [Some(Box::new(wheel)), None];
    let mut given = 0;
    // Moved in the middle of it.
    while places[given % 2].as_mut().expect("it is here").pop_due(345).is_some() {
        let wheel = *places[given % 2].take().expect("it is here");
        given += 1;
        places[given % 2] = Some(Box::new(wheel));
    }
    let mut moved = places[given % 2].take().expect("it is here");
    assert_eq!(given, entries.iter().filter(|entry| !entry.is_linked()).count());
    while moved.pop_any().is_some() {
        given += 1;
    }
    assert_eq!((given, moved.next()), (500, u64::MAX));
}

#[test]
fn a_clock_that_is_left_behind_by_more_than_half_a_word_does_not_hold_what_is_brought_forward() {
    let mut world = World::new();
    let never = WheelEntry::new();
    never.set_expires(u64::MAX);
    // SAFETY: it is in no wheel, and outlives its stay.
    unsafe { world.wheel.insert(NonNull::from(&never), 0) };
    let mut now = 0;
    while now < 3 << 31 {
        // Each time somebody asks, it is filed further away, and its bucket never comes.
        now += HORIZON / 2;
        assert!(world.wheel.settle(now, 5) > now && world.wheel.pop_due(now).is_none());
        world.insert(now + 100_000, u64::MAX, now);
        world.modify(now + 10, now);
        assert_eq!(world.wheel.next(), now + 10);
        // SAFETY: it is in the wheel.
        unsafe { world.wheel.remove(NonNull::from(&*world.entry)) };
    }
}
