//! What one CPU's list knows.

use alloc::string::String;

use sync::TaskCx;

use crate::console::rcu::{Callbacks, Grace};
use crate::rcu;

pub(super) fn grace_periods() -> Grace {
    let tiny = rcu::tiny();
    let [done, next] = tiny.backlog();
    let callbacks = Callbacks { segments: [done, 0, 0, next], ..Callbacks::default() };
    Grace { ended: rcu::figures().ended, cpus: alloc::vec![callbacks], ..Grace::default() }
}

pub(super) fn set_offloaded(_cpu: u32, _on: bool, _cx: &mut TaskCx) -> Result<(), String> {
    Err("this kernel's only CPU calls its callbacks itself".into())
}

/// Nobody waits, and nothing stalls.
pub(super) fn set_stall_limit(_ns: u64) -> u64 {
    0
}

pub(super) fn stalls() -> u64 {
    0
}
