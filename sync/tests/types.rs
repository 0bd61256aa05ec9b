//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(loom))]

#[test]
fn types_refuse_and_accept() {
    let cases = trybuild::TestCases::new();
    for (refused, accepted) in [
        ("guard_sent", Some("guard_not_sent")),
        ("guard_shared", Some("guard_not_shared")),
        ("proof_too_weak", Some("proof_strong_enough")),
        ("proof_gone", Some("proof_kept")),
        ("data_outlives_guard", Some("data_within_guard")),
        ("not_a_platform", None), // the accepted one is `order.rs`, with a platform of its own
    ] {
        cases.compile_fail(format!("tests/types/{refused}.rs"));
        if let Some(accepted) = accepted {
            cases.pass(format!("tests/types/{accepted}.rs"));
        }
    }
}
