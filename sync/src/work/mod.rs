//! Work that can wait and may sleep: an item is queued from any context, and a worker task calls its function.
//!
//! 1. A [`Work`] item is an object with a function and the links that a queue needs, so that queueing it allocates nothing
//!    and cannot fail. While it waits, queueing it again does nothing: one call of the function will follow both. It is
//!    never called by two workers at once.
//! 2. A [`WorkQueue`] is made of [`Lane`]s, one for each CPU or one for all. A lane puts its items into a [`Pool`], in order,
//!    at most so many at a time; a lane whose limit is 1 calls them one after the other.
//! 3. A pool is a list of items and the worker tasks that call them. Many lanes share one, so that a queue costs no tasks.
//!    A worker that goes to call a function sees to it that somebody else is there for the next item, up to the pool's
//!    bound: **a function that sleeps holds up nobody**, until as many sleep as the pool may have workers.
//!
//! Waiting for items is [`Work::flush`], [`Work::cancel_sync`] and [`WorkQueue::flush`]. A function that waits for itself,
//! or for its queue, is reported, and so is, where the dependency checker is built in, waiting under a lock that the
//! function takes.
//!
//! The items own their state: a queue holds an `Arc`, a `Box` or a `&'static` of each, and gives it up after the call.
//!
//! Read in this order: `item.rs`, `lane.rs` (where items are, and the rules about it), `pool.rs`, `queue.rs`.

mod item;
mod lane;
mod pool;
mod queue;

#[cfg(all(test, shuttle))]
#[path = "schedules.rs"]
mod models;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

pub use item::{Running, Work};
pub use lane::Lane;
pub use pool::{Pool, Stats};
pub use queue::WorkQueue;
