//! The map against the standard library's, and under readers while it is resized.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::hosted::HostedDomain;

crate::hosted_domain! { struct Maps; }

/// Hashes badly: many keys share chains.
#[derive(Default)]
struct Poor(u64);

impl Hasher for Poor {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum + u64::from(*byte) % 5);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u32),
    Remove(u16),
    Get(u16),
    Shrink,
    GracePeriod,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..300_u16, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        2 => (0..300_u16).prop_map(Step::Remove),
        2 => (0..300_u16).prop_map(Step::Get),
        1 => Just(Step::Shrink),
        1 => Just(Step::GracePeriod),
    ]
}

fn as_the_standard_map<S: BuildHasher + Default>(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let map = RcuHashMap::<u16, u32, Maps, S>::default();
    let mut model = HashMap::new();
    for step in steps {
        match step {
            Step::Insert(key, value) => {
                let old = map.insert(key, value).map(|old| *old.value());
                prop_assert_eq!(old, model.insert(key, value));
            }
            Step::Remove(key) => {
                let old = map.remove(&key).map(|old| *old.value());
                prop_assert_eq!(old, model.remove(&key));
            }
            Step::Get(key) => {
                let section = read::<Maps>();
                prop_assert_eq!(map.get(&key, &section), model.get(&key));
            }
            Step::Shrink => drop(map.shrink()),
            Step::GracePeriod => Maps::wait_for_readers(),
        }
        prop_assert_eq!(map.len(), model.len());
    }
    let section = read::<Maps>();
    let all: HashMap<u16, u32> = map.iter(&section).map(|entry| (*entry.key(), *entry.value())).collect();
    prop_assert_eq!(map.iter(&section).count(), model.len());
    prop_assert_eq!(all, model);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn any_run_of_steps_is_as_with_the_standard_map(steps in prop::collection::vec(step(), 0..400)) {
        as_the_standard_map::<RandomState>(steps)?;
    }

    #[test]
    fn with_a_poor_hash_too(steps in prop::collection::vec(step(), 0..200)) {
        as_the_standard_map::<BuildHasherDefault<Poor>>(steps)?;
    }
}

#[test]
fn readers_never_miss_a_present_key_while_it_grows_and_shrinks() {
    const STABLE: u32 = 64;
    const KEYS: u32 = if cfg!(miri) { 150 } else { 3_000 };
    const ROUNDS: u32 = if cfg!(miri) { 3 } else { 30 };
    let map = RcuHashMap::<u32, u32, Maps, RandomState>::default();
    for key in 0..STABLE {
        map.insert(key, key);
    }
    let stop = AtomicBool::new(false);
    let looked = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut looked = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let reader = read::<Maps>();
                        for key in 0..STABLE {
                            // Replaced by the writer now and then, by an equal one.
                            assert_eq!(map.get(&key, &reader), Some(&key), "a present key was missed");
                        }
                        assert!(
                            map.iter(&reader).filter(|entry| *entry.key() < STABLE).count()
                                >= STABLE as usize
                        );
                        looked += 1;
                    }
                    looked
                })
            })
            .collect();
        let (mut largest, mut shrunk) = (0, 0);
        for round in 0..ROUNDS {
            for key in STABLE..KEYS {
                drop(map.insert(key, key));
                if key % 16 == 0 {
                    drop(map.insert(key % STABLE, key % STABLE));
                }
            }
            largest = largest.max(map.buckets());
            for key in STABLE..KEYS {
                assert!(map.remove(&key).is_some());
            }
            if round % 2 == 0 {
                Maps::wait_for_readers();
            }
            shrunk += u32::from(map.shrink());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(
            largest >= KEYS as usize * 2 / 3 && shrunk >= ROUNDS / 3,
            "nothing was exercised: {largest} buckets, {shrunk} times smaller"
        );
        readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u64>()
    });
    assert!(looked > 10, "nothing was exercised");
    assert_eq!(map.len(), STABLE as usize);
}
