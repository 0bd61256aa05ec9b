//! The dependency checker on the hosted machine, with the crate's own locks.
//!
//! In a build without the checker there is nothing to test.
#![cfg(all(not(any(loom, shuttle)), any(feature = "lockdep", debug_assertions)))]

mod checked;
mod contexts;
mod locks;
mod times;
