//! The Quiesce kernel: the machine's one instance of everything.
//!
//! Mechanisms live in the crates below; here they get their statics, and are put together into a system. The library is
//! everything, the binary only names the entry, so that what does not need the machine is tested on a host.
//!
//! In the order of a boot: `boot`, [`memory`], `cpus`, then what runs: [`console`], `testing`. [`log`] and `panic` tell.
#![cfg_attr(not(test), no_std)]
// The hooks of an instrumented build must not be instrumented.
#![cfg_attr(any(quiesce_sanitize = "address", quiesce_sanitize = "thread"), feature(sanitize))]

extern crate alloc;

#[cfg(not(loom))]
pub mod bench;
#[cfg(not(loom))]
pub mod cmdline;
#[cfg(not(loom))]
pub mod console;
pub mod log;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
pub mod sched;
#[cfg(not(loom))]
pub mod serial;
#[cfg(target_os = "none")]
mod torture;
pub mod trace;
#[cfg(not(loom))]
pub mod vector;
pub mod watchdog;

#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod calls;
#[cfg(target_os = "none")]
pub mod clock_watch;
#[cfg(target_os = "none")]
pub mod cpus;
#[cfg(target_os = "none")]
pub mod crash;
#[cfg(target_os = "none")]
mod hot_paths;
#[cfg(not(loom))]
pub mod hotplug;
#[cfg(all(target_os = "none", any(feature = "lockdep", debug_assertions)))]
pub mod lockdep;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
pub mod panic;
#[cfg(target_os = "none")]
pub mod rcu;
#[cfg(target_os = "none")]
mod sanitize;
#[cfg(target_os = "none")]
pub mod services;
#[cfg(target_os = "none")]
pub mod shutdown;
#[cfg(target_os = "none")]
pub mod snapshot;
#[cfg(target_os = "none")]
pub mod softirq;
#[cfg(target_os = "none")]
pub mod stop_machine;
#[cfg(target_os = "none")]
pub mod task;
#[cfg(target_os = "none")]
pub mod testing;
#[cfg(target_os = "none")]
mod tests;
#[cfg(target_os = "none")]
pub mod this_machine;
#[cfg(not(loom))]
pub mod tick;
#[cfg(target_os = "none")]
pub mod timer;
#[cfg(target_os = "none")]
pub mod workqueue;
