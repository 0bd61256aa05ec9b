//! The platform inside of a model: waiting lets other threads run, fences are fences, and there is nothing else.

use hal::platform::{TaskId, Wakeup};
#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;
use test_support::model::{self, Model};

/// The platform. Its CPUs are not told apart, so it is only good for what needs no CPU number.
pub(crate) type Modelled = model::Modelled<Patient>;

/// Who blocks looks again.
#[derive(Debug)]
pub(crate) enum Patient {}

// SAFETY: every deadline is over by the time that the others have run, and whoever blocks finds out by itself what it
// was to be woken for.
unsafe impl Model for Patient {
    fn block(_: Option<u64>) -> Wakeup {
        thread::yield_now();
        Wakeup::TimedOut
    }

    fn wake(_: TaskId) -> bool {
        true
    }
}
