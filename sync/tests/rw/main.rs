//! Reader-writer locks, sequence locks, bit locks and reference counts, from outside.
#![cfg(not(loom))]

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../support/mod.rs"]
mod support;

mod bit_lock;
#[cfg(feature = "lock_api")]
mod lock_api;
mod percpu_ref;
mod readonly;
mod refcount;
mod rwlock;
mod seq;
