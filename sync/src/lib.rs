//! Contexts as values, and the locks that are built on them.
//!
//! 1. What the executing code may rely on ("I stay on this CPU", "no interrupt comes here") is a **guard**: a value that
//!    makes it so while it lives. [`preempt`], [`bh`], [`irq`] and [`migrate`] make guards; [`context`] asks at run time.
//! 2. What a lock must switch off while it is held follows from who else takes it, and that is its **flavour**, a part
//!    of its type: [`SpinLock`] is shared between tasks, [`IrqSpinLock`] with interrupt handlers too. Taking a lock the
//!    wrong way for its sharers is therefore not something that a caller can write.
//! 3. Guards prove things to functions. Per-CPU data asks for `&impl Pinned`; a lock whose flavour is already in force
//!    takes the proof and skips the work ([`SpinLock::lock_with`]).
//!
//! | data is shared between | lock | while it is held |
//! |---|---|---|
//! | tasks, on any CPU | [`SpinLock`] | the task is not preempted |
//! | tasks and hardware interrupt handlers | [`IrqSpinLock`] | interrupts are off on this CPU |
//! | one CPU's tasks and nothing else | no lock: [`preempt::disable`] and per-CPU data | |
//! | one CPU's tasks and its interrupt handlers | no lock: [`irq::disable`] and per-CPU data | |
//!
//! Everything is generic over [`hal::Platform`]; the names without a parameter mean [`hal::Native`]. For another
//! platform write [`Cpu::<P>::disable_preemption`](Cpu::disable_preemption) and [`SpinLock<T, Irq<P>>`](SpinLock).
//!
//! A guard that is leaked (`mem::forget`) leaves its CPU's interrupts or preemption off, or its lock held, for ever: the
//! system may hang, but no data is corrupted.
//!
//! What locks protect is often a list: [`list`] has intrusive ones, whose nodes are fields of the objects and whose
//! additions neither allocate nor fail, and [`llist`] one that any context adds to without a lock.
//!
//! What is to be done later, by a softirq or by a task: [`softirq`] and [`work`].
//!
//! Read in this order: `preempt.rs`, `irq.rs`, `flavor.rs`, `spin/mod.rs`, `spin/raw/mod.rs`.
#![cfg_attr(not(any(test, loom, shuttle)), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(all(test, shuttle))]
#[path = "../tests/support/shuttled.rs"]
mod shuttle_platform;
#[cfg(all(test, not(loom)))]
#[expect(dead_code, reason = "integration tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod test_platform;
#[cfg(all(test, loom))]
#[path = "../tests/support/modelled.rs"]
mod test_platform;

pub mod bh;
pub mod bit_lock;
pub mod call;
mod channel;
mod completion;
mod condvar;
mod contention;
pub mod context;
mod cpu;
pub mod delay;
mod faults;
mod flavor;
pub mod irq;
pub mod list;
pub mod llist;
pub mod local;
#[cfg(all(feature = "lock_api", not(loom)))]
pub mod lock_api;
pub mod lockdep;
mod made;
pub mod migrate;
mod mutex;
pub mod percpu_ref;
mod percpu_rwsem;
pub mod pi;
pub mod preempt;
mod primitives;
pub mod refcount;
pub mod rwlock;
mod rwsem;
mod semaphore;
pub mod seq;
mod sleep;
pub mod softirq;
pub mod spin;
mod task_cx;
pub mod wait;
pub mod work;

pub use bh::BhGuard;
pub use bit_lock::BitSpinLock;
pub use channel::{Channel, ReceiveError, SendError};
pub use completion::Completion;
pub use condvar::Condvar;
pub use cpu::Cpu;
pub use flavor::{BottomHalf, Flavor, Irq, IrqsOffFlavor, Proves, Task};
pub use irq::IrqGuard;
pub use local::LocalLock;
pub use migrate::MigrateGuard;
pub use mutex::{Mutex, MutexGuard};
pub use percpu_ref::PerCpuRef;
pub use percpu_rwsem::{PerCpuRwSemaphore, PerCpuRwSemaphoreReadGuard, PerCpuRwSemaphoreWriteGuard};
pub use pi::{PiMutex, PiMutexGuard};
pub use preempt::PreemptGuard;
pub use refcount::RefCount;
pub use rwlock::{IrqRwLock, RwLock};
pub use rwsem::{RwSemaphore, RwSemaphoreReadGuard, RwSemaphoreWriteGuard};
pub use semaphore::Semaphore;
pub use seq::{IrqSeqLock, Latch, SeqCount, SeqLock};
pub use spin::{BhSpinLock, IrqSpinLock, Queued, SpinLock, Ticketed};
pub use task_cx::TaskCx;

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
