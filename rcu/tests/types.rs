//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(any(loom, shuttle)))]

test_support::types! {
    "types" as types {
        reference_within_section: reference_outlives_section reference_outlives_pointer;
        section_of_its_domain: section_of_another_domain preempt_guard_of_a_preemptible_domain;
        synchronize_after_section: synchronize_in_section;
        sleep_after_section: sleep_in_section;
        guard_of_its_own: guard_sent;
        retired_sent: retired_not_send;
        srcu_guard_within_domain: srcu_guard_outlives_domain;
        writer_removes_before: writer_removes_across;
    }
}
