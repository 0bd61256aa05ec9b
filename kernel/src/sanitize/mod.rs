//! Checks that the compiler puts around every access to memory, for builds that ask for them.
//!
//! `cargo xtask test-smp --sanitize address` builds the kernel with a call before each load and store, and `address` is
//! what is called; with `--sanitize thread` it is `thread`. Any other build has none of this: the functions here that the
//! memory code calls are empty then.

#[cfg(quiesce_sanitize = "address")]
mod address;
#[cfg(quiesce_sanitize = "address")]
mod objects;
#[cfg(quiesce_sanitize = "thread")]
mod races;
#[cfg(any(quiesce_sanitize = "address", quiesce_sanitize = "thread"))]
mod stack;
#[cfg(quiesce_sanitize = "thread")]
mod thread;
#[cfg(quiesce_sanitize = "thread")]
mod thread_atomics;
#[cfg(quiesce_sanitize = "address")]
pub(crate) use {
    address::{frames_allocated, frames_freed, heap_grown, shadow_bytes, start},
    objects::Checked,
};
#[cfg(quiesce_sanitize = "thread")]
pub(crate) use {
    races::found as races_found,
    thread::{samples, start as watch},
};

/// How much more time tests may take.
pub(crate) const SLOWER: u64 =
    if cfg!(any(quiesce_sanitize = "address", quiesce_sanitize = "thread")) { 5 } else { 1 };

/// `1 << order` frames from the physical address `block` have an owner. The frame allocator is locked.
#[cfg(not(quiesce_sanitize = "address"))]
#[inline(always)]
pub(crate) fn frames_allocated(_block: u64, _order: usize) {}

/// `1 << order` frames from the physical address `block` have none any more. The frame allocator is locked.
#[cfg(not(quiesce_sanitize = "address"))]
#[inline(always)]
pub(crate) fn frames_freed(_block: u64, _order: usize) {}

/// The frames from the physical address `start` are the heap's.
#[cfg(not(quiesce_sanitize = "address"))]
#[inline(always)]
pub(crate) fn heap_grown(_start: u64, _bytes: u64) {}

/// How much memory the shadow takes, in bytes.
#[cfg(not(quiesce_sanitize = "address"))]
#[inline(always)]
pub(crate) fn shadow_bytes() -> u64 {
    0
}
