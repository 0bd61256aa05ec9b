//! Names of places in a queue.

use hal::{CpuId, MAX_CPUS};

use super::nodes::Name;

#[test]
fn every_place_has_a_name_of_its_own() {
    let mut names = std::collections::HashSet::from([Name::NOBODY.0]);
    for cpu in (0..MAX_CPUS as u32).filter_map(CpuId::new) {
        for level in 0..4 {
            let name = Name::new(cpu, level);
            assert_eq!(name.place(), Some((cpu, level)));
            assert!(names.insert(name.0));
        }
    }
    assert_eq!(Name::NOBODY.place(), None);
}
