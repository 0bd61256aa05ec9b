//! Calls between CPUs: have a function run on another CPU, now, in a hardware interrupt.
//!
//! 1. Each CPU has a queue ([`Calls`] has them all). A sender puts a descriptor into it, without a lock, and interrupts
//!    the CPU if the queue was empty: those behind the first are covered by its interrupt.
//! 2. The CPU's interrupt handler takes what is there ([`Calls::serve`]) and calls the functions in the order in which
//!    they were sent.
//! 3. Who waits keeps the descriptors on its own stack and looks at a word until the CPU has set it
//!    ([`Calls::single`], [`Calls::many`], [`Calls::all`]). Who does not wait brings a descriptor that lives long enough,
//!    a [`CallData`]. Nothing is allocated.
//! 4. A CPU that goes closes its queue, and runs what was in it. From that step on senders get
//!    [`CallError::Offline`]. There is no moment in between, so that senders need not hold hotplug off.
//!
//! Waiting with interrupts off is forbidden: two CPUs that so wait for each other would wait for ever. It is reported, with
//! the caller's line; the CPU then serves its own calls while it waits, so that the report is all that comes of it.
//!
//! Linux: `smp_call_function_single`, `.._many`, `on_each_cpu`, `irq_work`.

#[cfg(not(loom))]
mod calls;
mod data;
#[cfg(not(loom))]
mod error;
mod queue;
mod rendezvous;
mod state;
#[cfg(not(loom))]
mod waiting;

#[cfg(not(loom))]
pub use calls::Calls;
pub use data::CallData;
#[cfg(not(loom))]
pub use error::CallError;
pub use rendezvous::Rendezvous;

#[cfg(all(test, loom))]
mod models;
