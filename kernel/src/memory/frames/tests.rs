use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Records are laid over garbage on purpose: found memory is never clean.
fn garbage(words: usize) -> Vec<u64> {
    vec![0xa5a5_5a5a_dead_beef; words]
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { order: usize },
    Below { order: usize, limit: u64 },
    Free { index: usize },
    FreeParts { index: usize },
    BadFree { frame: u64, order: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![4 => 0..3usize, 2 => 3..8usize, 1 => 8..=MAX_ORDER];
    prop_oneof![
        4 => order.clone().prop_map(|order| Step::Allocate { order }),
        1 => (0..6usize, 0..3000u64).prop_map(|(order, limit)| Step::Below { order, limit: limit * PAGE_SIZE }),
        4 => any::<usize>().prop_map(|index| Step::Free { index }),
        1 => any::<usize>().prop_map(|index| Step::FreeParts { index }),
        2 => (0..3000u64, order).prop_map(|(frame, order)| Step::BadFree { frame, order }),
    ]
}

/// Disjoint ascending frame ranges.
fn regions() -> impl Strategy<Value = Vec<Range<u64>>> {
    prop::collection::vec((1..200u64, 1..900u64), 1..5).prop_map(|parts| {
        let mut at = 0;
        parts
            .into_iter()
            .map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                start * PAGE_SIZE..at * PAGE_SIZE
            })
            .collect()
    })
}

/// The allocated blocks, by first frame.
type Model = BTreeMap<u64, usize>;

fn is_allocated(model: &Model, frame: u64) -> bool {
    model.range(..=frame).next_back().is_some_and(|(start, order)| frame < start + (1 << order))
}

fn has_room(model: &Model, regions: &[Range<u64>], order: usize, limit: u64) -> bool {
    let size = 1 << order;
    regions.iter().map(frames_of).any(|region| {
        let first = region.start.next_multiple_of(size);
        (first..)
            .step_by(size as usize)
            .take_while(|f| f + size <= region.end.min(limit))
            .any(|f| (f..f + size).all(|frame| !is_allocated(model, frame)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(300)))]

    #[test]
    fn agrees_with_the_model(regions in regions(), steps in prop::collection::vec(step(), 1..120)) {
        let mut words = garbage(FrameAllocator::words_needed(regions.iter().cloned()));
        let mut frames = FrameAllocator::new();
        let mut rest = &mut words[..];
        for region in &regions {
            rest = frames.add(region.clone(), rest).unwrap();
        }
        prop_assert!(rest.is_empty());
        let fresh = frames.stats();
        let mut model = Model::new();
        let ours = |frame: u64| regions.iter().any(|r| r.contains(&(frame * PAGE_SIZE)));

        for step in steps {
            match step {
                Step::Allocate { order } => match frames.allocate(order) {
                    Some(block) => {
                        let frame = block / PAGE_SIZE;
                        prop_assert_eq!(block % (PAGE_SIZE << order), 0);
                        prop_assert!((frame..frame + (1 << order)).all(|f| ours(f) && !is_allocated(&model, f)));
                        model.insert(frame, order);
                    }
                    None => prop_assert!(!has_room(&model, &regions, order, u64::MAX)),
                },
                Step::Below { order, limit } => match frames.allocate_below(order, limit) {
                    Some(block) => {
                        let frame = block / PAGE_SIZE;
                        prop_assert!(block + (PAGE_SIZE << order) <= limit && block % (PAGE_SIZE << order) == 0);
                        prop_assert!((frame..frame + (1 << order)).all(|f| ours(f) && !is_allocated(&model, f)));
                        model.insert(frame, order);
                    }
                    None => prop_assert!(!has_room(&model, &regions, order, limit / PAGE_SIZE)),
                },
                Step::Free { index } if !model.is_empty() => {
                    let (frame, order) = model.iter().nth(index % model.len()).map(|(f, o)| (*f, *o)).unwrap();
                    model.remove(&frame);
                    prop_assert_eq!(frames.free(frame * PAGE_SIZE, order), Ok(()));
                    prop_assert_eq!(frames.free(frame * PAGE_SIZE, order), Err(FrameError::DoubleFree));
                }
                Step::FreeParts { index } if !model.is_empty() => {
                    let (frame, order) = model.iter().nth(index % model.len()).map(|(f, o)| (*f, *o)).unwrap();
                    model.remove(&frame);
                    for part in 0..1 << order {
                        prop_assert_eq!(frames.free((frame + part) * PAGE_SIZE, 0), Ok(()));
                    }
                }
                Step::BadFree { frame, order } => {
                    let size = 1 << order;
                    let wanted = if frame % size != 0 {
                        Some(FrameError::Misaligned)
                    } else if !ours(frame) || !ours(frame + size - 1)
                        || regions.iter().all(|r| frames_of(r).end < frame + size || frames_of(r).start > frame) {
                        Some(FrameError::Foreign)
                    } else if (frame..frame + size).any(|f| !is_allocated(&model, f)) {
                        Some(FrameError::DoubleFree)
                    } else {
                        // It would take somebody's memory away, which no allocator can notice.
                        None
                    };
                    if let Some(error) = wanted {
                        prop_assert_eq!(frames.free(frame * PAGE_SIZE, order), Err(error));
                    }
                }
                Step::Free { .. } | Step::FreeParts { .. } => {}
            }
            let allocated: u64 = model.values().map(|order| 1 << order).sum();
            prop_assert_eq!(frames.stats().free, fresh.total - allocated);
        }

        for (frame, order) in core::mem::take(&mut model) {
            prop_assert_eq!(frames.free(frame * PAGE_SIZE, order), Ok(()));
        }
        prop_assert_eq!(frames.stats().free_blocks, fresh.free_blocks, "everything merges back");
    }
}

#[test]
fn a_tebibyte_is_cheap_until_used() {
    let region = 0..1u64 << 40;
    let needed = FrameAllocator::words_needed([region.clone()]);
    assert!(needed * 8 < 66 << 20, "{needed} words");
    let mut words = garbage(needed);
    let mut frames = FrameAllocator::new();
    frames.add(region, &mut words).unwrap();
    assert_eq!(frames.stats().free_blocks[MAX_ORDER], 1024);
    let one = frames.allocate(0).unwrap();
    let big = frames.allocate(MAX_ORDER).unwrap();
    frames.free(big, MAX_ORDER).unwrap();
    frames.free(one, 0).unwrap();
    assert_eq!(frames.stats().free_blocks[MAX_ORDER], 1024);
    let touched = words.iter().filter(|word| **word != 0xa5a5_5a5a_dead_beef).count();
    assert!(touched * 8 < 128 << 10, "{touched} words were touched");
}

#[test]
fn a_large_block_given_back_in_parts_merges() {
    let region = 0..4u64 << 30;
    let mut words = garbage(FrameAllocator::words_needed([region.clone()]));
    let mut frames = FrameAllocator::new();
    frames.add(region, &mut words).unwrap();
    let block = frames.allocate(MAX_ORDER).unwrap();
    for part in 0..1u64 << (MAX_ORDER - 9) {
        frames.free(block + part * (PAGE_SIZE << 9), 9).unwrap();
    }
    assert_eq!(frames.stats().free_blocks[MAX_ORDER], 4);
}

#[test]
fn regions_are_checked() {
    let mut words = garbage(64);
    let mut frames = FrameAllocator::new();
    let rest = frames.add(0x10000..0x20000, &mut words).unwrap();
    assert_eq!(frames.add(0x8000..0x9000, rest).unwrap_err(), AddError::BadRegion);
    let mut more = garbage(64);
    assert_eq!(frames.add(0x20800..0x30000, &mut more).unwrap_err(), AddError::BadRegion);
    let mut few = garbage(1);
    assert_eq!(frames.add(0x10_0000..0x100_0000, &mut few).unwrap_err(), AddError::TooFewWords);
}

#[test]
fn orders_for_sizes() {
    assert_eq!([1, 4096, 4097, 8192, 8193, 1 << 30].map(order_for), [0, 0, 1, 1, 2, 18]);
}
