use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::x86_64::layout::PAGE_SIZE;

/// Page-aligned memory for tables; physical addresses are offsets into it.
struct FakeMemory {
    pages: Vec<Page>,
    next: u64,
}

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; 4096]);

impl FakeMemory {
    fn new(pages: usize) -> FakeMemory {
        FakeMemory { pages: vec![Page([0xcc; 4096]); pages], next: 0 }
    }

    fn window(&mut self) -> Window {
        // SAFETY: the buffer stays where it is, is big enough for all frames that `frame` gives, and is used through
        // the window only.
        unsafe { Window::new(self.pages.as_mut_ptr() as u64) }
    }
}

impl FrameSource for FakeMemory {
    fn frame(&mut self) -> Option<u64> {
        let frame = self.next;
        self.next += PAGE_SIZE;
        (frame < self.pages.len() as u64 * PAGE_SIZE).then_some(frame)
    }
}

const ALL: Features = Features { no_execute: true, giant_pages: true };

/// A little over 4 large pages, laid across a bound of 512 GiB.
const PAGES: u64 = 2300;
const BASE: u64 = 0xffff_c080_0000_0000 - 2 * PageSize::Large.bytes();

#[derive(Clone, Debug)]
enum Step {
    Map { at: u64, count: u64, physical: u64, permissions: Permissions },
    Unmap { at: u64, count: u64 },
    Protect { at: u64, count: u64, permissions: Permissions },
}

fn span() -> impl Strategy<Value = (u64, u64)> {
    let start = prop_oneof![2 => 0..PAGES, 2 => (0..5u64).prop_map(|n| n * 512), 1 => (1..5u64).prop_map(|n| n * 512 - 3)];
    let count = prop_oneof![3 => 1..6u64, 2 => Just(512u64), 1 => 1..1500u64];
    (start, count)
}

fn permissions() -> impl Strategy<Value = Permissions> {
    prop_oneof![Just(Permissions::Read), Just(Permissions::ReadWrite), Just(Permissions::ReadExecute)]
}

fn step() -> impl Strategy<Value = Step> {
    let physical = prop_oneof![2 => (0..64u64).prop_map(|n| n * 512), 1 => 0..1u64 << 24];
    prop_oneof![
        3 => (span(), physical, permissions()).prop_map(|((at, count), physical, permissions)| Step::Map { at, count, physical, permissions }),
        2 => span().prop_map(|(at, count)| Step::Unmap { at, count }),
        2 => (span(), permissions()).prop_map(|((at, count), permissions)| Step::Protect { at, count, permissions }),
    ]
}

fn range(at: u64, count: u64) -> Range {
    BASE + at * PAGE_SIZE..BASE + (at + count) * PAGE_SIZE
}

type Range = core::ops::Range<u64>;
type Model = BTreeMap<u64, (u64, Permissions)>;

fn permissions_of(leaf: &Leaf) -> Option<Permissions> {
    match (leaf.writable, leaf.executable) {
        (false, false) => Some(Permissions::Read),
        (true, false) => Some(Permissions::ReadWrite),
        (false, true) => Some(Permissions::ReadExecute),
        (true, true) => None,
    }
}

fn pages_of(view: View) -> Model {
    let mut pages = Model::new();
    view.visit_all(&mut |leaf| {
        for offset in (0..leaf.size.bytes()).step_by(4096) {
            let page = (leaf.address + offset - BASE) / PAGE_SIZE;
            let old =
                pages.insert(page, ((leaf.physical + offset) / PAGE_SIZE, permissions_of(&leaf).unwrap()));
            assert!(old.is_none());
        }
    });
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(150)))]

    #[test]
    fn agrees_with_a_map_of_pages(steps in prop::collection::vec(step(), 1..25), few_frames in 4..40usize, plenty in any::<bool>()) {
        let mut memory = FakeMemory::new(if plenty { 64 } else { few_frames });
        let window = memory.window();
        let mut tables = PageTables::new(window, ALL, &mut memory).unwrap();
        let mut model = Model::new();
        for step in steps {
            let (result, wanted) = match step {
                Step::Map { at, count, physical, permissions } => {
                    let wanted = match model.range(at..at + count).next() {
                        Some((page, _)) => Err(MapError::Occupied(BASE + page * PAGE_SIZE)),
                        None => Ok(()),
                    };
                    // SAFETY: no CPU uses these tables.
                    let result = unsafe { tables.map(range(at, count), physical * PAGE_SIZE, Attributes::kernel(permissions), &mut memory) };
                    if result.is_ok() {
                        model.extend((0..count).map(|n| (at + n, (physical + n, permissions))));
                    }
                    (result, wanted)
                }
                Step::Unmap { at, count } => {
                    let missing = (at..at + count).find(|page| !model.contains_key(page));
                    // SAFETY: no CPU uses these tables.
                    let result = unsafe { tables.unmap(range(at, count), &mut memory) };
                    if result.is_ok() {
                        model.retain(|page, _| !(at..at + count).contains(page));
                    }
                    (result, missing.map_or(Ok(()), |page| Err(MapError::NotMapped(BASE + page * PAGE_SIZE))))
                }
                Step::Protect { at, count, permissions } => {
                    let missing = (at..at + count).find(|page| !model.contains_key(page));
                    // SAFETY: no CPU uses these tables.
                    let result = unsafe { tables.protect(range(at, count), permissions, &mut memory) };
                    if result.is_ok() {
                        model.range_mut(at..at + count).for_each(|(_, value)| value.1 = permissions);
                    }
                    (result, missing.map_or(Ok(()), |page| Err(MapError::NotMapped(BASE + page * PAGE_SIZE))))
                }
            };
            if result == Err(MapError::OutOfFrames) {
                prop_assert!(!plenty && wanted.is_ok());
            } else {
                prop_assert_eq!(result, wanted);
            }
            prop_assert_eq!(&pages_of(tables.view()), &model);
        }
        for page in 0..PAGES {
            let found = tables.view().translate(BASE + page * PAGE_SIZE + 5);
            prop_assert_eq!(found, model.get(&page).map(|(physical, _)| physical * PAGE_SIZE + 5));
        }
    }
}

fn sizes(view: View) -> Vec<(u64, PageSize)> {
    let mut sizes = Vec::new();
    view.visit_all(&mut |leaf| sizes.push((leaf.address, leaf.size)));
    sizes
}

#[test]
fn the_largest_pages_that_fit_and_that_the_cpu_has() {
    let start = 0xffff_8000_0000_0000;
    let at = start..start + (1 << 30) + (2 << 20) + 4096;
    for (giant_pages, count) in [(true, 3), (false, 512 + 2)] {
        let mut memory = FakeMemory::new(8);
        let window = memory.window();
        let features = Features { giant_pages, ..ALL };
        let mut tables = PageTables::new(window, features, &mut memory).unwrap();
        // SAFETY: no CPU uses these tables.
        unsafe {
            tables.map(at.clone(), 0, Attributes::kernel(Permissions::ReadWrite), &mut memory).unwrap()
        };
        assert_eq!(sizes(tables.view()).len(), count);
    }
}

#[test]
fn protecting_a_page_of_a_gibibyte_cuts_it_down() {
    let start = 0xffff_8000_0000_0000;
    let mut memory = FakeMemory::new(8);
    let window = memory.window();
    let mut tables = PageTables::new(window, ALL, &mut memory).unwrap();
    let page = start + 0x1234_5000;
    // SAFETY: no CPU uses these tables.
    unsafe {
        tables
            .map(start..start + (1 << 30), 1 << 30, Attributes::kernel(Permissions::ReadWrite), &mut memory)
            .unwrap();
        tables.protect(page..page + PAGE_SIZE, Permissions::Read, &mut memory).unwrap();
    }
    assert_eq!(sizes(tables.view()).len(), 511 + 512);
    let mut narrowed = Vec::new();
    tables.view().visit_all(&mut |leaf| {
        assert_eq!(leaf.physical, leaf.address - start + (1 << 30));
        assert!(!leaf.executable && !leaf.user && leaf.global && !leaf.uncached);
        if !leaf.writable {
            narrowed.push((leaf.address, leaf.size));
        }
    });
    assert_eq!(narrowed, [(page, PageSize::Small)]);
}

#[test]
fn a_sibling_shares_the_upper_half_only() {
    let mut memory = FakeMemory::new(16);
    let window = memory.window();
    let mut tables = PageTables::new(window, ALL, &mut memory).unwrap();
    let at = 0xffff_c000_0000_0000u64..0xffff_c000_0000_2000;
    let attributes = Attributes::device();
    tables.populate_root(0xffff_c000_0000_0000..0xffff_c100_0000_0000, &mut memory).unwrap();
    // SAFETY: no CPU uses these tables.
    unsafe { tables.map(0x1000..0x2000, 0x1000, attributes, &mut memory).unwrap() };
    let mut sibling = tables.sibling(&mut memory).unwrap();
    assert_eq!(sibling.view().leaf(0x1000), None);
    // SAFETY: no CPU uses these tables.
    unsafe { sibling.map(0x3000..0x4000, 0x3000, attributes, &mut memory).unwrap() };
    // SAFETY: no CPU uses these tables.
    unsafe { tables.map(at.clone(), 0xfee0_0000, attributes, &mut memory).unwrap() };
    assert_eq!(sibling.view().translate(at.start + 0x1010), Some(0xfee0_1010));
    assert!(sibling.view().leaf(at.start).unwrap().uncached);
    assert_eq!(tables.view().leaf(0x3000), None);
}

#[test]
fn ranges_are_checked() {
    let mut memory = FakeMemory::new(8);
    let window = memory.window();
    let mut tables = PageTables::new(window, ALL, &mut memory).unwrap();
    let mut map = |at: Range, physical| {
        // SAFETY: no CPU uses these tables.
        unsafe { tables.map(at, physical, Attributes::device(), &mut memory) }
    };
    assert_eq!(map(0x1001..0x2000, 0), Err(MapError::Misaligned));
    assert_eq!(map(0x1000..0x2000, 7), Err(MapError::Misaligned));
    assert_eq!(map(0x2000..0x2000, 0), Err(MapError::BadRange));
    assert_eq!(map(0x7fff_ffff_f000..0x8000_0000_1000, 0), Err(MapError::BadRange));
    assert_eq!(map(0x8000_0000_0000..0x8000_0000_1000, 0), Err(MapError::BadRange));
    assert_eq!(map(0x1000..0x3000, (1 << 52) - 4096), Err(MapError::BadRange));
    assert_eq!(map(0x7fff_ffff_f000..0x8000_0000_0000, 0), Ok(()));
    assert_eq!(map(0xffff_ffff_ffff_e000..0xffff_ffff_ffff_f000, 0), Ok(()));
}
