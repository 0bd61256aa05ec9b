//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(loom))]

#[test]
fn types_refuse_and_accept() {
    let cases = trybuild::TestCases::new();
    for (refused, accepted) in [
        ("delete_sync_in_callback", "delete_in_callback"),
        ("delete_sync_under_lock", "delete_sync_after_lock"),
        ("callback_sleeps", "callback_spins"),
        ("armed_by_borrow", "armed_by_owner"),
    ] {
        cases.compile_fail(format!("tests/types/{refused}.rs"));
        cases.pass(format!("tests/types/{accepted}.rs"));
    }
}
