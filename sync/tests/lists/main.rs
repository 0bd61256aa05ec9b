//! The lists: each operation by itself, against a model in random order, and what they say when they are misused.
#![cfg(not(loom))]

mod chain;
mod misuse;
mod ownership;
mod properties;
mod queue;
mod ring;
mod shared;
