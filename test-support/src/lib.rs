//! What the tests and models of several crates share. Only dev-dependencies name it.
//!
//! * [`types!`]: programs that must not compile, each beside the nearest one that does.
//! * [`cases`] and [`fuzz`]: how much a test explores, and its word on that; in models, `check`, `model` and `schedules`.
//! * In models, `model`: a platform whose threads are those of the model checker.
//! * In models, `faults`: code that is broken on purpose, to see that a model finds it.

mod explored;
#[cfg(any(loom, shuttle))]
pub mod faults;
#[cfg(any(loom, shuttle))]
pub mod model;
#[cfg(not(any(loom, shuttle)))]
mod types;

#[cfg(shuttle)]
pub use explored::schedules;
pub use explored::{cases, fuzz};
#[cfg(loom)]
pub use explored::{check, model};
#[cfg(not(any(loom, shuttle)))]
#[doc(hidden)]
pub use trybuild;
