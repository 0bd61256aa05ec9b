//! The ring, which has two ends, and is settled when it has been moved.

crate::list_tests_shared::list_tests! {
    list: RcuList,
    link: Link,
    new: Nodes::new(),
    step: |list: &Nodes, model: &mut Vec<u32>, value| {
        list.write().push_back(node(value));
        model.push(value);
    },
    look: |list: &Nodes, model: &[u32]| {
        assert_eq!(list.write().last().map(|node| node.value), model.last().copied());
    },
}

/// A list that has been moved is first used by several at once: one of them settles it, and all find everything.
#[test]
fn a_moved_list_is_settled_by_one_of_its_first_users() {
    for _ in 0..200 {
        let filled = Nodes::new();
        for value in 0..3 {
            filled.write().push_back(node(value));
        }
        let moved = Box::new(filled);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let section = read::<Lists>();
                    assert!(moved.iter(&section).map(|node| node.value).take(10).eq(0..3));
                });
            }
            moved.write().retain(|_| true);
        });
    }
}
