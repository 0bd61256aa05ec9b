use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use hal::x86_64::layout::PAGE_SIZE;
use hal::x86_64::paging::{Leaf, PageSize};

use super::super::map::RawRegion;
use super::*;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; 4096]);

struct FakeMemory {
    pages: Vec<Page>,
    used: usize,
}

impl FakeMemory {
    fn new(pages: usize) -> FakeMemory {
        FakeMemory { pages: vec![Page([0xcc; 4096]); pages], used: 0 }
    }

    fn window(&mut self) -> Window {
        // SAFETY: the buffer stays where it is, and is used for tables through the window only.
        unsafe { Window::new(self.pages.as_mut_ptr() as u64) }
    }
}

impl FrameSource for FakeMemory {
    fn frame(&mut self) -> Option<u64> {
        self.used += 1;
        (self.used <= self.pages.len()).then(|| (self.used as u64 - 1) * PAGE_SIZE)
    }
}

const MIB: u64 = 1 << 20;

fn image() -> [Section; 4] {
    let section = |name, start: u64, end: u64, permissions| Section {
        name,
        range: IMAGE + 2 * MIB + start..IMAGE + 2 * MIB + end,
        permissions,
    };
    [
        section("text", 0, 0x5_0000, Permissions::ReadExecute),
        section("rodata", 0x5_0000, 0x7_3000, Permissions::Read),
        section("per-CPU template", 0x7_3000, 0x7_4000, Permissions::Read),
        section("data", 0x7_4000, 0xc_0000, Permissions::ReadWrite),
    ]
}

fn machine(memory: u64) -> MemoryMap {
    let entry = |start, end, kind| RawRegion { start, length: end - start, kind };
    let low = memory.min(3 << 30);
    let mut raw = vec![
        entry(0, PAGE_SIZE, Kind::Reserved),
        entry(0, 0x9_fc00, Kind::Usable),
        entry(0x9_fc00, MIB, Kind::Reserved),
        entry(MIB, low - 0x2_1000, Kind::Usable),
        entry(low - 0x2_1000, low, Kind::Reserved),
        entry(2 * MIB, 2 * MIB + 0xc_0000, Kind::Kernel),
        entry(0xfffc_0000, 1 << 32, Kind::Reserved),
        entry(0xfd_0000_0000, 0x100_0000_0000, Kind::Reserved),
    ];
    if memory > low {
        raw.push(entry(1 << 32, (1 << 32) + memory - low, Kind::Usable));
    }
    MemoryMap::normalise(raw.into_iter(), 1 << 46)
}

fn built(map: &MemoryMap, giant_pages: bool) -> (FakeMemory, PageTables) {
    let mut memory = FakeMemory::new(1200);
    let window = memory.window();
    let features = Features { no_execute: true, giant_pages };
    let tables = build(map, &image(), features, window, &mut memory).unwrap();
    (memory, tables)
}

fn leaves(tables: &PageTables) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    tables.view().visit_all(&mut |leaf| leaves.push(leaf));
    leaves
}

#[test]
fn no_memory_is_both_written_and_executed_by_any_address() {
    let (_memory, tables) = built(&machine(128 * MIB), true);
    let mut uses = BTreeMap::new();
    for leaf in leaves(&tables) {
        for offset in (0..leaf.size.bytes()).step_by(PAGE_SIZE as usize) {
            let (written, executed) = uses.entry(leaf.physical + offset).or_insert((false, false));
            *written |= leaf.writable;
            *executed |= leaf.executable;
        }
        assert!(!leaf.user && leaf.global && leaf.address >= DIRECT_MAP);
    }
    assert!(uses.values().all(|(written, executed)| !(*written && *executed)));
    let text: Vec<_> = uses.iter().filter(|(_, (_, executed))| *executed).map(|(page, _)| *page).collect();
    assert_eq!((text[0], text.len()), (2 * MIB, 0x50));
}

#[test]
fn what_the_image_protects_is_not_written_through_the_direct_map() {
    let (_memory, tables) = built(&machine(128 * MIB), true);
    for section in image() {
        let alias = section.range.start - IMAGE + DIRECT_MAP..section.range.end - IMAGE + DIRECT_MAP;
        let data = section.permissions == Permissions::ReadWrite;
        for address in alias.step_by(PAGE_SIZE as usize) {
            let leaf = tables.view().leaf(address).unwrap();
            assert_eq!((leaf.writable, leaf.executable), (data, false), "{}", section.name);
        }
    }
}

#[test]
fn memory_is_where_the_direct_map_says_and_nothing_else_is() {
    let map = machine(5 << 30);
    let (_memory, tables) = built(&map, true);
    let view = tables.view();
    for region in map.regions() {
        let shown = region.kind != Kind::Reserved || region.start < FIRMWARE_LIMIT;
        for address in [region.start, region.start + region.bytes() / 2, region.end - 1] {
            assert_eq!(view.translate(DIRECT_MAP + address), shown.then_some(address));
        }
    }
    for hole in [0xc000_0000, 0xe000_0000, 7 << 30, 0xfd_0000_0000] {
        assert_eq!(view.translate(DIRECT_MAP + hole), None);
    }
    assert_eq!(view.leaf(0), None);
    assert_eq!(view.leaf(2 * MIB), None);
    let firmware = view.leaf(DIRECT_MAP + 0xf_0000).unwrap();
    assert!(!firmware.writable && !firmware.executable);
}

#[test]
fn a_tebibyte_takes_few_tables() {
    for (giant, most) in [(true, 24), (false, 1060)] {
        let (memory, tables) = built(&machine(1 << 40), giant);
        assert!(memory.used <= most, "{} tables", memory.used);
        let largest = leaves(&tables).iter().map(|leaf| leaf.size).max();
        assert_eq!(largest, Some(if giant { PageSize::Giant } else { PageSize::Large }));
    }
    let (memory, _) = built(&machine(16 * MIB), true);
    assert!(memory.used <= 13, "{} tables", memory.used);
}

#[test]
fn the_identity_page_exists_under_its_own_root_only() {
    let (mut memory, tables) = built(&machine(16 * MIB), true);
    let start = with_identity_page(&tables, 0x8000, &mut memory).unwrap();
    let leaf = start.view().leaf(0x8000).unwrap();
    assert_eq!((leaf.physical, leaf.writable, leaf.executable, leaf.global), (0x8000, false, true, false));
    assert_eq!(start.view().translate(IMAGE + 2 * MIB), Some(2 * MIB));
    assert_eq!(tables.view().leaf(0x8000), None);
}
