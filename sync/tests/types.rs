//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(any(loom, shuttle)))]

test_support::types! {
    "types" as types {
        guard_not_sent: guard_sent;
        guard_not_shared: guard_shared;
        proof_strong_enough: proof_too_weak;
        bh_proof_strong_enough: bh_proof_too_weak preemption_off_with_softirqs;
        migration_off_is_pinned: migration_off_is_not_alone;
        proof_kept: proof_gone;
        data_within_guard: data_outlives_guard;
        cpu_number_held: cpu_number_stale;
        cpu_array_shared: cpu_array_indexed;
        cache_protected: cache_unprotected;
        local_lock_with_statistics: local_lock_remote;
        lock_in_time: lock_too_late;
        lock_released_by_its_owner: lock_released_by_another;
        sleep_between_locks: sleep_under_lock;
        token_of_its_own: token_lent;
    }
    "lists/types" as lists {
        field_of_the_type_named: field_of_another_type field_of_something_else;
        pinned_object: unpin_object;
        container_of_the_right_field: container_of_the_wrong_field;
        removed_by_the_iteration: removed_while_iterating;
        list_ends_first: node_ends_first;
        added_again_after_removal: added_twice;
    }
    "rw/types" as rw {
        no_padding: padding;
        values_sent: guards_sent;
        write_with_proof: write_without_proof;
        write_guard_written: read_guard_written;
    }
    // The accepted one is `order.rs`, with a platform of its own.
    alone "types" { not_a_platform }
}
