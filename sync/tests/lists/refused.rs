//! What the types refuse, each beside the nearest program that they accept.

#[test]
fn types_refuse_and_accept() {
    let cases = trybuild::TestCases::new();
    for (refused, accepted) in [
        ("field_of_another_type", "field_of_the_type_named"),
        ("field_of_something_else", "field_of_the_type_named"),
        ("unpin_object", "pinned_object"),
        ("container_of_the_wrong_field", "container_of_the_right_field"),
        ("removed_while_iterating", "removed_by_the_iteration"),
        ("node_ends_first", "list_ends_first"),
        ("added_twice", "added_again_after_removal"),
    ] {
        cases.compile_fail(format!("tests/lists/types/{refused}.rs"));
        cases.pass(format!("tests/lists/types/{accepted}.rs"));
    }
}
