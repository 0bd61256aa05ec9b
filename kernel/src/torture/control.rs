//! What all loads share: when to end, when to pause, what went wrong.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use hal::{Native, Platform};
use sync::{IrqSpinLock, TaskCx};

use super::{MS, Said};
use crate::{log, trace};

static OVER: AtomicBool = AtomicBool::new(true);
static PAUSED: AtomicBool = AtomicBool::new(false);
static ALOUD: AtomicBool = AtomicBool::new(false);
static ERRORS: AtomicU64 = AtomicU64::new(0);
static BY_NAME: IrqSpinLock<Vec<(&'static str, u64)>> = IrqSpinLock::new(Vec::new());

/// How many errors are told; the rest is counted.
const TOLD: u64 = 20;

/// What a load did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    /// The name of what is counted.
    pub(crate) what: &'static str,
    /// How often it was done.
    pub(crate) count: u64,
    /// With less than this the run shows nothing.
    pub(crate) least: u64,
}

impl Tally {
    /// A counter, and the least of it in a minute.
    pub(super) fn of(what: &'static str, counter: &AtomicU64, least: u64) -> Tally {
        Tally { what, count: counter.load(Ordering::Relaxed), least }
    }
}

/// What came of a run.
pub(crate) struct Report {
    /// What was done.
    pub(crate) tallies: Vec<Tally>,
    /// How much went wrong.
    pub(crate) errors: u64,
}

impl Report {
    /// Names what was done too seldom for the run to show something.
    pub(crate) fn lacking(&self) -> Option<Tally> {
        self.tallies.iter().copied().find(|tally| tally.count < tally.least)
    }
}

/// A run begins.
pub(super) fn begin(said: Said) {
    ERRORS.store(0, Ordering::Relaxed);
    BY_NAME.lock().clear();
    ALOUD.store(said == Said::Aloud, Ordering::Relaxed);
    PAUSED.store(false, Ordering::Relaxed);
    OVER.store(false, Ordering::Relaxed);
}

/// The loads are to end.
pub(super) fn end() {
    PAUSED.store(false, Ordering::Relaxed);
    OVER.store(true, Ordering::Relaxed);
}

/// Whether a load is to go on. It stays here while everything pauses.
pub(super) fn goes_on(cx: &mut TaskCx) -> bool {
    while PAUSED.load(Ordering::Relaxed) && !OVER.load(Ordering::Relaxed) {
        cx.block(Some(Native::now_ns() + 5 * MS));
    }
    !OVER.load(Ordering::Relaxed)
}

/// The same, for interrupts.
pub(super) fn goes_on_here() -> bool {
    !PAUSED.load(Ordering::Relaxed) && !OVER.load(Ordering::Relaxed)
}

/// Everything pauses, or goes on.
pub(super) fn set_paused(paused: bool) {
    PAUSED.store(paused, Ordering::Relaxed);
}

/// What went wrong so far.
pub(super) fn errors() -> u64 {
    ERRORS.load(Ordering::Relaxed)
}

/// What went wrong in one scenario.
pub(super) fn errors_of(scenario: &'static str) -> u64 {
    BY_NAME.lock().iter().filter(|(name, _)| *name == scenario).map(|(_, errors)| errors).sum()
}

/// Something went wrong. Contexts: task, softirq, hardirq.
pub(super) fn error(scenario: &'static str, what: fmt::Arguments<'_>) {
    let number = ERRORS.fetch_add(1, Ordering::Relaxed);
    let mut names = BY_NAME.lock();
    match names.iter_mut().find(|(name, _)| *name == scenario) {
        Some((_, errors)) => *errors += 1,
        None => names.push((scenario, 1)),
    }
    drop(names);
    if number == 0 {
        // What led to it is what one wants to see.
        trace::stop();
    }
    if number < TOLD && ALOUD.load(Ordering::Relaxed) {
        log::raw_line(format_args!("TORTURE error {scenario}: {what}"));
    }
}

/// Counts one more.
pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Numbers that differ from each other, and are the same for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = hal::chaos::mix(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
        self.0
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// One of 0 to `n` - 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Does nothing for so long, and does not let go of the CPU.
pub(super) fn spin(ns: u64) {
    let begun = Native::now_ns();
    while Native::now_ns() - begun < ns {
        Native::relax();
    }
}
