//! The tests of every list that readers walk: the list against a vector, an owner that is shared, and readers beside a
//! writer.
//!
//! A list's own test file says which it is and what is particular about it: how it is made, a step of its own, and how it
//! is looked at after each step.

macro_rules! list_tests {
    (list: $List:ident, link: $Link:ident, new: $new:expr, step: $step:expr, look: $look:expr $(,)?) => {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
        use std::thread;

        use proptest::prelude::*;
        use sync::list::$Link;

        use super::*;
        use crate::hosted::HostedDomain;
        use crate::{RcuBox, read};

        crate::hosted_domain! { struct Lists; }

        struct Node {
            value: u32,
            /// 1 while the node is alive.
            alive: AtomicU32,
            link: $Link,
        }
        sync::link_field! { struct Listed = Node => link: $Link; }

        impl Drop for Node {
            fn drop(&mut self) {
                self.alive.store(0, Ordering::Relaxed);
            }
        }

        fn node(value: u32) -> RcuBox<Node> {
            RcuBox::new(Node { value, alive: AtomicU32::new(1), link: $Link::new() })
        }

        type Nodes = $List<RcuBox<Node>, Listed, Lists>;

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

            #[test]
            fn any_run_of_steps_is_as_with_a_vector(steps in prop::collection::vec((0..7_u8, 0..20_u32), 0..100)) {
                let mut list: Nodes = $new;
                let mut model: Vec<u32> = Vec::new();
                for (step, value) in steps {
                    match step {
                        0 => {
                            list.write().push_front(node(value));
                            model.insert(0, value);
                        }
                        1 => {
                            list.write().insert_before(node(value), |other| other.value > value);
                            let at = model.iter().position(|other| *other > value).unwrap_or(model.len());
                            model.insert(at, value);
                        }
                        2 => {
                            let removed = list.write().remove_first(|node| node.value == value).map(|node| node.value);
                            let at = model.iter().position(|other| *other == value);
                            prop_assert_eq!(removed, at.map(|at| model.remove(at)));
                        }
                        3 => {
                            let removed = list.write().retain(|node| node.value % 3 != value % 3);
                            let before = model.len();
                            model.retain(|other| other % 3 != value % 3);
                            prop_assert_eq!(removed, before - model.len());
                        }
                        4 => {
                            let section = read::<Lists>();
                            if let Some(found) = list.iter(&section).find(|node| node.value == value) {
                                // SAFETY: there is only one list here.
                                let removed = unsafe { list.write().remove(found) };
                                prop_assert!(removed.is_some());
                                // SAFETY: as above.
                                let again = unsafe { list.write().remove(found) };
                                prop_assert!(again.is_none(), "removed twice");
                                prop_assert_eq!(found.alive.load(Ordering::Relaxed), 1);
                                model.remove(model.iter().position(|other| *other == value).unwrap());
                            }
                        }
                        5 => {
                            // A list may be moved.
                            let moved = Box::new(list);
                            list = *moved;
                        }
                        _ => $step(&list, &mut model, value),
                    }
                    let section = read::<Lists>();
                    prop_assert!(list.iter(&section).map(|node| node.value).eq(model.iter().copied()));
                    $look(&list, &model);
                    prop_assert_eq!(list.is_empty(), model.is_empty());
                }
            }
        }

        #[test]
        fn a_shared_object_is_in_one_list_at_a_time() {
            type Shared = $List<Arc<Node>, Listed, Lists>;
            let object = Arc::new(Node { value: 1, alive: AtomicU32::new(1), link: $Link::new() });
            let (a, b) = (Shared::new(), Shared::new());
            a.write().push_front(object.clone());
            let reports = std::rc::Rc::new(core::cell::Cell::new(0));
            let count = reports.clone();
            let _hooks = hal::hosted::set_hooks(hal::hosted::Hooks {
                report: Some(std::rc::Rc::new(move |_| count.set(count.get() + 1))),
                ..Default::default()
            });
            b.write().push_front(object.clone());
            assert_eq!((reports.get(), b.is_empty(), Arc::strong_count(&object)), (1, true, 2));
            drop(a);
            assert_eq!(Arc::strong_count(&object), 1);
        }

        #[test]
        fn readers_find_what_stays_and_nothing_that_was_freed() {
            let list = Nodes::new();
            for value in [30, 20, 10] {
                list.write().push_front(node(value));
            }
            let stop = AtomicBool::new(false);
            let walks = thread::scope(|scope| {
                let readers: Vec<_> = (0..2)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut walks = 0_u32;
                            while !stop.load(Ordering::Relaxed) {
                                let section = read::<Lists>();
                                let (mut stable, mut last) = (0, 0);
                                for node in list.iter(&section) {
                                    assert_eq!(node.alive.load(Ordering::Relaxed), 1, "a freed node was found");
                                    assert!(node.value >= last, "out of order");
                                    last = node.value;
                                    stable += u32::from(node.value % 10 == 0);
                                }
                                assert_eq!(stable, 3, "a node that stays was missed");
                                walks += 1;
                            }
                            walks
                        })
                    })
                    .collect();
                let until = std::time::Instant::now() + std::time::Duration::from_millis(400);
                let mut value = 0;
                while std::time::Instant::now() < until {
                    value = (value + 7) % 40;
                    if value % 10 != 0 {
                        list.write().insert_before(node(value), |other| other.value > value);
                    }
                    if let Some(old) =
                        list.write().remove_first(|node| node.value % 10 != 0 && node.value % 3 == value % 3)
                    {
                        old.free_after_grace_period();
                    }
                }
                stop.store(true, Ordering::Relaxed);
                readers.into_iter().map(|reader| reader.join().unwrap()).sum::<u32>()
            });
            assert!(walks > 10, "nothing was exercised");
            Lists::wait_for_callbacks();
        }
    };
}
pub(crate) use list_tests;
