//! Time: which counter to believe, how fast it runs, and the monotonic clock on top of it.
//!
//! 1. [`init`] finds the references (HPET, PM timer, PIT), measures the TSC by two of them in several short tries, and
//!    compares with what CPUID states. [`judge()`] and [`choose()`] are the judgement; they are pure.
//! 2. [`now_ns`] turns the TSC into nanoseconds.
//! 3. Every CPU that starts takes part in a [`WarpTest`]. If its TSC is not in step, [`distrust_tsc`] replaces the clock's
//!    counter by a device that all CPUs share.
//! 4. While the machine runs, [`read_against`] compares the clock with a device, and [`fall_back`] changes to it.
//!
//! Read `judge`, `calibrate`, `choose`, then `timebase` and `watch`.

mod calibrate;
mod choose;
mod extend;
mod judge;
mod reference;
mod scale;
mod timebase;
mod tsc;
mod watch;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Once;

pub use calibrate::Failure;
pub use choose::{Check, Choice, Measured, Origin, choose};
pub use extend::Extended;
pub use judge::{Sample, Undecided, Verdict, difference_ppm, judge};
pub use reference::{Kind, Reference};
pub use scale::{NS, Scale};
pub use timebase::now_ns;
pub use tsc::{Sync, WarpTest, read as read_tsc};
pub use watch::{Bracket, fall_back, plant_tsc, read_against};

pub(super) use calibrate::measure;

use super::acpi::Topology;
use super::cpuid::Features;
use super::relax;
use timebase::{Counter, Timebase, current, publish};

/// What is known about this machine's clocks; what the console's `clock` shows.
#[derive(Clone, Debug)]
pub struct ClockInfo {
    /// The TSC's frequency and why it is believed, or `None` if nobody knows it.
    pub tsc: Option<Choice>,
    /// Whether the processor says that its TSC never changes its rate.
    pub invariant_tsc: bool,
    /// What each reference measured, best reference first.
    pub measured: Vec<Measured>,
    /// The references that exist.
    pub references: Vec<Reference>,
}

/// What the clock counts at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Not started: the time is 0.
    None,
    /// The time stamp counters.
    Tsc,
    /// The time stamp counters, which disagree, kept from going back.
    ClampedTsc,
    /// A device.
    Device(Kind),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::None => f.write_str("none"),
            Source::Tsc => f.write_str("TSC"),
            Source::ClampedTsc => f.write_str("TSC, clamped"),
            Source::Device(kind) => kind.fmt(f),
        }
    }
}

static INFO: Once<ClockInfo> = Once::new();
static DISTRUSTED: AtomicBool = AtomicBool::new(false);
/// The worst disagreement of TSCs, in cycles.
static WARP: AtomicU64 = AtomicU64::new(0);

/// No clock could be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoClock;

impl fmt::Display for NoClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no usable clock: CPUID states no TSC frequency, and neither HPET, PM timer nor PIT counts",
        )
    }
}

impl core::error::Error for NoClock {}

/// Finds the clocks, measures, and starts the monotonic clock, whose 0 is when the boot CPU's TSC was `boot_tsc`. Says
/// what it found through `log`, and returns it.
///
/// Once, task context on the boot CPU before others run; allocates. Takes 16 ms per reference, of which it uses two; with
/// a busy host up to eight times that.
///
/// # Errors
/// There is no clock at all. The time stays 0 and [`delay_ns`] guesses.
///
/// # Safety
/// Ring 0; `topology` is the firmware's; `map_mmio` returns where the given device registers are mapped, uncached, for as
/// long as the kernel runs.
pub unsafe fn init(
    features: &Features,
    topology: Option<&Topology>,
    map_mmio: impl Fn(u64, usize) -> Option<NonNull<u8>>,
    boot_tsc: u64,
) -> Result<&'static ClockInfo, NoClock> {
    let hpet = topology.and_then(|t| t.hpet).and_then(|info| map_mmio(info.address, 1024));
    let pm_timer = topology.and_then(|t| t.pm_timer);
    // SAFETY: the caller's promises; only this CPU runs, and only this function uses the PIT.
    let found = unsafe {
        [
            hpet.and_then(|registers| Reference::hpet(registers)),
            pm_timer.and_then(|info| Reference::pm_timer(info, &map_mmio)),
            Some(Reference::pit()),
        ]
    };
    let mut references: Vec<Reference> = found.into_iter().flatten().collect();
    let mut measured = Vec::new();
    // Two opinions; a third one if those are none or contradict each other.
    for reference in &references {
        if choose(None, &measured).is_some_and(|c| matches!(c.check, Check::Agrees(..))) {
            break;
        }
        let mut fine = (tsc::read, u64::MAX);
        measured.push((reference.kind(), measure(&mut fine, &mut &*reference, reference.hz())));
    }
    let dead = |kind| measured.contains(&(kind, Err(Failure::Dead)));
    references.retain(|reference| !dead(reference.kind()));

    let tsc = choose(features.tsc_hz, &measured);
    match tsc {
        Some(choice) => {
            publish(Box::new(Timebase::new(Counter::Tsc, choice.hz, boot_tsc, 0)));
            let origin = choice.origin;
            log::info!("TSC runs at {}, {origin}; {}", Mhz(choice.hz), choice.check);
            if matches!(choice.check, Check::Differs(..) | Check::ClaimDropped(..)) {
                log::warn!("the clocks of this machine contradict each other: {}", choice.check);
            }
        }
        None => {
            let device = shared(&references).ok_or(NoClock)?;
            log::warn!("the TSC's frequency is unknown; the clock is the {}", device.kind());
            let counter = Counter::device(device);
            let origin = counter.read();
            publish(Box::new(Timebase::new(counter, device.hz(), origin, 0)));
        }
    }
    Ok(INFO.call_once(|| ClockInfo { tsc, invariant_tsc: features.invariant_tsc, measured, references }))
}

/// A frequency in MHz with three decimals.
#[derive(Clone, Copy)]
pub struct Mhz(pub u64);

impl fmt::Display for Mhz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} MHz", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

/// The best reference that every CPU can read at any time.
fn shared(references: &[Reference]) -> Option<Reference> {
    references.iter().copied().find(|reference| reference.kind() != Kind::Pit)
}

/// What [`init`] found.
pub fn info() -> Option<&'static ClockInfo> {
    INFO.get()
}

/// What the clock counts at the moment.
pub fn source() -> Source {
    match current().map(Timebase::counter) {
        None => Source::None,
        Some(Counter::Tsc) => Source::Tsc,
        Some(Counter::ClampedTsc(_)) => Source::ClampedTsc,
        Some(Counter::Device(reference, _)) => Source::Device(reference.kind()),
    }
}

/// The frequency in Hz of what the clock counts.
pub fn source_hz() -> u64 {
    current().map_or(0, Timebase::hz)
}

/// For how many nanoseconds the machine may go without any reading of the clock: a narrow counter that wraps twice unseen
/// loses time. `u64::MAX` for those that do not wrap.
///
/// Contexts: any.
pub fn longest_pause_ns() -> u64 {
    match current().map(Timebase::counter) {
        Some(Counter::Device(reference, _)) if reference.bits < 64 => {
            // Half a turn: who waits that long may come late.
            Scale::new(reference.hz(), NS).apply(1 << (reference.bits - 1))
        }
        _ => u64::MAX,
    }
}

/// The TSC's frequency in Hz, if it is known.
pub fn tsc_hz() -> Option<u64> {
    INFO.get().and_then(|info| info.tsc).map(|choice| choice.hz)
}

/// The worst disagreement of TSCs that was found, in cycles; 0 while they are trusted.
pub fn tsc_warp() -> u64 {
    WARP.load(Ordering::Relaxed)
}

/// Stops using the TSC as the clock: those of different CPUs disagree by `warp` cycles, or, with 0, somebody wants it so.
/// The HPET or PM timer takes over, or if there is none the TSC goes on, kept from going back. The time goes on without a
/// step back. Only the first call has an effect; returns whether this was it.
///
/// While CPUs start, by the one that found out or the one that starts them; task context, allocates.
pub fn distrust_tsc(warp: u64) -> bool {
    WARP.fetch_max(warp, Ordering::Relaxed);
    let (Some(current), Some(info)) = (current(), info()) else { return false };
    let uses_tsc = matches!(current.counter(), Counter::Tsc);
    // AcqRel: the two sides of one start may both find the warp; one of them acts.
    if !uses_tsc || DISTRUSTED.swap(true, Ordering::AcqRel) {
        return false;
    }
    // Nobody who has just read a TSC that is ahead may have been ahead of the new timebase.
    let margin = current_warp_ns(warp, current.hz()) + SWITCH_MARGIN_NS;
    let done = watch::change(margin, |base_ns| match shared(&info.references) {
        Some(device) => {
            let counter = Counter::device(device);
            let origin = counter.read();
            Timebase::new(counter, device.hz(), origin, base_ns())
        }
        None => {
            let now = tsc::read();
            Timebase::new(Counter::ClampedTsc(AtomicU64::new(now)), current.hz(), now, base_ns())
        }
    });
    if !done {
        // Somebody else is leaving the TSC at this moment.
        return false;
    }
    match warp {
        0 => log::warn!("the TSC is not to be used; the clock is now the {}", source()),
        _ => {
            log::warn!("TSCs of different CPUs disagree by {warp} cycles; the clock is now the {}", source())
        }
    }
    true
}

/// How far a switch of the clock's counter jumps ahead at least, in ns.
const SWITCH_MARGIN_NS: u64 = 10_000;

fn current_warp_ns(warp: u64, hz: u64) -> u64 {
    Scale::new(hz, NS).apply(warp)
}

/// Without a clock, a TSC is taken to be no faster than this, so that a delay is never short.
const FASTEST_TSC_HZ: u64 = 8_000_000_000;

/// Waits at least `ns` nanoseconds, executing `pause`. Any context; keeps the CPU busy. Before the clock is started it
/// waits several times as long, assuming the fastest TSC there is. Linux: `ndelay`.
pub fn delay_ns(ns: u64) {
    if current().is_some() {
        let start = now_ns();
        while now_ns() - start < ns {
            relax();
        }
    } else {
        let cycles = Scale::new(NS, FASTEST_TSC_HZ).apply_up(ns);
        let start = tsc::read();
        while tsc::read().wrapping_sub(start) < cycles {
            relax();
        }
    }
}
