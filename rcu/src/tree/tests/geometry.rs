//! Every shape is a tree, in which each CPU has one way to the root.

use proptest::prelude::*;

use crate::tree::{Geometry, MAX_CPUS, MAX_LEVELS};

fn is_a_tree(shape: &Geometry) {
    let mut children = vec![0_u64; shape.nodes()];
    for node in 1..shape.nodes() {
        let (parent, bit) = shape.parent_of(node).expect("not the root");
        assert!(parent < node, "parents come first");
        assert_eq!(shape.level_of(parent) + 1, shape.level_of(node));
        assert_eq!(children[parent] & bit, 0, "two children with one bit");
        children[parent] |= bit;
    }
    for cpu in 0..shape.cpus() {
        let (leaf, bit) = (shape.leaf_of(cpu), shape.bit_of(cpu));
        assert!(leaf >= shape.first_leaf() && leaf < shape.nodes());
        assert_eq!(shape.level_of(leaf), shape.levels() - 1);
        assert_eq!(shape.cpu_at(leaf, bit.trailing_zeros()), cpu);
        assert_eq!(children[leaf] & bit, 0, "two CPUs with one bit");
        children[leaf] |= bit;
    }
    for (node, &children) in children.iter().enumerate() {
        assert_ne!(children, 0);
        assert_eq!(shape.children_of(node), children);
    }
    assert_eq!(shape.parent_of(0), None);
    assert!(shape.levels() <= MAX_LEVELS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    #[test]
    fn any_shape(cpus in 1..=MAX_CPUS, leaf in 1..=64_u32, inner in 2..=64_u32) {
        is_a_tree(&Geometry::with_fan_out(cpus, leaf, inner));
    }
}

#[test]
fn the_smallest_and_the_deepest() {
    is_a_tree(&Geometry::new(1));
    let deepest = Geometry::with_fan_out(MAX_CPUS, 1, 2);
    is_a_tree(&deepest);
    assert_eq!(deepest.levels(), MAX_LEVELS);
}

#[test]
#[should_panic(expected = "1 to 4096 CPUs")]
fn too_many_cpus() {
    let _ = Geometry::new(MAX_CPUS + 1);
}
