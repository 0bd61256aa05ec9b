//! The list, with an end that can be told.

crate::list_tests_shared::list_tests! {
    list: RcuHList,
    link: HLink,
    new: Nodes::with_end(3),
    // A reader that has come to the end knows whose it is.
    step: |list: &Nodes, _: &mut Vec<u32>, _| {
        let section = read::<Lists>();
        let mut all = list.iter(&section);
        all.by_ref().for_each(drop);
        assert_eq!(all.end(), Some(3));
    },
    look: |_: &Nodes, _: &[u32]| (),
}
