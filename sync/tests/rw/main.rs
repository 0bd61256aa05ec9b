//! Reader-writer locks, sequence locks, bit locks and reference counts, from outside.
#![cfg(not(loom))]

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../support/mod.rs"]
mod support;

mod readonly;
mod rwlock;
mod seq;
