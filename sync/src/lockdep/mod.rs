//! The dependency checker: finds deadlocks that have not happened.
//!
//! Two CPUs that take two locks in opposite orders deadlock only if they meet in the wrong nanosecond. The orders alone
//! show that they can. So each lock tells the checker when it is acquired and released, and the checker reports the
//! first order that, with those seen before, could close a circle; the meeting need not happen.
//!
//! A lock embeds a [`Map`], and calls it around acquiring and releasing. Everything else is the checker's.

mod map;

pub use map::{Acquire, Level, Map, Mode, Subclass, WaitType};
