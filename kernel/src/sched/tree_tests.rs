//! The tree against a sorted vector, its shape after every operation.

use core::ptr::NonNull;

use proptest::prelude::*;

use super::{At, Link, Node, Tree};

struct Object {
    id: usize,
    node: Node<u8, u8>,
}
sync::link_field! { struct ByKey = Object => node: Node<u8, u8>; }

type Objects = Tree<ByKey, u8, u8>;

/// T3, for the subtree; its height and least value.
fn check(link: Link<u8, u8>, parent: Link<u8, u8>) -> (u8, u8) {
    let Some(at) = link else { return (0, u8::MAX) };
    assert_eq!(at.parent(), parent);
    let (left, least_left) = check(at.child(0), link);
    let (right, least_right) = check(at.child(1), link);
    assert!(left.abs_diff(right) <= 1, "heights {left} and {right}");
    let node = at.node();
    assert_eq!(node.height.get(), 1 + left.max(right));
    assert_eq!(node.least.get(), node.value.get().min(least_left).min(least_right));
    (node.height.get(), node.least.get())
}

fn in_order(tree: &Objects) -> Vec<usize> {
    let mut ids = Vec::new();
    let mut next = tree.first();
    while let Some(object) = next {
        // SAFETY: in the tree.
        unsafe {
            ids.push(object.as_ref().id);
            next = tree.next(object);
        }
    }
    ids
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u8, u8),
    Remove(usize),
    FirstWhere(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
        // Many equal keys.
        2 => (0..4u8, any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => any::<u8>().prop_map(Step::FirstWhere),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn as_a_sorted_vector(steps in steps()) {
        let mut tree = Objects::new();
        // (key, value, object) in order.
        let mut model: Vec<(u8, u8, NonNull<Object>)> = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(key, value) => {
                    let object = NonNull::from(Box::leak(Box::new(Object { id, node: Node::new(0, 0) })));
                    let place = model.partition_point(|entry| entry.0 <= key);
                    model.insert(place, (key, value, object));
                    // SAFETY: freed only after it was removed.
                    unsafe { tree.insert(object, key, value) };
                }
                Step::Remove(which) if !model.is_empty() => {
                    let (_, _, object) = model.remove(which % model.len());
                    // SAFETY: in the tree; nobody refers to it when it is freed.
                    unsafe {
                        tree.remove(object);
                        assert!(!object.as_ref().node.is_linked());
                        drop(Box::from_raw(object.as_ptr()));
                    }
                }
                Step::Remove(_) => {}
                Step::FirstWhere(limit) => {
                    let found = tree.first_where(|value| value <= limit);
                    prop_assert_eq!(found, model.iter().find(|entry| entry.1 <= limit).map(|entry| entry.2));
                }
            }
            let (height, _) = check(tree.root, None);
            prop_assert!(f64::from(height) <= 1.45 * ((model.len() + 2) as f64).log2());
            prop_assert_eq!(tree.len(), model.len());
            prop_assert_eq!(tree.first(), model.first().map(|entry| entry.2));
            prop_assert_eq!(tree.least(), model.iter().map(|entry| entry.1).min());
            // SAFETY: all in the tree.
            let ids: Vec<usize> = model.iter().map(|entry| unsafe { entry.2.as_ref().id }).collect();
            prop_assert_eq!(in_order(&tree), ids);
        }
        while let Some(object) = tree.pop_first() {
            let (_, _, expected) = model.remove(0);
            prop_assert_eq!(object, expected);
            check(tree.root, None);
            // SAFETY: removed.
            unsafe { drop(Box::from_raw(object.as_ptr())) };
        }
        prop_assert!(model.is_empty());
    }
}

#[test]
#[should_panic(expected = "dropped while it is in a tree")]
fn a_node_in_a_tree_is_not_dropped() {
    let object = Box::new(Object { id: 0, node: Node::new(0, 0) });
    let mut tree = Objects::new();
    // SAFETY: the object ends while it is in the tree, which is the point; nobody uses the tree any more.
    unsafe { tree.insert(NonNull::from(&*object), 1, 1) };
    drop(object);
}

#[test]
fn at_is_a_pointer() {
    assert_eq!(size_of::<Link<u8, u8>>(), size_of::<usize>());
    assert_eq!(size_of::<At<u64, ()>>(), size_of::<usize>());
    // Four words with the height, and the key.
    assert_eq!(size_of::<Node<u64>>(), 5 * size_of::<usize>());
}
