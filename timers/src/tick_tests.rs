//! Conversions against exact arithmetic, and the schedule against counting.

use proptest::prelude::*;

use super::*;

#[test]
fn rates_are_accepted_or_refused() {
    assert_eq!([parse_rate("100"), parse_rate("250"), parse_rate("1000")], [100, 250, 1000]);
    for wrong in ["", "0", "300", " 250", "1000 ", "0x64", "one"] {
        assert!(std::panic::catch_unwind(|| parse_rate(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_tick_is_a_whole_number_of_nanoseconds_at_every_rate() {
    for rate in [100, 250, 1000] {
        assert_eq!(NS_PER_SECOND % rate, 0);
    }
    assert_eq!(TICK_NS * HZ, NS_PER_SECOND);
}

#[test]
fn never_stays_never() {
    assert_eq!(Ticks::MAX + Ticks(1), Ticks::MAX);
    assert_eq!(Ticks::MAX.as_ns(), u64::MAX);
    let mut t = Ticks(u64::MAX - 1);
    t += Ticks(5);
    assert_eq!(t, Ticks::MAX);
}

#[test]
fn the_end_of_the_clock_is_not_passed() {
    let mut schedule = TickSchedule::new(u64::MAX - 5, 10);
    assert_eq!(schedule.next_ns(), u64::MAX);
    assert_eq!(schedule.advance(u64::MAX - 1), Ticks(0));
    assert_eq!(schedule.advance(u64::MAX), Ticks(1));
    assert_eq!(schedule.next_ns(), u64::MAX);
}

#[test]
#[should_panic(expected = "must have a length")]
fn a_period_of_nothing_is_refused() {
    TickSchedule::new(0, 0);
}

#[test]
fn staggered_cpus_do_not_tick_together() {
    let due: Vec<_> = (0..8).map(|cpu| TickSchedule::new(0, 4_000).staggered(cpu, 8).next_ns()).collect();
    assert_eq!(due, [4_000, 4_500, 5_000, 5_500, 6_000, 6_500, 7_000, 7_500]);
}

/// Times with all magnitudes, tick boundaries and their neighbours among them.
fn times() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0..64_u32).prop_flat_map(|bits| 0..=(u64::MAX >> bits)),
        (0..1_000_000_u64, 0..3_u64).prop_map(|(ticks, off)| (ticks * TICK_NS + off).saturating_sub(1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn limits_are_the_least_that_is_not_early(ns in times()) {
        let ticks = Ticks::covering_ns(ns);
        let length = |t: u64| u128::from(t) * u128::from(TICK_NS);
        prop_assert!(length(ticks.0) >= u128::from(ns));
        prop_assert!(ticks.0 == 0 || length(ticks.0 - 1) < u128::from(ns));
    }

    #[test]
    fn what_is_rounded_is_the_next_second_of_its_cpu(at in any::<u64>(), cpu in 0..hal::MAX_CPUS as u32) {
        let cpu = CpuId::new(cpu).expect("a CPU");
        for (rounded, skew) in [(Ticks(at).round_up_to_second(), 0), (Ticks(at).round_up_on(cpu), 3 * u64::from(cpu.as_u32()) % HZ)] {
            prop_assert!(rounded >= Ticks(at), "early");
            let is_second = (u128::from(rounded.0) + u128::from(skew)).is_multiple_of(u128::from(HZ));
            prop_assert!(rounded == Ticks::MAX || is_second && rounded.0 - at < HZ);
            // Only what no second follows is never.
            prop_assert!(rounded != Ticks::MAX || at > u64::MAX - 2 * HZ);
        }
    }

    #[test]
    fn elapsed_is_the_most_that_has_passed(ns in times()) {
        let ticks = Ticks::elapsed_in_ns(ns);
        prop_assert!(ticks.as_ns() <= ns);
        prop_assert!(ns - ticks.as_ns() < TICK_NS);
    }

    #[test]
    fn a_length_and_back(ticks in 0..u64::MAX / TICK_NS) {
        prop_assert_eq!(Ticks::covering_ns(Ticks(ticks).as_ns()), Ticks(ticks));
        prop_assert_eq!(Ticks::elapsed_in_ns(Ticks(ticks).as_ns()), Ticks(ticks));
    }

    /// Calls at any times, early, late, backwards: the ticks counted are exactly the points of the beat that have
    /// passed, the next one is the first that has not, and those missed are the ones that shared a call.
    #[test]
    fn ticks_are_the_points_of_the_beat_that_have_passed(
        begin in 0..u64::MAX / 4,
        period in 1..1_000_000_u64,
        share in 0..16_u32,
        steps in prop::collection::vec(-2_000_000..5_000_000_i64, 0..100),
    ) {
        let mut schedule = TickSchedule::new(begin, period).staggered(share, 16);
        let first = begin + period + period * u64::from(share) / 16;
        prop_assert_eq!(schedule.next_ns(), first);
        let (mut now, mut latest, mut counted, mut calls_with_ticks) = (begin, begin, 0, 0);
        for step in steps {
            now = now.saturating_add_signed(step);
            latest = latest.max(now);
            let ticks = schedule.advance(now).0;
            counted += ticks;
            calls_with_ticks += u64::from(ticks > 0);
            let passed = if latest < first { 0 } else { (latest - first) / period + 1 };
            prop_assert_eq!(counted, passed);
            prop_assert_eq!(schedule.next_ns(), first + passed * period);
            prop_assert_eq!(schedule.missed().0, counted - calls_with_ticks);
            prop_assert_eq!(schedule.until_next_ns(now), (first + passed * period) - now);
        }
    }
}
