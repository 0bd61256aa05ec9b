//! What must not compile, each beside the nearest program that does and runs.

test_support::types! {
    "compile" as nearest {
        over_aligned_ok: over_aligned;
        get_without_proof_ok: get_without_proof;
        remote_cell_ok: remote_cell;
        cell_with_interrupts_on_ok: cell_with_interrupts_on;
        value_outlives_proof_ok: value_outlives_proof;
        binding_sent_ok: binding_sent;
        integer_of_no_integer_ok: integer_of_no_integer;
        dynamic_not_send_ok: dynamic_not_send;
        not_a_platform_ok: not_a_platform;
    }
}
