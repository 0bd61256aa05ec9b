//! The lives of tasks in the dependency checker.
//!
//! Who waits for the end of a task under a lock waits for whatever the task waits for. So the tasks that one line makes are
//! a class: a task's body runs inside of it, and who joins the task waits for the class.
//!
//! A task that joins others of its own class is left alone: tasks that make tasks do that, and a child never waits for its
//! parent's end.

use core::panic::Location;

use hal::Native;
use sync::lockdep::{Acquire, Level, Map, WaitType};

/// A task's life. Apart from the place where it was made, of no size in builds without the checker.
pub(super) struct Life {
    map: Map,
    made_at: &'static Location<'static>,
}

impl Life {
    /// Of a task that is made by the caller.
    #[track_caller]
    pub(super) fn new() -> Life {
        let map = Map::named("task", 0, WaitType::Sleep, Level::Task);
        Life { map, made_at: Location::caller() }
    }

    /// The body begins, in its task.
    pub(super) fn begin(&self) {
        self.map.acquire::<Native>(Acquire::TRY_WRITE, self.made_at);
    }

    /// The body has ended.
    pub(super) fn end(&self) {
        self.map.release::<Native>(self.made_at);
    }

    /// The executing task, whose life is `waiting`, is about to wait for the end of this one.
    pub(super) fn is_waited_for(&self, waiting: &Life, at: &'static Location<'static>) {
        if waiting.made_at != self.made_at {
            self.map.acquire::<Native>(Acquire::WRITE, at);
            self.map.release::<Native>(at);
        }
    }
}
