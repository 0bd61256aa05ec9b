//! The masks against ordered sets of numbers.

use std::collections::BTreeSet;
use std::string::{String, ToString};
use std::sync::atomic::Ordering;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// CPU numbers that crowd around the word and inline limits.
fn number() -> impl Strategy<Value = u32> {
    let max = MAX_CPUS as u32;
    prop_oneof![
        0..max,
        0..8.min(max),
        Just(max - 1),
        (60..70u32, 0..2u32).prop_map(move |(n, k)| (n + 64 * k) % max)
    ]
}

fn numbers() -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(number(), 0..40)
}

fn mask_of(model: &BTreeSet<u32>) -> CpuMask {
    model.iter().copied().map(cpu).collect()
}

fn model_of(mask: &CpuMask) -> BTreeSet<u32> {
    mask.iter().map(CpuId::as_u32).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn every_operation_agrees_with_a_sorted_set(steps in prop::collection::vec((0..4u8, number()), 0..80)) {
        let (mut mask, mut model) = (CpuMask::new(), BTreeSet::new());
        let atomic = AtomicCpuMask::new();
        for (kind, n) in steps {
            match kind {
                0 | 1 => {
                    let absent = model.insert(n);
                    prop_assert_eq!(mask.insert(cpu(n)), absent);
                    prop_assert_eq!(atomic.set(cpu(n)), absent);
                }
                2 => {
                    let present = model.remove(&n);
                    prop_assert_eq!(mask.remove(cpu(n)), present);
                    prop_assert_eq!(atomic.clear(cpu(n)), present);
                }
                _ => {
                    prop_assert_eq!(mask.contains(cpu(n)), model.contains(&n));
                    prop_assert_eq!(atomic.test(cpu(n)), model.contains(&n));
                    let after = model.range(n + 1..).next().copied().map(cpu);
                    prop_assert_eq!(mask.next(cpu(n)), after);
                    prop_assert_eq!(mask.next_wrapping(cpu(n)), after.or(mask.first()));
                }
            }
            prop_assert_eq!(mask.weight(), model.len());
            prop_assert_eq!(mask.is_empty(), model.is_empty());
            prop_assert_eq!(mask.first(), model.first().copied().map(cpu));
        }
        prop_assert_eq!(&model_of(&mask), &model);
        prop_assert_eq!(&atomic.snapshot(), &mask);
        prop_assert_eq!(atomic.iter().collect::<Vec<_>>(), mask.iter().collect::<Vec<_>>());
        mask.clear();
        prop_assert_eq!(mask, CpuMask::new());
    }

    #[test]
    fn algebra_agrees_with_a_sorted_set(a in numbers(), b in numbers()) {
        let (x, y) = (mask_of(&a), mask_of(&b));
        prop_assert_eq!(model_of(&(&x | &y)), &a | &b);
        prop_assert_eq!(model_of(&(&x & &y)), &a & &b);
        prop_assert_eq!(model_of(&(&x ^ &y)), &a ^ &b);
        prop_assert_eq!(model_of(&(&x - &y)), &a - &b);
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
        prop_assert_eq!(x == y, a == b);
        let mut z = x.clone();
        z |= &y;
        z -= &x;
        z ^= &y;
        z &= &x;
        prop_assert_eq!(model_of(&z), &a & &b);
    }

    #[test]
    fn text_goes_round(a in numbers()) {
        let mask = mask_of(&a);
        let text = mask.to_string();
        prop_assert_eq!(text.parse::<CpuMask>().unwrap(), mask);
        // The shortest form: ranges neither touch nor overlap.
        let ends: Vec<u32> = text.split([',', '-']).filter(|t| !t.is_empty()).map(|t| t.parse().unwrap()).collect();
        prop_assert!(ends.is_sorted_by(|low, high| low < high));
        for (left, right) in text.split(',').zip(text.split(',').skip(1)) {
            let high: u32 = left.rsplit('-').next().unwrap().parse().unwrap();
            let low: u32 = right.split('-').next().unwrap().parse().unwrap();
            prop_assert!(low > high + 1, "{}", text);
        }
    }

    #[test]
    fn no_text_panics(text in "[0-9,\\- +a]{0,12}") {
        let parsed: Result<CpuMask, _> = text.parse();
        if let Ok(mask) = parsed {
            prop_assert_eq!(mask.to_string().parse::<CpuMask>().unwrap(), mask);
        }
    }
}

#[test]
fn a_removed_high_cpu_leaves_an_equal_set() {
    let mut grown = CpuMask::of(cpu(1));
    grown.insert(cpu(MAX_CPUS as u32 - 1));
    grown.remove(cpu(MAX_CPUS as u32 - 1));
    assert_eq!(grown, CpuMask::of(cpu(1)));
    assert_eq!(CpuMask::of(cpu(1)), grown);
}

#[test]
fn all_is_cut_at_the_maximum() {
    assert_eq!(CpuMask::all(u32::MAX).weight(), MAX_CPUS);
    assert_eq!(CpuMask::all(5).to_string(), "0-4");
    assert_eq!(CpuMask::all(0).to_string(), "");
}

#[test]
fn wrong_texts_say_what_is_right() {
    let error = |text: &str| -> String { text.parse::<CpuMask>().unwrap_err().to_string() };
    assert!(error("1;2").contains("0-3,7"));
    assert!(error("+1").contains("0-3,7"));
    assert!(error("1,").contains("0-3,7"));
    assert_eq!(error("5-3"), "the range 5-3 runs backwards; write 3-5");
    assert!(error("0-99999999999").contains("there is no CPU"));
    assert_eq!("0-1000000".parse::<CpuMask>(), Err(ParseMaskError::TooHigh { number: 1_000_000 }));
}

#[test]
fn whoever_sees_a_bit_sees_what_came_before_it() {
    use core::sync::atomic::AtomicUsize;
    static MASK: AtomicCpuMask = AtomicCpuMask::new();
    static DATA: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
    std::thread::scope(|scope| {
        for writer in 0..2 {
            scope.spawn(move || {
                for n in (writer..64).step_by(2) {
                    DATA[n].store(1, Ordering::Relaxed);
                    assert!(MASK.set(cpu(n as u32)));
                }
            });
        }
        scope.spawn(|| {
            while MASK.iter().inspect(|cpu| assert_eq!(DATA[cpu.index()].load(Ordering::Relaxed), 1)).count()
                < 64
            {
                std::thread::yield_now();
            }
        });
    });
    assert_eq!(MASK.snapshot(), CpuMask::all(64));
}
