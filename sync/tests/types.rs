//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(loom))]

#[test]
fn types_refuse_and_accept() {
    let cases = trybuild::TestCases::new();
    for (refused, accepted) in [
        ("guard_sent", Some("guard_not_sent")),
        ("guard_shared", Some("guard_not_shared")),
        ("proof_too_weak", Some("proof_strong_enough")),
        ("bh_proof_too_weak", Some("bh_proof_strong_enough")),
        ("preemption_off_with_softirqs", Some("bh_proof_strong_enough")),
        ("migration_off_is_not_alone", Some("migration_off_is_pinned")),
        ("proof_gone", Some("proof_kept")),
        ("data_outlives_guard", Some("data_within_guard")),
        ("cpu_number_stale", Some("cpu_number_held")),
        ("cpu_array_indexed", Some("cpu_array_shared")),
        ("cache_unprotected", Some("cache_protected")),
        ("local_lock_remote", Some("local_lock_with_statistics")),
        ("lock_too_late", Some("lock_in_time")),
        ("lock_released_by_another", Some("lock_released_by_its_owner")),
        ("sleep_under_lock", Some("sleep_between_locks")),
        ("token_lent", Some("token_of_its_own")),
        ("not_a_platform", None), // the accepted one is `order.rs`, with a platform of its own
    ] {
        cases.compile_fail(format!("tests/types/{refused}.rs"));
        if let Some(accepted) = accepted {
            cases.pass(format!("tests/types/{accepted}.rs"));
        }
    }
}
