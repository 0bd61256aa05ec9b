//! Sleepable RCU: readers that may sleep, in domains of their own.
//!
//! A reader that may sleep keeps its grace periods waiting for as long as it likes. So it must not be one of the readers
//! that the whole kernel waits for: each use has a domain of its own, and waits for its own readers only.
//!
//! 1. An [`Srcu`] is a domain: two ranks of counters on each CPU, and a small machine ([`machine.rs`](self) goes through
//!    why it is right). A reader counts itself in and out, by two instructions on its CPU's counters.
//! 2. A grace period sums the counters of both ranks. Who waits for one drives it, and whoever else waits shares it.
//! 3. [`srcu_domain!`](crate::srcu_domain) makes a type of one, a [`Domain`](crate::Domain), so that everything that has
//!    a domain in its type (`Rcu`, `Retired`, the lists, the hash table) works with readers that sleep.
//!
//! ```
//! use rcu::{Rcu, RcuBox};
//!
//! rcu::srcu_domain! { struct Filters; }
//! let filter = Rcu::<RcuBox<Vec<u32>>, Filters>::new(RcuBox::new(vec![22, 80]));
//!
//! let reader = rcu::read();
//! let ports = filter.load(&reader);
//! std::thread::sleep(std::time::Duration::from_millis(1)); // a file is read, a lock is waited for
//! assert!(ports.contains(&22));
//! drop(reader);
//! filter.replace(RcuBox::new(vec![443])).free_after_grace_period();
//! # let mut cx = unsafe { sync::TaskCx::new() };
//! # <Filters as rcu::Domain>::barrier(&mut cx);
//! ```
//!
//! # Who does the work
//!
//! A waiting task drives the grace period that it waits for. Callbacks and [`start_poll`](Srcu::start_poll) have nobody who
//! waits; for them there is the domain's [`Driver`]. Each time that something is newly wanted it is told so, and has to
//! see to it that some task calls [`work`](Srcu::work) soon, and again as `work` asks. On a kernel's work queue:
//!
//! ```text
//! static CONFIG: Srcu<Native, Attendant> = ..;
//! static WORK: DelayedWork<..> = DelayedWork::new(|running| match CONFIG.work(running) {
//!     Next::Idle => {}
//!     Next::Again => running.queue_again(),
//!     Next::After(ns) => WORK.queue_in(ns),
//! });
//! impl Driver for Attendant {
//!     fn wanted(&self) { WORK.queue_now() }    // any context but NMI; one that is queued already stays so
//! }
//! ```
//!
//! No request is lost as long as a queueing that comes while the function runs makes it run once more. Without a driver,
//! which is what [`Visitors`] says, whoever waits for the domain does the work that it finds.

mod core;
#[cfg(not(loom))]
mod domain;
mod machine;
#[cfg(not(loom))]
mod read;
#[cfg(not(loom))]
mod stall;
#[cfg(not(loom))]
mod state;
#[cfg(not(loom))]
mod value;

#[cfg(not(loom))]
pub use self::domain::SrcuDomain;
pub use self::machine::Rank;
#[cfg(not(loom))]
pub use self::read::SrcuGuard;
#[cfg(not(loom))]
pub use self::value::Srcu;

/// Who sees to it that somebody [works](Srcu::work) for a domain. The [module](self) has the binding to a work queue.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use rcu::{Srcu, srcu::Driver};
/// # let _cpu = hal::hosted::bind()?;
/// static TOLD: AtomicU32 = AtomicU32::new(0);
/// struct Attendant;
/// impl Driver for Attendant {
///     fn wanted(&self) {
///         TOLD.fetch_add(1, Ordering::Relaxed);
///     }
/// }
/// let config = Srcu::<hal::Native, _>::with_driver("config", Attendant)?;
/// config.start_poll();
/// config.start_poll(); // wants what is wanted already
/// assert_eq!(TOLD.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Driver: Send + Sync {
    /// Whether somebody comes when [`wanted`](Driver::wanted) was called. If not, those who wait call callbacks too.
    const COMES: bool = true;

    /// Something is to be done that was not before. Called where [`Srcu::call`] or [`Srcu::start_poll`] was: in any
    /// context but NMI, perhaps with locks held.
    fn wanted(&self);
}

/// Nobody comes: the work is done by those who wait for the domain, or call [`work`](Srcu::work).
#[derive(Clone, Copy, Debug, Default)]
pub struct Visitors;

impl Driver for Visitors {
    const COMES: bool = false;

    #[inline]
    fn wanted(&self) {}
}

/// What [`Srcu::work`] wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing. The driver is told when that changes.
    Idle,
    /// To be called again.
    Again,
    /// To be called again in about so many ns: there are readers.
    After(u64),
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
