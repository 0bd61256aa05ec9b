//! Callbacks that wait, sorted by what they wait for.
//!
//! 1. A CPU's callbacks come in one after the other, and later ones wait for later grace periods. So they are one queue,
//!    cut into segments: those whose grace period has ended ([*done*](Segment::Done)), those that wait for a known one
//!    ([*wait*](Segment::Wait)), those that wait for the one after it ([*next-ready*](Segment::NextReady)), and those of
//!    which nobody has yet asked what they must wait for ([*next*](Segment::Next)).
//! 2. The middle two carry the [`Cookie`](crate::Cookie) of their grace period. More than two are not needed: when a
//!    callback is queued one period may be running, which it cannot use, and one more may be asked for.
//! 3. When a grace period has ended, *advancing* moves whole segments; the cost does not depend on
//!    how many callbacks are in them. *accelerating* gives *next* a cookie.
//! 4. *Lazy* callbacks, which nobody is in a hurry for, wait apart and ask for no grace period, until something else does
//!    or they have become old or many.
//!
//! The lists hold [`Head`](crate::Head)s, that is, objects of somebody else; they allocate nothing. They belong to one
//! execution at a time: [`Tree`](crate::tree::Tree) keeps one for each CPU, under that CPU's lock.
//!
//! Read in this order: `queue.rs`, `segmented.rs`.

mod queue;
mod segmented;

pub use queue::Queue;
pub use segmented::{Segment, Segmented};

#[cfg(all(test, not(loom)))]
mod tests;
