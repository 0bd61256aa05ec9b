//! What the types refuse, each beside the nearest program that they accept.
#![cfg(not(any(loom, shuttle)))]

test_support::types! {
    "types" as types {
        delete_in_callback: delete_sync_in_callback;
        delete_sync_after_lock: delete_sync_under_lock;
        callback_spins: callback_sleeps;
        armed_by_owner: armed_by_borrow;
    }
}
