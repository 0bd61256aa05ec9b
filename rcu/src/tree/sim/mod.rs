//! A machine of up to 4,096 virtual CPUs that does at random what CPUs do, and an oracle that knows who reads what.
//!
//! 1. The **world** keeps CPUs, tasks and time in plain fields, and calls the tree at each event, as a kernel would. What
//!    the tree wants done is done later: interrupts arrive late, the driver is slow, CPUs come and go between its steps.
//! 2. The **oracle** is a handful of numbers: how many grace periods have begun and ended, how many of the readers that are
//!    active now began before the running one, and the same for expedited ones, callbacks and barriers. It knows nothing
//!    of trees.
//! 3. Every so often the world **settles**: readers finish, nothing new begins, and within a bounded number of ticks all
//!    that was asked for must have happened.
//!
//! Everything follows from a seed, which is printed when something is wrong.

mod asks;
mod cost;
mod events;
mod oracle;
mod runs;
mod settle;
mod world;
