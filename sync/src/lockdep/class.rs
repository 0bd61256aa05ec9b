//! Lock classes: which locks the checker takes for one.
//!
//! Orders are kept by classes of locks, not by single locks: all inode locks follow one rule, and a rule that two of them
//! broke is broken for all. Locks of one kind that one place in the source creates are a class. Where that is too coarse (an array of
//! locks taken by rising index) a key tells them apart, or, at a single acquisition, a subclass.

use core::fmt;
use core::panic::Location;

use super::map::{Level, Subclass, WaitType};

/// What a lock brings along from its creation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) site: &'static Location<'static>,
    pub(super) name: Option<&'static str>,
    pub(super) key: u32,
    pub(super) wait: WaitType,
    pub(super) level: Level,
}

impl Identity {
    /// Whether two locks are of one class. By content: one location in the source may have several addresses, for each
    /// crate that a generic function is compiled in has its own.
    pub(super) fn same(&self, other: &Identity) -> bool {
        let at = |l: &'static Location<'static>| (l.line(), l.column(), l.file());
        // What waits in another way, or in other contexts, is another lock, which the one that the user made has inside.
        let kind = |of: &Identity| (of.key, of.wait, of.level);
        kind(self) == kind(other) && at(self.site) == at(other.site)
    }
}

/// A class by its name, for reports: where its locks are created, and what tells them from others created there.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// # use core::panic::Location;
/// # use lockdep::{Acquire, Level, Map, WaitType};
/// static JOBS: Map = Map::named("jobs", 3, WaitType::Spin, Level::Task);
/// # JOBS.acquire::<Native>(Acquire::WRITE, Location::caller());
/// # JOBS.release::<Native>(Location::caller());
/// let (label, _) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
/// assert!(label.to_string().starts_with("jobs[3] ("));
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub(super) identity: Identity,
    pub(super) subclass: Subclass,
}

impl Label {
    /// The place in the source that creates the locks.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use lockdep::{Acquire, Level, Map, WaitType};
    /// static JOBS: Map = Map::named("jobs", 3, WaitType::Spin, Level::Task);
    /// # JOBS.acquire::<Native>(Acquire::WRITE, Location::caller());
    /// # JOBS.release::<Native>(Location::caller());
    /// let (label, _) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
    /// assert_eq!(label.site().file(), file!());
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub fn site(&self) -> &'static Location<'static> {
        self.identity.site
    }

    /// The name that was given to them.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use lockdep::{Acquire, Level, Map, WaitType};
    /// static JOBS: Map = Map::named("jobs", 3, WaitType::Spin, Level::Task);
    /// # JOBS.acquire::<Native>(Acquire::WRITE, Location::caller());
    /// # JOBS.release::<Native>(Location::caller());
    /// let (label, _) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
    /// assert_eq!(label.name(), Some("jobs"));
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub fn name(&self) -> Option<&'static str> {
        self.identity.name
    }

    /// The key that tells them from other locks created there.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use lockdep::{Acquire, Level, Map, WaitType};
    /// static JOBS: Map = Map::named("jobs", 3, WaitType::Spin, Level::Task);
    /// # JOBS.acquire::<Native>(Acquire::WRITE, Location::caller());
    /// # JOBS.release::<Native>(Location::caller());
    /// let (label, _) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
    /// assert_eq!(label.key(), 3);
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub fn key(&self) -> u32 {
        self.identity.key
    }

    /// As which subclass they are taken.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// # use core::panic::Location;
    /// # use lockdep::{Acquire, Level, Map, WaitType};
    /// static JOBS: Map = Map::named("jobs", 3, WaitType::Spin, Level::Task);
    /// # JOBS.acquire::<Native>(Acquire::WRITE, Location::caller());
    /// # JOBS.release::<Native>(Location::caller());
    /// let (label, _) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
    /// assert_eq!(label.subclass(), lockdep::Subclass::OUTER);
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub fn subclass(&self) -> Subclass {
        self.subclass
    }
}

impl fmt::Display for Label {
    /// `runqueue[3]/1 (sched.rs:3:9)`: name, key unless 0, subclass unless 0, and where it is created.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { site, name, key, .. } = self.identity;
        f.write_str(name.unwrap_or("lock"))?;
        if key != 0 {
            write!(f, "[{key}]")?;
        }
        if self.subclass != Subclass::OUTER {
            write!(f, "/{}", self.subclass.index())?;
        }
        write!(f, " ({site})")
    }
}
