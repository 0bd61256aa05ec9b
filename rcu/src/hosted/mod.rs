//! Domains of programs on host threads.
//!
//! 1. [`hosted_domain!`](crate::hosted_domain) makes a domain. Every thread may read, update and wait; it becomes known to
//!    the domain when it first does so, and is forgotten when it ends.
//! 2. A reader marks its sections in a word of its own, by ordinary stores ([`readers`](self) says why that is enough); it
//!    may be preempted and may block, and then grace periods wait for it.
//! 3. Grace periods and callbacks are the work of those who want them. A callback is called by the thread that queued it,
//!    in one of its later calls, in batches; those of ended threads by the others; and all by
//!    [`barrier`](crate::Domain::barrier). A thread that queues fewer than 256 callbacks and then no more leaves them
//!    waiting until somebody calls `barrier`.
//!
//! | | cost on Linux, x86_64 |
//! |---|---|
//! | read section | two loads and a store to begin, a load and a store to end; a nested one the same |
//! | callback queued | a few stores, and its share of a grace period |
//! | grace period | one `membarrier`, and one look at each thread that there is or was at the same time |
//!
//! Limits: 65,535 nested sections, and one virtual CPU of [`hal::hosted`] for each thread that queues callbacks or waits.
//!
//! A grace period that has waited 21 s is reported, with the names of the threads that it waits for.
//!
//! Callbacks run where a softirq could: never while the thread has preemption, bottom halves or interrupts off, so that
//! one which takes a spin lock never meets its own thread holding it. They must not take a lock that is held without
//! that, such as one of the standard library.

mod callbacks;
mod grace;
mod readers;
mod stalls;
#[cfg(not(loom))]
mod threads;

pub use grace::{Instance, Stats};
pub use readers::Record;
#[cfg(not(loom))]
pub use threads::HostedDomain;
#[cfg(not(loom))]
#[doc(hidden)]
pub use threads::{
    Slot, barrier, call, get_state, is_reading, poll, read_lock, read_unlock, start_poll, synchronize,
};

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, shuttle))]
#[path = "schedules.rs"]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
