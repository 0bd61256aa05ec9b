//! What holds others up for long: spin locks, interrupts off, bottom halves off, and handlers.
//!
//! With a limit set, whatever lasts at least as long is reported when it ends, with the place that began it. Handlers of
//! interrupts and softirqs are measured in every build. Locks and guards tell the dependency checker when they begin and
//! end, so that they are measured where that is built in: in debug builds and with the feature `lockdep`.
//!
//! Without a limit, which is the default, nothing is measured.

use core::fmt;
use core::fmt::Write;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::x86_64::traps;
use hal::{Native, Platform, percpu};

use super::Limiter;
use crate::machine::Lines;
use crate::softirq::Vector;
use crate::task::Task;
use crate::trace::event::Event;
use crate::{sched, trace};

/// Nanoseconds; `u64::MAX` is no limit.
static LIMIT_NS: AtomicU64 = AtomicU64::new(u64::MAX);

/// When it was set.
static SET_AT: AtomicU64 = AtomicU64::new(0);

/// Reports a second.
static LIMITER: Limiter = Limiter::new(5);

/// What can last long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A spin lock is held.
    Lock,
    /// Interrupts are off.
    InterruptsOff,
    /// Bottom halves are off.
    BottomHalvesOff,
    /// An interrupt's handler runs.
    Interrupt,
    /// A softirq's handler runs.
    Softirq,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::Lock, Kind::InterruptsOff, Kind::BottomHalvesOff, Kind::Interrupt, Kind::Softirq];

    /// In a few words.
    pub const fn name(self) -> &'static str {
        ["spin lock held", "interrupts off", "bottom halves off", "interrupt handler", "softirq handler"]
            [self as usize]
    }
}

/// How often something of a kind was too long, and the longest, in nanoseconds.
struct Seen {
    count: AtomicU64,
    longest_ns: AtomicU64,
}

static SEEN: [Seen; 5] = [const { Seen { count: AtomicU64::new(0), longest_ns: AtomicU64::new(0) } }; 5];

/// How often something of this kind has been too long, and how long the longest was, in nanoseconds. Contexts: any.
pub fn seen(kind: Kind) -> (u64, u64) {
    let seen = &SEEN[kind as usize];
    (seen.count.load(Ordering::Relaxed), seen.longest_ns.load(Ordering::Relaxed))
}

/// Reports what lasts `limit_ns` nanoseconds or longer from now on, `None`: nothing. Returns what the limit was, and
/// forgets what was seen.
///
/// Contexts: any. Linux: the tracers `irqsoff` and `preemptoff`.
pub fn set_limit_ns(limit_ns: Option<u64>) -> Option<u64> {
    let limit = limit_ns.unwrap_or(u64::MAX);
    let before = LIMIT_NS.swap(limit, Ordering::Relaxed);
    SET_AT.store(Native::now_ns(), Ordering::Relaxed);
    trace::tell_holds(limit_ns.is_some());
    LIMITER.reset();
    for seen in &SEEN {
        seen.count.store(0, Ordering::Relaxed);
        seen.longest_ns.store(0, Ordering::Relaxed);
    }
    #[cfg(any(feature = "lockdep", debug_assertions))]
    crate::lockdep::tell_long(limit, on_long);
    (before != u64::MAX).then_some(before)
}

/// The limit, in nanoseconds. Contexts: any.
pub fn limit_ns() -> Option<u64> {
    Some(LIMIT_NS.load(Ordering::Relaxed)).filter(|limit| *limit != u64::MAX)
}

/// A lock or a guard was too long.
#[cfg(any(feature = "lockdep", debug_assertions))]
fn on_long(long: &sync::lockdep::Long) {
    use sync::lockdep::Lasted;
    let kind = match long.what {
        Lasted::Lock(_) => Kind::Lock,
        Lasted::InterruptsOff => Kind::InterruptsOff,
        Lasted::BottomHalvesOff => Kind::BottomHalvesOff,
    };
    note(kind, long.ns, Some((long.at, long.until)), &long.what);
}

percpu! {
    /// When the handler of an interrupt began that runs on this CPU, and that of a softirq; 0: none has.
    static BEGUN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
}

/// Something happened on this CPU. Where handlers begin and end it stays on the CPU.
pub(crate) fn on_event(event: Event) {
    // SAFETY: areas live for ever, and the fields are atomic.
    let [interrupt, softirq] = unsafe { &*BEGUN.local_ptr() };
    match event {
        Event::IrqEnter(_) => interrupt.store(Native::now_ns(), Ordering::Relaxed),
        Event::SoftirqEnter(_) => softirq.store(Native::now_ns(), Ordering::Relaxed),
        Event::IrqExit(vector) => {
            let name = traps::vector_name(vector);
            ended(Kind::Interrupt, interrupt, &format_args!("interrupt {vector:#x} ({name})"));
        }
        Event::SoftirqExit(vector) => {
            let name = Vector::ALL.get(usize::from(vector)).map_or("?", |vector| vector.name());
            ended(Kind::Softirq, softirq, &format_args!("softirq {name}"));
        }
        _ => {}
    }
}

fn ended(kind: Kind, begun: &AtomicU64, what: &dyn fmt::Display) {
    let begun = begun.swap(0, Ordering::Relaxed);
    let ns = Native::now_ns().saturating_sub(begun);
    // What began before somebody wanted to know is some other handler's beginning.
    if begun > SET_AT.load(Ordering::Relaxed) && ns >= LIMIT_NS.load(Ordering::Relaxed) {
        note(kind, ns, None, what);
    }
}

/// Counts it, and says so.
#[cold]
fn note(kind: Kind, ns: u64, places: Option<(&Location<'_>, &Location<'_>)>, what: &dyn fmt::Display) {
    let seen = &SEEN[kind as usize];
    seen.count.fetch_add(1, Ordering::Relaxed);
    seen.longest_ns.fetch_max(ns, Ordering::Relaxed);
    let Some(turn) = LIMITER.allow(Native::now_ns()) else { return };
    let mut lines = Lines::new();
    // Writing to the log does not fail.
    let _ = write!(
        lines,
        "WARNING: long hold: {what} for {}.{} us on CPU#{}",
        ns / 1_000,
        ns % 1_000 / 100,
        Native::cpu()
    );
    if sched::is_started() {
        let task = Task::current();
        let _ = write!(lines, " in task {} ({})", task.number(), task.name());
    }
    if let Some((at, until)) = places {
        let _ = write!(lines, ", from {at} to {until}");
    }
    if turn.suppressed() != 0 {
        let _ = write!(lines, "; {} more were not reported", turn.suppressed());
    }
    let _ = writeln!(lines);
}
