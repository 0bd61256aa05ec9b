//! Reading without waiting, and freeing what was read when the last reader is gone.
//!
//! A writer who takes an object out of a shared structure cannot free it: readers, who take no lock, may be looking at it.
//! Whoever begins to read from then on does not find it. So it is enough to wait until all those have finished who had
//! begun before: a *grace period*. Much of a kernel's concurrency comes down to that question, "has everybody, since I
//! changed this, been somewhere where they cannot still hold the old value?", and to making its answer cheap for readers.
//!
//! 1. A [`Domain`] is a set of readers with grace periods that wait for them. [`hosted_domain!`] makes one for a program
//!    on host threads.
//! 2. A reader begins a section with [`read`] and follows pointers ([`Rcu`], [`RcuOption`]) under its guard.
//! 3. A writer exchanges what a pointer points to. The former object comes out as a [`Retired`], which frees it, gives it
//!    back or passes it on after a grace period.
//!
//! ```
//! use rcu::{Rcu, RcuBox};
//!
//! rcu::hosted_domain! { struct Settings; }
//! # fn main() {
//! let limits = Rcu::<RcuBox<(u32, u32)>, Settings>::new(RcuBox::new((1, 10)));
//! std::thread::scope(|scope| {
//!     scope.spawn(|| {
//!         let reader = rcu::read();
//!         let (low, high) = limits.load(&reader); // two loads and a store, whatever the writer does
//!         assert!(low < high);
//!     });
//!     limits.update(|(low, high)| RcuBox::new((low + 20, high + 20))).free_after_grace_period();
//! });
//! # }
//! ```
//!
//! [`RcuList`], [`RcuHList`], [`RcuNullsTable`] and [`RcuHashMap`] are structures of many objects for such readers;
//! [`tiny`] is for kernels on one CPU; [`srcu`] is for readers that sleep.
//!
//! [`tree`] makes the grace periods of a kernel with any number of CPUs.
//!
//! Underneath, [`seq`] numbers grace periods, so that waiters share them, and [`Head`] is the place in an object where its
//! callback waits.
//!
//! Read in this order: `domain.rs`, `guard.rs`, `cell.rs`, `always.rs`, `retired.rs`, then the domains: `hosted/`.
#![cfg_attr(not(any(test, loom, shuttle)), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

#[cfg(all(test, any(loom, shuttle)))]
#[path = "../tests/support/modelled.rs"]
mod modelled;

#[cfg(all(test, not(loom)))]
#[path = "../tests/support/single.rs"]
mod single;

mod always;
#[cfg(feature = "alloc")]
mod boxed;
pub mod callbacks;
mod cell;
pub mod domain;
mod guard;
#[cfg(feature = "alloc")]
mod hash;
#[cfg(feature = "alloc")]
mod hash_table;
pub mod head;
mod hlist;
#[cfg(all(not(target_os = "none"), feature = "machine", feature = "alloc"))]
pub mod hosted;
mod list;
#[cfg(all(test, not(loom)))]
mod list_tests_shared;
mod member;
#[cfg(feature = "alloc")]
mod nulls;
mod pause;
mod primitives;
mod retired;
mod ring;
pub mod seq;
pub mod srcu;
pub mod tiny;
pub mod tree;

pub use always::Rcu;
#[cfg(feature = "alloc")]
pub use boxed::RcuBox;
pub use cell::{RcuOption, Refused};
pub use domain::Domain;
pub use guard::{AtomicReaders, Proof, ReadGuard, read, read_in};
#[cfg(feature = "alloc")]
pub use hash::RcuHashMap;
#[cfg(feature = "alloc")]
pub use hash_table::Entry;
pub use head::{Callback, Head};
pub use hlist::{RcuHIter, RcuHList, RcuHWriter};
pub use list::{RcuIter, RcuList, RcuWriter};
#[cfg(feature = "alloc")]
pub use nulls::RcuNullsTable;
pub use retired::{Reclaim, Retired};
pub use seq::{Cookie, Sequence};
#[cfg(not(loom))]
pub use srcu::{Srcu, SrcuGuard};

/// What the crate's macros name.
#[doc(hidden)]
pub mod macros {
    pub use core::convert::Infallible;
    pub use core::ptr::NonNull;
    pub use core::sync::atomic::AtomicUsize;
    #[cfg(not(target_os = "none"))]
    pub use std::thread::LocalKey;
    #[cfg(not(target_os = "none"))]
    pub use std::thread_local;

    pub use hal::{Native, percpu};
    pub use sync::TaskCx;

    #[cfg(all(not(target_os = "none"), feature = "machine", feature = "alloc"))]
    pub use crate::hosted;
    #[cfg(not(loom))]
    pub use crate::srcu;
    pub use crate::{Callback, Cookie, Head};
}

/// The README's examples, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
