//! Which counter the time is taken from: ratings, a watchdog, and what comes next if it is found wrong.
//!
//! A counter that was right when the machine started need not stay so: a guest is moved to another host, firmware slows
//! a processor down behind the kernel's back, a hypervisor resets a time stamp counter. So the clock is compared with other
//! counters now and then, for as long as the machine runs.
//!
//! 1. A [`Reading`] holds a reference's count between two readings of the clock. Whatever happened in between, such as a
//!    host that ran somebody else for a second, the count was taken within that span: a reading is wide, or sharp, but not
//!    wrong.
//! 2. A [`Watchdog`] compares what passed on both between two readings. It doubts the clock only if *no* moments within
//!    both spans, and no number of turns of a reference that wraps, could explain the difference. One doubt may have a
//!    reason outside, such as a machine that was suspended; two within eight comparisons have not.
//! 3. [`Sources`] has the counters by rating, with a watchdog for each that may serve as a reference. If a reference
//!    contradicts the clock and another one agrees with it, the reference is wrong. If nobody agrees the clock is, and the
//!    best source that is left follows.
//!
//! Nothing here reads a counter. Linux: `clocksource.c` (`clocksource_watchdog`).

mod sources;
mod watchdog;

pub use sources::{Source, Sources, Verdict};
pub use watchdog::{Finding, Looks, Reading, Reference, Skipped, TOLERANCE_PPM, Watchdog};
