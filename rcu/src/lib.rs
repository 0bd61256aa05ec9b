//! Waiting until everybody has passed a point.
//!
//! Much of a kernel's concurrency comes down to one question: "has every CPU, since I changed this, been somewhere where
//! it cannot still hold the old value?". A *round* asks every CPU once. Rounds are dear, so those who ask share them,
//! and must be told which round answers them: the one under way may have asked some CPU before the change.
//!
//! [`seq`] numbers rounds so that this is one subtraction.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod head;
mod primitives;
pub mod seq;

pub use head::{Callback, Head};
pub use seq::{Cookie, Sequence};

/// The README's example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
