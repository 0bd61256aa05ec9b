//! The map of a build without the checker: no room, no instructions.

use core::panic::Location;

use hal::Platform;

use super::map::{Acquire, Level, WaitType};

/// What a lock embeds: its class, which is the place in the source that created it. Takes no room in this build, which
/// has no dependency checker.
///
/// ```
/// assert_eq!(size_of::<sync::lockdep::Map>(), 0);
/// ```
#[derive(Debug)]
pub struct Map {}

impl Map {
    /// The map of a lock that is created at the caller's place in the source.
    ///
    /// ```
    /// use sync::lockdep::{Level, Map, WaitType};
    /// static MAP: Map = Map::new(WaitType::Spin, Level::Task);
    /// assert_eq!(MAP.is_held::<hal::Native>(), None);
    /// ```
    #[track_caller]
    pub const fn new(_wait: WaitType, _level: Level) -> Map {
        Map {}
    }

    /// The map of a lock with a name for reports, and a key that tells it from others created at the same place.
    ///
    /// ```
    /// use sync::lockdep::{Level, Map, WaitType};
    /// static MAP: Map = Map::named("jobs", 3, WaitType::Spin, Level::Task);
    /// assert_eq!(MAP.is_held::<hal::Native>(), None);
    /// ```
    #[track_caller]
    pub const fn named(_name: &'static str, _key: u32, _wait: WaitType, _level: Level) -> Map {
        Map {}
    }

    /// The lock is about to be waited for, or has been acquired without waiting. What its flavour switches off is off.
    ///
    /// ```
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Acquire, Level, Map, WaitType};
    /// let map = Map::new(WaitType::Spin, Level::Task);
    /// map.acquire::<hal::Native>(Acquire::WRITE, Location::caller());
    /// assert_eq!(map.is_held::<hal::Native>(), None, "nobody keeps books");
    /// ```
    #[inline(always)]
    pub fn acquire<P: Platform>(&self, _how: Acquire, _at: &'static Location<'static>) {}

    /// The lock is about to be released, or waiting for it was given up.
    ///
    /// ```
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Level, Map, WaitType};
    /// let map = Map::new(WaitType::Spin, Level::Task);
    /// map.release::<hal::Native>(Location::caller()); // nobody notices that it was not held
    /// assert_eq!(map.is_held::<hal::Native>(), None);
    /// ```
    #[inline(always)]
    pub fn release<P: Platform>(&self, _at: &'static Location<'static>) {}

    /// What others wait for, by `acquire` and `release` of this map, is brought about now.
    ///
    /// ```
    /// # use core::panic::Location;
    /// # use sync::lockdep::{Level, Map, WaitType};
    /// let map = Map::new(WaitType::Spin, Level::Task);
    /// map.bring_about::<hal::Native>(Location::caller());
    /// ```
    #[inline(always)]
    pub fn bring_about<P: Platform>(&self, _at: &'static Location<'static>) {}

    /// Nobody checks.
    #[inline(always)]
    pub(crate) fn wait_for<P: Platform>(&self, _at: &'static Location<'static>) {}

    /// Nobody counts.
    #[inline(always)]
    pub(crate) fn contended<P: Platform>(&self) -> u64 {
        0
    }

    /// Nobody has counted.
    #[inline(always)]
    pub(crate) fn waited<P: Platform>(&self, _since_ns: u64) {}

    /// Whether the executing task holds the lock. `None`: nobody keeps books.
    ///
    /// ```
    /// # use sync::lockdep::{Level, Map, WaitType};
    /// assert_eq!(Map::new(WaitType::Spin, Level::Task).is_held::<hal::Native>(), None);
    /// ```
    #[inline(always)]
    pub fn is_held<P: Platform>(&self) -> Option<bool> {
        None
    }

    /// Reports if the executing task does not hold the lock.
    ///
    /// ```
    /// # use sync::lockdep::{Level, Map, WaitType};
    /// Map::new(WaitType::Spin, Level::Task).assert_held::<hal::Native>(); // nobody knows
    /// ```
    #[inline(always)]
    pub fn assert_held<P: Platform>(&self) {}
}

/// See the build with the checker.
#[cfg(any(loom, shuttle))]
#[inline(always)]
pub fn interrupts_coming_on<P: Platform>(_at: &'static Location<'static>) {}

/// See the build with the checker.
#[cfg(any(loom, shuttle))]
#[inline(always)]
pub fn bottom_halves_coming_on<P: Platform>(_at: &'static Location<'static>) {}

/// See the build with the checker.
#[cfg(any(loom, shuttle))]
#[inline(always)]
pub(crate) fn interrupts_went_off<P: Platform>(_at: &'static Location<'static>) {}

/// See the build with the checker.
#[cfg(any(loom, shuttle))]
#[inline(always)]
pub(crate) fn bottom_halves_went_off<P: Platform>(_at: &'static Location<'static>) {}

/// See the build with the checker.
#[cfg(any(loom, shuttle))]
pub fn write_held<P: Platform>(_out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    Ok(())
}
