//! The table against a plain one, and under readers that are carried from chain to chain.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use proptest::prelude::*;
use sync::list::HLink;

use super::*;
use crate::hosted::HostedDomain;
use crate::{RcuBox, read};

crate::hosted_domain! { struct Tables; }

const CHAINS: usize = 4;

struct Node {
    key: AtomicU32,
    link: HLink,
}
sync::link_field! { struct Hashed = Node => link: HLink; }

fn node(key: u32) -> RcuBox<Node> {
    RcuBox::new(Node { key: AtomicU32::new(key), link: HLink::new() })
}

fn chain(key: u32) -> usize {
    key as usize % CHAINS
}

fn is(key: u32) -> impl Fn(&Node) -> bool {
    move |node| node.key.load(Ordering::Relaxed) == key
}

type Table = RcuNullsTable<RcuBox<Node>, Hashed, Tables>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn any_run_of_steps_is_as_with_a_plain_set(steps in prop::collection::vec((0..4_u8, 0..12_u32, 0..12_u32), 0..100)) {
        let table = Table::new(CHAINS);
        let mut model = std::collections::BTreeMap::new();
        let section = read::<Tables>();
        for (step, key, other) in steps {
            match step {
                0 => {
                    table.insert(chain(key), node(key));
                    *model.entry(key).or_insert(0) += 1;
                }
                1 => {
                    let removed = table.remove(chain(key), is(key)).is_some();
                    let count = model.entry(key).or_insert(0);
                    prop_assert_eq!(removed, *count > 0);
                    *count -= i32::from(removed);
                }
                _ => {
                    let moved = table.rekey(chain(key), chain(other), is(key), |node| node.key.store(other, Ordering::Relaxed));
                    let count = model.entry(key).or_insert(0);
                    prop_assert_eq!(moved, *count > 0);
                    *count -= i32::from(moved);
                    *model.entry(other).or_insert(0) += i32::from(moved);
                }
            }
            for key in 0..12 {
                let found = table.find(chain(key), &section, is(key)).is_some();
                prop_assert_eq!(found, model.get(&key).is_some_and(|count| *count > 0));
                let held = table.find_held(chain(key), &section, is(key), |node| Some(node.key.load(Ordering::Relaxed)));
                prop_assert_eq!(held, found.then_some(key));
            }
        }
    }
}

/// Objects with keys from 100 on wander from chain to chain; the others stay, and a search that is not carried away finds
/// them. Returns how often one was missed.
fn wander(search: fn(&Table, u32) -> bool) -> u32 {
    let table = Table::new(CHAINS);
    for key in 0..8 {
        table.insert(chain(key), node(key));
    }
    for key in 100..108 {
        table.insert(chain(key), node(key));
    }
    let stop = AtomicBool::new(false);
    let missed = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut missed, mut key) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        key = (key + 1) % 8;
                        missed += u32::from(!search(&table, key));
                    }
                    missed
                })
            })
            .collect();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(400);
        let mut key = 100;
        while std::time::Instant::now() < until {
            for _ in 0..8 {
                assert!(table.rekey(chain(key), chain(key + 1), is(key), |node| {
                    node.key.store(key + 1, Ordering::Relaxed)
                }));
                assert!(table.rekey(chain(key + 1), chain(key), is(key + 1), |node| {
                    node.key.store(key, Ordering::Relaxed)
                }));
                key = 100 + (key - 99) % 8;
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    Tables::wait_for_callbacks();
    missed
}

#[test]
fn what_stays_is_found_whoever_wanders() {
    assert_eq!(wander(|table, key| table.find(chain(key), &read(), is(key)).is_some()), 0);
}

/// The twin, one step after the other: a walk that stands on what is moved ends in the other chain, and has missed what
/// stays. Its end says so.
#[test]
fn a_walk_that_is_carried_away_misses_what_stays_and_can_tell() {
    let table = Table::new(2);
    for key in [2, 4, 6] {
        table.insert(0, node(key));
    }
    let section = read::<Tables>();
    let mut walk = table.chains[0].iter(&section);
    assert!(walk.next().is_some_and(is(6))); // and is on the next one
    assert!(table.rekey(0, 1, is(4), |node| node.key.store(5, Ordering::Relaxed)));
    assert!(!walk.any(is(2)));
    assert_eq!(walk.end(), Some(1));
    assert!(table.find(0, &section, is(2)).is_some());
}
