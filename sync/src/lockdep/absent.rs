//! The map of a build without the checker: no room, no instructions.

use core::panic::Location;

use hal::Platform;

use super::map::{Acquire, Level, WaitType};

/// What a lock embeds: its class, which is the place in the source that created it. Takes no room in this build, which
/// has no dependency checker.
#[derive(Debug)]
pub struct Map {}

impl Map {
    /// The map of a lock that is created at the caller's place in the source.
    #[track_caller]
    pub const fn new(_wait: WaitType, _level: Level) -> Map {
        Map {}
    }

    /// The map of a lock with a name for reports, and a key that tells it from others created at the same place.
    #[track_caller]
    pub const fn named(_name: &'static str, _key: u32, _wait: WaitType, _level: Level) -> Map {
        Map {}
    }

    /// The lock is about to be waited for, or has been acquired without waiting. What its flavour switches off is off.
    #[inline(always)]
    pub fn acquire<P: Platform>(&self, _how: Acquire, _at: &'static Location<'static>) {}

    /// The lock is about to be released, or waiting for it was given up.
    #[inline(always)]
    pub fn release<P: Platform>(&self, _at: &'static Location<'static>) {}

    /// What others wait for, by `acquire` and `release` of this map, is brought about now.
    #[inline(always)]
    pub fn bring_about<P: Platform>(&self, _at: &'static Location<'static>) {}

    /// Whether the executing task holds the lock. `None`: nobody keeps books.
    #[inline(always)]
    pub fn is_held<P: Platform>(&self) -> Option<bool> {
        None
    }

    /// Reports if the executing task does not hold the lock.
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
pub fn write_held<P: Platform>(_out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    Ok(())
}
