//! What the hosted machine calls upwards: at a reschedule, for softirqs, and with reports.
//!
//! A thread's own [`Hooks`] come first, so that tests in one process do not meet each other's; then the process's; then
//! what the machine does by itself.

use core::cell::RefCell;
use core::fmt;
use core::panic::Location;
use std::rc::Rc;
use std::string::{String, ToString};
use std::sync::{PoisonError, RwLock};
use std::vec::Vec;

use crate::platform::{Report, Severity};

/// Functions of one thread that stand for the kernel above. Install them with [`set_hooks`].
///
/// They are called with none of the machine's locks held and may use everything. An absent one leaves the process's
/// hook, or the default, in place.
#[derive(Clone, Default)]
#[expect(clippy::type_complexity, reason = "an alias would hide what a user has to write")]
pub struct Hooks {
    /// A due reschedule happens: the need has been cleared, nothing forbids preemption. Default: yield to the host.
    pub resched: Option<Rc<dyn Fn()>>,
    /// Serve the softirqs whose bits are set (bit n is vector n); they are no longer pending. Called with one
    /// `SOFTIRQ_UNIT` added to the preempt word and interrupts on. Default: they are dropped.
    pub softirq: Option<Rc<dyn Fn(u32)>>,
    /// Take a report. A fatal one panics afterwards. Default: print it to standard error.
    pub report: Option<Rc<dyn Fn(&Report<'_>)>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("resched", &self.resched.is_some())
            .field("softirq", &self.softirq.is_some())
            .field("report", &self.report.is_some())
            .finish()
    }
}

/// The same for all threads of the process, for a program that runs a whole kernel's upper half on host threads.
#[derive(Clone, Copy, Default, Debug)]
#[expect(missing_docs, reason = "the fields mean what those of `Hooks` mean")]
pub struct ProcessHooks {
    pub resched: Option<fn()>,
    pub softirq: Option<fn(u32)>,
    pub report: Option<fn(&Report<'_>)>,
}

static PROCESS: RwLock<ProcessHooks> =
    RwLock::new(ProcessHooks { resched: None, softirq: None, report: None });

/// Sets the hooks of the process.
pub fn set_process_hooks(hooks: ProcessHooks) {
    *PROCESS.write().unwrap_or_else(PoisonError::into_inner) = hooks;
}

fn process() -> ProcessHooks {
    *PROCESS.read().unwrap_or_else(PoisonError::into_inner)
}

std::thread_local! {
    static HOOKS: RefCell<Hooks> = RefCell::new(Hooks::default());
}

/// Adds to the executing thread's hooks until the returned guard is dropped.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use hal::{Native, Platform, hosted};
///
/// let _cpu = hosted::bind()?;
/// let rescheduled = Rc::new(Cell::new(0));
/// let counter = Rc::clone(&rescheduled);
/// let _hooks = hosted::set_hooks(hosted::Hooks {
///     resched: Some(Rc::new(move || counter.set(counter.get() + 1))),
///     ..Default::default()
/// });
/// Native::preempt_disable();
/// Native::set_need_resched(Native::cpu());
/// assert_eq!(rescheduled.get(), 0);
/// Native::preempt_enable();
/// assert_eq!(rescheduled.get(), 1);
/// # Ok::<(), hosted::NoCpuLeft>(())
/// ```
pub fn set_hooks(hooks: Hooks) -> HooksGuard {
    let former = HOOKS.with_borrow(Clone::clone);
    let Hooks { resched, softirq, report } = hooks;
    HOOKS.set(Hooks {
        resched: resched.or_else(|| former.resched.clone()),
        softirq: softirq.or_else(|| former.softirq.clone()),
        report: report.or_else(|| former.report.clone()),
    });
    HooksGuard { former }
}

/// Restores the thread's former hooks when dropped.
#[must_use = "the former hooks are restored when this is dropped"]
#[derive(Debug)]
pub struct HooksGuard {
    former: Hooks,
}

impl Drop for HooksGuard {
    fn drop(&mut self) {
        HOOKS.set(core::mem::take(&mut self.former));
    }
}

/// The thread's hooks. None while a thread ends whose hooks are gone.
fn hooks() -> Hooks {
    HOOKS.try_with(|hooks| hooks.borrow().clone()).unwrap_or_default()
}

pub(super) fn resched() {
    match (hooks().resched, process().resched) {
        (Some(hook), _) => hook(),
        (None, Some(hook)) => hook(),
        (None, None) => std::thread::yield_now(),
    }
}

pub(super) fn softirq(pending: u32) {
    match (hooks().softirq, process().softirq) {
        (Some(hook), _) => hook(pending),
        (None, Some(hook)) => hook(pending),
        (None, None) => (),
    }
}

#[track_caller]
pub(super) fn report(report: &Report<'_>) {
    match (hooks().report, process().report) {
        (Some(hook), _) => hook(report),
        (None, Some(hook)) => hook(report),
        (None, None) => std::eprintln!("{report}"),
    }
    if report.severity == Severity::Fatal && !std::thread::panicking() {
        panic!("{report}");
    }
}

/// A report that was captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapturedReport {
    /// How bad it is.
    pub severity: Severity,
    /// The message, without `BUG:` in front.
    pub message: String,
    /// The user's line.
    pub location: &'static Location<'static>,
}

/// Captures the executing thread's reports instead of printing them, until it is dropped. Fatal ones still panic.
///
/// ```
/// use hal::{Native, Platform, hosted::ReportCapture};
/// use hal::platform::{Report, Severity};
///
/// let capture = ReportCapture::new();
/// Native::report(&Report {
///     severity: Severity::Bug,
///     message: format_args!("one and {} make {}", 1, 3),
///     location: core::panic::Location::caller(),
/// });
/// let reports = capture.take();
/// assert_eq!(reports.len(), 1);
/// assert_eq!(reports[0].message, "one and 1 make 3");
/// ```
#[must_use = "capturing ends when this is dropped"]
#[derive(Debug)]
pub struct ReportCapture {
    reports: Rc<RefCell<Vec<CapturedReport>>>,
    _hooks: HooksGuard,
}

impl ReportCapture {
    /// Starts capturing.
    #[expect(clippy::new_without_default, reason = "making one has an effect on the thread")]
    pub fn new() -> ReportCapture {
        let reports = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&reports);
        let hooks = set_hooks(Hooks {
            report: Some(Rc::new(move |report: &Report<'_>| {
                sink.borrow_mut().push(CapturedReport {
                    severity: report.severity,
                    message: report.message.to_string(),
                    location: report.location,
                });
            })),
            ..Hooks::default()
        });
        ReportCapture { reports, _hooks: hooks }
    }

    /// What has been captured since the last call, oldest first.
    pub fn take(&self) -> Vec<CapturedReport> {
        self.reports.take()
    }
}
