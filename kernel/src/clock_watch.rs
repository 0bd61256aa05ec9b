//! The clock is compared with other counters for as long as the machine runs.
//!
//! 1. The machine's clock sources and what was found about them are one value, [`timers::clock::Sources`].
//! 2. [`look`] takes a reading of each reference, and has the value judge.
//! 3. If the clock is wrong it counts the next best source from then on, and the time goes on without a step back.
//!
//! A look costs some readings of devices, a few microseconds in a guest. Who calls it decides how often: from a timer that
//! wakes nobody, because a machine that does nothing has no time to get wrong.
//!
//! Linux: `clocksource_watchdog`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use hal::x86_64::clock::{self, Kind, Source};
use log::warn;
use sync::IrqSpinLock;
use timers::clock::{Reading, Reference, Sources, Verdict};

use crate::timer::{self, Ticks, Timer, TimerFlags};

/// How often it makes sense to look, in nanoseconds: a 24-bit PM timer does not wrap within twice that.
pub const LOOK_EVERY_NS: u64 = 1_000_000_000;

/// TSC, HPET, PM timer. The PIT can be read on the boot CPU only, and wraps too soon.
const MOST: usize = 3;

static SOURCES: IrqSpinLock<Sources<Source, MOST>> = IrqSpinLock::new(Sources::new());

/// How good a source is, as Linux rates those that it has.
const fn rating(source: Source) -> u32 {
    match source {
        Source::Tsc => 300,
        Source::Device(Kind::Hpet) => 250,
        Source::Device(Kind::PmTimer) => 200,
        Source::Device(Kind::Pit) => 110,
        Source::ClampedTsc => 50,
        Source::None => 0,
    }
}

/// Begins anew, with all sources that were found at boot, and none of them found wrong.
///
/// Contexts: task, softirq.
pub fn start() {
    *SOURCES.lock() = found_at_boot();
}

fn found_at_boot() -> Sources<Source, MOST> {
    let mut sources = Sources::new();
    if let Some(info) = clock::info() {
        if info.tsc.is_some() {
            sources.add(Source::Tsc, rating(Source::Tsc), None);
        }
        for reference in info.references.iter().filter(|reference| reference.kind() != Kind::Pit) {
            let source = Source::Device(reference.kind());
            let width = Reference::new(reference.hz(), reference.bits());
            sources.add(source, rating(source), Some(width));
        }
    }
    sources.use_as_clock(clock::source());
    sources
}

/// The sources; the first one to look finds out which there are.
fn sources() -> sync::spin::SpinLockGuard<'static, Sources<Source, MOST>, sync::Irq> {
    let mut sources = SOURCES.lock();
    if sources.iter().next().is_none() {
        *sources = found_at_boot();
    }
    sources
}

/// Compares the clock with each reference, and changes to another source if it is wrong.
///
/// Contexts: task, softirq. Cost: four readings of each device.
pub fn look() {
    let verdict = {
        let mut sources = sources();
        // The source changes elsewhere too: a CPU that starts may have found that the TSCs disagree.
        let used = clock::source();
        if sources.current() != Some(used) {
            sources.use_as_clock(used);
        }
        sources.look(|source| {
            let Source::Device(kind) = source else { return None };
            let clock::Bracket { before, count, after } = clock::read_against(kind)?;
            Some(Reading { before, count, after })
        })
    };
    match verdict {
        Verdict::Keep => {}
        Verdict::Dropped { reference, ppm } => {
            warn!(
                "the {reference} is wrong: the clock differs from it by {ppm} ppm, and others agree with the clock"
            );
        }
        Verdict::FallBack { from, to: Some(Source::Device(kind)), ppm } => {
            warn!("the {from} is wrong as a clock, by {ppm} ppm");
            clock::fall_back(kind, ppm.unsigned_abs());
        }
        // The TSC is the best there is: nobody returns to it.
        Verdict::FallBack { from, ppm, .. } => {
            warn!("the {from} is wrong as a clock, by {ppm} ppm, and there is no other");
        }
    }
}

/// Looks from here on, every [`LOOK_EVERY_NS`] while this CPU does something anyway. Once, at boot.
pub(crate) fn keep_looking() {
    let period = Ticks::covering_ns(LOOK_EVERY_NS);
    let beat = Box::new(Timer::periodic(TimerFlags::DEFERRABLE, period, |_, _| look()));
    timer::add(&*Box::leak(beat), timer::ticks_from_now(LOOK_EVERY_NS));
}

/// The sources and what is known of them, for people: name, and the rest.
///
/// Contexts: task.
pub fn describe() -> Vec<String> {
    let sources = sources().clone();
    let current = clock::source();
    sources
        .iter()
        .map(|source| {
            let mut line = format!("{}, rating {}", source.id(), source.rating());
            if source.id() == current {
                line += ", in use";
            }
            if let Some(ppm) = source.wrong_by() {
                line += &format!(", found wrong by {ppm} ppm");
            }
            if let Some(looks) = source.watchdog().map(|watchdog| watchdog.looks()).filter(|looks| looks.looks > 0) {
                line += &format!(
                    "; the clock was compared with it {} times, {} said nothing, {} doubted; last off by {} ppm",
                    looks.looks, looks.skipped, looks.doubted, looks.last_ppm
                );
            }
            line
        })
        .collect()
}

/// How often the clock was compared with something, with a result.
pub fn comparisons() -> u64 {
    let sources = sources();
    let looks = sources.iter().filter_map(|source| source.watchdog()).map(|watchdog| watchdog.looks());
    looks.map(|looks| looks.looks - looks.skipped).sum()
}
