//! How full the tables are.

use core::fmt;

use super::graph::{CLASSES, EDGES, SITES};
use super::verdicts::CHAINS;

/// How much a [`Checker`](super::Checker) knows.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let (one, other) = (sync::SpinLock::<u32>::new(1), sync::SpinLock::<u32>::new(2));
/// assert_eq!(*one.lock() + *other.lock(), 3);
/// let summary = lockdep::summary::<Native>(&CHECKER);
/// assert_eq!((summary.classes, summary.orders, summary.deepest), (2, 1, 2));
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// No table has run full.
    pub is_checking: bool,
    /// Places that create locks.
    pub sites: usize,
    /// Classes: places times the subclasses in use.
    pub classes: usize,
    /// Orders: pairs of classes, by how the locks were held and waited for.
    pub orders: usize,
    /// Chains of held locks that have been examined.
    pub chains: usize,
    /// How often a chain was examined that there was no room to remember.
    pub chains_turned_away: usize,
    /// The most locks that a task held at a time.
    pub deepest: usize,
    /// How often something was reported.
    pub reports: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_checking { "checking" } else { "stopped: a table is full" };
        writeln!(f, "lock dependencies: {state}; {} reports", self.reports)?;
        writeln!(f, "  sites    {:>6} of {}", self.sites, SITES - 1)?;
        writeln!(f, "  classes  {:>6} of {}", self.classes, CLASSES - 1)?;
        writeln!(f, "  orders   {:>6} of {}", self.orders, EDGES - 1)?;
        writeln!(f, "  chains   {:>6} of {CHAINS}", self.chains)?;
        writeln!(f, "  deepest  {:>6} of {}", self.deepest, super::held::DEPTH)
    }
}
