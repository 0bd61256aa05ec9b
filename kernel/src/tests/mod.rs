//! The kernel's own tests: what only the machine can show.
//!
//! One file a subject. Tests whose name contains `smoke` are quick on any number of CPUs.

mod calls;
mod cancelling;
mod clock;
mod commands;
mod console;
mod contexts;
mod contract;
mod fpu;
mod holds;
mod hotplug;
mod interrupts;
#[cfg(any(feature = "lockdep", debug_assertions))]
mod lockdep;
mod locks;
mod memory;
mod messages;
mod percpu;
#[cfg(quiesce_sanitize = "thread")]
mod races;
mod rcu;
mod references;
mod rousing;
#[cfg(quiesce_sanitize = "address")]
mod sanitize;
mod sched;
mod smp;
mod softirq;
mod tasks;
mod tick;
mod timers;
mod trace;
mod traps;
mod watchdogs;
mod work;
