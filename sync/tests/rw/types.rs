//! What the types refuse, each beside the nearest program that they accept.

#[test]
fn types_refuse_and_accept() {
    let cases = trybuild::TestCases::new();
    for (refused, accepted) in [
        ("padding", "no_padding"),
        ("guards_sent", "values_sent"),
        ("write_without_proof", "write_with_proof"),
        ("read_guard_written", "write_guard_written"),
    ] {
        cases.compile_fail(format!("tests/rw/types/{refused}.rs"));
        cases.pass(format!("tests/rw/types/{accepted}.rs"));
    }
}
