//! A virtual CPU whose locks are checked, with a checker of its own.

use hal::Native;
use hal::hosted::{self, Binding, CapturedReport, ReportCapture};
use sync::lockdep::{self, Checker, HeldStack, Summary};

/// The executing thread's locks are checked while this lives, and its reports kept.
pub(crate) struct Checked {
    pub(crate) checker: &'static Checker,
    capture: ReportCapture,
    _cpu: Binding,
}

impl Checked {
    pub(crate) fn new() -> Checked {
        Checked::with(Box::leak(Box::new(Checker::new())))
    }

    pub(crate) fn with(checker: &'static Checker) -> Checked {
        let cpu = hosted::bind().expect("a virtual CPU is left");
        // SAFETY: the thread is its CPU's only task, and the stack is its own.
        unsafe { lockdep::install::<Native>(checker, Box::leak(Box::new(HeldStack::new()))) };
        Checked { checker, capture: ReportCapture::new(), _cpu: cpu }
    }

    pub(crate) fn reports(&self) -> Vec<CapturedReport> {
        self.capture.take()
    }

    /// The first lines of the reports since the last call.
    pub(crate) fn headlines(&self) -> Vec<String> {
        let first = |report: CapturedReport| report.message.lines().next().unwrap_or("").to_owned();
        self.reports().into_iter().map(first).collect()
    }

    pub(crate) fn summary(&self) -> Summary {
        lockdep::summary::<Native>(self.checker)
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        // SAFETY: as in `with`; a test drops its guards first.
        unsafe { lockdep::uninstall::<Native>() };
    }
}
