//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(loom))]

#[test]
fn types_refuse_and_accept() {
    let cases = trybuild::TestCases::new();
    for (refused, accepted) in [
        ("reference_outlives_section", "reference_within_section"),
        ("reference_outlives_pointer", "reference_within_section"),
        ("section_of_another_domain", "section_of_its_domain"),
        ("synchronize_in_section", "synchronize_after_section"),
        ("sleep_in_section", "sleep_after_section"),
        ("guard_sent", "guard_of_its_own"),
        ("preempt_guard_of_a_preemptible_domain", "section_of_its_domain"),
        ("retired_not_send", "retired_sent"),
        ("srcu_guard_outlives_domain", "srcu_guard_within_domain"),
        ("writer_removes_across", "writer_removes_before"),
    ] {
        cases.compile_fail(format!("tests/types/{refused}.rs"));
        cases.pass(format!("tests/types/{accepted}.rs"));
    }
}
