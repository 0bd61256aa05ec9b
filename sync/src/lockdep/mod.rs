//! The dependency checker: finds deadlocks that have not happened.
//!
//! Two CPUs that take two locks in opposite orders deadlock only if they meet in the wrong nanosecond. The orders alone
//! show that they can. So each lock tells the checker when it is acquired and released, and the checker reports the
//! first order that, with those seen before, could close a circle; the meeting need not happen.
//!
//! 1. Locks that one place in the source creates are a **class**. What is learnt about one holds for all.
//! 2. Each task has a [`HeldStack`]. Who waits for `B` while it holds `A` adds the order `A -> B` to a graph of classes.
//! 3. An order is added once, and then the graph is searched: a circle is a deadlock that waits to happen. Handlers that
//!    interrupt a holder close circles as well, and readers that do not block each other do not.
//! 4. Chains of held locks that were examined before are recognised by their hash. In the long run the checker takes no
//!    lock and searches nothing.
//!
//! It is built in when the feature `lockdep` is on, or debug assertions are; [`ENABLED`] says so. Otherwise a lock's
//! [`Map`] has no size and its calls are empty. A built-in checker checks nothing until a CPU [`install`]s one.
//!
//! | report | what happened |
//! |---|---|
//! | `possible circular locking dependency detected` | this order, with those seen before, closes a circle |
//! | `possible recursive locking detected` | a lock is waited for under a lock of its class |
//! | `inconsistent lock state` | a handler waits for a lock that is elsewhere held where the handler can come |
//! | `irq-safe -> irq-unsafe lock order detected`, `softirq-safe -> softirq-unsafe ..` | the same through other locks |
//! | `invalid wait context` | a lock is waited for where one must not wait so |
//! | `bad unlock balance detected` | a lock is released that is not held |
//! | `held lock freed` | a lock is dropped, or its memory given back, while the task holds it |
//!
//! Each is made once for the same classes. Nothing is switched off after a report.
//!
//! # What is waited for and is no lock
//! A [`Map`] of its own takes anything into the graph that one part of a program waits for and another one brings about:
//!
//! * who **waits** calls [`acquire`](Map::acquire) and at once [`release`](Map::release), before it waits;
//! * what must **come to an end** before the wait can end is put between an `acquire` with
//!   [`TRY_WRITE`](Acquire::TRY_WRITE) (it begins without waiting) and `release`;
//!
//! * who **brings it about** and is not inside of such a section calls [`bring_about`](Map::bring_about): of what it did
//!   before, the locks that it still holds are taken into account.
//!
//! So a timer that is deleted synchronously under a lock that its callback takes is a circle of two: the callback holds
//! the timer's map and waits for the lock, the deleter holds the lock and waits for the map. Linux: `lock_map_acquire`.
//! A [`Completion`](crate::Completion) tells the checker by itself who waits for it and who completes it.
//!
//! ```
//! # use core::panic::Location;
//! # use hal::Native;
//! use sync::lockdep::{Acquire, Level, Map, WaitType};
//! static CALLBACK: Map = Map::named("timer callback", 0, WaitType::Spin, Level::Hardirq);
//!
//! fn run_callback(callback: fn()) {
//!     CALLBACK.acquire::<Native>(Acquire::TRY_WRITE, Location::caller());
//!     callback();
//!     CALLBACK.release::<Native>(Location::caller());
//! }
//! fn delete_sync() {
//!     CALLBACK.acquire::<Native>(Acquire::WRITE, Location::caller());
//!     CALLBACK.release::<Native>(Location::caller());
//!     // .. and then waits until no callback runs.
//! }
//! # run_callback(|| ());
//! # delete_sync();
//! ```
//!
//! Read in this order: `map.rs` (what locks say), `graph.rs` (the idea), `usage.rs`, `search.rs`, `follow.rs`,
//! `held.rs`, `checker.rs` (what happens at each acquisition), `times.rs` (how long that takes), `shell.rs` (where the platform comes in), `report.rs`.

mod map;

pub use map::{Acquire, Level, Mode, Subclass, WaitType};

#[cfg(not(all(not(any(loom, shuttle)), any(feature = "lockdep", debug_assertions))))]
mod absent;
#[cfg(not(all(not(any(loom, shuttle)), any(feature = "lockdep", debug_assertions))))]
pub use absent::Map;

#[cfg(all(not(any(loom, shuttle)), any(feature = "lockdep", debug_assertions)))]
mod recording;
#[cfg(all(not(any(loom, shuttle)), any(feature = "lockdep", debug_assertions)))]
pub use recording::Map;

/// Whether the checker is built in, so that locks talk to it.
///
/// ```
/// use sync::lockdep;
/// assert_eq!(size_of::<lockdep::Map>() != 0, lockdep::ENABLED);
/// ```
pub const ENABLED: bool = cfg!(all(not(any(loom, shuttle)), any(feature = "lockdep", debug_assertions)));

macro_rules! checker {
    ($($item:item)*) => {$(
        #[cfg(not(any(loom, shuttle)))]
        #[cfg_attr(not(any(feature = "lockdep", debug_assertions)), allow(dead_code, reason = "no lock calls it"))]
        $item
    )*};
}
checker! {
    mod checker;
    mod class;
    mod follow;
    mod graph;
    mod held;
    mod report;
    mod search;
    mod shell;
    mod stretch;
    mod summary;
    mod times;
    mod usage;
    mod verdicts;
}

#[cfg(not(any(loom, shuttle)))]
pub use self::{
    checker::Checker,
    class::Label,
    graph::{CLASSES, EDGES, SITES},
    held::{DEPTH, HeldStack},
    shell::{
        bottom_halves_coming_on, check_no_locks_freed, class, install, interrupts_coming_on, is_timing,
        reset_times, set_timing, summary, tell_long, times, uninstall, write_held,
    },
    summary::Summary,
    times::{Lasted, LockTimes, Long, OnLong},
    usage::Usage,
    verdicts::CHAINS,
};
#[cfg(any(loom, shuttle))]
pub use absent::{bottom_halves_coming_on, interrupts_coming_on, write_held};
#[cfg(any(loom, shuttle))]
pub(crate) use absent::{bottom_halves_went_off, interrupts_went_off};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use stretch::{bottom_halves_went_off, interrupts_went_off};

#[cfg(all(test, not(any(loom, shuttle))))]
mod sim;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
