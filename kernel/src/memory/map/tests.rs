use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

use super::*;

const PAGES: u64 = 48;

/// What each page of a small machine is, worked out one page at a time.
fn model(entries: &[RawRegion], limit: u64) -> Vec<Option<Kind>> {
    let covers = |entry: &RawRegion, page: u64| {
        let (first, last) = (u128::from(page * PAGE_SIZE), u128::from((page + 1) * PAGE_SIZE));
        let (start, end) = (u128::from(entry.start), u128::from(entry.start) + u128::from(entry.length));
        match entry.kind {
            _ if entry.length == 0 => false,
            Kind::Usable => end <= u128::from(u64::MAX) && start <= first && last <= end,
            _ => start < last && first < end,
        }
    };
    (0..PAGES)
        .map(|page| {
            if (page + 1) * PAGE_SIZE > limit {
                return None;
            }
            entries.iter().filter(|entry| covers(entry, page)).map(|entry| entry.kind).max()
        })
        .collect()
}

fn pages_of(map: &MemoryMap) -> Vec<Option<Kind>> {
    let mut pages = vec![None; PAGES as usize];
    for region in map.regions() {
        for page in region.start / PAGE_SIZE..(region.end / PAGE_SIZE).min(PAGES) {
            pages[page as usize] = Some(region.kind);
        }
    }
    pages
}

fn entry() -> impl Strategy<Value = RawRegion> {
    let top = PAGES * PAGE_SIZE;
    let start = prop_oneof![6 => 0..top, 2 => (0..PAGES).prop_map(|p| p * PAGE_SIZE), 1 => u64::MAX - 8192..=u64::MAX];
    let length = prop_oneof![
        6 => 0..top / 3,
        2 => (0..PAGES / 3).prop_map(|p| p * PAGE_SIZE),
        1 => Just(0),
        1 => u64::MAX - 2 * top..=u64::MAX,
    ];
    (start, length, 0..Kind::ALL.len()).prop_map(|(start, length, kind)| RawRegion {
        start,
        length,
        kind: Kind::ALL[kind],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(2000)))]

    #[test]
    fn agrees_with_the_per_page_model(entries in prop::collection::vec(entry(), 0..14), limit_page in 1..=PAGES, odd in 0..PAGE_SIZE) {
        let limit = limit_page * PAGE_SIZE + odd;
        let map = MemoryMap::normalise(entries.iter().copied(), limit);
        prop_assert_eq!(pages_of(&map), model(&entries, limit));
        for region in map.regions() {
            prop_assert!(region.start < region.end && region.end <= limit);
            prop_assert!(region.start % PAGE_SIZE == 0 && region.end % PAGE_SIZE == 0);
        }
        for pair in map.regions().windows(2) {
            prop_assert!(pair[0].end < pair[1].start || pair[0].end == pair[1].start && pair[0].kind != pair[1].kind);
        }
    }

    #[test]
    fn order_does_not_matter(entries in prop::collection::vec(entry(), 0..10), seed in any::<u64>()) {
        let mut shuffled = entries.clone();
        let mut state = seed | 1;
        for i in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            shuffled.swap(i, (state >> 33) as usize % (i + 1));
        }
        let limit = PAGES * PAGE_SIZE;
        let (one, other) = (MemoryMap::normalise(entries.into_iter(), limit), MemoryMap::normalise(shuffled.into_iter(), limit));
        prop_assert_eq!(one.regions(), other.regions());
    }

    #[test]
    fn an_overlay_is_like_having_known_it_all_along(
        entries in prop::collection::vec(entry(), 0..8),
        holes in prop::collection::vec((0..PAGES, 1..8u64), 0..4),
    ) {
        // Whole pages: what was rounded before is not rounded again.
        let more: Vec<_> = holes.iter().map(|(page, count)| RawRegion {
            start: page * PAGE_SIZE,
            length: count * PAGE_SIZE,
            kind: Kind::Kernel,
        }).collect();
        let limit = (PAGES + 16) * PAGE_SIZE;
        let twice = MemoryMap::normalise(entries.iter().copied(), limit).overlay(more.iter().copied());
        let once = MemoryMap::normalise(entries.iter().chain(&more).copied(), limit);
        prop_assert_eq!(twice.regions(), once.regions());
    }
}

#[test]
fn a_tebibyte_and_the_whole_address_space() {
    let usable = RawRegion { start: 0, length: 1 << 40, kind: Kind::Usable };
    let map = MemoryMap::normalise([usable].into_iter(), 1 << 46);
    assert_eq!(map.bytes(Kind::Usable), 1 << 40);
    let all = RawRegion { start: 0, length: u64::MAX, kind: Kind::Reserved };
    let map = MemoryMap::normalise([usable, all].into_iter(), u64::MAX);
    assert_eq!(map.regions(), [Region { start: 0, end: u64::MAX - 4095, kind: Kind::Reserved }]);
}

#[test]
fn a_wrapping_usable_entry_is_ignored_and_a_reserved_one_believed() {
    let entry = |kind| RawRegion { start: 0x5000, length: u64::MAX, kind };
    let map = MemoryMap::normalise([entry(Kind::Usable)].into_iter(), 1 << 46);
    assert_eq!((map.regions().len(), map.ignored_entries()), (0, 1));
    let map = MemoryMap::normalise([entry(Kind::Reserved)].into_iter(), 1 << 46);
    assert_eq!(map.regions(), [Region { start: 0x5000, end: 1 << 46, kind: Kind::Reserved }]);
}

#[test]
fn what_does_not_fit_is_counted() {
    let many =
        (0..CAPACITY as u64 + 5).map(|i| RawRegion { start: i * 0x4000, length: 0x1000, kind: Kind::Usable });
    let map = MemoryMap::normalise(many, 1 << 46);
    assert_eq!(map.regions().len(), CAPACITY);
    assert_eq!(map.dropped(), (5, 5 * 0x1000));
}
